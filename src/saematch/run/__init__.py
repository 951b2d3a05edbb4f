"""Runs over whole suites: config, run directory, the pipeline of stages, reading back.

Importing this is cheap: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saematch.run.config import RunConfig
    from saematch.run.directory import RunDirectory
    from saematch.run.exporting import export
    from saematch.run.pipeline import run
    from saematch.run.read import Run, open_run

_HOME_OF = {
    "RunConfig": "config",
    "RunDirectory": "directory",
    "export": "exporting",
    "run": "pipeline",
    "Run": "read",
    "open_run": "read",
}

__all__ = ["Run", "RunConfig", "RunDirectory", "export", "open_run", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'saematch.run' has no attribute '{name}'")
    return getattr(import_module(f"saematch.run.{_HOME_OF[name]}"), name)
