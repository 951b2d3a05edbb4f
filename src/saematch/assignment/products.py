"""Dot products of two factor matrices by blocks, in a fast precision, with a bound on their error.

With ã, b̃ the factors rounded to that precision, δ what rounding took off them, and γ the error of
summing d products,

    |computed − a·b| ≤ slope·|computed| + E·‖a‖‖b‖,      E = γ(1 + ρ)² + 2ρ + ρ²,

where ρ is the greatest ‖δ‖ / ‖a‖ of any row or column, measured and not estimated, and slope is the
rounding of the result (bfloat16 alone rounds it).  Since 2‖a‖‖b‖ ≤ ‖a‖² + ‖b‖² the bound on a cost
splits into a part of the row and a part of the column, and

    c_ij − v_j ≥ key_ij + row_terms[i],   key_ij = offset_j − 2·computed − 2·slope·|computed|

with offset_j = (1 − E)‖b_j‖² − v_j and row_terms[i] = (1 − E)‖a_i‖² (Higham, Accuracy and Stability of
Numerical Algorithms, sections 2.2 and 3.1).

Where E comes from: ‖ã‖ ≤ (1 + ρ)‖a‖, so that summing ã·b̃ errs by γ(1 + ρ)²‖a‖‖b‖ at most; and with
ã = a − δ_a, b̃ = b − δ_b, the exact ã·b̃ is a·b less δ_a·b + a·δ_b − δ_a·δ_b, which is at most
(2ρ + ρ²)‖a‖‖b‖ by Cauchy and Schwarz.  Every pair that such a bound cannot decide is evaluated
in float64; so a coarse precision costs a few more evaluations, and never the proof.

Factors less than 2^-40 of the longest are rounded to zero, where their own relative error could be
anything; that adds 2^-39 of the longest times ‖b_j‖ to the bound of the others.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from saematch.assignment.costs import (
    DOUBLE_ENTRIES,
    EXACT_ENTRIES,
    SquaredDistances,
    full_precision,
)

NEGLECTED = 2.0**-40
"""Factors shorter than this share of the longest count as zero in the fast products."""
GPU_SUMS = 8
"""Tensor cores may truncate where they sum: so many times the rounding of a float32 addition."""
ROUNDED_SUM = 1e-3
"""What summing squares in float32 can take off a loss."""


@dataclass(frozen=True, eq=False)
class Products:
    """Rounded factors and what is known of the error of their products."""

    costs: SquaredDistances
    """What the keys bound."""
    rows: Float[Tensor, "n d"]
    """In the precision of the products."""
    columns: Float[Tensor, "m d"]
    row_norms: Float64[np.ndarray, " n"]
    """Squared, of the factors before rounding, the costs' centre taken off."""
    column_norms: Float64[np.ndarray, " m"]
    error: float
    """E of the module's docstring."""
    neglected: float
    """‖·‖ up to which factors were rounded to zero."""
    compiled: bool = True
    """Whether compiled loops find the lowest entries, or torch operations, as on a GPU."""

    @classmethod
    def of(cls, costs: SquaredDistances, dtype: torch.dtype, compiled: bool = True) -> "Products":
        """Round the factors to `dtype` and measure what that takes off them."""
        norms = [costs.row_norms, costs.column_norms]
        neglected = NEGLECTED * math.sqrt(max(float(one.max()) for one in norms))
        if costs.centre is None and dtype == costs.rows.dtype == torch.float32:
            rows, columns, loss, neglected = costs.rows, costs.columns, 0.0, 0.0
        else:
            rows, row_loss = _rounded(costs, costs.rows, norms[0], neglected, dtype)
            columns, column_loss = _rounded(costs, costs.columns, norms[1], neglected, dtype)
            loss = max(row_loss, column_loss)
        unit = torch.finfo(torch.float32).eps / 2 * (GPU_SUMS if rows.is_cuda else 1)
        error = _error(costs.rows.shape[1], loss, unit)
        row_norms, column_norms = (one.cpu().numpy() for one in norms)
        return cls(costs, rows, columns, row_norms, column_norms, error, neglected, compiled)

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def m(self) -> int:
        return self.columns.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.dtype

    @property
    def transposed(self) -> "Products":
        """The same products with rows and columns changing places."""
        return dataclasses.replace(
            self,
            costs=self.costs.transposed,
            rows=self.columns,
            columns=self.rows,
            row_norms=self.column_norms,
            column_norms=self.row_norms,
        )

    @cached_property
    def full(self) -> "Products":
        """The same in float32; no copy of the factors unless they are centred."""
        if self.dtype == torch.float32:
            return self
        return Products.of(self.costs, torch.float32, self.compiled)

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def block(self, rows: slice | Int64[Tensor, " b"], out: Tensor | None = None) -> Tensor:
        """Dot products [b, m] of some rows with all columns, up to sign where the costs are; float32
        from bfloat16 on a GPU."""
        some = self.rows[rows if isinstance(rows, slice) else rows.to(self.device)]
        with full_precision():
            if some.is_cuda and self.dtype == torch.bfloat16:
                block = torch.mm(some, self.columns.T, out_dtype=torch.float32)
            else:
                block = torch.mm(some, self.columns.T, out=out)
        return block.abs_() if self.costs.up_to_sign else block

    def row_terms(self, rows: slice | np.ndarray) -> Float64[np.ndarray, " b"]:
        norms = self.row_norms[rows]
        return (1 - self.error) * norms - self._lost(norms)

    def offsets(self, column_duals: Float64[np.ndarray, " m"]) -> Float32[np.ndarray, " m"]:
        """offset_j, rounded down by more than its cast to float32 errs by and, as far as v_j makes it large,
        the additions of a key; what these err by of the norms is in E."""
        wide = (1 - self.error) * self.column_norms - self._lost(self.column_norms)
        wide -= column_duals
        wide -= 4 * np.finfo(np.float32).eps * (np.abs(wide) + np.abs(column_duals))
        return wide.astype(np.float32)

    def double_block(self, rows: Int64[Tensor, " b"]) -> Float64[Tensor, "b m"]:
        """Dot products in float64 of the factors as given, the centre taken off."""
        some = self.costs.centred(self.costs.rows[rows.to(self.device)])
        out = torch.empty(len(some), self.m, dtype=torch.float64, device=self.device)
        step = max(1, DOUBLE_ENTRIES // max(1, some.shape[1]))
        for first in range(0, self.m, step):
            columns = self.costs.centred(self.costs.columns[first : first + step])
            torch.mm(some, columns.T, out=out[:, first : first + step])
        return out.abs_() if self.costs.up_to_sign else out

    def double_bounds(
        self, rows: np.ndarray, column_duals: Float64[np.ndarray, " m"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and row terms of the keys of `double_block`, whose factors are not rounded: ρ is 0."""
        error = _error(self.rows.shape[1], 0.0, torch.finfo(torch.float64).eps / 2)
        offsets = (1 - error) * self.column_norms - column_duals
        offsets -= 4 * np.finfo(np.float64).eps * (np.abs(offsets) + np.abs(column_duals))
        return offsets, (1 - error) * self.row_norms[rows]

    def _lost(self, norms: np.ndarray) -> np.ndarray:
        """What rounding to zero and underflow can take off a key."""
        underflow = 2.0 * (self.rows.shape[1] + 8) * torch.finfo(torch.float32).tiny
        return 2 * self.neglected * np.sqrt(norms) + underflow


def slope(block: Tensor) -> float:
    """Rounding of the results in a block, relative to each."""
    return 1.01 * torch.finfo(torch.bfloat16).eps / 2 if block.dtype == torch.bfloat16 else 0.0


def _error(d: int, loss: float, unit: float) -> float:
    """E: two roundings for every term, a few for norms, offsets and the key, and what was rounded off."""
    summing = 1.01 * (2 * d + 16) * unit
    return summing * (1 + loss) ** 2 + 2 * loss + loss**2


def _rounded(
    costs: SquaredDistances,
    factors: Float[Tensor, "n d"],
    norms: Float64[Tensor, " n"],
    neglected: float,
    dtype: torch.dtype,
) -> tuple[Tensor, float]:
    """Factors in `dtype`, and the greatest ‖loss‖ / ‖factor‖."""
    out = torch.empty_like(factors, dtype=dtype)
    loss = 0.0
    step = max(1, EXACT_ENTRIES // factors.shape[1])
    for given, norm, rounded in zip(factors.split(step), norms.split(step), out.split(step)):
        exact = given if costs.centre is None else costs.centred(given)
        rounded.copy_(exact)
        tiny = norm <= neglected**2
        if tiny.any():
            rounded[tiny] = 0
        # Nothing is lost in this difference: a number and its rounded form are so close (Sterbenz).
        lost = (exact - rounded).square_().sum(dim=1).double()
        share = torch.where(tiny, 0.0, lost / norm)
        loss = max(loss, float(share.max().sqrt()))
    return out, loss * (1 + ROUNDED_SUM)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where a device has instructions for its products, several times as fast as float32.

    Processors: those that oneDNN uses, which sums in float32.  Asked of the processor and not of a
    clock, so that equal runs give equal bits.
    """
    if device.type == "cuda":
        return torch.bfloat16
    known = getattr(torch.cpu, "get_capabilities", dict)()
    native = known.get("avx512_bf16", False) or known.get("amx_bf16", False)
    usable = native and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return torch.bfloat16 if usable else torch.float32
