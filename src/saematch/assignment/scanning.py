"""Compiled loops over blocks of dot products: which entries of a row or of a column are lowest.

The key of an entry is `offset_j − 2·dot − slope·|dot|`.  With the offsets and the slope of products.py
it is, but for a constant of the row, a lower bound on c_ij − v_j.

`two` is 2 in the precision of the block: in numba an integer would widen the sum to float64.
"""

from typing import no_type_check

import numpy as np

from saematch.assignment.compiled import MINIMA, SUMS, compiled

GROUP = 32
"""Entries whose minimum is taken together: the k-th least of those minima bounds the k-th key."""
KEPT_A_COLUMN = 3
"""Rows remembered for each column."""


@compiled(MINIMA)
@no_type_check
def pick(key, group_least, m, count, first_group, columns):
    """Columns of about the `count` least keys into `columns`; how many, and the least of the others.

    Starts at `first_group`, so that rows whose keys are all equal do not pick the same columns.
    """
    groups = (m + GROUP - 1) // GROUP
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
    kept = 0
    rest = key[m]
    for number in range(groups):
        g = first_group + number
        if g >= groups:
            g -= groups
        if group_least[g] > ceiling:
            rest = min(rest, group_least[g])
            continue
        for j in range(g * GROUP, min(m, (g + 1) * GROUP)):
            if key[j] <= ceiling and kept < len(columns):
                columns[kept] = j
                kept += 1
            else:
                rest = min(rest, key[j])
    return kept, rest


@compiled(MINIMA)
@no_type_check
def fill_keys(dots, wide, offsets, slope, two, start, stop, key):
    """Keys of the columns `start:stop` of one row of products.

    `wide` [m]: None, or uint32 to widen bfloat16 products in, which are given as their bits (uint16).
    """
    if wide is None:
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
def lowest(dots, wide, offsets, slope, two, count, salt, columns, kept, rest):
    """For every row of `dots` [b, m] about the `count` lowest keys; all where `count` ≥ m.

    `columns` [b, room]: their columns; `kept` [b]: how many; `rest` [b]: the least key not kept.
    """
    b, m = dots.shape
    groups = (m + GROUP - 1) // GROUP
    key = np.full((groups + 1) * GROUP, np.inf).astype(offsets.dtype)
    group_least = np.empty(groups, dtype=offsets.dtype)
    for r in range(b):
        fill_keys(dots[r], wide, offsets, slope, two, 0, m, key)
        first_group = ((salt + r) * 7919) % groups
        kept[r], rest[r] = pick(key, group_least, m, count, first_group, columns[r])


@compiled(MINIMA)
@no_type_check
def insert_row(key, row, shift, start, stop, values, rows):
    """Remember a row in the columns `start:stop` where its key + shift is among the lowest.

    `values`, `rows` [kept, m], ascending.
    """
    last = len(values) - 1
    for first in range(start, stop, GROUP):
        end = min(stop, first + GROUP)
        if end - first == GROUP:
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
            rows[place, j] = row


@compiled(MINIMA)
@no_type_check
def lowest_in_columns(
    dots, wide, offsets, slope, two, shifts, skip, first_row, start, stop, values, rows
):
    """Fold the rows of a block into the lowest `key + shift_i` of the columns `start:stop`.

    `skip` [b]: a column in which the row does not count, or -1.
    """
    key = np.empty(dots.shape[1], dtype=offsets.dtype)
    for r in range(len(dots)):
        fill_keys(dots[r], wide, offsets, slope, two, start, stop, key)
        if start <= skip[r] < stop:
            key[skip[r]] = np.inf
        insert_row(key, first_row + r, shifts[r], start, stop, values, rows)


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
