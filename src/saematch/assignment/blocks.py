"""What is looked for in a block of dot products: on a processor by the compiled loops of scanning.py,
elsewhere by the same loops as torch operations.

In torch the lowest entries of a row of many thousands are found in two steps: the minimum of every group of
entries first, then the entries of the groups whose minima are lowest, among which all the lowest are.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.assignment import scanning
from saematch.assignment.compiled import in_parallel
from saematch.assignment.products import Products, slope

ROOM = 32
"""Columns kept beyond twice those asked for, where keys are equal."""


def lowest(
    products: Products, block: Tensor, offsets: np.ndarray, count: int, salt: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About `count` columns of lowest key of every row, how many, and the least key of the others.

    `offsets`: of the keys (products.py).  `salt`: where to begin among equal keys.
    """
    b, m = block.shape
    count = min(count, m)
    if not products.compiled:
        found, least = torch_lowest(_keys(block, offsets), count)
        columns = found.to(torch.int32).cpu().numpy()
        return columns, np.full(b, columns.shape[1]), least.cpu().numpy()
    columns = np.empty((b, min(m, 2 * count + ROOM)), dtype=np.int32)
    kept, rest = np.empty(b, dtype=np.int64), np.empty(b, dtype=offsets.dtype)
    values, scratch = _as_array(block)
    numbers = _numbers(block, offsets)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        scanning.lowest(
            values[part], scratch(), *numbers, count, salt + start,
            columns[part], kept[part], rest[part],
        )  # fmt: skip

    in_parallel(work, b)
    return columns, kept, rest


def fold_lowest_in_columns(
    products: Products,
    block: Tensor,
    offsets: np.ndarray,
    shifts: np.ndarray,
    skip: np.ndarray,
    first_row: int,
    values: np.ndarray,
    rows: np.ndarray,
) -> None:
    """Fold a block's rows into the lowest `key + shift_i` of every column, `values` and `rows` [kept, m].

    `skip` [b]: a column in which the row does not count, or -1.
    """
    if not products.compiled:
        device = block.device
        new = torch_lowest_in_columns(
            _keys(block, offsets),
            torch.from_numpy(shifts).to(device),
            torch.from_numpy(skip).to(device),
            first_row,
            torch.from_numpy(values).to(device),
            torch.from_numpy(rows).to(device),
        )
        values[:], rows[:] = (each.cpu().numpy() for each in new)
        return
    array, scratch = _as_array(block)
    numbers = _numbers(block, offsets)

    def work(start: int, stop: int) -> None:
        scanning.lowest_in_columns(
            array, scratch(), *numbers, shifts, skip, first_row, start, stop, values, rows
        )

    in_parallel(work, products.m, scanning.GROUP)


def _keys(block: Tensor, offsets: np.ndarray) -> Tensor:
    return torch_keys(block, torch.from_numpy(offsets).to(block.device), slope(block))


def _numbers(block: Tensor, offsets: np.ndarray) -> tuple:
    """Offsets, slope and 2 in their precision; |dot| is taken twice, as the dot itself is."""
    kind = offsets.dtype.type
    return offsets, kind(2 * slope(block)), kind(2)


def _as_array(block: Tensor) -> tuple[np.ndarray, Callable[[], np.ndarray | None]]:
    """A block as the compiled loops take it, and what makes the scratch that each thread needs."""
    if block.dtype != torch.bfloat16:
        return block.numpy(), lambda: None
    bits = block.view(torch.int16).numpy().view(np.uint16)
    return bits, lambda: np.empty(bits.shape[1], dtype=np.uint32)


GROUP = 64


def torch_keys(
    block: Float[Tensor, "b m"], offsets: Float[Tensor, " m"], slope: float
) -> Float[Tensor, "b m"]:
    """`offset_j − 2·dot − 2·slope·|dot|` in the precision of the offsets."""
    key = block.to(offsets.dtype, copy=True)
    if slope:
        key += slope * key.abs()
    return key.mul_(-2).add_(offsets)


def torch_lowest(
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


def torch_lowest_in_columns(
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
