"""The k nearest live features of B for each feature of A, exactly, without the whole cost matrix.

1. For a block of rows of A take the rounded costs to all of B, which err by at most a known bound
   (assignment/costs.py).
2. A feature of B can be among the k nearest only if its cost less the bound is at most the k-th
   least of the costs plus their bounds.
3. Evaluate those pairs in float64 from the definition of the cost, and keep the k least; equal
   costs go by the lower feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.matching.strategies import factors
from saematch.sae import FoldedSAE

ROWS_PER_BLOCK = 512
PAIRS_AT_A_TIME = 4096


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest features of B, one row per (feature of A, rank)."""

    feature: Int64[np.ndarray, " rows"]
    rank: Int64[np.ndarray, " rows"]
    """From 1."""
    candidate: Int64[np.ndarray, " rows"]
    cost: Float64[np.ndarray, " rows"]
    cosine: Float64[np.ndarray, " rows"]
    """Cosine of decoder rows; 0 for a row of zeros."""


def nearest(a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], count: int) -> Nearest:
    """The `count` live features of `b` of least cost to each feature of `a`; all where b has fewer.

    Features that are dead or degenerate are small, and so near to everything: they are no candidates.
    `weights`: weight of each part of the cost.
    """
    live = np.flatnonzero(np.array(b.sae.status, dtype=object) == "live")
    count = min(count, len(live))
    if not count:
        none, no_cost = np.empty(0, dtype=np.int64), np.empty(0)
        return Nearest(none, none, none, no_cost, no_cost)
    costs = SquaredDistances.of(factors(a, weights), factors(b, weights, live))
    # Twice the bound covers what rounding the factors' weights adds to it.
    bound = 2 * costs.relative_error
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, a.d_sae, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, a.d_sae)
        block = torch.empty(stop - start, len(live))
        costs.fill(start, stop, block)
        error = (bound * costs.column_norms).to(block.dtype)
        row_error = (bound * costs.row_norms[start:stop]).to(block.dtype)[:, None]
        ceiling = (block + error).kthvalue(count, dim=1, keepdim=True).values + 2 * row_error
        # Not "at most": costs beyond float32's range are infinite, and all of them may be the nearest.
        row, column = (~((block - error) > ceiling)).nonzero(as_tuple=True)
        column = torch.from_numpy(live)[column]
        exact = pair_costs(a, b, row + start, column, weights).numpy()
        row, column = row.numpy(), column.numpy()
        order = np.lexsort((column, exact, row))
        row, column, exact = row[order], column[order], exact[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row, side="left")
        first = rank < count
        kept.append((row[first] + start, column[first], exact[first]))
    feature, candidate, cost = (np.concatenate(values) for values in zip(*kept, strict=True))
    return Nearest(
        feature=feature.astype(np.int64),
        rank=np.tile(np.arange(1, count + 1), a.d_sae),
        candidate=candidate.astype(np.int64),
        cost=cost,
        cosine=_cosines(a, b, torch.from_numpy(feature), torch.from_numpy(candidate)).numpy(),
    )


def pair_costs(
    a: FoldedSAE,
    b: FoldedSAE,
    i: Int64[Tensor, " pairs"],
    j: Int64[Tensor, " pairs"],
    weights: Mapping[str, float],
) -> Float64[Tensor, " pairs"]:
    """Cost of the pairs (i, j) in float64: Σ over parts of weight × squared distance."""
    out = torch.zeros(len(i), dtype=torch.float64)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        if "decoder" in weights:
            difference = a.W_dec[i[part]].double() - b.W_dec[j[part]].double()
            out[part] += weights["decoder"] * difference.square().sum(dim=1)
        if "encoder" in weights:
            difference = a.W_enc.T[i[part]].double() - b.W_enc.T[j[part]].double()
            out[part] += weights["encoder"] * difference.square().sum(dim=1)
        if "bias" in weights:
            difference = a.b_enc[i[part]].double() - b.b_enc[j[part]].double()
            out[part] += weights["bias"] * difference.square()
    return out


def _cosines(
    a: FoldedSAE, b: FoldedSAE, i: Int64[Tensor, " pairs"], j: Int64[Tensor, " pairs"]
) -> Float64[Tensor, " pairs"]:
    out = torch.zeros(len(i), dtype=torch.float64)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        rows_a, rows_b = a.W_dec[i[part]].double(), b.W_dec[j[part]].double()
        norms = rows_a.norm(dim=1) * rows_b.norm(dim=1)
        out[part] = (rows_a * rows_b).sum(dim=1) / torch.where(norms > 0, norms, 1.0)
    return out
