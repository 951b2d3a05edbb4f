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
in turn.  No reduced cost becomes negative: those in the column were at least s and fall by s/2, those in
the row rise.

Only some pairs are known exactly.  Of all others a certificate knows c − u − v ≥ left_i and
≥ below_j; since that is at least (left_i + below_j) / 2, the duals stay feasible as long as u_i rises
by at most left_i / 2 and v_j by at most below_j / 2.

What is then left of the others in row i is at least the room that u_i still has, and also at least
left_i less what u_i and any v_j rose by.  Where all v_j rise and their rows' u_i fall alike, as those of
pairs do whose alternatives are all far away, the first is left_i / 2 and the second left_i.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment import scanning
from saematch.assignment.problem import Problem
from saematch.assignment.products import Products
from saematch.assignment.shortlists import (
    Lowest,
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


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Pairs (i, j) whose cost is known exactly and finite."""

    i: Int64[np.ndarray, " k"]
    j: Int64[np.ndarray, " k"]
    costs: Float64[np.ndarray, " k"]

    def __getitem__(self, chosen: np.ndarray) -> "KnownPairs":
        return KnownPairs(self.i[chosen], self.j[chosen], self.costs[chosen])

    @property
    def transposed(self) -> "KnownPairs":
        return KnownPairs(self.j, self.i, self.costs)

    def raise_duals(
        self, mate: np.ndarray, greatest: np.ndarray, mine: np.ndarray, theirs: np.ndarray
    ) -> None:
        """Raise the dual of every matched row by half of the least reduced cost of its pairs, which are
        those outside the matching; that of its mate falls as much, so that their own pair stays tight."""
        least = np.where(mate >= 0, greatest - mine, -np.inf)
        np.minimum.at(least, self.i, self.costs - mine[self.i] - theirs[self.j])
        rising = np.flatnonzero(np.isfinite(least) & (least > 0))
        mine[rising] += least[rising] / 2
        theirs[mate[rising]] -= least[rising] / 2

    def least_reduced_costs(self, mine: np.ndarray, theirs: np.ndarray, out: np.ndarray) -> None:
        """Fold the reduced costs, rounded down, into the least of each row."""
        mine, theirs = mine[self.i], theirs[self.j]
        rounding = ROUNDING * (np.abs(self.costs) + np.abs(mine) + np.abs(theirs))
        np.minimum.at(out, self.i, self.costs - mine - theirs - rounding)

    def exact_row_duals(
        self, highest: np.ndarray, v: np.ndarray
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """min(highest, c − v) of each row, and what rounding took off it: the sum of the two is exact.

        Knuth's two-sum: what t = x + y was rounded by is (x − (t − z)) + (y − z) with z = t − x, exactly, for
        any float64 x and y.  Without it the sum of n duals would be off by n roundings, which is more than
        the gap of near copies, where nearly all of every dual cancels.
        """
        dual = -v[self.j]
        total = self.costs + dual
        back = total - self.costs
        lost = (self.costs - (total - back)) + (dual - back)
        least = highest.copy()
        np.minimum.at(least, self.i, total)
        remainder = np.where(least == highest, 0.0, np.inf)
        tied = total == least[self.i]
        np.minimum.at(remainder, self.i[tied], lost[tied])
        return least, remainder


def centred(
    known: KnownPairs,
    column_of: Int64[np.ndarray, " n"],
    row_of: Int64[np.ndarray, " m"],
    u: Float64[np.ndarray, " n"],
    v: Float64[np.ndarray, " m"],
    left: Float64[np.ndarray, " n"],
    below: Float64[np.ndarray, " m"],
    problem: Problem,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Feasible duals inside (of rows as u and what rounding left of it), and the least reduced costs
    elsewhere in each row and each column.

    `left`, `below`: lower bounds on the reduced costs of the unknown pairs of a row, of a column.
    """
    row_prices, column_prices = problem.row_prices, problem.column_prices
    greatest_u = np.minimum(u + np.maximum(left, 0) / 2 * SAFE, row_prices)
    greatest_v = np.minimum(v + np.maximum(below, 0) / 2 * SAFE, column_prices)
    before_u, before_v, u, v = u, v, u.copy(), v.copy()
    elsewhere = known[column_of[known.i] != known.j]
    for _ in range(ROUNDS):
        elsewhere.transposed.raise_duals(row_of, greatest_v, v, u)
        elsewhere.raise_duals(column_of, greatest_u, u, v)
    # Once more from the costs themselves, so that no sum of roundings is left in a dual.
    u, remainder = known.exact_row_duals(greatest_u, v)
    rose_u, rose_v = u - before_u, v - before_v
    in_row = _beyond(left, rose_u, rose_v)
    in_column = np.minimum(_beyond(below, rose_v, rose_u), column_prices - v)
    # A row without a column is asked what it would cost to give it one: its price is no way out.
    matched = column_of >= 0
    in_row[matched] = np.minimum(in_row, row_prices - u)[matched]
    elsewhere.least_reduced_costs(u, v, in_row)
    elsewhere.transposed.least_reduced_costs(v, u, in_column)
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
    """What is kept of the blocks of rows that were seen."""

    def __init__(
        self, problem: Problem, products: Products, column_of: np.ndarray, v: np.ndarray
    ) -> None:
        n, m = products.n, products.m
        self.problem, self.products, self.column_of, self.v = problem, products, column_of, v
        self.offsets = products.offsets(v)
        self.u = np.empty(n)
        self.pairs: list[tuple[np.ndarray, ...]] = []
        """Rows, columns and costs of the pairs that were evaluated."""
        self.beyond = np.empty(n)
        """Lower bound on c_ij − v_j of the pairs of a row that were not evaluated."""
        self.values = np.full((scanning.KEPT_A_COLUMN + 1, m), np.inf, dtype=np.float32)
        self.rows = np.full((scanning.KEPT_A_COLUMN + 1, m), -1, dtype=np.int32)
        """For every column the rows of least reduced cost, and one more, of which only that is used."""
        self.greatest_shift = 0.0

    def add(self, rows: slice, block: Tensor) -> None:
        """Steps 1 and 2 for a block of dot products."""
        indices = np.arange(rows.start, rows.stop)
        count = COLUMNS_A_ROW + self.problem.forbidden.most_in_a_row
        found = lowest_of_block(self.products, block, rows, self.offsets, count)
        pairs, beyond = self._evaluate(indices, found), found.rest
        for more in (MORE_COLUMNS, IN_DOUBLE, 0):
            least = self._least(rows, *pairs)
            crowded = np.flatnonzero(beyond < least)
            if not len(crowded) or not more:
                break
            some = indices[crowded]
            if more == IN_DOUBLE:
                found = lowest_in_double(self.products, some, self.v, count + more)
            else:
                near = block[crowded]
                found = lowest_of_block(self.products, near, some, self.offsets, count + more)
            kept = ~np.isin(pairs[0], some)
            both = zip(pairs, self._evaluate(some, found), strict=True)
            pairs = tuple(np.concatenate([old[kept], new]) for old, new in both)
            beyond[crowded] = found.rest
        self.pairs.append(pairs)
        self.beyond[rows] = beyond
        self.u[rows] = np.minimum(np.minimum(least, beyond), self.problem.row_prices[rows])
        shifts = self.products.row_terms(rows) - self.u[rows]
        self.greatest_shift = max(self.greatest_shift, float(np.abs(shifts).max()))
        shifts, own = shifts.astype(np.float32), self.column_of[rows]
        scanning.fold_lowest_in_columns(
            self.products, block, self.offsets, shifts, own, rows.start, self.values, self.rows
        )

    def _evaluate(self, indices: np.ndarray, found: Lowest) -> tuple[np.ndarray, ...]:
        """Rows, columns and costs of some pairs of each row, its own among them."""
        own = self.column_of[indices]
        i = np.repeat(indices, found.kept)
        j = found.columns[found.filled].astype(np.int64)
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

    def certificate(self) -> Certificate:
        """Steps 3 and 4, from what is known of all rows."""
        m = self.products.m
        # The columns' keys were sums of float32: each of the few additions behind one rounds by at most eps
        # of its terms, and none is larger than an offset, a shift or 2‖a‖‖b‖.
        size = np.abs(self.offsets).astype(np.float64) + self.greatest_shift
        longest = math.sqrt(float(self.products.row_norms.max()))
        size += 2 * longest * np.sqrt(self.products.column_norms)
        below = self.values[-1].astype(np.float64) - 8 * float(np.finfo(np.float32).eps) * size
        i = self.rows[:-1].ravel().astype(np.int64)
        j = np.tile(np.arange(m), len(self.rows) - 1)[i >= 0]
        i = i[i >= 0]
        pairs = zip(*self.pairs, (i, j, self._costs(i, j)), strict=True)
        known = KnownPairs(*map(np.concatenate, pairs))
        matched = np.flatnonzero(self.column_of >= 0)
        row_of = np.full(m, -1, dtype=np.int64)
        row_of[self.column_of[matched]] = matched
        u, remainder, v, margins, in_column = centred(
            known[known.costs < np.inf], self.column_of, row_of,
            self.u, self.v, self.beyond - self.u, below, self.problem,
        )  # fmt: skip
        margins[matched] += in_column[self.column_of[matched]]
        return Certificate(u, v, margins, remainder)
