"""Writes the index of one SAE: some features after others, so that memory does not grow with their number."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from saematch._io import files
from saematch.errors import InputError
from saematch.explorer.database import Database
from saematch.explorer.rows import rows_file, rows_query, write_rows

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
