"""Solve with the whole cost matrix in memory, by a library.

1. Fill the n × m cost matrix by blocks; where n < m add rows of zeros until it is square.
2. Round the costs to multiples of a quantum and solve by shortest augmenting paths: Jonker and
   Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems"
   (Computing, 1987), in src-d's `lapjv`, which alone among the Python packages returns the duals.
3. Sharpen: round the reduced costs c − u − v to a quantum 2^13 times finer, solve those, and add
   their duals (scaling, as in Gabow and Tarjan 1989).  As many times as the precision asks for.
4. Raise every column dual half-way to where another row would want the column: the pairs stay
   tight, and what is not tied is no longer tied by the algorithm either.
5. Prove it from the column duals (proof.py); where the gap is too large, sharpen again in float64.

Why rounded: Jonker and Volgenant's row reduction lets rows outbid each other for a column by the
difference of their two best costs.  Where more rows than columns are nearly alike (dead features
are), those differences are rounding errors, and in float64 there can be 2^50 bids: lapjv then runs
for years.  On a quantum equal costs are equal, and a bid is at least one quantum.
"""

import time
from dataclasses import dataclass

import lapjv
import numpy as np
import psutil
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.assignment.proof import ENTRIES_PER_BLOCK, BlockSource, prove
from saematch.assignment.result import OPTIMAL_GAP, Assignment
from saematch.errors import UsageError

ROWS_PER_PRODUCT = 2048
WIDEST = 46340
"""lapjv counts the entries of the matrix in 32 bits."""
MEAN_COST = 2.0**23
"""Costs are solved in units in which a usual cost is about this: float32 holds every integer to 2^24."""
COARSE = 2.0**11
"""The first quantum where there are several, in those units."""
SHARPER = 2.0**-13
"""From one quantum to the next."""
FAR = 2.0**23
"""Reduced costs are cut off at this many quanta: 2^10 times what the quantum before left open."""
DOUBLE_GAP = 1e-12
"""Where solving in float64 stops being sharpened."""
MOST_PROOFS = 4


@dataclass(frozen=True)
class Dense:
    """The dense library solver, and how it may use the machine."""

    double_up_to: int = 4096
    """Widest problem that is solved in float64 from the start: there it costs nothing noticeable."""
    memory_share: float = 0.8
    """Share of the machine's available memory that the cost matrix may take."""

    def __call__(self, costs: SquaredDistances) -> Assignment:
        """Assign rows [n, d] to columns [m, d], n ≤ m, in units with a mean near 2^23."""
        double = costs.m <= self.double_up_to or costs.rows.dtype == torch.float64
        self._check_size(costs.m, double)
        run = _Run(costs.double() if double else costs, double)
        best = run.prove()
        for _ in range(1, MOST_PROOFS):
            if best.gap <= (DOUBLE_GAP if double else OPTIMAL_GAP):
                break
            if not (double or self._fits_in_double(costs)):
                break
            run.sharpen_in_double()
            found = run.prove()
            improved = found.gap < best.gap / 2
            best = min(best, found, key=lambda one: one.gap)
            if not improved:
                break
        return best

    def _check_size(self, m: int, double: bool) -> None:
        if m > WIDEST:
            raise UsageError(
                f"needed at most {WIDEST} columns for the dense solver, found {m}; "
                "try narrower SAEs"
            )
        # The matrix (and, where it is kept beside its rounded form, that) and a few blocks of it.
        needed = m * m * (12 if double else 4) + 3 * 8 * max(ENTRIES_PER_BLOCK, m)
        available = psutil.virtual_memory().available
        if needed > self.memory_share * available:
            raise UsageError(
                f"needed {needed / 2**30:.1f} GiB for a dense cost matrix of {m} × {m}, found "
                f"{available / 2**30:.1f} GiB available; try narrower SAEs or a machine with more "
                "memory"
            )

    def _fits_in_double(self, costs: SquaredDistances) -> bool:
        needed = 8 * (costs.rows.numel() + costs.columns.numel() + ROWS_PER_PRODUCT * costs.m)
        return needed <= self.memory_share * psutil.virtual_memory().available


class _Run:
    """One problem on its way: the rounded matrix, the duals so far, the time spent."""

    def __init__(self, costs: SquaredDistances, double: bool) -> None:
        self.costs = costs
        self.seconds = {"costs": 0.0, "solve": 0.0, "proof": 0.0}
        started = time.perf_counter()
        # NumPy asks the system for huge pages; lapjv, which walks down columns, needs them.
        self.matrix = torch.from_numpy(np.empty((costs.m, costs.m), dtype=np.float32))
        several = double or _crowded(costs)
        self.quantum = COARSE if several else 1.0
        self.rounding = 0.0 if several else 0.5
        kept = torch.empty(costs.n, costs.m, dtype=costs.rows.dtype) if several else self.matrix
        for start in range(0, costs.n, ROWS_PER_PRODUCT):
            stop = min(start + ROWS_PER_PRODUCT, costs.n)
            costs.fill(start, stop, kept[start:stop])
            if several:
                self.matrix[start:stop] = (kept[start:stop] / self.quantum).round_()
            else:
                kept[start:stop].round_()
        self.blocks: BlockSource = lambda start, stop: kept[start:stop]
        self.matrix[costs.n :] = 0
        self.seconds["costs"] += time.perf_counter() - started
        self.v = torch.zeros(costs.m, dtype=torch.float64)
        self._solve()
        if several:
            self._sharpen(1.0 if costs.rows.dtype == torch.float32 else self.quantum * SHARPER)
        if double:
            self._sharpen(self.quantum * SHARPER)

    def sharpen_in_double(self) -> None:
        """Reduced costs from float64 from here on, a block at a time where they are not kept."""
        if self.costs.rows.dtype != torch.float64:
            started = time.perf_counter()
            costs = self.costs = self.costs.double()
            self.rounding = 0.0

            def blocks(start: int, stop: int) -> Float64[Tensor, "b m"]:
                block = torch.empty(stop - start, costs.m, dtype=torch.float64)
                costs.fill(start, stop, block)
                return block

            self.blocks = blocks
            self.seconds["costs"] += time.perf_counter() - started
        self._sharpen(self.quantum * SHARPER)

    def prove(self) -> Assignment:
        self._centre()
        started = time.perf_counter()
        costs = self.costs
        assigned = self.assigned[: costs.n]
        proof = prove(costs, self.blocks, assigned, self.v, rounding=self.rounding)
        self.seconds["proof"] += time.perf_counter() - started
        return Assignment(
            columns=assigned.numpy(),
            primal=proof.primal,
            dual=proof.dual,
            factor_energy=costs.energy,
            row_duals=proof.row_duals.numpy(),
            column_duals=proof.column_duals.numpy(),
            margins=proof.margins.numpy(),
            solver=f"lapjv {str(costs.rows.dtype).removeprefix('torch.')}",
            seconds=dict(self.seconds),
        )

    def _sharpen(self, quantum: float) -> None:
        """Round the reduced costs to a finer quantum and solve those."""
        started = time.perf_counter()
        self.quantum = quantum
        m, n = self.costs.m, self.costs.n
        rows_per_block = max(1, ENTRIES_PER_BLOCK // m)
        for start in range(0, m, rows_per_block):
            stop = min(start + rows_per_block, m)
            reduced = (-self.v).expand(stop - start, m).clone()
            if start < n:
                reduced[: n - start] += self.blocks(start, min(stop, n))
            reduced -= reduced.amin(dim=1, keepdim=True)
            self.matrix[start:stop] = reduced.mul_(1 / quantum).clamp_(max=FAR).round_()
        self.seconds["costs"] += time.perf_counter() - started
        self._solve()

    def _centre(self) -> None:
        """v_j + s_j / 2, where s_j is the least reduced cost in column j outside its pair.

        The row of the pair gives up what its column gains, so for any other pair (l, j) at least
        s_j − s_j / 2 is left: the duals stay feasible and no pair becomes dearer.
        """
        started = time.perf_counter()
        m, n = self.costs.m, self.costs.n
        assigned = self.assigned[:n]
        room = torch.full((m,), torch.inf, dtype=torch.float64)
        v = self.v.to(self.costs.rows.dtype)
        rows_per_block = max(1, ENTRIES_PER_BLOCK // m)
        for start in range(0, n, rows_per_block):
            stop = min(start + rows_per_block, n)
            reduced = self.blocks(start, stop) - v
            pairs = (torch.arange(stop - start), assigned[start:stop])
            reduced -= reduced[pairs][:, None]
            reduced[pairs] = torch.inf
            room = torch.minimum(room, reduced.amin(dim=0).double())
        if n < m:
            room = torch.minimum(room, self.v.max() - self.v)
        taken = assigned[room[assigned].isfinite()]
        self.v[taken] += room[taken].clamp(min=0) / 2
        self.seconds["solve"] += time.perf_counter() - started

    def _solve(self) -> None:
        started = time.perf_counter()
        self.assigned, v = _shortest_paths(self.matrix)
        self.v += self.quantum * v
        self.seconds["solve"] += time.perf_counter() - started


def _crowded(costs: SquaredDistances) -> bool:
    """Whether several rows and several columns are nearly zero, and so nearly alike."""
    return all(
        int((norms <= 2.0**-10 * norms.mean()).sum()) > 2
        for norms in (costs.row_norms, costs.column_norms)
    )


def _shortest_paths(
    costs: Float32[Tensor, "m m"],
) -> tuple[Int64[Tensor, " m"], Float64[Tensor, " m"]]:
    """The column of each row, and column duals."""
    if len(costs) == 1:  # lapjv's dual of a single column is minus infinity
        return torch.zeros(1, dtype=torch.int64), costs[0].double()
    assigned, _, (_, _, v) = lapjv.lapjv(costs.numpy())
    return torch.from_numpy(assigned.copy()).long(), torch.from_numpy(v.copy()).double()


def least_pairs(costs: Float[Tensor, "n m"]) -> np.ndarray:
    """The column of each row of an [n, m] cost matrix (n ≤ m) in a pairing of least total cost.

    For costs that are not squared distances; without a proof.
    """
    n, m = costs.shape
    square = torch.zeros(m, m)
    square[:n] = costs
    return _shortest_paths(square)[0][:n].numpy()
