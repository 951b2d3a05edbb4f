"""Squared distances between the rows of two factor matrices, in blocks, with error bounds.

A block costs one matrix product: c_ij = ‖a_i‖² + ‖b_j‖² − 2 a_i·b_j.  In floating point with unit
roundoff u, a dot product over K terms errs by at most K·u·‖a_i‖‖b_j‖ to first order, in whatever
order it is summed (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).  The
products run over slices of `SLICE` dimensions that are then added, so K is SLICE plus the number of
slices, and since 2‖a‖‖b‖ ≤ ‖a‖² + ‖b‖² the bound splits into a term a row and a term a column.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

SLICE = 512
EXACT_ENTRIES = 1 << 24
"""Float64 entries gathered at a time when pairs are evaluated exactly (128 MiB)."""


@dataclass(frozen=True, eq=False)
class SquaredDistances:
    """The cost matrix of two factor matrices, never held as a whole."""

    rows: Float[Tensor, "n d"]
    columns: Float[Tensor, "m d"]
    row_norms: Float64[Tensor, " n"]
    """Squared norms."""
    column_norms: Float64[Tensor, " m"]

    @classmethod
    def of(cls, rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"]) -> "SquaredDistances":
        return cls(rows, columns, squared_norms(rows), squared_norms(columns))

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def m(self) -> int:
        return self.columns.shape[0]

    @property
    def relative_error(self) -> float:
        """g such that |block − exact| ≤ g · (row_norms[i] + column_norms[j]) for every pair."""
        unit = torch.finfo(self.rows.dtype).eps / 2
        dimensions = self.rows.shape[1]
        terms = min(dimensions, SLICE) + -(-dimensions // SLICE)
        # 8 more roundings: two norms stored in this dtype, their sum, the doubled product's
        # addition, each on values of at most 2(‖a‖² + ‖b‖²).
        return 1.01 * (terms + 8) * unit

    def fill(self, start: int, stop: int, out: Float[Tensor, "b m"]) -> None:
        """Write the costs of rows `start:stop` against all columns into `out`."""
        dtype = out.dtype
        torch.add(
            self.row_norms[start:stop, None].to(dtype), self.column_norms[None].to(dtype), out=out
        )
        for first in range(0, self.rows.shape[1], SLICE):
            last = first + SLICE
            out.addmm_(self.rows[start:stop, first:last], self.columns[:, first:last].T, alpha=-2)

    def exact(self, i: Int[Tensor, " k"], j: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
        """Costs of the pairs (i, j), differences squared and summed in float64."""
        values = torch.empty(len(i), dtype=torch.float64)
        step = max(1, EXACT_ENTRIES // max(1, self.rows.shape[1]))
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            difference = self.rows[i[part]].double() - self.columns[j[part]].double()
            values[part] = difference.square_().sum(dim=1)
        return values


def squared_norms(factors: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Squared norms of rows in float64, without a float64 copy of the whole."""
    step = max(1, EXACT_ENTRIES // max(1, factors.shape[1]))
    parts = [part.double().square().sum(dim=1) for part in factors.split(step)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)
