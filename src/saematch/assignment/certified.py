"""Assignment at any size: shortlists, shortest augmenting paths, and a proof over all pairs.

1. Column duals to begin with: of a sample of rows, a low quantile of each column's costs.  A column
   that many rows want starts costly.  Or those of an earlier answer to the same problem.
2. One pass of products (products.py) gives every row a shortlist and a bound on all other columns
   (shortlists.py).
3. Rows bid, then search for shortest augmenting paths, on the shortlists alone (augmenting.py).  Column
   duals only fall, so the bounds hold, and the duals are feasible for all pairs at all times.
4. A search that reaches a row's bound stops there.  Such rows, and those it would have reached next,
   get new shortlists under the present duals; go to 3, until every row has a column or its price.
5. Where every row needs a column and a few columns are left over, a stand-in row that costs nothing takes
   each of these, so that the search is that of a square problem.  Elsewhere columns left free below their
   price are searched from, with rows and columns changing places.
6. A second pass over all pairs proves the result and finds every pair's margin (certificate.py), from
   the products of the first where memory holds them.

The graph part works on about thirty pairs a row, so nearly all time goes into the products.
"""

import io
import time
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from jaxtyping import Bool, Float64, Int64

from saematch._io import files
from saematch.assignment import augmenting
from saematch.assignment.certificate import Certificate, certify
from saematch.assignment.problem import Problem
from saematch.assignment.products import Products, fastest_dtype
from saematch.assignment.result import Assignment
from saematch.assignment.shortlists import Shortlists
from saematch.errors import InputError, UsageError

PRECISIONS = ("auto", "float32", "bfloat16")
SCANS = ("auto", "compiled", "torch")
SAMPLE = 512
"""Rows that the first column duals come from."""
SAMPLE_RANK = 16
"""Their costs' order statistic that is taken."""
BIDS_A_ROW = 20
STEPS = 1 << 26
"""Pairs looked at between two looks at the clock: well under a second."""
ROUND_SHARE = 64
"""A round gives new shortlists to at least one row in so many."""
MANY = 64
"""Rows that ask for so many columns ask for four times as many next, others for twice."""
WANTED = 0.1
"""Share of columns that start below their price, where they have one."""
STAND_INS = 0.125
"""Share of the columns that may get stand-ins.  SAEs that differ by some degenerate features are solved
up to eight times faster with them; where half of the columns are left over, slower."""
HELD_BYTES = 3 << 30
"""Products that take no more than this are held for the second pass."""
HELD_SHARE = 0.6
"""And no more than this share of the memory budget."""
BYTES_A_PAIR = 40
"""What a pair of a shortlist can take, copies while lists are remade included."""
UNPROVEN = 1e-12
"""What sums of float64 over a search can have taken off its duals, of the greatest of them."""


@dataclass(frozen=True)
class Certified:
    """The solver for any size, and how it may use the machine."""

    shortlist: int = 16
    """Columns first kept for each row."""
    seconds: float | None = None
    """Time budget: at its end the best pairs so far, with a true gap."""
    memory: int | None = None
    """Bytes for products that are held and for shortlists, besides the factors, their rounded copies and
    a block of products (128 MiB); None: `memory_share` of what is available."""
    memory_share: float = 0.8
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the products; auto: bfloat16 where the processor multiplies it faster.  The proof does not
    depend on it."""
    device: str | None = None
    """Where products are made and scanned, e.g. `cuda`; None: where the factors lie."""
    scan: Literal["auto", "compiled", "torch"] = "auto"
    """What finds the lowest entries of a block: compiled loops, or torch operations as on a GPU."""
    checkpoint: str | PathLike[str] | None = None
    """A .npz file that is given the column duals after every round; one that is there is begun from."""

    def __post_init__(self) -> None:
        for right, expected in (
            (self.precision in PRECISIONS, f"precision of {', '.join(PRECISIONS)}"),
            (self.scan in SCANS, f"scan of {', '.join(SCANS)}"),
            (self.shortlist >= 1, "shortlist from 1"),
            (0 < self.memory_share <= 1, "memory_share above 0 and up to 1"),
            (self.seconds is None or self.seconds >= 0, "time budget from 0 seconds"),
            (self.memory is None or self.memory > 0, "memory budget above 0 bytes"),
        ):
            if not right:
                raise UsageError(f"expected a {expected}, got {self}")

    def __call__(
        self, problem: Problem, column_duals: Float64[np.ndarray, " m"] | None = None
    ) -> Assignment:
        """Solve; `column_duals`: of an earlier answer to the same problem, to go on from."""
        if self.checkpoint is not None and column_duals is None:
            column_duals = read_checkpoint(self.checkpoint, problem)
        run = _Run(self, problem)
        run.begin(column_duals)
        stopped = run.search()
        return run.finish(stopped)


class _Run:
    def __init__(self, solver: Certified, problem: Problem) -> None:
        self.started, self.budget = time.perf_counter(), solver.seconds
        share = int(solver.memory_share * psutil.virtual_memory().available)
        self.bytes = share if solver.memory is None else solver.memory
        self.problem = problem
        self.seconds: dict[str, float] = {}
        self.rounds = 0
        self.checkpoint = solver.checkpoint
        costs = problem.costs
        on_gpu = costs.rows.is_cuda
        dtype = getattr(torch, solver.precision, None) or fastest_dtype(costs.rows.device)
        compiled = not on_gpu if solver.scan == "auto" else solver.scan == "compiled"
        self.products = Products.of(costs, dtype, compiled)
        n, m = self.products.n, self.products.m
        held = n * m * self.products.rows.element_size()
        self.held = None
        if not on_gpu and held <= min(HELD_BYTES, HELD_SHARE * self.bytes):
            # NumPy asks the system for huge pages; it has no bfloat16, but a type of that size.
            size = np.int16 if dtype == torch.bfloat16 else np.float32
            self.held = torch.from_numpy(np.empty((n, m), dtype=size)).view(dtype)
        self.lists = Shortlists(self.products, problem.forbidden, solver.shortlist, self.held)
        # The stand-ins of step 5 come after the rows; the rows' own arrays are views.
        self.stand_ins = problem.spare if problem.spare <= STAND_INS * m else 0
        lines = n + self.stand_ins
        self.all_u, self.v = np.full(lines, -np.inf), np.zeros(m)
        self.all_columns_of = np.full(lines, -1, dtype=np.int64)
        self.u, self.column_of = self.all_u[:n], self.all_columns_of[:n]
        self.row_of = np.full(m, -1, dtype=np.int64)
        self.seconds["preparing"] = time.perf_counter() - self.started

    def allows(self, seconds: float = 0.0) -> bool:
        """Whether so many more seconds are left of the budget."""
        return self.budget is None or time.perf_counter() - self.started + seconds < self.budget

    def begin(self, column_duals: Float64[np.ndarray, " m"] | None) -> None:
        """Column duals to begin with, and all shortlists."""
        started = time.perf_counter()
        if column_duals is None:
            column_duals = self._sampled_duals()
        self.v = self._under_prices(column_duals)
        self.seconds["first duals"] = time.perf_counter() - started
        started = time.perf_counter()
        # Costs are at least zero, which is all that is known of a row before its list is made.
        self.lists.limit[:] = -self.v.max()
        self.listed = self.lists.make_all(self.v, self.allows)
        self.seconds["products and shortlists"] = time.perf_counter() - started

    def _sampled_duals(self) -> Float64[np.ndarray, " m"]:
        """c_ij − v_j of a sample of rows has about the same low quantile in every column."""
        n = self.products.n
        count = min(n, SAMPLE)
        rows = np.sort(np.random.default_rng(0).choice(n, count, replace=False))
        block = self.products.block(torch.from_numpy(rows)).float().cpu()
        terms = torch.from_numpy(self.products.row_norms[rows]).float()
        block = terms[:, None] - 2 * block
        rank = max(1, count * SAMPLE_RANK // SAMPLE)
        low = block.kthvalue(rank, dim=0).values.double().numpy()
        return low + self.products.column_norms

    def _under_prices(self, duals: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Duals at or below the prices: as they are where all columns are needed.

        Elsewhere only the columns that are most wanted start below their price, since whichever is
        left free below it has to be searched from (step 5).
        """
        prices = self.problem.column_prices
        if self.stand_ins:
            # They take the costliest columns, all at one dual; that of a far longer column would leave the
            # others' no digits.
            n = self.products.n
            duals = np.minimum(duals, np.partition(duals, n - 1)[n - 1])
        if np.isinf(prices).all() or self.stand_ins:
            return duals - np.median(duals)  # a mean would be that of one column of length 1e12
        over = duals - prices
        raised = duals - np.quantile(over[np.isfinite(over)], WANTED)
        if self.products.n == self.products.m:
            # No price above every cost matters; duals of its size would lose what the costs say.
            highest = 4 * max(self.products.row_norms.max(), self.products.column_norms.max())
            raised = np.minimum(raised, duals + highest)
        return np.minimum(prices, raised)

    def search(self) -> str | None:
        """Steps 3 to 5; why it stopped before its end, or None."""
        started = time.perf_counter()
        lines = self.all_u, self.v, self.all_columns_of, self.row_of
        stopped = _Side(self, self.lists, self.problem.row_prices, *lines, fresh=True).search()
        prices = self.problem.column_prices
        if self.stand_ins:
            self._without_stand_ins()
        elif stopped is None and ((self.row_of < 0) & (self.v < prices)).any():
            # Nothing is known on the columns' side but that the present duals are feasible.
            count = int(self.lists.asked.min())
            lists = Shortlists(self.products.transposed, self.problem.forbidden.transposed, count)
            lists.limit[:] = self.v
            lines = self.v, self.u, self.row_of, self.column_of
            stopped = _Side(self, lists, prices, *lines, fresh=False).search()
        self.seconds["search"] = time.perf_counter() - started
        return stopped

    def _without_stand_ins(self) -> None:
        """Columns of stand-ins are free, and their dual becomes zero: what a complete matching of the
        rows adds to every row's dual it may take off every column's.

        It is the highest of all, and may fall to the highest of the others: from one of 1e24, a column of
        length 1e12, nothing could be taken without losing the others' digits."""
        theirs = self.row_of >= len(self.u)
        self.row_of[theirs] = -1
        highest = self.v[~theirs].max()
        self.u += highest
        self.v -= highest
        self.v[theirs] = 0.0

    def finish(self, stopped: str | None) -> Assignment:
        """The proof, as far as the budget allows, and the result."""
        started = time.perf_counter()
        if stopped is not None:
            complete(self.problem, self.column_of, self.row_of)
        needed = self.seconds["products and shortlists"] * (0.2 if self.held is not None else 1.0)
        certificate = None
        if self.listed == self.products.n and self.allows(needed):
            certificate = certify(
                self.problem, self.products, self.column_of, self.v, self.held, self.allows
            )
        if certificate is None:
            # The search kept its duals feasible, but for what its own additions rounded off.
            stopped = stopped or "time budget"
            rounding = UNPROVEN * max(np.abs(self.u).max(), np.abs(self.v).max())
            certificate = Certificate(self.u - rounding, self.v, np.zeros(self.products.n))
        self.seconds["proof"] = time.perf_counter() - started
        details = {
            "precision": str(self.products.dtype).removeprefix("torch."),
            "held": self.held is not None,
            "rounds": self.rounds,
            "pairs_evaluated": self.lists.evaluated,
            "products": self.lists.multiplied / self.products.n,
        }
        return Assignment.of(
            self.problem, self.column_of, certificate, "certified", self.seconds, details, stopped
        )


@dataclass(eq=False)
class _Side:
    """Searches from unmatched rows; for columns the same with the sides changed."""

    run: _Run
    lists: Shortlists
    prices: Float64[np.ndarray, " n"]
    all_u: Float64[np.ndarray, " lines"]
    """Of the rows, then of their stand-ins."""
    v: Float64[np.ndarray, " m"]
    all_columns_of: Int64[np.ndarray, " lines"]
    row_of: Int64[np.ndarray, " m"]
    fresh: bool
    """Whether nothing was searched yet."""

    def __post_init__(self) -> None:
        self.u, self.column_of = (x[: len(self.prices)] for x in (self.all_u, self.all_columns_of))

    @property
    def stop(self) -> Float64[np.ndarray, " n"]:
        """Where a search may end: a row's price, or the bound on what is not in its list."""
        return np.minimum(self.prices, self.lists.limit + self.lists.allowance)

    @property
    def _graph(self) -> tuple[np.ndarray, ...]:
        lists = self.lists
        return lists.start, lists.length, lists.columns, lists.costs, self.stop

    def waiting(self) -> Int64[np.ndarray, " k"]:
        """Rows without a column that do not stay so at their price, then stand-ins without one."""
        waits = self.all_columns_of < 0
        waits[: len(self.u)] &= (self.u < self.prices) | (self.prices > self.stop)
        return np.flatnonzero(waits)

    def search(self) -> str | None:
        """Until every row has a column or its price; why it stopped before, or None."""
        if self.fresh:
            state = self.u, self.v, self.column_of, self.row_of
            augmenting.take_free_columns(*self._graph, *state)
            waiting = self.waiting()
            waiting = waiting[waiting < len(self.u)]
            augmenting.bid(waiting, *self._graph, *state, BIDS_A_ROW * len(self.u))
        stopped = None
        while stopped is None and len(waiting := self.waiting()):
            stopped = self._round(waiting)
        # The allowance was for the search; what is proven is the bound itself.
        np.minimum(self.u, self.lists.limit, out=self.u)
        return stopped

    def _round(self, waiting: Int64[np.ndarray, " k"]) -> str | None:
        """Searches from the waiting rows, then new lists for those that ended at a bound."""
        run = self.run
        state = self.all_u, self.v, self.all_columns_of, self.row_of
        ended = np.empty(len(waiting), dtype=np.int64)
        near = np.zeros(len(self.u), dtype=np.bool_)
        reached = []
        while len(waiting):
            if not run.allows():
                return "time budget"
            done, count = augmenting.augment(waiting, *self._graph, *state, ended, near, STEPS)
            if done == augmenting.INFEASIBLE:
                raise UsageError(
                    f"no assignment avoids the forbidden pairs of row {count}; "
                    "forbid fewer, or give an unmatched cost"
                )
            reached.append(ended[:count].copy())
            waiting = waiting[done:]
        bounded = np.concatenate(reached)
        bounded = bounded[np.isin(bounded, self.waiting())]
        if not len(bounded):
            return None
        if not self._make_lists(bounded, near):
            return "memory budget"
        run.rounds += 1
        if self.fresh and run.checkpoint is not None:
            write_checkpoint(run.checkpoint, run.problem, self.v)
        return None

    def _make_lists(self, bounded: Int64[np.ndarray, " k"], near: Bool[np.ndarray, " n"]) -> bool:
        """New lists for rows that reached their bounds, and for those that would have next, where memory
        allows."""
        lists = self.lists
        m = len(self.v)
        near[bounded] = True
        more = len(self.u) // ROUND_SHARE - int(near.sum()) if self.fresh else 0
        if more > 0:
            left = lists.limit + lists.allowance - self.u
            left[near] = np.inf
            near[np.argpartition(left, more)[:more]] = True
        rows = np.flatnonzero(near & np.isfinite(lists.limit))
        lists.asked[bounded] *= np.where(lists.asked[bounded] < MANY, 2, 4)
        lists.asked[rows] = np.minimum(lists.asked[rows], m)
        growth = int(np.minimum(2 * lists.asked[rows], m).sum())
        if (lists.size + growth) * BYTES_A_PAIR > self.run.bytes:
            return False
        # Every pair of a row leaves at least what its dual is, as far as that was allowed: a coarse bound
        # on what is not in the new list must not say less, or a tight pair would come apart.
        known = np.minimum(self.u[rows], lists.limit[rows])
        lists.make(rows, self.v, self.column_of)
        lists.limit[rows] = np.maximum(lists.limit[rows], known)
        return True


NEAREST_UP_TO = 512
"""So many rows are given the nearest free column, one after the other; more, any."""


def complete(
    problem: Problem, column_of: Int64[np.ndarray, " n"], row_of: Int64[np.ndarray, " m"]
) -> None:
    """Match, in place, every unmatched row without a finite price, as well as is quickly done.

    Raises UsageError where only forbidden columns are left for a row.
    """
    rows = np.flatnonzero((column_of < 0) & np.isinf(problem.row_prices))
    free = np.flatnonzero(row_of < 0)
    # Columns that cost most to leave free come first.
    free = free[np.argsort(-problem.column_prices[free], kind="stable")]
    if len(rows) > NEAREST_UP_TO:
        chosen = free[: len(rows)]
        column_of[rows], row_of[chosen] = chosen, rows
        rows = rows[problem.forbidden.contains(rows, chosen)]
        row_of[column_of[rows]] = -1
        column_of[rows] = -1
        free = np.flatnonzero(row_of < 0)
    for i in rows:
        usable = free[~problem.forbidden.contains(np.full(len(free), i), free)]
        if not len(usable):
            _swap(problem, int(i), int(free[0]), column_of, row_of)
            free = free[1:]
            continue
        near = usable[:NEAREST_UP_TO]
        difference = problem.costs.columns[near] - problem.costs.rows[int(i)]
        j = int(near[int(difference.square().sum(dim=1).argmin())])
        column_of[i], row_of[j] = j, i
        free = free[free != j]


def _swap(problem: Problem, i: int, j: int, column_of: np.ndarray, row_of: np.ndarray) -> None:
    """Give row i the column of a row that may have column j."""
    others = np.flatnonzero(column_of >= 0)
    theirs = column_of[others]
    barred = problem.forbidden.contains(np.full(len(others), i), theirs)
    barred |= problem.forbidden.contains(others, np.full(len(others), j))
    if barred.all():
        raise UsageError(
            f"when the budget ended only forbidden columns were left for row {i}; "
            "try a larger budget"
        )
    other = others[int(np.argmin(barred))]
    column_of[i] = column_of[other]
    row_of[column_of[i]] = i
    column_of[other], row_of[j] = j, other


def write_checkpoint(path: str | PathLike[str], problem: Problem, column_duals: np.ndarray) -> None:
    """Replace the file as a whole; raises InputError where it cannot be written."""
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, column_duals=column_duals, **_marks(problem))
    files.write_atomically(Path(path), data.getvalue())


def read_checkpoint(
    path: str | PathLike[str], problem: Problem
) -> Float64[np.ndarray, " m"] | None:
    """The duals in the file, or None if there is none.

    Raises InputError for a file of another problem, or that is none of ours.
    """
    if not Path(path).exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            same = all(np.array_equal(kept[name], mark) for name, mark in _marks(problem).items())
            duals = kept["column_duals"]
    except Exception as error:  # damaged bytes make numpy raise nearly anything
        raise InputError(
            f"{path} is not a checkpoint of an assignment ({error}); delete it to start again"
        ) from None
    if not same or duals.shape != (problem.costs.m,) or not np.isfinite(duals).all():
        raise InputError(f"{path} is the checkpoint of another problem; delete it to start again")
    return duals


def _marks(problem: Problem) -> dict[str, np.ndarray]:
    """What tells one problem from another: its sizes, and the norms of its factors."""
    costs = problem.costs
    return {
        "shape": np.array([costs.n, costs.m, costs.rows.shape[1]]),
        "row_norms": costs.row_norms.cpu().numpy(),
        "column_norms": costs.column_norms.cpu().numpy(),
    }
