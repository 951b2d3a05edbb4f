"""Features by their descriptions, what they activate on, and how near their nearest feature is; and a
selection of them as a file: CSV, Parquet or JSON.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import MAIN_COLUMNS, STEP_COLUMNS, read_named, step_column
from saematch.explorer.database import Database
from saematch.explorer.selection import PAGING, Selection, last_page, one_of, parse_selection
from saematch.matching.matchers import MAIN
from saematch.text import FORMULA

OWN_COLUMNS = (
    "key", "feature", "status", "description", "source", "activates_on", "activates_on_share",
    "amid", "top_logits",
    "peaks", "activation_frequency", "activation_count", "next", *MAIN_COLUMNS,
)  # fmt: skip


def find(catalogue: Catalogue, database: Database, asked: Mapping[str, str]) -> dict[str, Any]:
    """A page of features.  Layers whose index is still being made are named under `pending`; at least
    the first is looked in."""
    selection = parse_selection(asked, catalogue.widths())
    ready = catalogue.ready()
    if not any(key in ready for key in selection.keys):
        ready = catalogue.any_of(selection.keys)
    looked_in = [key for key in selection.keys if key in ready]
    pending = [key for key in selection.keys if key not in ready]
    files = [ready[key] for key in looked_in]
    answer = {
        "strategy": selection.strategy,
        "limit": selection.limit,
        "offset": selection.offset,
        "pending": [key for key in pending if key not in catalogue.problems],
        "problems": {key: why for key, why in catalogue.problems.items() if key in pending},
    }
    if not files:
        return {**answer, "total": 0, "features": []}
    total, names = _page(database, selection, files)
    if total and not names:  # there are fewer pages than was thought
        selection = replace(selection, offset=last_page(total, selection.limit))
        total, names = _page(database, selection, files)
    rows = _wide(selection, names, ready)
    return {**answer, "offset": selection.offset, "total": total, "features": rows}


def _page(
    database: Database, selection: Selection, files: list[str]
) -> tuple[int, list[tuple[str, int]]]:
    """How many features there are, and the names of those on the page, in order: few columns are read."""
    rows = database.rows(
        f"WITH hit AS MATERIALIZED (SELECT key, feature, {selection.sorted_by} AS sorted "
        f"FROM read_parquet($files) WHERE {selection.where}), "
        f"page AS (SELECT * FROM hit ORDER BY {selection.order} LIMIT $limit OFFSET $offset) "
        f"SELECT key, feature, row_number() OVER (ORDER BY {selection.order}) AS place FROM page "
        "UNION ALL SELECT NULL, NULL, count(*) FROM hit ORDER BY place",
        {
            **selection.values,
            "files": files,
            "limit": selection.limit,
            "offset": selection.offset,
        },
    )
    total = next(row["place"] for row in rows if row["key"] is None)
    return total, [(row["key"], row["feature"]) for row in rows if row["key"] is not None]


def _wide(
    selection: Selection, names: list[tuple[str, int]], ready: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What is shown of the features that are named, with the step under the selection's strategy."""
    rows = read_named(names, ready)
    return [
        {name: row[name] if is_known(name, selection.strategy) else None for name in OWN_COLUMNS}
        | {name: row[step_column(name, selection.strategy)] for name in STEP_COLUMNS}
        for row in (rows[name] for name in names)
    ]


def is_known(name: str, strategy: str) -> bool:
    """Whether a column is about the step that a strategy takes; some are of the main step alone."""
    return strategy == MAIN or name not in MAIN_COLUMNS


def selected_rows(selection: Selection, columns: tuple[str, ...]) -> str:
    """The query of a whole selection, in order; parameters are the selection's and `files`."""
    steps = (f"{step_column(name, selection.strategy)} AS {name}" for name in STEP_COLUMNS)
    return (
        f"SELECT * EXCLUDE (sorted) FROM (SELECT {', '.join((*columns, *steps))}, "
        f"{selection.sorted_by} AS sorted FROM read_parquet($files) WHERE {selection.where}) "
        f"ORDER BY {selection.order}"
    )


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
