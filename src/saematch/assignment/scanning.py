"""Which entries of a row or of a column are lowest in a block of dot products: on a processor by compiled
loops, elsewhere by the same search as torch operations.

The key of an entry is `offset_j − 2·dot − slope·|dot|`.  With the offsets and the slope of products.py
it is, but for a constant of the row, a lower bound on c_ij − v_j.

Both ways take the minimum of every group of a row's entries first.  The groups are disjoint, so the k-th
least of their minima is the key of at least k entries: no key above it is among the k lowest, and most
groups need no second look.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.assignment.compiled import MINIMA, SUMS, compiled, in_parallel
from saematch.assignment.products import Products, slope

GROUP = 32
"""Entries whose minimum is taken together in the compiled loops."""
TORCH_GROUP = 64
"""The same in torch."""
KEPT_A_COLUMN = 3
"""Rows remembered for each column."""
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
        found, least = _torch_lowest(_torch_keys(block, offsets), count)
        columns = found.to(torch.int32).cpu().numpy()
        return columns, np.full(b, columns.shape[1]), least.cpu().numpy()
    columns = np.empty((b, min(m, 2 * count + ROOM)), dtype=np.int32)
    kept, rest = np.empty(b, dtype=np.int64), np.empty(b, dtype=offsets.dtype)
    keys = _keys(block, offsets)
    in_parallel(lambda *part: _lowest(*keys, count, salt, *part, columns, kept, rest), b)
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
    if products.compiled:
        keys = _keys(block, offsets)
        in_parallel(
            lambda *part: _lowest_in_columns(*keys, shifts, skip, first_row, *part, values, rows),
            products.m,
            GROUP,
        )
        return
    key = _torch_keys(block, offsets)
    on = (torch.from_numpy(each).to(key.device) for each in (shifts, skip, values, rows))
    shift, skipped, old_values, old_rows = on
    key += shift[:, None]
    counted = (skipped >= 0).nonzero()[:, 0]
    key[counted, skipped[counted]] = torch.inf
    new, place = key.topk(min(len(values), len(key)), dim=0, largest=False)
    both = torch.cat([old_values, new])
    of = torch.cat([old_rows, (place + first_row).to(old_rows.dtype)])
    least, order = both.topk(len(values), dim=0, largest=False)
    values[:], rows[:] = least.cpu().numpy(), of.gather(0, order).cpu().numpy()


def _keys(block: Tensor, offsets: np.ndarray) -> tuple[np.ndarray | np.floating, ...]:
    """What the compiled loops make keys of: dots, offsets, 2·slope and 2.

    NumPy has no bfloat16: its bits are given as uint16.  The numbers are in the precision of the offsets,
    since an integer 2 would widen the sum to float64 in numba.  The slope is taken twice, as the dot is.
    """
    half = block.dtype == torch.bfloat16
    dots = block.view(torch.int16).numpy().view(np.uint16) if half else block.numpy()
    kind = offsets.dtype.type
    return dots, offsets, kind(2 * slope(block)), kind(2)


@compiled(MINIMA)
@no_type_check
def _fill_keys(dots, wide, offsets, slope, two, start, stop, key):
    """Keys of the columns `start:stop` of one row; `wide`: room for bfloat16's bits as float32's, else empty.

    A bfloat16 is the upper half of a float32.
    """
    if len(wide) == 0:
        for j in range(start, stop):
            key[j] = offsets[j] - two * dots[j] - slope * abs(dots[j])
    else:
        for j in range(start, stop):
            wide[j] = np.uint32(dots[j]) << np.uint32(16)
        values = wide.view(np.float32)
        for j in range(start, stop):
            key[j] = offsets[j] - two * values[j] - slope * abs(values[j])


@compiled(MINIMA)
@no_type_check
def _lowest(dots, offsets, slope, two, count, salt, start, stop, columns, kept, rest):
    """For the rows `start:stop` of `dots` about the `count` lowest keys; all where `count` ≥ m.

    `columns` [b, room]: their columns; `kept` [b]: how many; `rest` [b]: the least key not kept.
    """
    m = dots.shape[1]
    wide = np.empty(m if dots.itemsize == 2 else 0, dtype=np.uint32)
    groups = (m + GROUP - 1) // GROUP
    key = np.full((groups + 1) * GROUP, np.inf).astype(offsets.dtype)
    group_least = np.empty(groups, dtype=offsets.dtype)
    for r in range(start, stop):
        _fill_keys(dots[r], wide, offsets, slope, two, 0, m, key)
        for g in range(groups):
            least = key[g * GROUP]
            for t in range(1, GROUP):
                least = min(least, key[g * GROUP + t])
            group_least[g] = least
        if count >= m:
            ceiling = np.max(key[:m])
        elif count >= groups:
            ceiling = np.partition(key[:m], count - 1)[count - 1]
        else:
            ceiling = np.partition(group_least, count - 1)[count - 1]
        number, left = 0, key[m]
        # Rows begin at different groups: where all keys are equal, they must not all keep the same columns.
        first_group = ((salt + r) * 7919) % groups
        for step in range(groups):
            g = first_group + step
            if g >= groups:
                g -= groups
            if group_least[g] > ceiling:
                left = min(left, group_least[g])
                continue
            for j in range(g * GROUP, min(m, (g + 1) * GROUP)):
                if key[j] <= ceiling and number < columns.shape[1]:
                    columns[r, number] = j
                    number += 1
                else:
                    left = min(left, key[j])
        kept[r], rest[r] = number, left


@compiled(MINIMA)
@no_type_check
def _lowest_in_columns(
    dots, offsets, slope, two, shifts, skip, first_row, start, stop, values, rows
):
    """Fold the rows of a block into the lowest `key + shift_i` of the columns `start:stop`.

    `values`, `rows` [kept, m], ascending.
    """
    m, last = dots.shape[1], len(values) - 1
    wide = np.empty(m if dots.itemsize == 2 else 0, dtype=np.uint32)
    key = np.empty(m, dtype=offsets.dtype)
    for r in range(len(dots)):
        shift = shifts[r]
        _fill_keys(dots[r], wide, offsets, slope, two, start, stop, key)
        if start <= skip[r] < stop:
            key[skip[r]] = np.inf
        for first in range(start, stop, GROUP):
            end = min(stop, first + GROUP)
            if (
                end - first == GROUP
            ):  # one loop without branches tells whether any column is to change
                below = key[first] + shift - values[last, first]
                for t in range(1, GROUP):
                    below = min(below, key[first + t] + shift - values[last, first + t])
                if below >= 0:
                    continue
            for j in range(first, end):
                value = key[j] + shift
                if value >= values[last, j]:
                    continue
                place = last
                while place > 0 and values[place - 1, j] > value:
                    values[place, j] = values[place - 1, j]
                    rows[place, j] = rows[place - 1, j]
                    place -= 1
                values[place, j] = value
                rows[place, j] = first_row + r


@compiled(SUMS)
@no_type_check
def pair_costs(rows, columns, sign, i, j, start, stop, out):
    """‖rows[i] − sign · columns[j]‖² in float64 of the pairs `start:stop`, by differences."""
    d = rows.shape[1]
    for p in range(start, stop):
        a, b = rows[i[p]], columns[j[p]]
        total = 0.0
        for t in range(d):
            difference = np.float64(a[t]) - sign * np.float64(b[t])
            total += difference * difference
        out[p] = total


def _torch_keys(block: Tensor, offsets: np.ndarray) -> Float[Tensor, "b m"]:
    """`offset_j − 2·dot − 2·slope·|dot|` in the precision of the offsets."""
    on_device = torch.from_numpy(offsets).to(block.device)
    key = block.to(on_device.dtype, copy=True)
    if slope(block):
        key += slope(block) * key.abs()
    return key.mul_(-2).add_(on_device)


def _torch_lowest(
    key: Float[Tensor, "b m"], count: int
) -> tuple[Int[Tensor, "b count"], Float[Tensor, " b"]]:
    """Columns of the `count` lowest keys of every row, and the least of the others (inf: none)."""
    b, m = key.shape
    ask = min(count + 1, m)
    if m >= 4 * TORCH_GROUP * ask:
        whole = m // TORCH_GROUP * TORCH_GROUP
        least = key[:, :whole].view(b, -1, TORCH_GROUP).amin(dim=2)
        groups = least.topk(ask, dim=1, largest=False, sorted=False).indices
        within = torch.arange(TORCH_GROUP, device=key.device)
        beyond = torch.arange(whole, m, device=key.device).expand(b, -1)
        columns = (groups[:, :, None] * TORCH_GROUP + within).flatten(1)
        columns = torch.cat([columns, beyond], dim=1)
        values, place = key.gather(1, columns).topk(ask, dim=1, largest=False)
        columns = columns.gather(1, place)
    else:
        values, columns = key.topk(ask, dim=1, largest=False)
    if count < m:
        return columns[:, :count], values[:, count]
    return columns, torch.full((b,), torch.inf, dtype=key.dtype, device=key.device)
