"""Features by their descriptions, what they activate on, and how near their nearest feature is.

What a reader asks for, as text from an address, becomes a checked value and the SQL that selects it, then a
page of what is found, or all of it as a file: CSV, Parquet or JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from saematch.errors import UsageError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import (
    MAIN_COLUMNS,
    SEPARATOR,
    STEP_COLUMNS,
    read_named,
    step_column,
    strategies,
)
from saematch.explorer.database import Database
from saematch.matching.matchers import MAIN
from saematch.semantics.judges.judge import Label
from saematch.store.following import StepWarning
from saematch.text import FORMULA
from saematch.types import find_feature, find_key

MOST_CHARACTERS = 300
"""Characters of one value in an address."""
MOST_ROWS = 200
"""On one page."""
RANGES = (
    "mse", "cost", "cosine", "margin", "activation_frequency", "quantile", "phi", "lift", "active",
)  # fmt: skip
"""Columns that can be bounded, as `mse_min` and `mse_max`; both ends included."""
SHARE = "share"
"""The order by the share of a feature's activation that is on the token that is looked for."""
SORTS = ("layer", *RANGES, "activation_count", SHARE)
_SOUGHT = "lower(trim(${}, ' '))"
"""A token that is looked for: blanks around it and capitals do not matter."""
FILTERS = (
    "text", "activates_on", "top_logits", "feature", "layer", "status", "label", "pairs", "strategy",
    "differs", "certain", "warnings",
    *(f"{name}_{end}" for name in RANGES for end in ("min", "max")),
)  # fmt: skip
PAGING = ("sort", "order", "limit", "offset")


@dataclass(frozen=True)
class Selection:
    keys: tuple[str, ...]
    """SAEs to look in, in order of depth."""
    strategy: str
    """Whose step to the next layer is meant by partner, cost, mse, cosine and margin."""
    where: str
    """SQL; values are parameters."""
    values: Mapping[str, Any]
    sorted_by: str
    """The column of the order, which the order calls `sorted`."""
    order: str
    """SQL."""
    limit: int
    offset: int


def _choices() -> dict[str, dict[str, str]]:
    """Filters by a value from a list, and the SQL of each; the texts are ours."""
    others = {one: step_column("partner", one) for one in strategies() if one != MAIN}
    warnings = {str(kind): f"list_contains(warnings, '{kind}')" for kind in StepWarning}
    return {
        "status": {one: f"status = '{one}'" for one in ("live", "dead", "degenerate")},
        "label": {str(one): f"list_contains(labels, '{one}')" for one in Label},
        "pairs": {  # what becomes of a feature by the main matching
            "live": "live_pair",
            "left out": "partner IS NOT NULL AND NOT live_pair",
            "dies": "matched AND partner IS NULL",
            "born": "born",
        },
        "certain": {
            "yes": "partner IS NOT NULL AND certain",
            "no": "partner IS NOT NULL AND NOT certain",
        },
        "warnings": {"none": "len(warnings) = 0", "some": "len(warnings) > 0", **warnings},
        "differs": {
            one: f"matched AND {theirs} IS NOT NULL AND partner IS DISTINCT FROM {theirs}"
            for one, theirs in others.items()
        },
    }


def parse_selection(asked: Mapping[str, str], widths: Mapping[str, int]) -> Selection:
    """The selection that an address asks for; raises UsageError for what it cannot mean.

    `widths`: the number of features of the SAEs there are by key, in order of depth.
    """
    check_names(asked, (*FILTERS, *PAGING))
    given = {name: value for name, value in asked.items() if value.strip()}
    strategy = one_of(given, "strategy", strategies(), MAIN)
    chosen = parse_keys(given.get("layer", ""), tuple(widths))
    conditions, values = [], {}
    if "feature" in given:
        key, index = find_feature(given["feature"], widths)
        chosen = tuple(one for one in chosen if one == key)
        conditions.append("feature = $feature")
        values["feature"] = index
    for place, word in enumerate(given.get("text", "").split()):
        conditions.append(f"contains(searched_text, lower($text{place}))")
        values[f"text{place}"] = word
    for name in ("activates_on", "top_logits"):
        if name in given:
            conditions.append(
                f"contains(searched_{name}, {SEPARATOR} || {_SOUGHT.format(name)} || {SEPARATOR})"
            )
            values[name] = _unescaped(given[name])
    for name, choices in _choices().items():
        if name in given:
            conditions.append(choices[one_of(given, name, tuple(choices), "")])
    for name in RANGES:
        column = _column(name, strategy)
        for end, sign in (("min", ">="), ("max", "<=")):
            if f"{name}_{end}" in given:
                conditions.append(f"{column} {sign} ${name}_{end}")
                values[f"{name}_{end}"] = number(given, f"{name}_{end}")
    sort = one_of(given, "sort", SORTS, SHARE if "activates_on" in given else "layer")
    usual = "desc" if sort == SHARE else "asc"
    direction = {"asc": "ASC", "desc": "DESC"}[one_of(given, "order", ("asc", "desc"), usual)]
    column = "feature" if sort == "layer" else _column(sort, strategy)
    if sort == SHARE:
        if "activates_on" not in given:
            raise UsageError("expected a token to sort by its share, got none")
        column = _share_of(given["activates_on"], values)
    order = f"sorted {direction} NULLS LAST, list_position($all_keys, key), feature"
    if sort == "layer":
        order = f"list_position($all_keys, key) {direction}, feature {direction}"
    values["all_keys"] = list(widths)
    where = " AND ".join(f"({one})" for one in conditions) or "true"
    return Selection(chosen, strategy, where, values, column, order, *page_of(given, 50))


def last_page(total: int, limit: int) -> int:
    return max(0, (total - 1) // limit * limit)


def page_of(asked: Mapping[str, str], usual: int) -> tuple[int, int]:
    """How many rows a page has, and how many are before it."""
    limit = whole_number(asked, "limit", usual, 1, MOST_ROWS)
    return limit, whole_number(asked, "offset", 0, 0, 1 << 40)


def check_names(asked: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises UsageError for a name that is not known, or a value that is too long."""
    for name, value in asked.items():
        if name not in known:
            raise UsageError(f"expected filters among {', '.join(known)}, got '{name[:80]}'")
        if len(value) > MOST_CHARACTERS or "\0" in value:
            raise UsageError(
                f"expected at most {MOST_CHARACTERS} characters for {name}, got {len(value)}"
            )


def one_of(
    asked: Mapping[str, str], name: str, known: Sequence[str], default: str
) -> str:  # fmt: skip
    """A value from a fixed list; raises UsageError for another."""
    value = asked.get(name, "") or default
    if value not in known:
        raise UsageError(f"expected {name} among {', '.join(known)}, got '{value[:80]}'")
    return value


def parse_keys(text: str, keys: Sequence[str]) -> tuple[str, ...]:
    """SAEs named as `12,13`, in order of depth; all of them for ''."""
    wanted = {find_key(one, keys) for one in text.split(",") if one.strip()}
    return tuple(key for key in keys if key in wanted or not wanted)


def number(asked: Mapping[str, str], name: str) -> float:
    """A finite number; raises UsageError for anything else."""
    try:
        value = float(asked[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"expected a number for {name}, got '{asked[name][:80]}'")
    return value


def whole_number(
    asked: Mapping[str, str], name: str, default: int, least: int, most: int
) -> int:  # fmt: skip
    """A whole number in a range; raises UsageError for anything else."""
    text = asked.get(name, "") or str(default)
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:20]) <= most:
        raise UsageError(f"expected {name} from {least} to {most}, got '{text[:80]}'")
    return int(text)


def _column(name: str, strategy: str) -> str:
    return step_column(name, strategy) if name in STEP_COLUMNS else name


def _share_of(token: str, values: dict[str, Any]) -> str:
    """SQL for how much of a feature's activation is on a token; NULL if it is in its examples alone."""
    values["shared"] = _unescaped(token)
    wanted = f"lambda one: lower(trim(one[1], ' ')) = {_SOUGHT.format('shared')}"
    found = f"list_filter(list_zip(activates_on, activates_on_share), {wanted})"
    return f"list_sum(list_transform({found}, lambda one: one[2]))"


def _unescaped(text: str) -> str:
    """Line ends and tabs as people type them."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


OWN_COLUMNS = (
    "key", "feature", "status", "description", "source", "activates_on", "activates_on_share", "amid",
    "top_logits", "peaks", "activation_frequency", "activation_count", "next", *MAIN_COLUMNS,
)  # fmt: skip


def find(catalogue: Catalogue, asked: Mapping[str, str]) -> dict[str, Any]:
    """A page of features.  Layers whose index is still being made are named under `pending`; at least
    the first is looked in."""
    selection = parse_selection(asked, catalogue.widths())
    ready = catalogue.ready()
    if not any(key in ready for key in selection.keys):
        ready = catalogue.any_of(selection.keys)
    pending = [key for key in selection.keys if key not in ready]
    files = [ready[key] for key in selection.keys if key in ready]
    answer = {
        "strategy": selection.strategy,
        "limit": selection.limit,
        "offset": selection.offset,
        "pending": [key for key in pending if key not in catalogue.problems],
        "problems": {key: why for key, why in catalogue.problems.items() if key in pending},
    }
    if not files:
        return {**answer, "total": 0, "features": []}
    total, names = _page(catalogue.database, selection, files)
    if total and not names:  # there are fewer pages than was thought
        selection = replace(selection, offset=last_page(total, selection.limit))
        total, names = _page(catalogue.database, selection, files)
    strategy, rows = selection.strategy, read_named(names, ready)
    features = [
        {column: row[column] if is_known(column, strategy) else None for column in OWN_COLUMNS}
        | {column: row[step_column(column, strategy)] for column in STEP_COLUMNS}
        for row in (rows[name] for name in names)
    ]
    return {**answer, "offset": selection.offset, "total": total, "features": features}


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
            **selection.values, "files": files, "limit": selection.limit, "offset": selection.offset,
        },
    )  # fmt: skip
    total = next(row["place"] for row in rows if row["key"] is None)
    return total, [(row["key"], row["feature"]) for row in rows if row["key"] is not None]


def is_known(name: str, strategy: str) -> bool:
    """Whether a column is about the step that a strategy takes; some are of the main step alone."""
    return strategy == MAIN or name not in MAIN_COLUMNS


FORMATS = {
    "csv": ("FORMAT csv, HEADER true", "text/csv; charset=utf-8"),
    "parquet": ("FORMAT parquet, COMPRESSION zstd", "application/vnd.apache.parquet"),
    "json": ("FORMAT json, ARRAY true", "application/json"),
}
TEXTS = ("key", "status", "description", "source", "next", "runner_up_status")
LISTS = ("activates_on", "activates_on_share", "amid", "top_logits", "peaks", "labels", "warnings")
TAKEN_COLUMNS = (
    *OWN_COLUMNS, "runner_up", "extra_cost", "runner_up_cosine", "runner_up_status", "mean_activation",
    "greatest_activation",
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """A file to hand over, and to remove afterwards."""

    path: Path
    name: str
    media_type: str


def take(catalogue: Catalogue, asked: Mapping[str, str]) -> Taken:
    """All features of a selection, in its order; in CSV lists are JSON, and no description is a
    formula."""
    kind = one_of(asked, "format", tuple(FORMATS), "csv")
    chosen = {name: value for name, value in asked.items() if name not in ("format", *PAGING[2:])}
    selection = parse_selection(chosen, catalogue.widths())
    files = catalogue.of(selection.keys)
    options, media_type = FORMATS[kind]
    columns = [_taken_column(name, selection.strategy, kind) for name in TAKEN_COLUMNS]
    columns += [f"{step_column(name, selection.strategy)} AS {name}" for name in STEP_COLUMNS]
    sql = (
        f"SELECT * EXCLUDE (sorted) FROM (SELECT {', '.join(columns)}, {selection.sorted_by} AS sorted "
        f"FROM read_parquet($files) WHERE {selection.where}) ORDER BY {selection.order}"
    )
    path = catalogue.database.temporary / f"{uuid4().hex}.{kind}"
    if files:
        values = {**selection.values, "files": files}
        if kind == "csv":
            values["formula"] = FORMULA
        try:
            catalogue.database.write(sql, values, path, options)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        path.touch()
    return Taken(path, f"features.{kind}", media_type)


def _taken_column(name: str, strategy: str, kind: str) -> str:
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
