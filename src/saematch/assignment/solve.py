"""The one function of this package: check the factors, scale them, solve, scale back."""

import dataclasses
import math

from jaxtyping import Float
from torch import Tensor

from saematch.assignment.dense import Dense
from saematch.assignment.result import Assignment
from saematch.errors import UsageError


def solve(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], solver: Dense = Dense()
) -> Assignment:
    """Pairs (i, columns[i]) of least Σ ‖rows[i] − columns[j]‖², every row in exactly one pair.

    Needs n ≤ m and finite entries.  The factors are scaled by one power of two first, which changes
    no bit of any mantissa: scaling the input by a power of two changes neither the pairs nor the
    gap.
    """
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise UsageError(
            f"needed two matrices of one width, found {list(rows.shape)} and {list(columns.shape)}"
        )
    if not 1 <= len(rows) <= len(columns):
        raise UsageError(
            f"needed 1 ≤ rows ≤ columns, found {len(rows)} rows and {len(columns)} columns; "
            "swap the sides and invert the result"
        )
    extremes = [float(rows.abs().max()), float(columns.abs().max())]
    largest = max(extremes)
    if not all(map(math.isfinite, extremes)):
        raise UsageError("needed finite factors, found NaN or Inf")
    exponent = math.frexp(largest)[1] if largest > 0 else 0
    scale = 2.0**-exponent
    found = solver(rows.float() * scale, columns.float() * scale)
    back = 4.0**exponent
    return dataclasses.replace(
        found,
        primal=found.primal * back,
        dual=found.dual * back,
        factor_energy=found.factor_energy * back,
        row_duals=found.row_duals * back,
        column_duals=found.column_duals * back,
        margins=found.margins * back,
    )
