"""Squared distances between the rows of two factor matrices, in blocks, with error bounds.

A block costs one matrix product: c_ij = ‖a_i‖² + ‖b_j‖² − 2 a_i·b_j.  In floating point with unit
roundoff u, a dot product over K terms errs by at most K·u·‖a_i‖‖b_j‖ to first order, in whatever
order it is summed (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).  The
products run over slices of `SLICE` dimensions that are then added, so K is SLICE plus twice the
number of slices (a partial sum can be twice ‖a‖² + ‖b‖²), and since 2‖a‖‖b‖ ≤ ‖a‖² + ‖b‖² the bound
splits into a term a row and a term a column.

Distances do not change when the same vector is taken off all factors, but these bounds do: an offset
that all factors share is taken off in float64 before anything is rounded.  The costs of single pairs
(`exact`) come from the factors as they were given.

Up to sign, c_ij = min(‖a_i − b_j‖², ‖a_i + b_j‖²) = ‖a_i‖² + ‖b_j‖² − 2|a_i·b_j|.  An absolute value
moves no two numbers further apart, so that every bound on a product holds for it as well; but an
offset that is taken off would change these costs, so none is.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

SLICE = 512
EXACT_ENTRIES = 1 << 20
"""Float64 entries worked on at a time where pairs are evaluated exactly: they stay in cache."""
DOUBLE_ENTRIES = 1 << 24
"""Float64 entries of a factor matrix held at a time (128 MiB)."""
SAMPLE = 512
"""Rows of each matrix that the offset is estimated from."""
CENTRE_FROM = 0.25
"""An offset is taken off from this share of a typical squared norm on."""


@dataclass(frozen=True, eq=False)
class SquaredDistances:
    """The cost matrix of two factor matrices, never held as a whole."""

    rows: Float[Tensor, "n d"]
    """As given, in float32 or float64."""
    columns: Float[Tensor, "m d"]
    centre: Float64[Tensor, " d"] | None
    """The offset that rows and columns share; None: none worth taking off."""
    row_norms: Float64[Tensor, " n"]
    """Squared norms, the centre taken off."""
    column_norms: Float64[Tensor, " m"]
    up_to_sign: bool = False
    """Whether a factor and its negative count as one."""

    @classmethod
    def of(
        cls, rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], up_to_sign: bool = False
    ) -> "SquaredDistances":
        centre = None if up_to_sign else _offset(rows, columns)
        row_norms, column_norms = (squared_norms(one, centre) for one in (rows, columns))
        return cls(rows, columns, centre, row_norms, column_norms, up_to_sign)

    @property
    def transposed(self) -> "SquaredDistances":
        """The same costs with rows and columns changing places."""
        return dataclasses.replace(
            self,
            rows=self.columns,
            columns=self.rows,
            row_norms=self.column_norms,
            column_norms=self.row_norms,
        )

    @property
    def n(self) -> int:
        return self.rows.shape[0]

    @property
    def m(self) -> int:
        return self.columns.shape[0]

    @property
    def energy(self) -> float:
        """S = (n + m) × the median squared norm, the centre taken off: no few factors decide it."""
        norms = torch.cat([self.row_norms, self.column_norms])
        return (self.n + self.m) * float(norms.median())

    def centred(
        self, factors: Float[Tensor, "k d"], dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "k d"]:
        """Some rows or columns less the centre, rounded once to `dtype`."""
        if self.centre is None:
            return factors.to(dtype)
        return (factors.double() - self.centre).to(dtype)

    @property
    def relative_error(self) -> float:
        """g such that |block − exact| ≤ g · (row_norms[i] + column_norms[j]) for every pair, of blocks
        in the factors' dtype."""
        d, dtype = self.rows.shape[1], self.rows.dtype
        terms = min(d, SLICE) + 2 * -(-d // SLICE)
        # 10 more roundings: two norms stored in this dtype, their sum, the doubled product's addition,
        # each on values of at most 2(‖a‖² + ‖b‖²), the norms' own in float64, and both factors' where the
        # centre is taken off or they come in a wider dtype.
        return 1.01 * (terms + 10) * torch.finfo(dtype).eps / 2

    def fill(self, start: int, stop: int, out: Float[Tensor, "b m"]) -> None:
        """Write ‖a_i − b_j‖² of rows `start:stop` against all columns into `out`; not up to sign."""
        dtype = out.dtype
        torch.add(
            self.row_norms[start:stop, None].to(dtype), self.column_norms[None].to(dtype), out=out
        )
        rows, columns = (
            self.centred(self.rows[start:stop], dtype),
            self.centred(self.columns, dtype),
        )
        with full_precision():
            for first in range(0, self.rows.shape[1], SLICE):
                last = first + SLICE
                out.addmm_(rows[:, first:last], columns[:, first:last].T, alpha=-2)

    def exact(self, i: Int[Tensor, " k"], j: Int[Tensor, " k"]) -> Float64[Tensor, " k"]:
        """Costs of the pairs (i, j), differences squared and summed in float64.

        The relative error of a sum of squares of d terms is at most `exact_error`.
        """
        device = self.rows.device
        values = torch.empty(len(i), dtype=torch.float64)
        entries = EXACT_ENTRIES if device.type == "cpu" else DOUBLE_ENTRIES
        step = max(1, entries // self.rows.shape[1])
        for out, some_i, some_j in zip(values.split(step), i.split(step), j.split(step)):
            rows = self.rows[some_i.to(device)].double()
            columns = self.columns[some_j.to(device)]
            cost = (rows - columns).square_().sum(dim=1)
            if self.up_to_sign:
                cost = torch.minimum(cost, (rows + columns).square_().sum(dim=1))
            out.copy_(cost)
        return values

    @property
    def exact_error(self) -> float:
        """Relative error of `exact`: d additions, a subtraction and a square."""
        return 1.01 * (self.rows.shape[1] + 3) * torch.finfo(torch.float64).eps / 2


def squared_norms(
    factors: Float[Tensor, "n d"], centre: Float64[Tensor, " d"] | None = None
) -> Float64[Tensor, " n"]:
    """Squared norms of rows in float64, less the centre, without a float64 copy of the whole."""
    step = max(1, EXACT_ENTRIES // max(1, factors.shape[1]))
    parts = []
    for part in factors.split(step):
        part = part.double() if centre is None else part.double() - centre
        parts.append(part.square().sum(dim=1))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _offset(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"]
) -> Float64[Tensor, " d"] | None:
    """The median of a sample of rows and columns, where much of a typical norm lies in it.

    Not the mean: a few factors that are far longer than the others would shift the others by far
    more than their own size, and round them away.
    """
    sample = torch.cat(
        [one[:: -(-len(one) // SAMPLE)].double() for one in (rows, columns) if len(one)]
    )
    median = sample.median(dim=0).values
    typical = float(sample.square().sum(dim=1).median())
    return median if float(median.square().sum()) > CENTRE_FROM * typical else None


def scaled(values: Float[Tensor, "..."], exponent: int) -> Float[Tensor, "..."]:
    """Values times 2^exponent, in two steps where 2^exponent itself is out of the dtype's range."""
    if abs(exponent) < 100:
        return values * 2.0**exponent
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


@contextmanager
def full_precision() -> Iterator[None]:
    """Products in the operands' own precision, whatever the caller allows elsewhere.

    torch.set_float32_matmul_precision("medium") lets float32 products run in bfloat16 on processors
    that have it, and autocast lets every product; no error bound of ours would hold then.
    """
    cpu = getattr(torch.backends.mkldnn, "matmul", None)  # from torch 2.9 on
    flags = [(cpu, "fp32_precision", "ieee")] if cpu is not None else []
    if torch.cuda.is_available():  # no TensorFloat-32, and no sums in bfloat16
        gpu = torch.backends.cuda.matmul
        newer = hasattr(gpu, "fp32_precision")
        flags += [
            (gpu, "fp32_precision", "ieee") if newer else (gpu, "allow_tf32", False),
            (gpu, "allow_bf16_reduced_precision_reduction", False),
        ]
    with ExitStack() as restored:
        for of, name, value in flags:
            restored.callback(setattr, of, name, getattr(of, name))
            setattr(of, name, value)
        if cpu is None:
            before = torch.get_float32_matmul_precision()
            restored.callback(torch.set_float32_matmul_precision, before)
            torch.set_float32_matmul_precision("highest")
        for device in ("cpu", "cuda"):
            restored.enter_context(torch.autocast(device, enabled=False))
        yield
