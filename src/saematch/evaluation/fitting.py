"""What is fitted to data before anything is measured, on other documents than those measured on.

- A ridge map from the stream of the earlier layer to that of the later one: what a linear map can do.
- `correlation`: for every feature of A the feature of B whose activations correlate most with its own.

Sums are streamed; outlying tokens (collecting.py) are left out of the ridge map, which they would rule.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from saematch.evaluation.activations import encode_sparse, typical_rows
from saematch.evaluation.collecting import Pair
from saematch.evaluation.interventions import LinearMap
from saematch.matching.permutation import UNMATCHED, Permutation
from saematch.models import Corpus, Documents, LanguageModel, batches
from saematch.sae import SAE

RIDGE = 1e-2
"""The ridge penalty, relative to the mean variance of a dimension."""
DOCUMENT_TOKENS = 1024
"""What documents that are fitted to are cut to."""
TOKENS_PER_DIMENSION = 20
"""Tokens that a linear map needs for every dimension it maps from."""
CORRELATION_ENTRIES = 1 << 30
"""Pairs of features up to which correlations are kept: 4 GiB."""
SUMS_BYTES = 4 << 30
"""Of sums that are held at once; where pairs need more, the model reads the documents again."""
BLOCK_ENTRIES = 1 << 24
"""Correlations looked at at once, in float64."""


def fitting_documents(texts: Sequence[Corpus], model: LanguageModel) -> list[Documents]:
    """Of each corpus that has texts its share of the tokens that maps need."""
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
        penalty = (
            RIDGE * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        )
        weight = torch.linalg.solve(xx + penalty, xy)
        return LinearMap(weight.float(), (mean_y - mean_x @ weight).float())


class CorrelationSums:
    """Sums for the correlation of every feature of A with every feature of B."""

    def __init__(self, d_a: int, d_b: int, device: torch.device) -> None:
        self.tokens = 0
        self.a, self.a_square = (torch.zeros(d_a, device=device).double() for _ in range(2))
        self.b, self.b_square = (torch.zeros(d_b, device=device).double() for _ in range(2))
        self.ab = torch.zeros(d_a, d_b, device=device)

    def add(self, f_a: Tensor, f_b: Tensor) -> None:
        self.tokens += len(f_a)
        for f, total, square in ((f_a, self.a, self.a_square), (f_b, self.b, self.b_square)):
            total += f.sum(dim=0).double()
            square += f.double().square().sum(dim=0)
        self.ab.addmm_(f_a.T, f_b)

    def permutation(self) -> Permutation:
        """Row-wise argmax, the lowest index of equal ones; -1 for a feature that never varied."""
        n = self.tokens
        std_a = (self.a_square / n - (self.a / n).square()).clamp(min=0).sqrt()
        std_b = (self.b_square / n - (self.b / n).square()).clamp(min=0).sqrt()
        columns = (std_b > 0).nonzero()[:, 0]
        mean_b, std_b = self.b[columns] / n, std_b[columns]
        found = np.full(len(std_a), UNMATCHED, dtype=np.int64)
        step = max(1, BLOCK_ENTRIES // max(1, len(std_b)))
        for first in range(0, len(std_a) if len(columns) else 0, step):
            rows = slice(first, first + step)
            products = self.ab[rows][:, columns].double() / n
            score = (products - torch.outer(self.a[rows] / n, mean_b)) / std_b
            found[rows] = columns[score.argmax(dim=1)].cpu().numpy()
        found[(std_a == 0).cpu().numpy()] = UNMATCHED
        return found


def passes(
    pairs: Sequence[Pair], saes: Mapping[str, SAE], *, ridge: bool, correlation: bool
) -> list[list[Pair]]:
    """The pairs in groups whose sums are held at once: one pass of the model over the documents each."""
    groups: list[list[Pair]] = []
    held = 0
    for a, b in pairs:
        entries = saes[a].d_sae * saes[b].d_sae
        mine = 4 * entries if correlation and entries <= CORRELATION_ENTRIES else 0
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
    saes: Mapping[str, SAE],
    pairs: Sequence[Pair],
    batch_tokens: int,
    *,
    ridge: bool = True,
    correlation: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[Pair, LinearMap], dict[Pair, Permutation], list[str]]:
    """Ridge maps and correlation maps by pair, and notes on what could not be fitted.

    Only blocks up to the last layer run; `progress` is told of the documents of each batch of each pass.
    """
    notes: list[str] = []
    tokens = sum(some.tokens for some in documents)
    needed = TOKENS_PER_DIMENSION * model.d_model
    if ridge and tokens < needed:
        ridge = False
        notes.append(
            f"ridge is not measured: it needs {needed} tokens of other documents, found {tokens}"
        )
    ridges: dict[Pair, LinearMap] = {}
    correlations: dict[Pair, Permutation] = {}
    for group in passes(pairs, saes, ridge=ridge, correlation=correlation):
        ridge_sums: dict[Pair, RidgeSums] = {}
        correlation_sums: dict[Pair, CorrelationSums] = {}
        for a, b in group:
            if ridge:
                ridge_sums[a, b] = RidgeSums(saes[a].d_model, saes[b].d_model, model.device)
            d_a, d_b = saes[a].d_sae, saes[b].d_sae
            if correlation and d_a * d_b > CORRELATION_ENTRIES:
                notes.append(
                    f"correlation is not measured for {a}--{b}: {d_a} × {d_b} does not fit"
                )
            elif correlation and tokens:
                correlation_sums[a, b] = CorrelationSums(d_a, d_b, model.device)
        if not ridge_sums and not correlation_sums:
            continue
        used = {key: saes[key] for pair in group for key in pair}
        _add_up(model, documents, used, ridge_sums, correlation_sums, batch_tokens, progress)
        ridges |= {pair: sums.solve() for pair, sums in ridge_sums.items()}
        correlations |= {pair: sums.permutation() for pair, sums in correlation_sums.items()}
    return ridges, correlations, notes


def _add_up(
    model: LanguageModel,
    documents: Sequence[Documents],
    saes: Mapping[str, SAE],
    ridges: Mapping[Pair, RidgeSums],
    correlations: Mapping[Pair, CorrelationSums],
    batch_tokens: int,
    progress: Callable[[int], None],
) -> None:
    """One pass of the model over the documents."""
    blocks = sorted({sae.layer for sae in saes.values()})
    for some in documents:
        for batch in batches(some, batch_tokens, range(len(some))):
            streams = model.capture(batch.token_ids, blocks)
            counted = batch.counted.to(model.device)
            document = batch.document_of_row.to(model.device)
            rows = {block: stream[counted].float() for block, stream in streams.items()}
            typical = {block: typical_rows(x, document) for block, x in rows.items()}
            for (a, b), sums in ridges.items():
                at, to = saes[a].layer, saes[b].layer
                kept = typical[at] & typical[to]
                sums.add(rows[at][kept], rows[to][kept])
            if correlations:
                active = {key: encode_sparse(sae, rows[sae.layer]) for key, sae in saes.items()}
                dense = {key: f.dense() for key, f in active.items()}
                for (a, b), sums in correlations.items():
                    sums.add(dense[a], dense[b])
            progress(len(batch.documents))
