"""Features by their descriptions, what they activate on, and how near their nearest feature is."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import MAIN_COLUMNS, STEP_COLUMNS, step_column
from saematch.explorer.database import Database
from saematch.explorer.rows import read_named
from saematch.explorer.selection import Selection, last_page, parse_selection
from saematch.matching.registry import MAIN

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
