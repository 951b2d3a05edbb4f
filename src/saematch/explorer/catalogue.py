"""A small index over a run: for every SAE two files in the user's cache, made when they are needed.

The Parquet file answers questions about all features; next to it the rows of single ones
(catalogue_query.py). It is written some features after others, so that memory does not grow with their
number.

1. An index's name is the sha256 of what it is made from, by the manifest, and of the code that makes it:
   another file, or other code, another index.
2. A file that is altered or no such table is left out, and the index made from the rest; `RunFiles.wrong`
   names it.  Once it is mended the whole index is made.
3. It appears whole (written next to its final path, then renamed), so several explorers may share the folder.
4. A thread makes those that are missing, in order of depth; a question that needs one makes it at once.
   Then it looks at every file once, so that those that were altered are named.
5. A run's own directory is never written to.  Indexes that nobody used for a month are removed.
"""

import math
import os
import sqlite3
import struct
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from saematch._io import files
from saematch._io.files import cache_directory
from saematch.errors import InputError
from saematch.explorer.catalogue_query import (
    Sources,
    catalogue_query,
    probe_query,
    rows_file,
    rows_query,
    sources_of,
    strategies,
    write_rows,
)
from saematch.explorer.database import Database, OutOfMemoryError, limited
from saematch.explorer.run_files import RunFiles
from saematch.store.build import code_of
from saematch.store.schema import canonical_json

MADE_BY = (
    "explorer/catalogue.py",
    "explorer/catalogue_query.py",
    "semantics/judges/judge.py",
    "store/schema*.py",
    "store/following.py",
)
"""The source of an index: where it changes, indexes are made again."""
RETRY_SECONDS = 3.0
"""How long an index that could not be made is left alone."""
KEPT_SECONDS = 30 * 24 * 3600


def index_folder(temporary: Path) -> Path:
    """Where indexes are kept: in the cache, or, where that cannot be written, in a temporary folder."""
    folder = cache_directory() / "explorer"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError:
        folder = temporary / "index"
        folder.mkdir()
    for path in folder.iterdir():
        with suppress(OSError):  # another explorer was quicker
            if time.time() - path.stat().st_mtime > KEPT_SECONDS and files.is_plain_file(path):
                path.unlink()
    return folder


_MAKING: dict[str, threading.Lock] = defaultdict(threading.Lock)
"""By the name of an index: two runs may share one, so that one waits for the other."""


class Catalogue:
    """The indexes of one run; safe to use from several threads."""

    def __init__(self, run: RunFiles, database: Database, folder: Path) -> None:
        self.run = run
        self.database = database
        self._folder = folder
        self._code = code_of(*MADE_BY)
        self._problems: dict[str, tuple[float, Path, str]] = {}
        self._partial: dict[str, tuple[Path, Path]] = {}
        self._worker = threading.Thread()
        self._stopped = False
        self._known: tuple[Any, tuple[str, ...], dict[str, Path]] | None = None
        self._looked_at: Any = None

    @property
    def problems(self) -> dict[str, str]:
        """SAEs whose index could not be made, and why, in words."""
        wanted, found = self.wanted(), self._problems.copy()
        return {key: why for key, (_, path, why) in found.items() if wanted.get(key) == path}

    def wanted(self) -> dict[str, Path]:
        """The index of every SAE on a chain, by its key in order of depth, made or not."""
        # Judges are of the manifest too, but for one whose results were mended.
        manifest, judges = self.run.manifest, tuple(self.run.judges)
        known = self._known
        if known is None or known[0] is not manifest or known[1] != judges:
            chained = {key for chain in self.run.chains for key in chain}
            keys = [key for key in self.run.keys if key in chained]
            found = {key: self._path(key, sources_of(self.run, key)) for key in keys}
            self._known = known = manifest, judges, found
        return known[2]

    def ready(self) -> dict[str, str]:
        """The indexes that are made, by key; the others are begun in the background."""
        wanted = self.wanted()
        found = {key: path for key, path in wanted.items() if is_whole(path)}
        if (
            len(found) < len(wanted) or self._looked_at is not self.run.manifest
        ) and not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="index", daemon=True)
            self._worker.start()
        partial = self._partial.copy().items()
        found = {key: made for key, (path, made) in partial if wanted.get(key) == path} | found
        return {key: str(found[key]) for key in wanted if key in found}

    def widths(self) -> dict[str, int]:
        return {key: self.run.width(key) for key in self.wanted()}

    def of(self, keys: Sequence[str]) -> list[str]:
        """The indexes of these SAEs, made now where they are not; raises InputError naming what is
        wrong."""
        return [self._make(key) for key in keys]

    def any_of(self, keys: Sequence[str]) -> dict[str, str]:
        """As `ready`, once the first of these SAEs that can be used has its index."""
        for key in keys:
            with suppress(InputError):  # `problems` says it
                self._make(key)
                break
        return self.ready()

    def all(self) -> dict[str, str]:
        """As `ready`, once all are made that can be."""
        found = {}
        for key in self.wanted():
            if self._stopped:
                break
            with suppress(InputError):  # `problems` says it
                found[key] = self._make(key)
        return found

    def stop(self) -> None:
        """Make no more indexes; returns when the one that is being made is done."""
        self._stopped = True
        if self._worker.is_alive():
            self._worker.join()

    def _work(self) -> None:
        manifest = self.run.manifest
        self.all()
        self.run.check(lambda: self._stopped)
        self._looked_at = manifest

    def _make(self, key: str) -> str:
        path = self.wanted()[key]
        with _MAKING[path.name]:  # a question waits for its own SAE, not for the thread's next one
            if is_whole(path):
                self._partial.pop(key, None)
                return str(path)
            failed = self._problems.get(key)
            if failed and failed[1] == path and time.monotonic() - failed[0] < RETRY_SECONDS:
                raise InputError(failed[2])
            try:
                with limited(math.inf):  # a question that needs it is answered late, once for all
                    made = self._made(key)
            except InputError as error:
                self._problems[key] = time.monotonic(), path, str(error)
                raise
            self._problems.pop(key, None)
            self._partial.pop(key, None)
            if made != path:
                self._partial[key] = path, made
        return str(made)

    def _made(self, key: str) -> Path:
        """The index of an SAE from those of its files that can be used."""
        sources = sources_of(self.run, key)
        while True:
            sources = self._usable(sources)
            path = self._path(key, sources)
            if is_whole(path):
                return path
            try:
                query = catalogue_query(key, sources, self.run.file)
                write_index(self.database, *query, self.run.width(key), path)
                return path
            except InputError:
                if not self._refused(sources):
                    raise

    def _usable(self, sources: Sources) -> Sources:
        unusable = set()
        for _, name in sources.names:
            try:
                self.run.file(name)
            except InputError:
                unusable.add(name)  # `RunFiles.wrong` says it
        return sources.without(unusable)

    def _refused(self, sources: Sources) -> bool:
        """Whether any of these files is no such table; it is refused from now on."""
        refused = False
        for role, name in sources.names:
            try:
                self.database.rows(probe_query(role), {"file": self.run.file(name)})
            except OutOfMemoryError:
                continue  # which says nothing of the file
            except InputError as error:
                self.run.refuse(name, f"{error} in {self.run.path / name}")
                refused = True
        return refused

    def _path(self, key: str, sources: Sources) -> Path:
        decides = {
            "code": self._code,
            "key": key,
            "width": self.run.width(key),
            "following": sources.following,
            "judges": sources.judges,
            "passing": sources.passing,
            "strategies": strategies(),
            "files": [(role, name, self.run.sha256(name)) for role, name in sources.names],
        }
        path = self._folder / f"{files.sha256(canonical_json(decides).encode())}.parquet"
        for file in (path, rows_file(path)):
            if file.exists():
                os.utime(file)
        return path


_PARQUET_END = b"PAR1"
OPTIONS = "FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE 8192"
SLICE = 16_384
"""Features that one query indexes."""
BATCH = 8192
"""Rows taken from an index at a time."""


def write_index(
    database: Database, sql: str, values: Mapping[str, Any], width: int, path: Path
) -> None:
    """Write the table of features that a query gives from $start until before $end, and their rows next to
    it.

    They appear whole.  Raises InputError where the tables are not what they should be, memory does not
    suffice, or nothing can be written.
    """
    partial = path.with_name(f".{path.stem}-{uuid4().hex}{files.PARTIAL_SUFFIX}")
    rows = partial.with_name(f"{partial.name}.rows")
    parts = {n: partial.with_name(f"{partial.name}.{n}") for n in range(0, width, SLICE)}
    try:
        for start, part in parts.items():
            bounds = {"start": start, "end": min(start + SLICE, width)}
            database.write(sql, {**values, **bounds}, part, OPTIONS)
        together = "SELECT * FROM read_parquet($parts)"
        database.write(together, {"parts": list(map(str, parts.values()))}, partial, OPTIONS)
        some = (
            {"index": str(partial), "start": n, "end": n + BATCH} for n in range(0, width, BATCH)
        )
        write_rows(rows, (database.rows(rows_query(), one) for one in some))
        os.replace(rows, rows_file(path))
        os.replace(partial, path)  # last: with it the index is whole
    except (OSError, sqlite3.OperationalError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"could not write an index into {path.parent.resolve()}: {found}; make room, or set "
            "SAEMATCH_CACHE to another folder"
        ) from error
    finally:
        for file in (partial, rows, *parts.values()):
            file.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether an index is there, and neither of its files was cut short."""
    try:
        with path.open("rb") as table, rows_file(path).open("rb") as rows:
            table.seek(-len(_PARQUET_END), os.SEEK_END)
            page, pages = struct.unpack_from(">16xH10xI", rows.read(100))  # of SQLite's header
            size = pages * (page if page > 1 else 65_536)
            return table.read() == _PARQUET_END and os.fstat(rows.fileno()).st_size == size > 0
    except (OSError, struct.error):
        return False
