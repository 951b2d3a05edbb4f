"""From column duals to a proof: feasible row duals, a dual bound and margins, over all pairs.

1. Any column duals v (at most zero where n < m) are feasible with u_i = min_j (c_ij − v_j).  The
   minimum is found on rounded blocks; every pair whose rounded value lies within the error bound of
   its row's minimum is evaluated again in float64, so u is exact to float64.  Where a row has too
   many such pairs (duplicate features), a lower bound from a float64 product stands for u.
2. The dual bound is Σ u + Σ v, less what rounding in float64 can hide.
3. The margin of a pair (i, j) is the least reduced cost c_ik − u_i − v_k over k ≠ j plus the least
   c_lj − u_l − v_j over l ≠ i (where n < m the column may also stay free, at −v_j), from the
   rounded blocks less their error bound: a lower bound.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances

BlockSource = Callable[[int, int], Tensor]
"""(start, stop) -> costs [stop − start, m] of those rows; the caller may not change them."""
ENTRIES_PER_BLOCK = 1 << 22
"""Costs worked on at a time: few enough to stay in cache between the steps, and enough for few steps."""
NEAR_PAIRS_A_ROW = 64
"""More pairs than this near a row's minimum are bounded together, not evaluated one by one."""


@dataclass(frozen=True, eq=False)
class Proof:
    """Duals that are feasible for every pair, and what follows from them."""

    primal: float
    dual: float
    row_duals: Float64[Tensor, " n"]
    column_duals: Float64[Tensor, " m"]
    margins: Float64[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class _Bounds:
    """How far c_ij − v_j may lie above what the blocks say."""

    row: Float64[Tensor, " n"]
    column: Float64[Tensor, " m"]
    lowered: Tensor
    """[m], in the blocks' dtype: `block − lowered − row[i] ≤ c_ij − v_j`."""


def prove(
    costs: SquaredDistances,
    blocks: BlockSource,
    assigned: Int64[Tensor, " n"],
    column_duals: Float64[Tensor, " m"],
    rows_per_block: int | None = None,
    *,
    rounding: float = 0.0,
) -> Proof:
    """Bound the optimum from below and every pair's margin, given column duals and a matching.

    `blocks` serves rounded costs whose error is within `costs.relative_error`, and `rounding` more.
    """
    rows_per_block = rows_per_block or max(1, ENTRIES_PER_BLOCK // costs.m)
    v = column_duals.double()
    if costs.n < costs.m:
        # A column that stays free contributes nothing, so no dual may be positive; and rows of
        # zeros, which stand for free columns, are tight when the largest is zero.
        v = v - v.max()
    bounds = _bounds(costs, v, rounding)
    u, remainder = _row_duals(costs, blocks, v, bounds, rows_per_block)
    pairs = costs.exact(torch.arange(costs.n), assigned)
    primal = math.fsum(pairs.tolist())
    dual = math.fsum([*u.tolist(), *remainder.tolist(), *v.tolist()])
    # What rounding hides in the primal and in its difference from this, taken off the dual.
    dual -= (2 * costs.exact_error + 4 * torch.finfo(torch.float64).eps) * abs(dual)
    u = torch.where(remainder < 0, torch.nextafter(u, u.new_tensor(-torch.inf)), u)
    margins = _margins(costs, blocks, assigned, u, v, bounds, rows_per_block)
    return Proof(primal, dual, u, v, margins)


def _bounds(costs: SquaredDistances, v: Float64[Tensor, " m"], rounding: float) -> _Bounds:
    dtype = costs.rows.dtype
    unit = torch.finfo(dtype).eps / 2
    error = costs.relative_error + 4 * unit
    # Rounding v to the block's dtype and subtracting it adds two roundings to each side's bound.
    row = error * costs.row_norms + rounding + costs.underflow(dtype)
    column = error * costs.column_norms + 4 * unit * (v.abs() + rounding)
    return _Bounds(row, column, (v + column).to(dtype))


def _row_duals(
    costs: SquaredDistances,
    blocks: BlockSource,
    v: Float64[Tensor, " m"],
    bounds: _Bounds,
    rows_per_block: int,
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """min_j (c_ij − v_j) of every row, never above it, as a float64 and what rounding it left."""
    dtype = costs.rows.dtype
    buffer = torch.empty(rows_per_block, costs.m, dtype=dtype)
    near_rows, near_columns, crowded = [], [], []
    for start in range(0, costs.n, rows_per_block):
        stop = min(start + rows_per_block, costs.n)
        block = torch.sub(blocks(start, stop), bounds.lowered, out=buffer[: stop - start])
        least, where = block.min(dim=1)
        ceiling = least.double() + 2 * (bounds.column[where] + bounds.row[start:stop])
        i, j = (block <= _round_up(ceiling, dtype)[:, None]).nonzero(as_tuple=True)
        crowd = torch.bincount(i, minlength=stop - start) > NEAR_PAIRS_A_ROW
        if crowd.any():
            crowded.append(crowd.nonzero()[:, 0] + start)
            few = ~crowd[i]
            i, j = i[few], j[few]
        near_rows.append(i + start)
        near_columns.append(j)
    i, j = torch.cat(near_rows), torch.cat(near_columns)
    exact = costs.exact(i, j)
    exact -= costs.exact_error * exact
    # exact − v = reduced + lost, without error (Knuth's two-sum).
    reduced = exact - v[j]
    back = reduced - exact
    lost = (exact - (reduced - back)) + (-v[j] - back)
    u = torch.full((costs.n,), torch.inf, dtype=torch.float64)
    u.scatter_reduce_(0, i, reduced, "amin")
    remainder = torch.full_like(u, torch.inf)
    remainder.scatter_reduce_(0, i, torch.where(reduced == u[i], lost, torch.inf), "amin")
    if crowded:
        many = torch.cat(crowded)
        u[many], remainder[many] = costs.least(many, v), 0.0
    return u, remainder


def _margins(
    costs: SquaredDistances,
    blocks: BlockSource,
    assigned: Int64[Tensor, " n"],
    u: Float64[Tensor, " n"],
    v: Float64[Tensor, " m"],
    bounds: _Bounds,
    rows_per_block: int,
) -> Float64[Tensor, " n"]:
    dtype = costs.rows.dtype
    shift = _round_up(u + bounds.row, dtype)
    buffer = torch.empty(rows_per_block, costs.m, dtype=dtype)
    in_row = torch.empty(costs.n, dtype=dtype)
    in_column = torch.full((costs.m,), torch.inf, dtype=dtype)
    for start in range(0, costs.n, rows_per_block):
        stop = min(start + rows_per_block, costs.n)
        block = torch.sub(blocks(start, stop), bounds.lowered, out=buffer[: stop - start])
        block.sub_(shift[start:stop, None])
        block[torch.arange(stop - start), assigned[start:stop]] = torch.inf
        torch.amin(block, dim=1, out=in_row[start:stop])
        in_column = torch.minimum(in_column, block.amin(dim=0))
    unit = torch.finfo(dtype).eps / 2
    row_margin = _less(in_row.double(), 2 * unit)
    column_margin = _less(in_column.double(), 2 * unit)
    if costs.n < costs.m:
        column_margin = torch.minimum(column_margin, -v)
    return row_margin.clamp(min=0) + column_margin[assigned].clamp(min=0)


def _less(values: Float64[Tensor, " k"], share: float) -> Float64[Tensor, " k"]:
    """Values less a share of their size; infinity stays."""
    return values * torch.where(values > 0, 1 - share, 1 + share)


def _round_up(values: Float64[Tensor, " k"], dtype: torch.dtype) -> Tensor:
    rounded = values.to(dtype)
    return torch.where(
        rounded.double() < values, torch.nextafter(rounded, rounded.new_tensor(torch.inf)), rounded
    )
