"""Runs over whole suites: config, run directory, the pipeline of stages, reading back.

Importing this is cheap: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saematch.configs import RunConfig
    from saematch.pipelines.exporting import export
    from saematch.pipelines.matching.run import run
    from saematch.store.directory import RunDirectory
    from saematch.store.reader import Run, open_run

_HOME_OF = {
    "RunConfig": "saematch.configs",
    "RunDirectory": "saematch.store.directory",
    "export": "saematch.pipelines.exporting",
    "run": "saematch.pipelines.matching.run",
    "Run": "saematch.store.reader",
    "open_run": "saematch.store.reader",
}

__all__ = ["Run", "RunConfig", "RunDirectory", "export", "open_run", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'saematch.pipelines' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
