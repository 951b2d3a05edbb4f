"""What is fitted to data before anything is measured, on other documents than those measured on.

- A ridge map from the stream of the earlier layer to that of the later one: what a linear map can do.
- `correlation`: for every feature of A the feature of B whose activations correlate most with its own.

Sums are streamed; outlying tokens (collecting.py) are left out of the ridge map, which they would rule.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from saematch.evaluation.activations import encode_sparse
from saematch.evaluation.collecting import Pair, typical_rows
from saematch.evaluation.interventions import LinearMap
from saematch.language_model import Corpus, Documents, LanguageModel, batches
from saematch.permutation import UNMATCHED, Permutation
from saematch.sae import SAE

RIDGE = 1e-2
"""The ridge penalty, relative to the mean variance of a dimension."""
DOCUMENT_TOKENS = 1024
"""What documents that are fitted to are cut to."""
TOKENS_PER_DIMENSION = 20
"""Tokens that a linear map needs for every dimension it maps from."""
CORRELATION_ENTRIES = 1 << 30
"""Pairs of features up to which correlations are kept: 4 GiB."""


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
        covariance = self.ab.double() / n - torch.outer(self.a / n, self.b / n)
        std_a = (self.a_square / n - (self.a / n).square()).clamp(min=0).sqrt()
        std_b = (self.b_square / n - (self.b / n).square()).clamp(min=0).sqrt()
        usable = std_b > 0
        score = covariance[:, usable] / std_b[usable]
        found = np.full(len(std_a), UNMATCHED, dtype=np.int64)
        if bool(usable.any()):
            columns = usable.nonzero()[:, 0]
            found[:] = columns[score.argmax(dim=1)].cpu().numpy()
        found[(std_a == 0).cpu().numpy()] = UNMATCHED
        return found


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

    Only blocks up to the last layer run.
    """
    notes: list[str] = []
    tokens = sum(some.tokens for some in documents)
    needed = TOKENS_PER_DIMENSION * model.d_model
    if ridge and tokens < needed:
        ridge = False
        notes.append(
            f"ridge is not measured: it needs {needed} tokens of other documents, found {tokens}"
        )
    ridges: dict[Pair, RidgeSums] = {}
    correlations: dict[Pair, CorrelationSums] = {}
    for a, b in pairs:
        if ridge:
            ridges[a, b] = RidgeSums(saes[a].d_model, saes[b].d_model, model.device)
        d_a, d_b = saes[a].d_sae, saes[b].d_sae
        if correlation and d_a * d_b > CORRELATION_ENTRIES:
            notes.append(f"correlation is not measured for {a}--{b}: {d_a} × {d_b} does not fit")
        elif correlation and tokens:
            correlations[a, b] = CorrelationSums(d_a, d_b, model.device)
    if not ridges and not correlations:
        return {}, {}, notes
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
    return (
        {pair: sums.solve() for pair, sums in ridges.items()},
        {pair: sums.permutation() for pair, sums in correlations.items()},
        notes,
    )
