"""How a run directory is made: one step per output, made again only where what decides it changed.

A step names its stage, a function of a picklable task and of the files it reads.  Its output is finished when
it is there, unaltered, and was made from inputs of the same hash.  What is drawn or indexed from tables is
made again too when the code that makes it changes (`code_of`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

from saematch import __version__
from saematch._io import files
from saematch.store.directory import KeptFile, RunDirectory
from saematch.store.names import FROM_PLAN
from saematch.store.schema import SCHEMA_VERSION, canonical_json

Progress = Callable[[int, int, str], None]
"""(steps done, steps in all, what is being done)."""


def silent(done: int, total: int, what: str) -> None:
    """The progress that tells nobody."""


@dataclass(frozen=True)
class Output:
    """What a stage made: the bytes of a file, and how long each part took."""

    data: bytes
    seconds: Mapping[str, float] = field(default_factory=dict)


Task = Mapping[str, Any]
"""The arguments of a stage by name; with the files that it reads, all that decides its output."""
Stage = Callable[[Task, Sequence[KeptFile]], Output]
"""Makes an output from a task and the files that it reads."""
_STAGES: dict[Stage, str] = {}


def stage(name: str) -> Callable[[Callable[..., Output]], Stage]:
    """Let a function of files and named arguments be a stage, and time it.  Its name is hashed with the
    inputs of all it makes: pinned here, so that to rename the function makes no run directory stale."""

    def pin(function: Callable[..., Output]) -> Stage:
        @wraps(function)
        def timed(task: Task, files: Sequence[KeptFile]) -> Output:
            started = time.perf_counter()
            made = function(files, **task)
            return replace(made, seconds={"total": time.perf_counter() - started, **made.seconds})

        assert name not in _STAGES.values(), name
        _STAGES[timed] = name
        return timed

    return pin


@dataclass(frozen=True)
class Step:
    """One output and how it is made; picklable."""

    name: str
    """Path of the output in the run directory."""
    stage: Stage
    task: Task = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    """Outputs of earlier steps that the stage reads, in its order."""


Execute = Callable[[Stage, Task, Sequence[KeptFile]], Output]
"""(stage, task, files) -> what the stage returns."""


def execute_here(stage: Stage, task: Task, files: Sequence[KeptFile]) -> Output:
    """Call the stage in this process."""
    return stage(task, files)


def make(held: RunDirectory, step: Step, execute: Execute = execute_here) -> bool:
    """Make a step's output unless it is finished; whether it was made.

    The directory must be held.  Raises InputError where the output, or one it reads, was altered.
    """
    reads = [held.kept(name) for name in step.reads]
    inputs = hash_of_inputs(step, reads)
    call_for(held, step.name, "" if reads else inputs)
    if held.is_finished(step.name, inputs):
        return False
    made = execute(step.stage, step.task, reads)
    held.keep(step.name, made.data, inputs, reads, made.seconds)
    return True


def call_for(held: RunDirectory, name: str, inputs: str) -> None:
    """Say that a verb other than `run` needs this output under the present settings (store/directory.py).

    `inputs`: the sha256 of what decides it; '' where it reads other outputs.
    """
    plan = held.manifest["plan"]
    if name.startswith(FROM_PLAN) and name not in plan["run"]:
        held.update(plan={**plan, "others": {**plan["others"], name: inputs}})


def hash_of_inputs(step: Step, reads: Sequence[KeptFile]) -> str:
    """sha256 of everything that decides a step's output."""
    return hash_of(
        stage=_STAGES[step.stage],
        task={name: _identity(value) for name, value in step.task.items()},
        reads=[[file.name, file.sha256] for file in reads],
    )


def _identity(value: Any) -> Any:
    """What of a task's value decides a result."""
    if isinstance(value, list | tuple):
        return [_identity(one) for one in value]
    return getattr(value, "identity", value)


def hash_of(**decides: Any) -> str:
    """sha256 of everything that decides an output."""
    return files.sha256(
        canonical_json({"schema": SCHEMA_VERSION, "saematch": __version__, **decides}).encode()
    )


def code_of(*parts: str) -> list[str]:
    """sha256 of source files of the package, named by path or pattern (`report/*.*`): hashed with the inputs
    of what they make, so that this is made again when they change."""
    package = Path(__file__).parents[1]
    found = []
    for part in parts:
        paths = sorted(path for path in package.glob(part) if path.is_file())
        assert paths, f"{part} names no file of the package"  # a file that moved is not hashed
        found += [files.sha256_of_file(path) for path in paths]
    return found
