"""The one function of this package: check, scale, solve, scale back."""

import dataclasses
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment.certified import Certified
from saematch.assignment.costs import SquaredDistances, scaled
from saematch.assignment.problem import Prices, Problem, as_numbers
from saematch.assignment.result import Assignment
from saematch.errors import UsageError

USUAL_EXPONENTS = 20
"""Factors whose greatest entry is within 2^±20 are not copied to be scaled: float32 holds their squares."""


def solve(
    rows: Float[Tensor | np.ndarray, "n d"],
    columns: Float[Tensor | np.ndarray, "m d"],
    solver: Certified | None = None,
    *,
    row_prices: Prices | None = None,
    column_prices: Prices | None = None,
    forbidden: np.ndarray | None = None,
    column_duals: np.ndarray | None = None,
) -> Assignment:
    """Pairs (i, columns[i]) of least Σ ‖rows[i] − columns[j]‖², each row and column in at most one.

    Every row is in a pair unless it has a price (`row_prices`, one or [n], in the units of the
    factors squared), which is paid where it is left unmatched.  Columns left over cost nothing, or
    `column_prices`.  `forbidden` [k, 2]: pairs (row, column) that must not be.

    `solver`: budgets, precision, device and checkpoint; None: `Certified()`.
    `column_duals` [m]: those of an earlier answer to the same problem, such as one that stopped at a
    budget, to go on from.

    Needs n ≤ m and finite entries.  Totals, duals and margins are about the numbers as given, float64
    included; only the fast products behind them are rounded, and what that takes off is bounded.
    Scaling the factors by a power of two changes neither the pairs nor the gap.  Raises UsageError for
    factors, prices or pairs that make no problem, and where no assignment avoids the forbidden pairs.
    """
    rows, columns = as_factors(rows, columns)
    solver = Certified() if solver is None else solver
    if not isinstance(solver, Certified):
        raise UsageError(f"expected Certified() or None as solver, got {solver!r}; leave it out")
    device = solver.device or rows.device
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise UsageError("expected a CUDA device, but torch can use none here; leave device out")
    n, m = len(rows), len(columns)
    if not 1 <= n <= m:
        raise UsageError(
            f"expected 1 ≤ rows ≤ columns, got {n} rows and {m} columns; "
            "swap the sides and invert the result"
        )
    if not rows.shape[1]:
        raise UsageError("expected factors of at least one dimension, got a width of 0")
    rows, columns = rows.to(device), columns.to(device)
    greatest = [max(-float(low), float(high)) for low, high in map(torch.aminmax, (rows, columns))]
    if not np.isfinite(greatest).all():
        raise UsageError("expected finite factors, got NaN or Inf")
    # A power of two changes no mantissa, so neither pairs nor gap, and brings every square into range.
    exponent = math.frexp(max(greatest))[1]
    exponent = exponent if abs(exponent) > USUAL_EXPONENTS else 0
    row_prices, column_prices, start = (
        None if values is None else np.asarray(np.ldexp(as_numbers(values), -2 * exponent))
        for values in (row_prices, column_prices, column_duals)
    )
    costs = SquaredDistances.of(scaled(rows, -exponent), scaled(columns, -exponent))
    problem = Problem.of(costs, row_prices, column_prices, forbidden)
    if start is not None and (start.shape != (m,) or not np.isfinite(start).all()):
        raise UsageError(
            f"expected {m} finite column_duals, got shape {list(start.shape)}; "
            "leave column_duals out"
        )
    return _scaled_back(solver(problem, start), 2 * exponent)


def _scaled_back(found: Assignment, exponent: int) -> Assignment:
    totals = ("primal", "dual", "factor_energy")
    try:
        numbers = {name: math.ldexp(getattr(found, name), exponent) for name in totals}
    except OverflowError:
        raise UsageError(
            "expected factors whose squared distances are within float64's range, got a total "
            f"of {found.primal:g} · 2^{exponent}; scale the factors down"
        ) from None
    arrays = ("row_duals", "column_duals", "margins")
    scaled = {name: np.ldexp(getattr(found, name), exponent) for name in arrays}
    return dataclasses.replace(found, **numbers, **scaled)


def as_factors(rows: object, columns: object) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Two matrices of one width as contiguous tensors without a gradient, both in float64 if either
    is, else both in float32: no number changes.

    Raises UsageError for what is no dense matrix of floats of at most 64 bits.
    """
    rows, columns = _as_tensor(rows), _as_tensor(columns)
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[1] != columns.shape[1]:
        raise UsageError(
            f"expected two matrices of one width, got {list(rows.shape)} and {list(columns.shape)}"
        )
    dtype = torch.float64 if torch.float64 in (rows.dtype, columns.dtype) else torch.float32
    return rows.to(dtype).contiguous(), columns.to(dtype).contiguous()


def _as_tensor(values: object) -> Tensor:
    found = str(getattr(values, "dtype", type(values).__name__))
    if isinstance(values, np.ma.MaskedArray):
        found = "a masked array; try fill or drop the masked entries"
    elif isinstance(values, np.ndarray) and values.dtype.kind == "f":
        if values.dtype.itemsize <= 8:
            # torch takes neither another byte order nor negative strides.
            native = values.dtype.newbyteorder("=")
            return torch.from_numpy(np.array(values, dtype=native, order="C"))
        found += ", which is wider than float64; try .astype(np.float64)"
    elif isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_nested:
            kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
            found = f"a {kind} tensor; try a dense one, such as .to_dense() gives"
        elif values.is_meta:
            found = "a tensor on the meta device, which holds no numbers"
        elif values.is_floating_point():
            values = values.detach().resolve_neg()
            # Half precisions and float8 fit into float32 as they are.
            return values if values.dtype in (torch.float32, torch.float64) else values.float()
    raise UsageError(f"expected a dense tensor or array of floats as factors, got {found}")
