"""Ways to find a permutation from weights alone, and what they compare.

A feature's parts lie side by side in one row of a factor matrix: decoder row, encoder column, encoder
bias, each times the square root of its weight.  The cost of a pair is the squared distance of two
such rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment import Assignment, Certified, Dense, solve
from saematch.assignment.costs import full_precision
from saematch.errors import UsageError
from saematch.permutation import UNMATCHED, Permutation, inverse
from saematch.sae import FoldedSAE, fold_thresholds

PARTS = ("decoder", "encoder", "bias")
Strategy = Literal["folded", "unfolded", "naive", "random", "cosine"]
STRATEGIES: tuple[Strategy, ...] = ("folded", "unfolded", "naive", "random", "cosine")
"""The strategies that need no data."""
ASSIGNED = ("folded", "unfolded")
"""Those that solve an assignment problem."""
ROWS_PER_BLOCK = 128
ROWS_PER_PRODUCT = 1024


def part_weights(parts: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Weights by part; raises UsageError for unknown, repeated or missing parts and bad weights."""
    if isinstance(parts, str):
        parts = parts.split(",")
    weights = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1.0)
    if not weights or len(weights) != len(parts) or not set(weights) <= set(PARTS):
        raise UsageError(f"needed parts among {', '.join(PARTS)}, found {list(parts)}")
    for part, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(f"needed a positive weight for part '{part}', found {weight}")
    return {part: float(weights[part]) for part in PARTS if part in weights}


def factors(sae: FoldedSAE, weights: Mapping[str, float]) -> Float[Tensor, "d_sae width"]:
    """One row a feature, whose squared distances are the costs of pairs.

    The last one of each SAE is kept as long as the SAE is: every pair that it is part of needs it.
    """
    key = tuple(weights.items())
    kept = _KEPT.get(sae)
    if kept is None or kept[0] != key:
        kept = _KEPT[sae] = (key, _laid_out(sae, weights))
    return kept[1]


_KEPT: "WeakKeyDictionary[FoldedSAE, tuple[tuple, Tensor]]" = WeakKeyDictionary()


def _laid_out(sae: FoldedSAE, weights: Mapping[str, float]) -> Float[Tensor, "d_sae width"]:
    columns = {
        "decoder": lambda: sae.W_dec,
        "encoder": lambda: sae.W_enc.T,
        "bias": lambda: sae.b_enc[:, None],
    }
    widths = {"decoder": sae.d_model, "encoder": sae.d_model, "bias": 1}
    out = torch.empty(sae.d_sae, sum(widths[part] for part in weights))
    start = 0
    for part, weight in weights.items():
        torch.mul(columns[part](), math.sqrt(weight), out=out[:, start : start + widths[part]])
        start += widths[part]
    return out


def solved_sides(a: FoldedSAE, b: FoldedSAE, strategy: str) -> tuple[FoldedSAE, FoldedSAE]:
    """The weights on which a strategy of `ASSIGNED` solves: as folded, or raw."""
    if strategy == "folded":
        return a, b
    return fold_thresholds(a.sae, "none"), fold_thresholds(b.sae, "none")


def oriented(
    a: FoldedSAE,
    b: FoldedSAE,
    weights: Mapping[str, float],
    unmatched_cost: float | np.ndarray | None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Rows, columns and prices of the assignment problem: the side that is not larger makes the rows.

    Where those are B's features they may stay free for nothing, and A's columns have the price.
    """
    if a.d_sae <= b.d_sae:
        return factors(a, weights), factors(b, weights), {"row_prices": unmatched_cost}
    free = None if unmatched_cost is None else 0.0
    prices = {"row_prices": free, "column_prices": unmatched_cost}
    return factors(b, weights), factors(a, weights), prices


def assign(
    a: FoldedSAE,
    b: FoldedSAE,
    weights: Mapping[str, float],
    solver: Dense | Certified | None = None,
    unmatched_cost: float | np.ndarray | None = None,
    column_duals: np.ndarray | None = None,
) -> tuple[Permutation, np.ndarray, Assignment]:
    """The permutation of least total cost, each feature of A's margin, and the proof.

    `unmatched_cost`: the price of leaving a feature of A unmatched.
    """
    rows, columns, prices = oriented(a, b, weights, unmatched_cost)
    found = solve(rows, columns, solver, **prices, column_duals=column_duals)
    if a.d_sae <= b.d_sae:
        return found.columns, found.margins, found
    permutation = inverse(found.columns, a.d_sae)
    margin = np.full(a.d_sae, np.nan)
    matched = found.columns != UNMATCHED
    margin[found.columns[matched]] = found.margins[matched]
    return permutation, margin, found


def random_permutation(d_a: int, d_b: int, seed: int) -> Permutation:
    """One-to-one, by `seed`; where A is larger, the same features of A have a partner in every draw, so
    that draws can be compared."""
    generator = np.random.default_rng(seed)
    if d_a <= d_b:
        return generator.permutation(d_b)[:d_a].astype(np.int64)
    permutation = np.full(d_a, UNMATCHED, dtype=np.int64)
    permutation[np.random.default_rng(0).permutation(d_a)[:d_b]] = generator.permutation(d_b)
    return permutation


def unit_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows at unit norm; zero rows stay zero."""
    return torch.nn.functional.normalize(rows.float(), dim=1, eps=1e-30)


def nearest_by_cosine(
    a: Float[Tensor, "d_a d_model"], b: Float[Tensor, "d_b d_model"]
) -> Permutation:
    """Row-wise argmax of the cosine; equal cosines go by the lower feature, zero rows to the first.

    A float32 product can give equal rows unequal values, so whatever is within its rounding error of
    the greatest is evaluated again in float64.
    """
    unit_a, unit_b = unit_rows(a), unit_rows(b)
    tolerance = 1.01 * (a.shape[1] + 2) * torch.finfo(torch.float32).eps
    nearest = np.zeros(len(a), dtype=np.int64)
    for start in range(0, len(a), ROWS_PER_PRODUCT):
        rows = unit_a[start : start + ROWS_PER_PRODUCT]
        with full_precision():
            cosine = rows @ unit_b.T
        near = cosine >= cosine.amax(dim=1, keepdim=True) - tolerance
        i, j = (near & rows.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        exact = [
            (rows[some].double() * unit_b[others]).sum(dim=1)
            for some, others in zip(i.split(ROWS_PER_BLOCK), j.split(ROWS_PER_BLOCK), strict=True)
        ]
        if exact:
            order = np.lexsort((j.numpy(), -torch.cat(exact).numpy(), i.numpy()))
            row, first = np.unique(i.numpy()[order], return_index=True)
            nearest[start + row] = j.numpy()[order[first]]
    return nearest
