"""Two runs over the same SAEs: where the partner of a feature differs.

SAEs are the same where the sha256 of their files is, whatever the runs call them.  Means are over the live
features that both runs pair.
"""

from collections.abc import Mapping
from typing import Any

from saematch.errors import UsageError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import step_column, strategies
from saematch.explorer.database import Database
from saematch.explorer.rows import with_meanings
from saematch.explorer.run_files import RunFiles
from saematch.explorer.selection import (
    MOST_ROWS,
    check_names,
    last_page,
    one_of,
    parse_keys,
    whole_number,
)
from saematch.matching.registry import MAIN

PARAMETERS = ("layer", "one", "other", "limit", "offset")
_BOTH = "partner_one IS NOT NULL AND partner_other IS NOT NULL"
_DIFFER = "partner_one IS DISTINCT FROM partner_other"


def compare_runs(
    first: Catalogue, second: Catalogue | None, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:
    """Counts for every pair of SAEs that both runs match, and a page of the features that differ.

    `one`, `other`: the strategy that is taken from the first and from the second run.
    """
    check_names(asked, PARAMETERS)
    if second is None:
        raise UsageError(
            "expected two run directories, got one; try: saematch explore DIR SECOND_DIR"
        )
    one = one_of(asked, "one", strategies(), MAIN)
    other = one_of(asked, "other", strategies(), MAIN)
    limit = whole_number(asked, "limit", 25, 1, MOST_ROWS)
    offset = whole_number(asked, "offset", 0, 0, 1 << 40)
    indexes, others = first.all(), second.all()
    names = {_identity(second.run, key): key for key in others}
    steps = set(second.run.adjacent)
    shared = []
    for a, b in first.run.adjacent:
        same = names.get(_identity(first.run, a)), names.get(_identity(first.run, b))
        if a in indexes and same in steps:
            shared.append((a, b, *same))
    keys = parse_keys(asked.get("layer", ""), [a for a, *_ in shared])
    answer: dict[str, Any] = {
        "one": one,
        "other": other,
        "settings": _differing_settings(first.run, second.run),
        "limit": limit,
        "offset": offset,
        "problems": {**second.problems, **first.problems},
    }
    pairs, selects, values = [], [], {}
    for place, (a, b, same_a, _) in enumerate(shared):
        if a not in keys:
            continue
        values |= {f"first{place}": indexes[a], f"second{place}": others[same_a]}
        selects.append(_compared(place, one, other))
        pairs.append({"a": a, "b": b})
    if not pairs:
        return {**answer, "pairs": [], "total": 0, "features": []}
    compared = " UNION ALL ".join(selects)
    counts = {
        row["key"]: row
        for row in database.rows(
            f"WITH compared AS ({compared}) SELECT key, count(*) AS features, "
            "count(*) FILTER (partner_one = partner_other) AS same, "
            f"count(*) FILTER ({_DIFFER}) AS differ, "
            f"count(*) FILTER ({_BOTH}) AS compared, avg(mse_one) FILTER ({_BOTH}) AS mse_one, "
            f"avg(mse_other) FILTER ({_BOTH}) AS mse_other FROM compared GROUP BY key",
            values,
        )
    }
    none = {
        "features": 0, "same": 0, "differ": 0, "compared": 0, "mse_one": None, "mse_other": None,
    }  # fmt: skip
    total = sum(row["differ"] for row in counts.values())
    offset = min(offset, last_page(total, limit)) if total else 0
    rows = database.rows(
        f"WITH compared AS ({compared}) SELECT * FROM compared WHERE {_DIFFER} "
        "ORDER BY list_position($keys, key), feature LIMIT $limit OFFSET $offset",
        {**values, "keys": list(keys), "limit": limit, "offset": offset},
    )
    return {
        **answer,
        "pairs": [{**pair, **counts.get(pair["a"], none)} for pair in pairs],
        "offset": offset,
        "total": total,
        "features": with_meanings(rows, indexes),
    }


def _identity(run: RunFiles, key: str) -> str:
    return str(run.manifest["saes"][key]["sha256"])


def _compared(place: int, one: str, other: str) -> str:
    """A row per live feature that both runs may pair, of one pair of SAEs."""
    columns = ", ".join(
        f"{side}.{step_column(name, strategy)} AS {name}_{side}"
        for side, strategy in (("one", one), ("other", other))
        for name in ("partner", "mse", "cost", "cosine")
    )
    return (
        "SELECT one.key, one.feature, one.next, "
        f"{columns} FROM read_parquet($first{place}) AS one "
        f"JOIN read_parquet($second{place}) AS other ON other.feature = one.feature "
        f"WHERE one.status = 'live' AND one.{step_column('matched', one)} "
        f"AND other.{step_column('matched', other)} "
        f"AND coalesce(one.{step_column('partner', one)}, other.{step_column('partner', other)}) IS NOT NULL"
    )


def _differing_settings(one: RunFiles, other: RunFiles) -> list[dict[str, Any]]:
    ours, theirs = one.manifest["config"], other.manifest["config"]
    names = dict.fromkeys((*ours, *theirs))
    return [
        {"setting": name, "one": ours.get(name), "other": theirs.get(name)}
        for name in names
        if ours.get(name) != theirs.get(name)
    ]
