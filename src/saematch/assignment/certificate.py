"""One more pass over all pairs: from a solver's column duals to a proof, whatever the solver claimed.

1. For every row the few columns of lowest key are evaluated in float64, its own among them; with the
   bound on all others that gives u_i = min_j (c_ij − v_j), at most the row's price.  Where the fast
   products cannot decide it (many nearly equal costs), the row's keys are computed in float64.
2. For every column the few rows of least reduced cost outside its pair are remembered, evaluated in
   float64 likewise, and bounded beyond.
3. The duals are centred with what is known, and the pair's margin is what is left of the reduced costs
   elsewhere in its row, plus the same in its column.
4. Σ u + Σ v bounds every assignment from below.

Centring moves optimal duals away from the corner where a solver leaves them, so that margins say something.
A solver's duals make about two pairs a row look tied.  Where every other reduced cost of a column is
at least s, its dual may rise by s/2 while its row's falls as much: the pair stays tight, every other
pair keeps at least half, and pairs that were tied in the row's list no longer are.  The same for rows,
in turn.

Only some pairs are known exactly (E).  Of all others a certificate knows c − u − v ≥ left_i and
≥ below_j; since that is at least (left_i + below_j) / 2, the duals stay feasible as long as u_i rises
by at most left_i / 2 and v_j by at most below_j / 2.

What is then left of the others in row i is at least the room that u_i still has, and also at least
left_i less what u_i and any v_j rose by.  Where all v_j rise and their rows' u_i fall alike, as those of
pairs do whose alternatives are all far away, the first is left_i / 2 and the second left_i.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment import blocks, scanning
from saematch.assignment.compiled import compiled
from saematch.assignment.problem import Problem
from saematch.assignment.products import Products
from saematch.assignment.shortlists import (
    block_rows,
    exact_costs,
    lowest_in_double,
    lowest_of_block,
)

ROUNDS = 12
SAFE = 1 - 1e-9
"""What rounding may take off the rises that are allowed."""
ROUNDING = 4 * 2.0**-52
"""What rounding can add to a reduced cost, of the sizes of its terms."""


@compiled()
@no_type_check
def _step(first, lines, values, mate, greatest, mine, theirs):
    """Raise `mine` by half of what is left elsewhere in its line; its mate's dual falls as much.

    `values` are costs; pairs of line q are `first[q]:first[q + 1]`, with `lines` on the other side.
    """
    rises = np.zeros(len(mine))
    for q in range(len(mine)):
        if mate[q] < 0:
            continue
        least = greatest[q] - mine[q]
        for p in range(first[q], first[q + 1]):
            if lines[p] != mate[q]:
                least = min(least, values[p] - mine[q] - theirs[lines[p]])
        if np.isfinite(least) and least > 0:
            rises[q] = least / 2
    for q in range(len(mine)):
        if rises[q] > 0:
            mine[q] += rises[q]
            theirs[mate[q]] -= rises[q]


@compiled()
@no_type_check
def _least_elsewhere(first, lines, values, mate, mine, theirs, out):
    """Least reduced cost of each line's known pairs outside its own, folded into `out`."""
    for q in range(len(mine)):
        for p in range(first[q], first[q + 1]):
            if lines[p] != mate[q]:
                cost, dual, other = values[p], mine[q], theirs[lines[p]]
                rounding = ROUNDING * (abs(cost) + abs(dual) + abs(other))
                out[q] = min(out[q], cost - dual - other - rounding)


@compiled()
@no_type_check
def _least_in_row(first, columns, values, v, u, remainder):
    """Fold c − v of each row's known pairs into u, exactly: u + remainder, by Knuth's two-sum."""
    for q in range(len(u)):
        for p in range(first[q], first[q + 1]):
            cost, dual = values[p], -v[columns[p]]
            if cost == np.inf:
                continue
            total = cost + dual
            back = total - cost
            lost = (cost - (total - back)) + (dual - back)
            if total < u[q] or (total == u[q] and lost < remainder[q]):
                u[q], remainder[q] = total, lost


class KnownPairs:
    """Pairs whose cost is known exactly, sorted by row and by column."""

    def __init__(
        self,
        i: Int64[np.ndarray, " k"],
        j: Int64[np.ndarray, " k"],
        costs: Float64[np.ndarray, " k"],
        n: int,
        m: int,
    ) -> None:
        order = np.argsort(i, kind="stable")
        self.by_row = (_edges(i, n), j[order], costs[order])
        order = np.argsort(j, kind="stable")
        self.by_column = (_edges(j, m), i[order], costs[order])


def centred(
    known: KnownPairs,
    column_of: Int64[np.ndarray, " n"],
    row_of: Int64[np.ndarray, " m"],
    u: Float64[np.ndarray, " n"],
    v: Float64[np.ndarray, " m"],
    left: Float64[np.ndarray, " n"],
    below: Float64[np.ndarray, " m"],
    row_prices: Float64[np.ndarray, " n"],
    column_prices: Float64[np.ndarray, " m"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Feasible duals inside (of rows as u and what rounding left of it), and the least reduced costs
    elsewhere in each row and each column.

    `left`, `below`: lower bounds on the reduced costs of the unknown pairs of a row, of a column.
    """
    greatest_u = np.minimum(u + np.maximum(left, 0) / 2 * SAFE, row_prices)
    greatest_v = np.minimum(v + np.maximum(below, 0) / 2 * SAFE, column_prices)
    before_u, before_v, u, v = u, v, u.copy(), v.copy()
    for _ in range(ROUNDS):
        _step(*known.by_column, row_of, greatest_v, v, u)
        _step(*known.by_row, column_of, greatest_u, u, v)
    # Once more from the costs themselves, so that no sum of roundings is left in a dual.
    tight, remainder = greatest_u.copy(), np.zeros(len(u))
    _least_in_row(*known.by_row, v, tight, remainder)
    u = tight
    rose_u, rose_v = u - before_u, v - before_v
    in_row = _beyond(left, rose_u, rose_v)
    in_column = np.minimum(_beyond(below, rose_v, rose_u), column_prices - v)
    # A row without a column is asked what it would cost to give it one: its price is no way out.
    matched = column_of >= 0
    in_row[matched] = np.minimum(in_row, row_prices - u)[matched]
    _least_elsewhere(*known.by_row, column_of, u, v, in_row)
    _least_elsewhere(*known.by_column, row_of, v, u, in_column)
    return u, remainder, v, np.maximum(in_row, 0), np.maximum(in_column, 0)


def _beyond(
    bound: Float64[np.ndarray, " k"],
    rose: Float64[np.ndarray, " k"],
    others_rose: Float64[np.ndarray, " l"],
) -> Float64[np.ndarray, " k"]:
    """What is left of the reduced costs of a line's unknown pairs after the duals moved."""
    bound, highest = np.maximum(bound, 0) * SAFE, others_rose.max()
    rounding = ROUNDING * (np.abs(rose) + abs(highest))
    return np.maximum(bound / 2 - rose, bound - rose - highest - rounding)


def _edges(lines: np.ndarray, count: int) -> np.ndarray:
    edges = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(lines, minlength=count), out=edges[1:])
    return edges


COLUMNS_A_ROW = 6
"""Columns evaluated exactly for each row, besides its own."""
MORE_COLUMNS = 32
"""As many more where the bound on the others lies below them."""
IN_DOUBLE = 33
"""As many more where keys are computed in float64."""


@dataclass(frozen=True, eq=False)
class Certificate:
    """Duals that are feasible for every pair, and what they prove of a matching."""

    row_duals: Float64[np.ndarray, " n"]
    column_duals: Float64[np.ndarray, " m"]
    margins: Float64[np.ndarray, " n"]
    """For a row without a column: what it would cost at least to give it one."""
    row_remainders: Float64[np.ndarray, " n"] | None = None
    """What rounding left of the row duals: their exact sum is with these; None: nothing."""


def certify(
    problem: Problem,
    products: Products,
    column_of: Int64[np.ndarray, " n"],
    column_duals: Float64[np.ndarray, " m"],
    held: Tensor | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Certificate | None:
    """Check a matching and column duals against all pairs; None where `go_on` says to stop.

    `held`: dot products [n, m] where they are still at hand.
    """
    v = np.minimum(column_duals, problem.column_prices)
    scan = _Scan(problem, products, column_of, v)
    rows_per_block = block_rows(products)
    for first in range(0, products.n, rows_per_block):
        if not go_on():
            return None
        rows = slice(first, min(products.n, first + rows_per_block))
        scan.add(rows, products.block(rows) if held is None else held[rows])
    return scan.certificate()


class _Scan:
    def __init__(
        self, problem: Problem, products: Products, column_of: np.ndarray, v: np.ndarray
    ) -> None:
        n, m = products.n, products.m
        self.problem, self.products, self.column_of, self.v = problem, products, column_of, v
        self.offsets = products.offsets(v)
        self.count = min(m, COLUMNS_A_ROW + problem.forbidden.most_in_a_row)
        self.u = np.empty(n)
        self.near_rows: list[np.ndarray] = []
        """Rows, columns and costs of the pairs that were evaluated."""
        self.near_columns: list[np.ndarray] = []
        self.near_costs: list[np.ndarray] = []
        self.beyond = np.empty(n)
        """Lower bound on c_ij − v_j of the pairs of a row that were not evaluated."""
        self.values = np.full((scanning.KEPT_A_COLUMN + 1, m), np.inf, dtype=np.float32)
        self.rows = np.full((scanning.KEPT_A_COLUMN + 1, m), -1, dtype=np.int32)
        """For every column the rows of least reduced cost, and one more, of which only that is used."""
        self.greatest_shift = 0.0

    def add(self, rows: slice, block: Tensor) -> None:
        indices = np.arange(rows.start, rows.stop)
        found = lowest_of_block(self.products, block, rows, self.offsets, self.count)
        filled = np.arange(found.columns.shape[1]) < found.kept[:, None]
        pairs = self._evaluate(indices, found.columns, filled)
        beyond = found.rest
        for ask in (MORE_COLUMNS, IN_DOUBLE):
            least = self._least(rows, *pairs)
            crowded = np.flatnonzero(beyond < least)
            if not len(crowded):
                break
            count = min(self.products.m, self.count + ask)
            some = indices[crowded]
            if ask == IN_DOUBLE:
                again = lowest_in_double(self.products, some, self.v, count)
            else:
                near = block[crowded]
                again = lowest_of_block(self.products, near, some, self.offsets, count)
            filled = np.arange(again.columns.shape[1]) < again.kept[:, None]
            more = self._evaluate(some, again.columns, filled)
            kept = ~np.isin(pairs[0], some)
            pairs = tuple(
                np.concatenate([old[kept], new]) for old, new in zip(pairs, more, strict=True)
            )
            beyond[crowded] = again.rest
        least = self._least(rows, *pairs)
        u = np.minimum(np.minimum(least, beyond), self.problem.row_prices[rows])
        self.u[rows], self.beyond[rows] = u, beyond
        for kept, new in zip((self.near_rows, self.near_columns, self.near_costs), pairs):
            kept.append(new)
        self._scan_columns(rows, block)

    def _evaluate(
        self, indices: np.ndarray, columns: np.ndarray, filled: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, columns and costs of some pairs of each row, its own among them."""
        own = self.column_of[indices]
        i = np.repeat(indices, filled.sum(axis=1))
        j = columns[filled].astype(np.int64)
        others = j != self.column_of[i]
        i = np.concatenate([i[others], indices[own >= 0]])
        j = np.concatenate([j[others], own[own >= 0]])
        return i, j, self._costs(i, j)

    def _least(self, rows: slice, i: np.ndarray, j: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """The least c_ij − v_j of each row among some pairs, rounded down."""
        value = costs - self.v[j]
        value -= np.finfo(np.float64).eps * np.where(np.isfinite(value), np.abs(value), 0)
        least = np.full(rows.stop - rows.start, np.inf)
        np.minimum.at(least, i - rows.start, value)
        return least

    def _costs(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Costs of pairs, never above the true ones; forbidden ones are infinite."""
        costs = exact_costs(self.products, i, j)
        costs *= 1 - self.products.costs.exact_error
        costs[self.problem.forbidden.contains(i, j)] = np.inf
        return costs

    def _scan_columns(self, rows: slice, block: Tensor) -> None:
        shifts = self.products.row_terms(rows) - self.u[rows]
        self.greatest_shift = max(self.greatest_shift, float(np.abs(shifts).max()))
        blocks.fold_lowest_in_columns(
            self.products,
            block,
            self.offsets,
            shifts.astype(np.float32),
            self.column_of[rows],
            rows.start,
            self.values,
            self.rows,
        )

    def certificate(self) -> Certificate:
        n, m = self.products.n, self.products.m
        i, j, costs = (
            np.concatenate(parts) for parts in (self.near_rows, self.near_columns, self.near_costs)
        )
        (more_i, more_j, more_costs), below = self._columns()
        known = KnownPairs(
            np.concatenate([i, more_i]),
            np.concatenate([j, more_j]),
            np.concatenate([costs, more_costs]),
            n,
            m,
        )
        row_of = np.full(m, -1, dtype=np.int64)
        matched = np.flatnonzero(self.column_of >= 0)
        row_of[self.column_of[matched]] = matched
        prices = self.problem.row_prices, self.problem.column_prices
        left = self.beyond - self.u
        u, remainder, v, in_row, in_column = centred(
            known, self.column_of, row_of, self.u, self.v, left, below, *prices
        )
        margins = in_row
        margins[matched] += in_column[self.column_of[matched]]
        return Certificate(u, v, margins, remainder)

    def _columns(self) -> tuple[tuple[np.ndarray, ...], Float64[np.ndarray, " m"]]:
        """The pairs remembered of each column, and a bound on its reduced costs beyond them."""
        rounding = 8 * float(np.finfo(np.float32).eps)
        longest = math.sqrt(float(self.products.row_norms.max()))
        size = np.abs(self.offsets).astype(np.float64) + self.greatest_shift
        size += 2 * longest * np.sqrt(self.products.column_norms)
        below = self.values[-1].astype(np.float64) - rounding * size
        rows = self.rows[:-1]
        j = np.tile(np.arange(self.products.m), len(rows))
        i = rows.ravel().astype(np.int64)
        i, j = i[i >= 0], j[i >= 0]
        return (i, j, self._costs(i, j)), below
