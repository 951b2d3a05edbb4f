"""Check an assignment from nothing but the factors: every pair again, in float64, sharing no code with
the solvers but the definition of the cost.

1. The pairs are one-to-one, within range, none forbidden; what is unmatched has a price.
2. Their total is the primal that the assignment states.
3. Duals: u_i + v_j ≤ c_ij for all pairs, u_i and v_j at most their prices.  A pair may lie below by
   what rounding in float64 can do, and all that is below is taken off the bound.
4. The dual bound is Σ u + Σ v less that, and the stated one is not above it.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment.result import Assignment
from saematch.assignment.solve import Prices

ENTRIES_PER_BLOCK = 1 << 23
TOLERANCE = 1e-9
"""Relative to the stated total: what sums of float64 in another order may differ by."""


@dataclass(frozen=True)
class Verification:
    """What a check from scratch found."""

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
    rows: Float[Tensor, "n d"],
    columns: Float[Tensor, "m d"],
    found: Assignment,
    *,
    row_prices: Prices | None = None,
    column_prices: Prices | None = None,
    forbidden: np.ndarray | None = None,
) -> Verification:
    """Check `found` against the problem that `solve` was given: one float64 product of the factors.

    Independent of what the solver says of itself: nothing but its pairs, duals and totals is used.
    """
    started = time.perf_counter()
    a, b = rows.detach().cpu().float(), columns.detach().cpu().float()
    n, m = len(a), len(b)
    row_price = np.broadcast_to(np.asarray(np.inf if row_prices is None else row_prices), (n,))
    usual = np.inf if n == m and np.isinf(row_price).all() else 0.0
    column_price = np.broadcast_to(
        np.asarray(usual if column_prices is None else column_prices), (m,)
    )
    barred = np.empty((0, 2), dtype=np.int64)
    if forbidden is not None:
        barred = np.asarray(forbidden, dtype=np.int64).reshape(-1, 2)
    faults = []
    pairs = found.columns
    matched = np.flatnonzero(pairs >= 0)
    if len(pairs) != n or (pairs < -1).any() or (pairs >= m).any():
        faults.append(f"needed {n} columns from -1 to {m - 1}, found others")
        matched = matched[pairs[matched] < m]
    if len(np.unique(pairs[matched])) != len(matched):
        faults.append("a column is assigned to two rows")
    if (pairs[barred[:, 0]] == barred[:, 1]).any():
        faults.append("a forbidden pair is assigned")
    left = np.setdiff1d(np.arange(n), matched)
    if np.isinf(row_price[left]).any():
        faults.append("a row without a price is unmatched")
    primal = math.fsum(_costs(a, b, matched, pairs[matched]).tolist())
    primal += math.fsum(row_price[left].tolist())
    free = np.setdiff1d(np.arange(m), pairs[matched])
    primal += math.fsum(column_price[free].tolist())
    scale = max(abs(primal), abs(found.primal), 2.0**-40 * found.factor_energy)
    if not abs(primal - found.primal) <= TOLERANCE * scale:
        faults.append(f"the pairs cost {primal:.12g}, not {found.primal:.12g}")
    u, v = found.row_duals, found.column_duals
    if (u > row_price).any() or (v > column_price).any():
        faults.append("a dual exceeds its price")
    worst, below = _shortfall(a, b, u, v, barred)
    bound = math.fsum([*u.tolist(), *v.tolist()]) - math.fsum(below.tolist())
    if found.dual > bound + TOLERANCE * scale:
        faults.append(f"the duals prove {bound:.12g}, not {found.dual:.12g}")
    if primal < bound - TOLERANCE * scale:
        faults.append("the pairs cost less than the bound")
    return Verification(primal, bound, worst, tuple(faults), time.perf_counter() - started)


def _costs(a: Tensor, b: Tensor, i: np.ndarray, j: np.ndarray) -> Tensor:
    step = max(1, ENTRIES_PER_BLOCK // a.shape[1])
    parts = [
        (a[i[k : k + step]].double() - b[j[k : k + step]].double()).square().sum(dim=1)
        for k in range(0, len(i), step)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _shortfall(
    a: Tensor, b: Tensor, u: np.ndarray, v: np.ndarray, barred: np.ndarray
) -> tuple[float, np.ndarray]:
    """Least c_ij − u_i − v_j of all, and of every row how far its least lies below zero.

    Distances are taken from the mean of the factors, which keeps them and makes the norms small.
    """
    centre = (a.sum(dim=0, dtype=torch.float64) + b.sum(dim=0, dtype=torch.float64)) / (
        len(a) + len(b)
    )
    wide_b = b.double() - centre
    b_terms = wide_b.square().sum(dim=1) - torch.from_numpy(v)
    worst, below = math.inf, np.zeros(len(a))
    step = max(1, ENTRIES_PER_BLOCK // max(len(b), a.shape[1]))
    for first in range(0, len(a), step):
        wide_a = a[first : first + step].double() - centre
        reduced = (wide_a.square().sum(dim=1) - torch.from_numpy(u[first : first + step]))[:, None]
        reduced = reduced + b_terms
        reduced.addmm_(wide_a, wide_b.T, alpha=-2)
        here = barred[(barred[:, 0] >= first) & (barred[:, 0] < first + len(reduced))]
        reduced[here[:, 0] - first, here[:, 1]] = math.inf
        least = reduced.amin(dim=1).numpy()
        worst = min(worst, float(least.min()))
        below[first : first + step] = np.maximum(-least, 0)
    return worst, below
