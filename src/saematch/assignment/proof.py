"""From column duals to a proof: feasible row duals, a dual bound and margins, over all pairs.

1. Any column duals v (at most zero where n < m) are feasible with u_i = min_j (c_ij − v_j).  The
   minimum is found on rounded blocks; every pair whose rounded value lies within the error bound of
   its row's minimum is evaluated again in float64, so u is exact to float64.
2. The dual bound is Σ u + Σ v.
3. The margin of a pair (i, j) is the least reduced cost c_ik − u_i − v_k over k ≠ j plus the least
   c_lj − u_l − v_j over l ≠ i (where n < m the column may also stay free, at −v_j), from the
   rounded blocks less their error bound: a lower bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances

BlockSource = Callable[[int, int], Tensor]
"""(start, stop) -> costs [stop − start, m] of those rows; the caller may not change them."""


@dataclass(frozen=True, eq=False)
class Proof:
    """Duals that are feasible for every pair, and what follows from them."""

    primal: float
    dual: float
    row_duals: Float64[Tensor, " n"]
    column_duals: Float64[Tensor, " m"]
    margins: Float64[Tensor, " n"]


def prove(
    costs: SquaredDistances,
    blocks: BlockSource,
    assigned: Int64[Tensor, " n"],
    column_duals: Float64[Tensor, " m"],
    rows_per_block: int,
) -> Proof:
    """Bound the optimum from below and every pair's margin, given column duals and a matching.

    `blocks` serves rounded costs whose error is within `costs.relative_error`.
    """
    n, m = costs.n, costs.m
    v = column_duals.double()
    if n < m:
        # A column that stays free contributes nothing, so its dual may not be positive; the greatest
        # at zero is the best bound, since raising all of them by c gains (m − n)·c.
        v = v - v.max()
    dtype = costs.rows.dtype
    unit = torch.finfo(dtype).eps / 2
    error = costs.relative_error
    # Rounding v to the block's dtype and subtracting it adds two roundings to each side's bound.
    row_error = (error + 4 * unit) * costs.row_norms
    column_error = (error + 4 * unit) * costs.column_norms + 4 * unit * v.abs()
    lowered = (v + column_error).to(dtype)

    u = torch.empty(n, dtype=torch.float64)
    row_runner_up = torch.empty(n, dtype=torch.float64)
    column_runner_up = torch.full((m,), torch.inf, dtype=torch.float64)
    for start in range(0, n, rows_per_block):
        stop = min(start + rows_per_block, n)
        block = blocks(start, stop) - lowered  # a lower bound on c − v, up to row_error
        least, where = block.min(dim=1)
        ceiling = least.double() + 2 * column_error[where] + 2 * row_error[start:stop]
        near_i, near_j = (block <= _round_up(ceiling, dtype)[:, None]).nonzero(as_tuple=True)
        reduced = costs.exact(near_i + start, near_j) - v[near_j]
        exact_least = torch.full((stop - start,), torch.inf, dtype=torch.float64)
        u[start:stop] = exact_least.scatter_reduce(0, near_i, reduced, "amin")

        inside = torch.arange(stop - start)
        block[inside, assigned[start:stop]] = torch.inf
        row_runner_up[start:stop] = block.amin(dim=1).double() - row_error[start:stop]
        shift = (u[start:stop] + row_error[start:stop]).to(dtype)
        column_least = (block - shift[:, None]).amin(dim=0).double()
        # Rounding the shift and the subtraction: bounded by the shift's and the result's size.
        slop = 2 * unit * (column_least.abs() + shift.abs().max().double())
        # A block of one row leaves nothing else in its column: no bound, and no inf − inf either.
        slop[column_least.isinf()] = 0
        column_runner_up = torch.minimum(column_runner_up, column_least - slop)

    primal = float(costs.exact(torch.arange(n), assigned).sum())
    if n < m:
        column_runner_up = torch.minimum(column_runner_up, -v)
    margins = (row_runner_up - u).clamp(min=0) + column_runner_up[assigned].clamp(min=0)
    return Proof(primal, float(u.sum() + v.sum()), u, v, margins)


def _round_up(values: Float64[Tensor, " k"], dtype: torch.dtype) -> Tensor:
    rounded = values.to(dtype)
    return torch.where(
        rounded.double() < values, torch.nextafter(rounded, rounded.new_tensor(torch.inf)), rounded
    )
