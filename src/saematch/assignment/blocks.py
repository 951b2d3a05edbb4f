"""What is looked for in a block of dot products, on a processor by compiled loops, elsewhere by torch."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saematch.assignment import scanning, scanning_torch
from saematch.assignment.products import Products, slope
from saematch.assignment.threads import in_parallel

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
        found, least = scanning_torch.lowest(_keys(block, offsets), count)
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
        new = scanning_torch.lowest_in_columns(
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
    return scanning_torch.keys(block, torch.from_numpy(offsets).to(block.device), slope(block))


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
