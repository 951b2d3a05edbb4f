"""Solve with the whole cost matrix in memory, by a library.

1. Fill the n × m cost matrix by blocks; where n < m add rows of zeros until it is square.
2. Shortest augmenting paths: Jonker and Volgenant, "A shortest augmenting path algorithm for dense
   and sparse linear assignment problems" (Computing, 1987), in src-d's `lapjv`, which alone among
   the Python packages returns the duals.
3. Prove it from the column duals (proof.py); where float32 left a gap that is too large and the
   matrix fits in float64, solve again in float64.
"""

import time
from dataclasses import dataclass

import lapjv
import numpy as np
import psutil
import torch
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.assignment.proof import Proof, prove
from saematch.assignment.result import OPTIMAL_GAP, Assignment
from saematch.errors import UsageError

ROWS_PER_BLOCK = 1024


@dataclass(frozen=True)
class Dense:
    """The dense library solver, and how it may use the machine."""

    double_up_to: int = 4096
    """Widest problem that is solved in float64 from the start: there it costs nothing noticeable."""
    memory_share: float = 0.8
    """Share of the machine's available memory that the cost matrix may take."""

    def __call__(self, rows: Tensor, columns: Tensor) -> Assignment:
        """Assign float32 rows [n, d] to columns [m, d], n ≤ m."""
        m = columns.shape[0]
        precisions = [torch.float64] if m <= self.double_up_to else [torch.float32, torch.float64]
        best: Assignment | None = None
        for dtype in precisions:
            if not self._fits(m, dtype):
                if best is None:
                    raise UsageError(
                        f"needed {m * m * dtype.itemsize / 2**30:.1f} GiB for a dense cost matrix "
                        f"of {m} × {m}, found {psutil.virtual_memory().available / 2**30:.1f} GiB "
                        "available; try narrower SAEs or a machine with more memory"
                    )
                return best
            best = _solve(rows.to(dtype), columns.to(dtype))
            if best.gap <= OPTIMAL_GAP:
                break
        assert best is not None
        return best

    def _fits(self, m: int, dtype: torch.dtype) -> bool:
        # Beside the matrix: a few blocks of it while proving.
        needed = (m * m + 6 * ROWS_PER_BLOCK * m) * dtype.itemsize
        return needed <= self.memory_share * psutil.virtual_memory().available


def _solve(rows: Tensor, columns: Tensor) -> Assignment:
    costs = SquaredDistances.of(rows, columns)
    started = time.perf_counter()
    matrix = torch.empty((costs.m, costs.m), dtype=rows.dtype)
    for start in range(0, costs.n, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, costs.n)
        costs.fill(start, stop, matrix[start:stop])
    matrix[costs.n :] = 0
    filled = time.perf_counter()
    assigned, v = _lapjv(matrix)
    solved = time.perf_counter()
    columns_of_rows = assigned[: costs.n].clone()
    proof: Proof = prove(
        costs,
        lambda start, stop: matrix[start:stop],
        columns_of_rows,
        v,
        ROWS_PER_BLOCK,
    )
    proved = time.perf_counter()
    return Assignment(
        columns=columns_of_rows.numpy(),
        primal=proof.primal,
        dual=proof.dual,
        factor_energy=float(costs.row_norms.sum() + costs.column_norms.sum()),
        row_duals=proof.row_duals.numpy(),
        column_duals=proof.column_duals.numpy(),
        margins=proof.margins.numpy(),
        solver=f"lapjv {str(rows.dtype).removeprefix('torch.')}",
        seconds={"costs": filled - started, "solve": solved - filled, "proof": proved - solved},
    )


def least_pairs(costs: Tensor) -> np.ndarray:
    """The column of each row of an [n, m] cost matrix (n ≤ m) in a pairing of least total cost.

    For costs that are not squared distances; without a proof.
    """
    n, m = costs.shape
    square = torch.zeros((m, m), dtype=costs.dtype)
    square[:n] = costs
    return _lapjv(square)[0][:n].numpy()


def _lapjv(square: Tensor) -> tuple[Tensor, Tensor]:
    """The column of each row, int64, and the column duals, float64, of a square cost matrix."""
    if len(square) == 1:
        # lapjv leaves the duals of a single pair uninitialised.
        return torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    double = square.dtype == torch.float64
    assigned, _, (_, _, v) = lapjv.lapjv(square.numpy(), force_doubles=double)
    return torch.from_numpy(assigned.astype(np.int64)), torch.from_numpy(v.astype(np.float64))
