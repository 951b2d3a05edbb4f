"""The loops of scanning.py as torch operations, for blocks that lie on a GPU.

The lowest entries of a row of many thousands: the minimum of every group of entries first, then the
entries of the groups whose minima are lowest, among which all the lowest are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

GROUP = 64


def keys(
    block: Float[Tensor, "b m"], offsets: Float[Tensor, " m"], slope: float
) -> Float[Tensor, "b m"]:
    """`offset_j − 2·dot − 2·slope·|dot|` in the precision of the offsets."""
    key = block.to(offsets.dtype, copy=True)
    if slope:
        key += slope * key.abs()
    return key.mul_(-2).add_(offsets)


def lowest(
    key: Float[Tensor, "b m"], count: int
) -> tuple[Int[Tensor, "b count"], Float[Tensor, " b"]]:
    """Columns of the `count` lowest keys of every row, and the least of the others (inf: none)."""
    b, m = key.shape
    ask = min(count + 1, m)
    if m >= 4 * GROUP * ask:
        whole = m // GROUP * GROUP
        least = key[:, :whole].view(b, -1, GROUP).amin(dim=2)
        groups = least.topk(ask, dim=1, largest=False, sorted=False).indices
        columns = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=key.device)).flatten(1)
        beyond = torch.arange(whole, m, device=key.device).expand(b, -1)
        columns = torch.cat([columns, beyond], dim=1)
        values, place = key.gather(1, columns).topk(ask, dim=1, largest=False)
        columns = columns.gather(1, place)
    else:
        values, columns = key.topk(ask, dim=1, largest=False)
    if count < m:
        return columns[:, :count], values[:, count]
    return columns, torch.full((b,), torch.inf, dtype=key.dtype, device=key.device)


def lowest_in_columns(
    key: Float[Tensor, "b m"],
    shifts: Float[Tensor, " b"],
    skip: Int[Tensor, " b"],
    first_row: int,
    values: Float[Tensor, "kept m"],
    rows: Int[Tensor, "kept m"],
) -> tuple[Float[Tensor, "kept m"], Int[Tensor, "kept m"]]:
    """Fold the rows of a block into the lowest `key + shift_i` of every column.

    `skip`: a column in which the row does not count, or -1.  Changes `key`.
    """
    key += shifts[:, None]
    counted = (skip >= 0).nonzero()[:, 0]
    key[counted, skip[counted]] = torch.inf
    kept = len(values)
    new, place = key.topk(min(kept, len(key)), dim=0, largest=False)
    both = torch.cat([values, new])
    of = torch.cat([rows, (place + first_row).to(rows.dtype)])
    values, order = both.topk(kept, dim=0, largest=False)
    return values, of.gather(0, order)
