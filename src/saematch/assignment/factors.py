"""Factor matrices and numbers as users have them: made plain, or refused."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.errors import UsageError


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


def as_numbers(values: object) -> np.ndarray:
    """Prices or duals as an array of float64; raises UsageError for what are no real numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biuf" or isinstance(values, np.ma.MaskedArray):
            raise TypeError
        return given.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"expected numbers as prices and duals, got {values!r}") from None


def _as_tensor(values: object) -> Tensor:
    if isinstance(values, np.ndarray):
        if isinstance(values, np.ma.MaskedArray):
            raise _unusable("a masked array", "fill or drop the masked entries")
        if values.dtype.kind != "f":
            raise _unusable(str(values.dtype))
        if values.dtype.itemsize > 8:
            raise _unusable(f"{values.dtype}, which is wider than float64", ".astype(np.float64)")
        # torch takes neither another byte order nor negative strides.
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))
    if not isinstance(values, Tensor):
        raise _unusable(str(getattr(values, "dtype", type(values).__name__)))
    if values.layout != torch.strided or values.is_nested:
        kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
        raise _unusable(f"a {kind} tensor", "a dense one, such as .to_dense() gives")
    if values.is_meta:
        raise _unusable("a tensor on the meta device, which holds no numbers")
    if not values.is_floating_point():
        raise _unusable(str(values.dtype))
    values = values.detach().resolve_neg()
    # Half precisions and float8 fit into float32 as they are.
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def _unusable(found: str, remedy: str = "") -> UsageError:
    remedy = f"; try {remedy}" if remedy else ""
    return UsageError(f"expected a dense tensor or array of floats as factors, got {found}{remedy}")
