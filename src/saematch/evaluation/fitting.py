"""What is fitted to data before anything is measured, on other documents than those measured on.

- A ridge map from the stream of the earlier layer to that of the later one: what a linear map can do.
- The matchers that need data, such as `correlation`: each adds activations up in sums of its own.

Sums are streamed; massive-activation tokens (collecting.py) are left out of the ridge map and of centroids,
which they would rule.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain

import torch
from torch import Tensor

from saematch.evaluation.collecting import Pair
from saematch.evaluation.interventions import LinearMap, encode_sparse, typical_rows
from saematch.matching.activity import Observed
from saematch.matching.correspondence import Correspondence
from saematch.matching.matchers import Sums, matcher
from saematch.models import Corpus, Documents, LanguageModel, batches
from saematch.sae import SAE, FoldedSAE

RIDGE = 1e-2
"""The ridge penalty, relative to the mean variance of a dimension."""
DOCUMENT_TOKENS = 1024
"""What documents that are fitted to are cut to."""
TOKENS_PER_DIMENSION = 20
"""Tokens that a linear map needs for every dimension it maps from."""
SUMS_BYTES = 4 << 30
"""Bytes of sums held at once; if pairs need more, the model reads the documents again."""


def fitting_documents(texts: Sequence[Corpus], model: LanguageModel) -> list[Documents]:
    """Documents of each corpus that has texts, with its share of the tokens that maps need."""
    wanted = -(-TOKENS_PER_DIMENSION * model.d_model // len(texts))
    return [
        Documents.of(corpus, model, DOCUMENT_TOKENS, len(corpus.texts)).up_to(wanted)
        for corpus in texts
        if corpus.texts
    ]


class RidgeSums:
    """Sums for a ridge map y ≈ (x − mean x) W + mean y."""

    def __init__(self, d_x: int, d_y: int, device: torch.device) -> None:
        self.tokens = 0
        self.x, self.y = (torch.zeros(d, dtype=torch.float64, device=device) for d in (d_x, d_y))
        self.xx = torch.zeros(d_x, d_x, dtype=torch.float64, device=device)
        self.xy = torch.zeros(d_x, d_y, dtype=torch.float64, device=device)

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.tokens += len(x)
        self.x += x.sum(dim=0)
        self.y += y.sum(dim=0)
        self.xx += x.T @ x
        self.xy += x.T @ y

    def solve(self) -> LinearMap:
        mean_x, mean_y = self.x / self.tokens, self.y / self.tokens
        xx = self.xx / self.tokens - torch.outer(mean_x, mean_x)
        xy = self.xy / self.tokens - torch.outer(mean_x, mean_y)
        # On the diagonal: as if every dimension had noise of that variance besides what was seen.
        xx.diagonal().add_(RIDGE * xx.diagonal().mean())
        weight = torch.linalg.solve(xx, xy)
        return LinearMap(weight.float(), (mean_y - mean_x @ weight).float())


def passes(
    pairs: Sequence[Pair], saes: Mapping[str, FoldedSAE], *, ridge: bool, strategies: Sequence[str]
) -> list[list[Pair]]:
    """The pairs in groups whose sums are held at once: one pass of the model over the documents each."""
    groups: list[list[Pair]] = []
    held = 0
    for a, b in pairs:
        sizes = (matcher(one).bytes_of_sums(saes[a], saes[b]) for one in strategies)
        mine = sum(size for size in sizes if size <= SUMS_BYTES)
        if ridge:
            mine += 8 * saes[a].d_model * (saes[a].d_model + saes[b].d_model)
        if not groups or held + mine > SUMS_BYTES:
            groups.append([])
            held = 0
        groups[-1].append((a, b))
        held += mine
    return groups


@torch.no_grad()
def fit(
    model: LanguageModel,
    documents: Sequence[Documents],
    saes: Mapping[str, FoldedSAE],
    pairs: Sequence[Pair],
    batch_tokens: int,
    *,
    ridge: bool = True,
    strategies: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[Pair, LinearMap], dict[tuple[Pair, str], Correspondence], list[str]]:
    """Ridge maps by pair, maps of features by pair and strategy, and notes on what could not be fitted.

    Only blocks up to the last layer run; `progress` is told of the documents of each batch of each pass.
    """
    notes: list[str] = []
    tokens = sum(some.tokens for some in documents)
    needed = TOKENS_PER_DIMENSION * model.d_model
    if ridge and tokens < needed:
        ridge = False
        notes.append(
            f"ridge is not measured: it needs {needed} tokens of other documents, got {tokens}"
        )
    ridges: dict[Pair, LinearMap] = {}
    maps: dict[tuple[Pair, str], Correspondence] = {}
    for group in passes(pairs, saes, ridge=ridge, strategies=strategies):
        ridge_sums: dict[Pair, RidgeSums] = {}
        map_sums: dict[tuple[Pair, str], Sums] = {}
        for a, b in group:
            if ridge:
                ridge_sums[a, b] = RidgeSums(saes[a].d_model, saes[b].d_model, model.device)
            for strategy in strategies:
                way = matcher(strategy)
                if way.bytes_of_sums(saes[a], saes[b]) > SUMS_BYTES:
                    size = f"{saes[a].d_sae} × {saes[b].d_sae}"
                    notes.append(f"{strategy} is not measured for {a}--{b}: {size} does not fit")
                elif tokens:
                    map_sums[(a, b), strategy] = way.sums(saes[a], saes[b])
        if not ridge_sums and not map_sums:
            continue
        used = {key: saes[key].sae for pair in group for key in pair}
        for rows, typical, dense in watch(model, documents, used, batch_tokens, progress):
            for (a, b), sums in ridge_sums.items():
                at, to = used[a].layer, used[b].layer
                kept = typical[at] & typical[to]
                sums.add(rows[at][kept], rows[to][kept])
            for ((a, b), _), sums in map_sums.items():
                to = used[b].layer
                sums.add(Observed(dense(a), dense(b), rows[to], typical[to]))
        ridges |= {pair: sums.solve() for pair, sums in ridge_sums.items()}
        maps |= {key: sums.correspondence() for key, sums in map_sums.items()}
    return ridges, maps, notes


Streams = dict[int, Tensor]
"""By layer, one row a token."""


@torch.no_grad()
def watch(
    model: LanguageModel,
    documents: Sequence[Documents],
    saes: Mapping[str, SAE],
    batch_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Streams, Streams, Callable[[str], Tensor]]]:
    """For each batch of documents the streams, which tokens are typical of them, and the activations of an
    SAE by key, made when they are asked for."""
    layers = sorted({sae.layer for sae in saes.values()})
    parts = (batches(some, batch_tokens, range(len(some))) for some in documents)
    for batch in chain.from_iterable(parts):
        streams = model.capture(batch.token_ids, layers)
        counted = batch.counted.to(model.device)
        document = batch.document_of_row.to(model.device)
        rows = {layer: stream[counted].float() for layer, stream in streams.items()}
        typical = {layer: typical_rows(x, document) for layer, x in rows.items()}

        def dense(key: str, rows: Streams = rows) -> Tensor:
            return encode_sparse(saes[key], rows[saes[key].layer]).dense()

        yield rows, typical, cache(dense)
        progress(len(batch.documents))
