"""The one function of this package: check the factors, scale them, solve, scale back."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment.costs import SquaredDistances, scaled
from saematch.assignment.dense import MEAN_COST, Dense
from saematch.assignment.result import Assignment
from saematch.errors import UsageError


def solve(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], solver: Dense = Dense()
) -> Assignment:
    """Pairs (i, columns[i]) of least Σ ‖rows[i] − columns[j]‖², every row in exactly one pair.

    Needs n ≤ m and finite entries, which are rounded to float32.  The factors are scaled by one
    power of two first, which changes no bit of any mantissa: scaling the input by a power of two
    changes neither the pairs nor the gap.
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
    if not rows.shape[1]:
        raise UsageError("needed factors of at least one dimension, found a width of 0")
    rows, columns = rows.detach().cpu(), columns.detach().cpu()
    beyond = 0
    if torch.float64 in (rows.dtype, columns.dtype):
        beyond = math.frexp(max(float(rows.abs().max()), float(columns.abs().max())))[1]
        rows, columns = scaled(rows.double(), -beyond), scaled(columns.double(), -beyond)
    costs = SquaredDistances.of(rows.float(), columns.float())
    if not math.isfinite(costs.mean_scale):
        raise UsageError("needed finite factors, found NaN or Inf")
    exponent = 0
    if costs.mean_scale > 0:
        exponent = math.frexp(costs.mean_scale / MEAN_COST)[1] // 2
    found = solver(costs.scaled(-exponent))

    def unscaled(value: float) -> float:
        return math.ldexp(value, 2 * (exponent + beyond))

    return dataclasses.replace(
        found,
        primal=unscaled(found.primal),
        dual=unscaled(found.dual),
        factor_energy=unscaled(found.factor_energy),
        row_duals=found.row_duals * unscaled(1.0),
        column_duals=found.column_duals * unscaled(1.0),
        margins=found.margins * unscaled(1.0),
    )
