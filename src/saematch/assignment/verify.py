"""Check an assignment from nothing but the factors as they were given: every pair again, in float64,
sharing no code with the solvers but the definition of the cost.

1. Pairs, duals and margins have the right sizes; totals and duals are numbers.
2. The pairs are one-to-one, within range, none forbidden; what is unmatched has a price.
3. Their total is the primal that the assignment states.
4. Duals: u_i + v_j ≤ c_ij for all pairs, u_i and v_j at most their prices.  What rounding in float64 can
   do to a reduced cost is allowed for; all that lies below beyond that is taken off the bound.
5. The dual bound is Σ u + Σ v less that, and the stated one is not above it, nor above the primal.
6. No margin is above what the duals leave elsewhere in the pair's row and column.
7. The scale that a gap is relative to, where the total is about zero, is not above what it should be.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saematch.assignment.problem import Prices, prices_of
from saematch.assignment.result import Assignment
from saematch.assignment.solve import as_factors

ENTRIES_PER_BLOCK = 1 << 23
TOLERANCE = 1e-9
"""Relative to the total: what sums of float64 in another order may differ by."""
EPS = float(np.finfo(np.float64).eps)
SCALES = 8.0
"""How far two estimates of the scale of the factors may lie apart: their offsets are estimated too."""
SAMPLE = 4096
"""Factors that the common offset is estimated from."""


@dataclass(frozen=True)
class Verification:
    """Result of a check from scratch."""

    primal: float
    """Total cost of the pairs and of what is unmatched."""
    dual: float
    """Lower bound on any assignment's total that the duals prove."""
    worst: float
    """Least c_ij − u_i − v_j over all pairs; below zero by rounding alone if the duals are right."""
    faults: tuple[str, ...]
    """What is wrong, in words; empty: the assignment is what it says."""
    seconds: float

    @property
    def ok(self) -> bool:
        return not self.faults


@torch.no_grad()
def verify(
    rows: Float[Tensor | np.ndarray, "n d"],
    columns: Float[Tensor | np.ndarray, "m d"],
    found: Assignment,
    *,
    row_prices: Prices | None = None,
    column_prices: Prices | None = None,
    forbidden: np.ndarray | None = None,
) -> Verification:
    """Check `found` against the problem that `solve` was given, prices and forbidden pairs too: one
    float64 product of the factors.

    Independent of what the solver says of itself and of how it rounded: nothing but its pairs, duals,
    margins and totals is used.  Raises UsageError for factors and prices that make no problem.
    """
    started = time.perf_counter()
    rows, columns = as_factors(rows, columns)
    n, m = len(rows), len(columns)
    row_price, column_price = prices_of(row_prices, column_prices, n, m)
    barred = np.asarray([] if forbidden is None else forbidden, dtype=np.int64).reshape(-1, 2)
    malformed = _malformed(found, n, m)
    if malformed:
        seconds = time.perf_counter() - started
        return Verification(math.nan, math.nan, math.nan, (malformed,), seconds)
    pairs, u, v = found.columns, found.row_duals, found.column_duals
    matched = np.flatnonzero(pairs >= 0)
    left = np.setdiff1d(np.arange(n), matched)
    free = np.setdiff1d(np.arange(m), pairs[matched])
    a, b = rows.cpu().double(), columns.cpu().double()
    terms = [*row_price[left].tolist(), *column_price[free].tolist()]
    for i in np.array_split(matched, 1 + len(matched) * a.shape[1] // ENTRIES_PER_BLOCK):
        terms += (a[i] - b[pairs[i]]).square().sum(dim=1).tolist()
    primal = math.fsum(terms)
    # Distances from a middle of the factors: that keeps them and makes the norms, and what rounding does to
    # a product, small.  The median, since a few factors far longer than the others would carry a mean away.
    some = torch.linspace(0, n + m - 1, min(n + m, SAMPLE)).long()
    centre = torch.cat([a[some[some < n]], b[some[some >= n] - n]]).median(dim=0).values
    a, b = a - centre, b - centre
    norms = torch.cat([a.square().sum(dim=1), b.square().sum(dim=1)])
    energy = (n + m) * float(norms.median())
    worst, below, in_row, in_column = _scan(a, b, norms[:n], norms[n:], barred, pairs, u, v)
    bound = math.fsum([*u.tolist(), *v.tolist()]) - math.fsum(below.tolist())
    # Besides its other pairs a row may stay unmatched, and so may a column.
    in_column = np.minimum(in_column, column_price - v)
    in_row[matched] = np.minimum(in_row, row_price - u)[matched]
    margins = np.maximum(in_row, 0) + 16 * EPS * np.abs(u)
    margins[matched] += np.maximum(in_column[pairs[matched]], 0)
    above = np.zeros(n)
    np.subtract(found.margins, margins, out=above, where=found.margins > margins)
    size = math.fsum(np.abs(u).tolist()) + math.fsum(np.abs(v).tolist())
    allowed = TOLERANCE * max(abs(primal), 2.0**-40 * energy) + 16 * EPS * size
    # Each comparison is written so that a NaN is a fault.
    faults = {
        "a column is assigned to two rows": len(np.unique(pairs[matched])) != len(matched),
        "a forbidden pair is assigned": (pairs[barred[:, 0]] == barred[:, 1]).any(),
        "a row without a price is unmatched (verify needs the prices that solve was given)":
            np.isinf(row_price[left]).any(),
        f"the pairs cost {primal:.12g}, not {found.primal:.12g}":
            not abs(primal - found.primal) <= allowed,
        "a dual exceeds its price": (u > row_price).any() or (v > column_price).any(),
        f"the duals prove {bound:.12g}, not {found.dual:.12g}":
            not found.dual <= bound + allowed,
        "the pairs cost less than the bound": not primal >= bound - allowed,
        "the stated bound lies above the cost of the pairs":
            not found.dual <= primal + allowed,
        f"the margin of row {above.argmax()} is more than its duals leave": above.any(),
        f"the gap is relative to a scale of {found.factor_energy:.12g}, not {energy:.12g}":
            not found.factor_energy <= SCALES * energy,
    }  # fmt: skip
    wrong = tuple(fault for fault, there in faults.items() if there)
    return Verification(primal, bound, worst, wrong, time.perf_counter() - started)


def _malformed(found: Assignment, n: int, m: int) -> str | None:
    """Why there is nothing to check: sizes that are wrong, numbers that are none."""
    for name, count in {"columns": n, "row_duals": n, "column_duals": m, "margins": n}.items():
        shape = np.shape(getattr(found, name))
        if shape != (count,):
            return f"expected {count} {name}, got {list(shape)}"
    if not np.issubdtype(found.columns.dtype, np.integer):
        return f"expected whole numbers as columns, got {found.columns.dtype}"
    if (found.columns < -1).any() or (found.columns >= m).any():
        return f"expected {n} columns from -1 to {m - 1}, got some outside"
    numbers = (found.primal, found.dual, *found.row_duals, *found.column_duals)
    if not np.isfinite(numbers).all() or np.isnan(found.margins).any():
        return "expected totals, duals and margins that are numbers, got NaN or infinity"
    return None


def _scan(
    a: Float64[Tensor, "n d"],
    b: Float64[Tensor, "m d"],
    a_norms: Float64[Tensor, " n"],
    b_norms: Float64[Tensor, " m"],
    barred: np.ndarray,
    pairs: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """All reduced costs, some rows at a time: the least of them; how far each row's least lies below zero,
    beyond what rounding can do; the most that the least outside its pair may be in each row and column."""
    n, m = len(a), len(b)
    worst, below = math.inf, np.zeros(n)
    in_row, in_column = np.full(n, np.inf), np.full(m, np.inf)
    # A dot product of d terms errs by at most d·EPS/2 of ‖a‖‖b‖, so its double by d·EPS/2 of ‖a‖² + ‖b‖²:
    # d·EPS a norm is more than enough.  Norms, duals and the sums of all add a few roundings of their own.
    unit = (a.shape[1] + 8) * EPS
    row_error = unit * a_norms.numpy() + 4 * EPS * np.abs(u)
    column_error = unit * b_norms + 4 * EPS * torch.from_numpy(np.abs(v))
    b_terms = b_norms - torch.from_numpy(v)
    step = max(1, ENTRIES_PER_BLOCK // max(m, a.shape[1]))
    for first in range(0, n, step):
        rows = slice(first, min(n, first + step))
        reduced = (a_norms[rows] - torch.from_numpy(u[rows]))[:, None] + b_terms
        reduced.addmm_(a[rows], b.T, alpha=-2)
        here = barred[(barred[:, 0] >= first) & (barred[:, 0] < rows.stop)]
        reduced[here[:, 0] - first, here[:, 1]] = math.inf
        worst = min(worst, float(reduced.amin()))
        # From here on the most that each can be.
        reduced += column_error
        reduced += torch.from_numpy(row_error[rows])[:, None]
        below[rows] = np.maximum(-reduced.amin(dim=1).numpy(), 0)
        matched = np.flatnonzero(pairs[rows] >= 0)
        reduced[matched, pairs[rows][matched]] = math.inf
        in_row[rows] = reduced.amin(dim=1).numpy()
        in_column = np.minimum(in_column, reduced.amin(dim=0).numpy())
    return worst, below, in_row, in_column
