"""One writer a run directory: a lock that says who holds it and that a killed process lets go of.

The lock is the operating system's (`flock`, through filelock) on the file `.lock`: when the process
ends, however it ends, the lock is free.  What is written in the file only tells who holds it.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from saematch.errors import InputError

LOCK_NAME = ".lock"


def write_holder(path: Path, text: str) -> None:
    """Say in the lock file who holds it.  In place: a rename would leave the lock behind."""
    path.write_text(text)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the run directory `folder`; raises InputError naming the process that already does."""
    from filelock import FileLock, Timeout

    path = folder / LOCK_NAME
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"needed {folder} for this run, found it held by {_holder(path)}; "
            "wait for it to end, or give another directory"
        ) from None
    except OSError as error:
        raise InputError(
            f"needed to lock {folder}, found: {error.strerror or error}; "
            "try a directory that you may write to"
        ) from error
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # on a full disk the lock still holds, it only does not say by whom
            write_holder(path, json.dumps(holder))
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    for _ in range(5):
        try:
            holder = json.loads(path.read_text())
            return f"process {int(holder['pid'])} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)  # it has only just taken the lock and not yet said its name
    return "another process"
