"""One writer a run directory, and a note of who that is.

The lock is that of _io/locks.py.  The note is a file of its own, `.holder`: it tells who holds the
directory, and decides nothing.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from saematch._io import locks
from saematch.errors import InputError

HOLDER_NAME = ".holder"
NAMES = (*locks.NAMES, HOLDER_NAME)
"""Files of a run directory that are no results."""


def write_holder(path: Path, text: str) -> None:
    """Say who holds the directory."""
    if path.is_symlink():
        path.unlink()  # a stranger's link is not written through
    path.write_text(text)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the run directory `folder`; raises InputError naming the process that already does."""
    lock = locks.holding(folder)
    try:
        lock.__enter__()
    except locks.HeldError:
        raise InputError(
            f"expected {folder} to be free, got one that is held by {_holder(folder)}"
        ) from None
    except OSError as error:
        raise InputError(
            f"could not lock {folder}: {error.strerror or error}; "
            "try a directory that you may write to"
        ) from error
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # on a full disk the lock still holds, it only does not say by whom
            write_holder(folder / HOLDER_NAME, json.dumps(holder))
        yield
    finally:
        lock.__exit__(None, None, None)


def _holder(folder: Path) -> str:
    marker = folder / locks.MARKER_NAME
    with suppress(OSError):
        if not marker.stat().st_size:  # filelock breaks any other that is not whole
            return (
                f"a process that was cut off while it took it; if none works in it, delete {marker}"
            )
    for _ in range(5):
        try:
            holder = json.loads((folder / HOLDER_NAME).read_text())
            process, host = int(holder["pid"]), str(holder["host"])[:80]
            who = f"process {process} on {host} since {str(holder['since'])[:40]}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)  # it has only just taken the lock and not yet said its name
            continue
        wait = "wait for it to end, or give another directory"
        if host != socket.gethostname() and marker.exists():
            return (
                f"{who}, which is another machine; {wait}; if you know that it has ended, delete "
                f"{marker}"
            )
        return f"{who}; {wait}"
    return "another process; wait for it to end, or give another directory"
