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
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from saematch._io import files
from saematch._io.files import cache_directory
from saematch.errors import InputError
from saematch.explorer.catalogue_query import (
    catalogue_query,
    probe_query,
    role_of,
    rows_file,
    rows_query,
    standing_judges,
    strategies,
    write_rows,
)
from saematch.explorer.database import Database, OutOfMemoryError, limited
from saematch.explorer.run_files import RunFiles
from saematch.store.build import code_of
from saematch.store.names import (
    JUDGEMENTS_NAME,
    PATHS_NAME,
    candidates_name,
    examples_name,
    features_name,
    sample_name,
)
from saematch.store.schema import canonical_json


@dataclass(frozen=True)
class Sources:
    """Names of files by what they are for."""

    following: str
    """Key of the SAE after it on its chain; '' at the end."""
    tables: Mapping[str, Sequence[str]]
    """Names by role (`TABLES`)."""
    descriptions: Sequence[tuple[str, str]]
    """Source and name, those that are preferred first."""
    judges: Sequence[str]
    """Whose labels are shown, as experiment/judge."""
    passing: Sequence[str]
    """Those of them that pass their controls."""

    @property
    def names(self) -> list[tuple[str, str]]:
        """Every file with its role."""
        tables = ((role, name) for role, some in self.tables.items() for name in some)
        return [*tables, *(("descriptions", name) for _, name in self.descriptions)]

    def without(self, names: set[str]) -> "Sources":
        """The same but for these files; samples and judgements say nothing without each other."""
        tables = {
            role: [one for one in some if one not in names] for role, some in self.tables.items()
        }
        if not tables.get("samples") or not tables.get("judgements"):
            tables |= {"samples": [], "judgements": []}
        return replace(
            self,
            tables={role: some for role, some in tables.items() if some},
            descriptions=[one for one in self.descriptions if one[1] not in names],
        )


def sources_of(run: RunFiles, key: str) -> Sources:
    """Those of an SAE that are finished."""
    following = next((b for a, b in run.adjacent if a == key), "")
    before = next((a for a, b in run.adjacent if b == key), "")
    tables = {
        "paths": [PATHS_NAME],
        "previous": [run.matching(before, key)],
        "candidates": [candidates_name(key, following)],
        "features": [features_name(key)],
        "examples": [examples_name(key)],
        "samples": [sample_name(experiment) for experiment in run.judges],
        "judgements": [JUDGEMENTS_NAME],
        "pairs": list(run.pair_sources.values()),
        **{role_of(one): [run.matching(key, following, one)] for one in strategies()},
    }
    judges, passing = standing_judges(run)
    every = Sources(following, tables, run.descriptions(key), judges, passing)
    return every.without({name for _, name in every.names if run.sha256(name) is None})


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
        return folder
    _forget_old(folder)
    return folder


_MAKING: dict[str, threading.Lock] = defaultdict(threading.Lock)
"""By the name of an index: two runs may share one, so that one waits for the other."""


class Catalogue:
    """The indexes of one run; safe to use from several threads."""

    def __init__(self, run: RunFiles, database: Database, folder: Path) -> None:
        self.run = run
        self._database = database
        self._folder = folder
        self._code = code_of(*MADE_BY)
        self._problems: dict[str, tuple[float, Path, str]] = {}
        self._partial: dict[str, tuple[Path, Path]] = {}
        self._worker: threading.Thread | None = None
        self._stopped = False
        self._known: tuple[Any, tuple[str, ...], dict[str, Path]] | None = None
        self._looked_at: Any = None

    @property
    def problems(self) -> dict[str, str]:
        """SAEs whose index could not be made, and why, in words."""
        wanted = self.wanted()
        return {
            key: why
            for key, (_, path, why) in self._problems.copy().items()
            if wanted.get(key) == path
        }

    def wanted(self) -> dict[str, Path]:
        """The index of every SAE on a chain, by its key in order of depth, made or not."""
        # Judges are of the manifest too, but for one whose results were mended.
        manifest, judges = self.run.manifest, tuple(self.run.judges)
        known = self._known
        if known is None or known[0] is not manifest or known[1] != judges:
            chained = {key for chain in self.run.chains for key in chain}
            found = {
                key: self._path(key, sources_of(self.run, key))
                for key in self.run.keys
                if key in chained
            }
            self._known = known = manifest, judges, found
        return known[2]

    def ready(self) -> dict[str, str]:
        """The indexes that are made, by key; the others are begun in the background."""
        wanted = self.wanted()
        found = {key: path for key, path in wanted.items() if is_whole(path)}
        if len(found) < len(wanted) or self._looked_at is not self.run.manifest:
            self._begin()
        partial = {
            key: made
            for key, (path, made) in self._partial.copy().items()
            if wanted.get(key) == path
        }
        return {
            key: str((partial | found)[key]) for key in wanted if key in partial or key in found
        }

    def widths(self) -> dict[str, int]:
        """The number of features of every SAE on a chain."""
        return {key: self.run.width(key) for key in self.wanted()}

    def of(self, keys: Sequence[str]) -> list[str]:
        """The indexes of these SAEs, made now where they are not; raises InputError naming what is
        wrong."""
        return [self._make(key) for key in keys]

    def any_of(self, keys: Sequence[str]) -> dict[str, str]:
        """As `ready`, once the first of these SAEs that can be used has its index."""
        for key in keys:
            try:
                self._make(key)
                break
            except InputError:
                continue  # `problems` says it
        return self.ready()

    def all(self) -> dict[str, str]:
        """As `ready`, once all are made that can be."""
        found = {}
        for key in self.wanted():
            if self._stopped:
                break
            try:
                found[key] = self._make(key)
            except InputError:
                continue  # `problems` says it
        return found

    def stop(self) -> None:
        """Make no more indexes; returns when the one that is being made is done."""
        self._stopped = True
        if self._worker is not None:
            self._worker.join()

    def _begin(self) -> None:
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="index", daemon=True)
            self._worker.start()

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
                with limited(
                    math.inf
                ):  # a question that needs it is answered late, but once for all
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
        sources = self._usable(sources_of(self.run, key))
        path = self._path(key, sources)
        if is_whole(path):
            return path
        try:
            self._write(key, sources, path)
        except InputError:
            if not self._refused(sources):
                raise
            sources = self._usable(sources)
            path = self._path(key, sources)
            self._write(key, sources, path)
        return path

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
                self._database.rows(probe_query(role), {"file": self.run.file(name)})
            except OutOfMemoryError:
                continue  # which says nothing of the file
            except InputError as error:
                self.run.refuse(name, f"{error} in {self.run.path / name}")
                refused = True
        return refused

    def _write(self, key: str, sources: Sources, path: Path) -> None:
        query = catalogue_query(
            key,
            sources.following,
            {role: self.run.files(names) for role, names in sources.tables.items()},
            [(source, self.run.file(name)) for source, name in sources.descriptions],
            sources.judges,
            sources.passing,
        )
        write_index(self._database, *query, self.run.width(key), path)

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


def _forget_old(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > KEPT_SECONDS and files.is_plain_file(path):
                path.unlink()
        except OSError:
            continue  # another explorer was quicker


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
    starts = range(0, width, SLICE)
    parts = [partial.with_name(f"{partial.name}.{place}") for place, _ in enumerate(starts)]
    try:
        for start, part in zip(starts, parts, strict=True):
            bounds = {"start": start, "end": min(start + SLICE, width)}
            database.write(sql, {**values, **bounds}, part, OPTIONS)
        if len(parts) == 1:
            os.replace(parts[0], partial)
        else:
            together = "SELECT * FROM read_parquet($parts)"
            database.write(together, {"parts": [str(part) for part in parts]}, partial, OPTIONS)
        rows.unlink(missing_ok=True)
        write_rows(rows, _batches(database, partial, width))
        os.replace(rows, rows_file(path))
        os.replace(partial, path)  # last: with it the index is whole
    except (OSError, sqlite3.OperationalError) as error:
        found = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"could not write an index into {path.parent.resolve()}: {found}; make room, or set "
            "SAEMATCH_CACHE to another folder"
        ) from error
    finally:
        for file in (partial, rows, *parts):
            file.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether an index is there, and neither of its files was cut short."""
    try:
        with path.open("rb") as table, rows_file(path).open("rb") as rows:
            table.seek(-len(_PARQUET_END), os.SEEK_END)
            if table.read() != _PARQUET_END:
                return False
            header = rows.read(100)
            pages = int.from_bytes(header[28:32], "big")
            page = int.from_bytes(header[16:18], "big")
            return os.fstat(rows.fileno()).st_size == pages * (page if page > 1 else 65_536) > 0
    except (OSError, ValueError):
        return False


def _batches(database: Database, index: Path, width: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, width, BATCH):
        yield database.rows(
            rows_query(), {"index": str(index), "start": start, "end": start + BATCH}
        )
