"""Give rows that a solver left without a column one of those still free."""

import numpy as np
from jaxtyping import Int64

from saematch.assignment.problem import Problem
from saematch.errors import UsageError

NEAREST_UP_TO = 512
"""So many rows are given the nearest free column, one after the other; more, any."""


def complete(
    problem: Problem, column_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " m"]
) -> None:
    """Match, in place, every unmatched row without a finite price, as well as is quickly done.

    Raises UsageError where only forbidden columns are left for a row.
    """
    rows = np.flatnonzero((column_of < 0) & np.isinf(problem.row_prices))
    free = np.flatnonzero(row_of < 0)
    # Columns that cost most to leave free come first.
    free = free[np.argsort(-problem.column_prices[free], kind="stable")]
    if len(rows) > NEAREST_UP_TO:
        chosen = free[: len(rows)]
        column_of[rows], row_of[chosen] = chosen, rows
        rows = rows[problem.forbidden.contains(rows, chosen)]
        row_of[column_of[rows]] = -1
        column_of[rows] = -1
        free = np.flatnonzero(row_of < 0)
    for i in rows:
        usable = free[~problem.forbidden.contains(np.full(len(free), i), free)]
        if not len(usable):
            _swap(problem, int(i), int(free[0]), column_of, row_of)
            free = free[1:]
            continue
        near = usable[:NEAREST_UP_TO]
        difference = problem.costs.columns[near] - problem.costs.rows[int(i)]
        j = int(near[int(difference.square().sum(dim=1).argmin())])
        column_of[i], row_of[j] = j, i
        free = free[free != j]


def _swap(problem: Problem, i: int, j: int, column_of: np.ndarray, row_of: np.ndarray) -> None:
    """Give row i the column of a row that may have column j."""
    others = np.flatnonzero(column_of >= 0)
    theirs = column_of[others]
    barred = problem.forbidden.contains(np.full(len(others), i), theirs)
    barred |= problem.forbidden.contains(others, np.full(len(others), j))
    if barred.all():
        raise UsageError(
            f"when the budget ended only forbidden columns were left for row {i}; "
            "try a larger budget"
        )
    other = others[int(np.argmin(barred))]
    column_of[i] = column_of[other]
    row_of[column_of[i]] = i
    column_of[other], row_of[j] = j, other
