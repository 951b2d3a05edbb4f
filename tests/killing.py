"""Killing a run at a chosen effect on the disk, and comparing what runs leave behind."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch.pipelines.matching.stages import Output
from saematch.store import directory as run_directory
from saematch.store.directory import KeptFile

real_fsync = files.fsync
"""Taken before tests put something quicker in its place."""

EFFECTS = (
    (files, "write"),
    (files, "fsync"),
    (files, "rename"),
    (files, "remove"),
    (files, "make_folder"),
    (run_directory, "write_holder"),
)


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` catches it, and no effect follows it."""


class Effects:
    """Counts effects on the disk and kills at one of them.

    `moment`: `before` the effect, `after` it, or `half`: a write that got no further than half.
    """

    def __init__(self, kill_at: int | None = None, moment: str = "before", kill=None) -> None:
        self.done: list[str] = []
        self.kill_at = kill_at
        self.moment = moment
        self.dead = False
        self._kill = kill

    def kill(self) -> None:
        self.dead = True
        if self._kill is not None:
            self._kill()
        raise Killed

    def wrap(self, name: str, effect):
        def wrapped(path: Path, *rest: Any) -> None:
            if self.dead:
                raise Killed  # a killed process cleans nothing up
            here = len(self.done) == self.kill_at
            self.done.append(name)
            if here and self.moment == "before":
                self.kill()
            if here and self.moment == "half":
                half = [part[: len(part) // 2] for part in rest]
                effect(path, *half)
                self.kill()
            if name != "fsync":  # the kernel outlives the process: without a power cut it is idle
                effect(path, *rest)
            if here:
                self.kill()

        return wrapped

    @contextlib.contextmanager
    def installed(self) -> Iterator["Effects"]:
        originals = [(module, name, getattr(module, name)) for module, name in EFFECTS]
        for module, name, effect in originals:
            setattr(module, name, self.wrap(name, effect))
        try:
            yield self
        finally:
            for module, name, effect in originals:
                setattr(module, name, effect)


class Memory:
    """Executes a stage once for each task and files: what is tested here is the directory."""

    def __init__(self) -> None:
        self.outputs: dict[Any, Output] = {}
        self.executed: list[str] = []

    def __call__(self, stage, task: Any, read: Sequence[KeptFile]) -> Output:
        key = (stage.__name__, repr(task), tuple((file.name, file.sha256) for file in read))
        if key not in self.outputs:
            self.outputs[key] = stage(task, read)
        self.executed.append(stage.__name__)
        return self.outputs[key]


def contents(directory: Path) -> dict[str, Any]:
    """Everything in a run directory that must not depend on when and how it was run."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name == "manifest.json":
            manifest = json.loads(path.read_bytes())
            found[name] = {
                key: value for key, value in manifest.items() if key not in ("timing", "sha256")
            }
        elif path.is_file() and name not in run_directory.LOCK_NAMES:
            found[name] = path.read_bytes()
    return found
