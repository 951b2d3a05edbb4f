"""The path of one feature through the layers, forwards and backwards, a card per layer."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from saematch.errors import InputError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import ACTIVE_COLUMNS, read_rows, step_column
from saematch.explorer.database import Database
from saematch.explorer.selection import check_names
from saematch.matching.matchers import COSINE
from saematch.store.following import Other, Pair
from saematch.types import find_feature

FEATURE_COLUMNS = (
    "key", "feature", "status", "description", "source", "activates_on", "activates_on_share",
    "amid", "top_logits",
    "activation_frequency", "activation_count", "mean_activation", "greatest_activation", "born", "dies",
)  # fmt: skip
STEP_COLUMNS = (
    "cost", "mse", "mse_encoder", "cosine", "margin", "certain", "quantile", "runner_up", "extra_cost",
    "runner_up_cosine", "runner_up_status", "phi", "lift", *ACTIVE_COLUMNS, "labels",
)  # fmt: skip


def follow(catalogue: Catalogue, database: Database, asked: Mapping[str, str]) -> dict[str, Any]:
    """The path through a feature.

    A card's `step` is the step into its layer; the first card has none.  `here` is the place of the
    feature that was asked for.  `ends`: why the path stops before its chain does, in words, at either end;
    `known`: whether it really does, as `[before, after]`, or a matching is missing.
    """
    check_names(asked, ("feature",))
    key, feature = find_feature(asked.get("feature", ""), catalogue.widths())
    chain = next(chain for chain in catalogue.run.chains if key in chain)
    asked_for = _row(catalogue, key, feature)
    if asked_for["path"] is None:
        rows, here = _walked(catalogue, database, chain, asked_for)
    else:
        passed = database.rows(
            "SELECT key, feature FROM read_parquet($files) WHERE path = $path "
            "ORDER BY list_position($chain, key)",
            {"files": catalogue.of(chain), "path": asked_for["path"], "chain": list(chain)},
        )
        rows = [_row(catalogue, one["key"], one["feature"]) for one in passed]
        here = [row["key"] for row in rows].index(key)
    cards = [_card(rows[0], None), *(_card(row, before) for before, row in pairwise(rows))]
    first, last = chain.index(rows[0]["key"]), chain.index(rows[-1]["key"])
    return {
        "here": here,
        "cards": cards,
        "ends": {
            "before": _end(rows[0], chain[first - 1], "born") if first else "",
            "after": _end(rows[-1], chain[last + 1], "dies") if last + 1 < len(chain) else "",
        },
        "known": [
            first == 0 or bool(rows[0]["born"]),
            last + 1 == len(chain) or _dies(rows[-1]),
        ],
    }


def _walked(
    catalogue: Catalogue, database: Database, chain: tuple[str, ...], row: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """The path through a feature of a run that is not finished, step by step as far as it is matched;
    and the place of that feature."""
    rows, place = [row], chain.index(row["key"])
    for before in reversed(chain[:place]):
        [index] = catalogue.of([before])
        found = database.rows(
            "SELECT feature FROM read_parquet($index) WHERE partner = $partner LIMIT 1",
            {"index": index, "partner": rows[0]["feature"]},
        )
        if not found:
            break
        rows.insert(0, _row(catalogue, before, found[0]["feature"]))
    here = len(rows) - 1
    for after in chain[place + 1 :]:
        partner = rows[-1]["partner"]
        if partner is None:
            break
        rows.append(_row(catalogue, after, partner))
    return rows, here


def _row(catalogue: Catalogue, key: str, feature: int) -> dict[str, Any]:
    [index] = catalogue.of([key])
    found = read_rows(index, [feature])
    if feature not in found:
        raise InputError(
            f"layer {key} has no feature {feature}, only {catalogue.run.width(key)} features: "
            "a matching in this run leads to one that is not there"
        )
    return found[feature]


def _card(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """A feature, with the step that led to it from the feature before."""
    card = {name: row[name] for name in FEATURE_COLUMNS}
    if before is None:
        return {**card, "step": None}
    step = {name: before[name] for name in STEP_COLUMNS}
    warnings = [words for _, words in _pair(before, row).warnings]
    if not before["matched"]:
        warnings.append(
            "the matching of these layers is missing: how near the two are is not known"
        )
    origin = f"{before['key']}/{before['feature']}"
    return {**card, "step": {**step, "from": origin, "warnings": warnings}}


def _pair(before: Mapping[str, Any], row: Mapping[str, Any]) -> Pair:
    first, second = (f"{one['key']}/{one['feature']}" for one in (before, row))
    nearer, aligned = before["nearer"], before[step_column("partner", COSINE)]
    active = tuple(before[name] for name in ("active", "partner_active", "joint_active"))
    directed = before[step_column("both_live", COSINE)] and aligned != before["partner"]
    return Pair(
        names=(first, second),
        statuses=(before["status"], row["status"]),
        **{name: before[name] for name in ("cost", "quantile", "cosine", "margin", "certain")},
        nearer=None
        if nearer is None
        else Other(nearer, before["nearer_cosine"], before["nearer_cost"]),
        by_direction=Other(aligned, before[step_column("cosine", COSINE)]) if directed else None,
        activation_counts=None if None in active else active,
        labels=before["told"] or (),
    )


def _dies(row: Mapping[str, Any]) -> bool:
    """Also in a run whose paths are not made yet."""
    return bool(row["dies"] or (row["matched"] and row["partner"] is None))


def _end(row: Mapping[str, Any], beyond: str, fate: str) -> str:
    if row[fate] or (fate == "dies" and _dies(row)):
        return (
            f"born at {row['key']}: nothing at {beyond} was matched to it"
            if fate == "born"
            else f"dies at {row['key']}: it is matched to nothing at {beyond}"
        )
    return (
        f"{beyond} is not matched to {row['key']} yet, or that file cannot be used: saematch run makes "
        "what is missing"
    )
