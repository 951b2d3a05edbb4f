"""Move optimal duals away from the corner where a solver leaves them, so that margins say something.

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

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64

from saematch.assignment.compiled import compiled

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
