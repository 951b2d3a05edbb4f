"""DuckDB over Parquet files, in little memory, and locked to the folders that it may read.

Every value reaches a query as a parameter.  Text that is put into SQL is ours: names of columns from fixed
lists.

Queries share the memory.  One that finds too little of it waits until no other runs, and is asked again,
alone.  What is done under `limited` ends when its time is over, waiting included.
"""

import errno
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from saematch.errors import InputError, MissingDependencyError

MEMORY = "200MB"
"""Beyond it DuckDB spills to a temporary folder."""
MOST_THREADS = 4
AT_ONCE = 4
"""Queries that run at the same time; others wait."""

_DEADLINE: ContextVar[float] = ContextVar("deadline", default=math.inf)

Parameters = Mapping[str, Any] | Sequence[Any]


class OutOfMemoryError(InputError):
    """The memory that DuckDB may use does not suffice, whatever the tables are."""


class TooLongError(InputError):
    """The time for an answer was over."""


class BusyError(TooLongError):
    """It was over before its query could begin: ask again."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Let what is asked here take so long at most; `math.inf`: as long as it needs."""
    token = _DEADLINE.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _DEADLINE.reset(token)


class Database:
    """An empty database in memory that may read, and write indexes into, the folders that are let in."""

    def __init__(self) -> None:
        """Raises MissingDependencyError where DuckDB is not installed."""
        try:
            import duckdb
        except ImportError:
            raise MissingDependencyError("duckdb", "explorer", "the explorer") from None
        self._duckdb = duckdb
        self._queue, self._running = threading.Semaphore(), threading.Semaphore(AT_ONCE)
        self.temporary = Path(tempfile.mkdtemp(prefix="saematch-explorer-"))
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": MEMORY,
                "threads": min(MOST_THREADS, os.cpu_count() or 1),
                "temp_directory": str(self.temporary / "spilled"),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )
        self._connection.execute("SET parquet_metadata_cache = true")
        self._opening = threading.Lock()
        self._let_in: dict[Path, Path] = {}
        self._locked = False

    def let_in(self, folder: Path) -> Path:
        """Where a folder is found from now on: a link of ours.  DuckDB takes paths for patterns, and the name
        of a folder may be one that others match.  Before the first question: then the database is locked."""
        assert not self._locked
        link = self.temporary / str(len(self._let_in))
        link.symlink_to(folder, target_is_directory=True)
        self._let_in[link] = folder
        return link

    def close(self) -> None:
        """Close it, and remove what it spilled."""
        self._connection.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
        """The rows of a query; numbers that are not finite become None.

        Raises InputError where the tables are not what they should be, OutOfMemoryError where memory does not
        suffice even for this query alone, TooLongError where the time of `limited` is over.
        """
        names, rows = self._execute(sql, parameters)
        return [
            {name: _known(value) for name, value in zip(names, row, strict=True)} for row in rows
        ]

    def write(self, sql: str, parameters: Mapping[str, Any], path: Path, options: str) -> None:
        """Write the rows of a query to a file in one of the folders; raises as `rows` does, OSError where it
        cannot be written."""
        try:
            self._execute(
                f"COPY ({sql}) TO $copied_to ({options})", {**parameters, "copied_to": str(path)}
            )
        except InputError as error:
            if "No space left on device" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise

    def _lock(self) -> None:
        """From now on it reads and writes nothing but what was let in."""
        folders = (f"{one}{os.sep}".replace("'", "''") for one in [*self._let_in, self.temporary])
        allowed = ", ".join(f"'{one}'" for one in folders)  # of a link DuckDB notes where it leads
        self._connection.execute(f"SET allowed_directories = [{allowed}]")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")
        self._locked = True

    def _execute(self, sql: str, parameters: Parameters) -> tuple[list[str], list[tuple[Any, ...]]]:
        try:
            with self._turn(1):
                return self.execute_now(sql, parameters)
        except OutOfMemoryError:
            with self._turn(AT_ONCE):  # alone
                return self.execute_now(sql, parameters)

    @contextmanager
    def _turn(self, takes: int) -> Iterator[None]:
        """Wait for so many places among those that run at once; raises BusyError where the deadline passes
        first."""
        with ExitStack() as places:
            # One at a time waits for places, so that who wants all of them gets them.
            _acquire(self._queue)
            try:
                for _ in range(takes):
                    _acquire(self._running)
                    places.callback(self._running.release)
            finally:
                self._queue.release()
            yield

    def execute_now(
        self, sql: str, parameters: Parameters
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of columns and rows of a query, whatever else runs; raises as `rows` does."""
        with self._opening:
            if not self._locked:
                self._lock()
            cursor = self._connection.cursor()
        ending = None
        if (left := _seconds_left()) is not None:
            ending = threading.Timer(left, cursor.interrupt)
            ending.daemon = True
            ending.start()
        try:
            cursor.execute(sql, parameters or None)
            names = [column[0] for column in cursor.description or ()]
            return names, cursor.fetchall()
        except self._duckdb.InterruptException as error:
            raise TooLongError(
                "the question took too long and was stopped; try fewer layers, or narrower filters"
            ) from error
        except self._duckdb.Error as error:
            what = re.sub(r"\s+", " ", str(error)).strip()[:300]
            for link, folder in self._let_in.items():
                what = what.replace(str(link), str(folder))
            if isinstance(error, self._duckdb.OutOfMemoryException):
                raise OutOfMemoryError(
                    f"reading the tables takes more than {MEMORY} of memory: {what}"
                ) from error
            raise InputError(
                f"a table is not as docs/run-directory.md describes it: {what}"
            ) from error
        finally:
            if ending is not None:
                ending.cancel()
            cursor.close()


def _seconds_left() -> float | None:
    left = _DEADLINE.get() - time.monotonic()
    return None if left == math.inf else max(0.0, left)


def _acquire(place: threading.Semaphore) -> None:
    if not place.acquire(timeout=_seconds_left()):
        raise BusyError("the explorer is busy with other questions; ask again")


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
