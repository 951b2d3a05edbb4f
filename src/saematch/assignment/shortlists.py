"""For every row the columns that may matter, their exact costs, and a bound on all others.

1. A block of rows is multiplied with all columns (products.py), and of every row about as many
   columns are kept as were asked for: those of lowest key under the present column duals.
2. Their costs are evaluated in float64 from the factors.
3. The least key that was not kept bounds all the rest: c_ij − v_j ≥ limit_i, until a v_j rises.

A row whose costs the fast products cannot tell apart (duplicates, dead features) has its keys computed
in float32 the next time, and in float64 once it asks for many columns.  Even there a bound on an equal cost
lies below it by what rounding may have done; a search that stopped for such a difference would ask for all
equal columns one list after the other.  So searches may go beyond the bound by that much (`allowance`), and
their duals are cut back to it afterwards: the proof needs the bound itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from torch import Tensor

from saematch.assignment import scanning
from saematch.assignment.compiled import in_parallel
from saematch.assignment.problem import Forbidden
from saematch.assignment.products import Products

ENTRIES_PER_BLOCK = 1 << 25
"""Products worked on at a time: enough rows for a fast multiplication."""
ENTRIES_ON_GPU = 1 << 30
"""The same where they lie on a GPU."""
COARSE = 0.5
"""A bound that loses more than this share of a list's span to rounding asks for finer products."""
DOUBLE_FROM = 1024
"""Rows that ask for at least so many columns have them found by products in float64."""
TIED = 8.0
"""How many rounding errors of a float64 key an equal cost may lie above it."""


@dataclass(frozen=True, eq=False)
class Lowest:
    """About as many columns as were asked for of some rows, by key."""

    columns: Int32[np.ndarray, "b room"]
    kept: Int64[np.ndarray, " b"]
    """How many of `columns` are filled."""
    rest: Float64[np.ndarray, " b"]
    """A lower bound on c_ij − v_j of all others."""
    allowance: Float64[np.ndarray, " b"]
    """How far the bound may lie below an equal cost because of rounding alone."""

    @property
    def filled(self) -> Bool[np.ndarray, "b room"]:
        return np.arange(self.columns.shape[1]) < self.kept[:, None]


def lowest_of_block(
    products: Products,
    block: Tensor,
    rows: slice | np.ndarray,
    offsets: Float32[np.ndarray, " m"],
    count: int,
) -> Lowest:
    """The `count` lowest keys of rows whose dot products [b, m] are given; `offsets` of the duals."""
    first = rows.start if isinstance(rows, slice) else int(rows[0])
    columns, kept, rest = scanning.lowest(products, block, offsets, count, first)
    bound = rest.astype(np.float64) + products.row_terms(rows)
    return Lowest(columns, kept, bound, np.zeros(len(kept)))


def lowest_in_double(
    products: Products, rows: np.ndarray, column_duals: Float64[np.ndarray, " m"], count: int
) -> Lowest:
    """The `count` lowest keys of rows, computed in float64."""
    block = products.double_block(torch.from_numpy(rows))
    offsets, terms = products.double_bounds(rows, column_duals)
    found = Lowest(*scanning.lowest(products, block, offsets, count, int(rows[0])), terms)
    # Equal costs are those of columns like the ones kept; a few columns far longer are not among them.
    sizes = (products.column_norms + np.abs(column_duals))[np.where(found.filled, found.columns, 0)]
    size = np.nanmedian(np.where(found.filled, sizes, np.nan), axis=1) + products.row_norms[rows]
    allowance = TIED * products.rows.shape[1] * np.finfo(np.float64).eps * size
    return replace(found, rest=found.rest + terms, allowance=allowance)


def block_rows(products: Products, size: int | None = None) -> int:
    """How many rows to multiply at a time; `size`: bytes of a product."""
    entries = ENTRIES_ON_GPU if products.device.type == "cuda" else ENTRIES_PER_BLOCK
    size = size or products.rows.element_size()
    return max(16, min(2048, entries * 4 // size // max(1, products.m)))


class Shortlists:
    """Variable-length lists in one pool, replaced as a whole row at a time."""

    def __init__(
        self, products: Products, forbidden: Forbidden, count: int, held: Tensor | None = None
    ) -> None:
        n = products.n
        self.products = products
        self.forbidden = forbidden
        self.held = held
        """[n, m] dot products kept from the first pass, where memory allows."""
        self.start = np.zeros(n, dtype=np.int64)
        self.length = np.zeros(n, dtype=np.int64)
        self.asked = np.full(n, count, dtype=np.int64)
        """Columns to ask for when a row's list is next made."""
        self.limit = np.full(n, -np.inf)
        self.allowance = np.zeros(n)
        self.coarse = np.zeros(n, dtype=bool)
        """Rows whose bound lost much to rounding."""
        self.columns = np.empty(0, dtype=np.int32)
        self.costs = np.empty(0)
        self._used = 0
        self.evaluated = 0
        """Pairs whose cost was evaluated in float64."""
        self.multiplied = 0
        """Rows multiplied with all columns."""

    @property
    def size(self) -> int:
        """Pairs in the lists."""
        return int(self.length.sum())

    def make_all(self, column_duals: Float64[np.ndarray, " m"], go_on: Callable[[], bool]) -> int:
        """Lists of all rows, block by block; stops where `go_on` says so.  Rows done."""
        n = self.products.n
        rows_per_block = block_rows(self.products)
        offsets = self.products.offsets(column_duals)
        for first in range(0, n, rows_per_block):
            if not go_on():
                return first
            rows = slice(first, min(n, first + rows_per_block))
            out = None if self.held is None else self.held[rows]
            block = self.products.block(rows, out)
            self.multiplied += len(block)
            count = int(self.asked[first])
            found = lowest_of_block(self.products, block, rows, offsets, count)
            self._keep(np.arange(rows.start, rows.stop), found, column_duals, None)
        return n

    def make(
        self,
        rows: Int64[np.ndarray, " k"],
        column_duals: Float64[np.ndarray, " m"],
        column_of: Int64[np.ndarray, " n"],
    ) -> None:
        """New lists of some rows under the present duals; each keeps its matched column."""
        m = self.products.m
        rows_per_block = block_rows(self.products, 8)
        kinds = np.minimum(self.asked[rows], m) * 2 + self.coarse[rows]
        for kind in np.unique(kinds):
            chosen, count, coarse = rows[kinds == kind], int(kind) // 2, bool(kind % 2)
            for first in range(0, len(chosen), rows_per_block):
                some = chosen[first : first + rows_per_block]
                if count >= min(DOUBLE_FROM, m):
                    found = lowest_in_double(self.products, some, column_duals, count)
                    self.multiplied += len(some)
                else:
                    products = self.products.full if coarse else self.products
                    indices = torch.from_numpy(some)
                    if self.held is not None and self.held.dtype == products.dtype:
                        block = self.held[indices]
                    else:
                        block = products.block(indices)
                        self.multiplied += len(some)
                    offsets = products.offsets(column_duals)
                    found = lowest_of_block(products, block, some, offsets, count)
                self._keep(some, found, column_duals, column_of)

    def _keep(
        self,
        rows: np.ndarray,
        found: Lowest,
        column_duals: Float64[np.ndarray, " m"],
        column_of: Int64[np.ndarray, " n"] | None,
    ) -> None:
        lists, lengths = found.columns[found.filled], found.kept.copy()
        if column_of is not None:
            matched = column_of[rows]
            missing = (matched >= 0) & ~((found.columns == matched[:, None]) & found.filled).any(
                axis=1
            )
            ends = np.cumsum(lengths)
            lists = np.insert(lists, ends[missing], matched[missing].astype(np.int32))
            lengths += missing
        self.length[rows] = 0
        self._make_room(len(lists))
        self.start[rows] = self._used + np.cumsum(lengths) - lengths
        self.length[rows] = lengths
        self.limit[rows] = found.rest
        self.allowance[rows] = found.allowance
        part = slice(self._used, self._used + len(lists))
        self.columns[part] = lists
        self._used += len(lists)
        row_of_pair = np.repeat(rows, lengths)
        self.costs[part] = exact_costs(self.products, row_of_pair, lists)
        self.evaluated += len(lists)
        reduced = self.costs[part] - column_duals[lists]
        first = np.cumsum(lengths) - lengths
        greatest = np.maximum.reduceat(reduced, first)
        span = greatest - np.minimum.reduceat(reduced, first)
        self.coarse[rows] |= greatest - found.rest > COARSE * span
        self.costs[part][self.forbidden.contains(row_of_pair, lists)] = np.inf

    def _make_room(self, count: int) -> None:
        """Room for `count` more pairs: drop replaced lists, and grow where that is not enough."""
        if self._used + count <= len(self.columns):
            return
        kept = self.size
        capacity = max(len(self.columns), kept + count + (kept + count) // 4)
        columns, costs = np.empty(capacity, dtype=np.int32), np.empty(capacity)
        filled = np.flatnonzero(self.length)
        lengths = self.length[filled]
        starts = np.cumsum(lengths) - lengths
        old = np.arange(kept) + np.repeat(self.start[filled] - starts, lengths)
        columns[:kept], costs[:kept] = self.columns[old], self.costs[old]
        self.start[filled] = starts
        self.columns, self.costs, self._used = columns, costs, kept


def exact_costs(
    products: Products, i: Int64[np.ndarray, " k"], j: np.ndarray
) -> Float64[np.ndarray, " k"]:
    """Costs of pairs in float64, by differences of the factors as given."""
    if not products.compiled:
        some = torch.from_numpy(i), torch.from_numpy(j.astype(np.int64))
        return products.costs.exact(*some).numpy()
    rows, columns = products.costs.rows.numpy(), products.costs.columns.numpy()

    def costs(sign: float) -> Float64[np.ndarray, " k"]:
        out = np.empty(len(i))
        in_parallel(
            lambda *part: scanning.pair_costs(rows, columns, sign, i, j, *part, out), len(i), 256
        )
        return out

    return np.minimum(costs(1.0), costs(-1.0)) if products.costs.up_to_sign else costs(1.0)
