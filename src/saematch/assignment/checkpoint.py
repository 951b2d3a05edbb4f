"""Column duals on disk, so that a solution that was cut off goes on where it was."""

import io
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from saematch._io import files
from saematch.assignment.problem import Problem
from saematch.errors import InputError


def write(path: str | PathLike[str], problem: Problem, column_duals: np.ndarray) -> None:
    """Replace the file as a whole; raises InputError where it cannot be written."""
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, column_duals=column_duals, **_marks(problem))
    files.write_atomically(Path(path), data.getvalue())


def read(path: str | PathLike[str], problem: Problem) -> Float64[np.ndarray, " m"] | None:
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
