"""A selection of features as a file: CSV, Parquet or JSON."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saematch.explorer.catalogue import Catalogue
from saematch.explorer.database import Database
from saematch.explorer.search import OWN_COLUMNS, is_known, selected_rows
from saematch.explorer.selection import PAGING, one_of, parse_selection
from saematch.text import FORMULA

FORMATS = {
    "csv": ("FORMAT csv, HEADER true", "text/csv; charset=utf-8"),
    "parquet": ("FORMAT parquet, COMPRESSION zstd", "application/vnd.apache.parquet"),
    "json": ("FORMAT json, ARRAY true", "application/json"),
}
TEXTS = ("key", "status", "description", "source", "next", "runner_up_status")
LISTS = ("activates_on", "activates_on_share", "amid", "top_logits", "peaks", "labels", "warnings")
TAKEN_COLUMNS = (
    *OWN_COLUMNS,
    "runner_up",
    "extra_cost",
    "runner_up_cosine",
    "runner_up_status",
    "mean_activation",
    "greatest_activation",
)


@dataclass(frozen=True)
class Taken:
    """A file to hand over, and to remove afterwards."""

    path: Path
    name: str
    media_type: str


def take(catalogue: Catalogue, database: Database, asked: Mapping[str, str]) -> Taken:
    """All features of a selection, in its order; in CSV lists are JSON, and no description is a
    formula."""
    kind = one_of(asked, "format", tuple(FORMATS), "csv")
    chosen = {name: value for name, value in asked.items() if name not in ("format", *PAGING[2:])}
    selection = parse_selection(chosen, catalogue.widths())
    files = catalogue.of(selection.keys)
    options, media_type = FORMATS[kind]
    columns = tuple(_column(name, selection.strategy, kind) for name in TAKEN_COLUMNS)
    handle, name = tempfile.mkstemp(suffix=f".{kind}", dir=database.temporary)
    os.close(handle)
    path = Path(name)
    try:
        if files:
            values = {**selection.values, "files": files}
            if kind == "csv":
                values["formula"] = FORMULA
            database.write(selected_rows(selection, columns), values, path, options)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Taken(path, f"features.{kind}", media_type)


def _column(name: str, strategy: str, kind: str) -> str:
    value = name
    if kind == "csv" and name in LISTS:
        value = f"CAST(to_json({name}) AS VARCHAR)"
    elif kind == "csv" and name in TEXTS:
        value = f"if(regexp_matches({name}, $formula), chr(39) || {name}, {name})"
    return (
        f"{value} AS {name}"
        if is_known(name, strategy)
        else f"CASE WHEN false THEN {value} END AS {name}"
    )
