"""One feature: its path through the layers, forwards and backwards, a card per layer; what is known of it:
examples, descriptions, what else is near, who judged it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from saematch.errors import InputError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import (
    ACTIVE_COLUMNS,
    ASKED,
    answered,
    by_key,
    read_rows,
    step_column,
)
from saematch.explorer.run_files import RunFiles
from saematch.explorer.search import check_names
from saematch.matching.matchers import COSINE
from saematch.store import names as named
from saematch.store.becoming import Becoming, Becomings, Member
from saematch.store.following import Other, Pair
from saematch.store.judge_results import answered_experiments
from saematch.types import find_feature

FEATURE_COLUMNS = (
    "key", "feature", "status", "description", "source", "activates_on", "activates_on_share", "amid",
    "top_logits", "activation_frequency", "activation_count", "mean_activation", "greatest_activation",
    "born", "dies",
)  # fmt: skip
MEANING_COLUMNS = ("description", "source", "activates_on", "activates_on_share", "top_logits")
STEP_COLUMNS = (
    "cost", "mse", "mse_encoder", "cosine", "margin", "certain", "quantile", "runner_up", "extra_cost",
    "runner_up_cosine", "runner_up_status", "phi", "lift", *ACTIVE_COLUMNS, "labels",
)  # fmt: skip


def follow(catalogue: Catalogue, asked: Mapping[str, str]) -> dict[str, Any]:
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
        rows, here = _walked(catalogue, chain, asked_for)
    else:
        passed = catalogue.database.rows(
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
        "known": [not first or bool(rows[0]["born"]), last + 1 == len(chain) or _dies(rows[-1])],
    }


def _walked(
    catalogue: Catalogue, chain: tuple[str, ...], row: dict[str, Any]
) -> tuple[list[dict[str, Any]], int]:
    """The path through a feature of a run that is not finished, step by step as far as it is matched;
    and the place of that feature."""
    rows, place = [row], chain.index(row["key"])
    for before in reversed(chain[:place]):
        [index] = catalogue.of([before])
        found = catalogue.database.rows(
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
    aligned = before[step_column("partner", COSINE)]
    near = None
    if before["nearer"] is not None:
        near = Other(before["nearer"], before["nearer_cosine"], before["nearer_cost"])
    active = tuple(before[name] for name in ("active", "partner_active", "joint_active"))
    directed = before[step_column("both_live", COSINE)] and aligned != before["partner"]
    return Pair(
        names=(first, second),
        statuses=(before["status"], row["status"]),
        **{name: before[name] for name in ("cost", "quantile", "cosine", "margin", "certain")},
        nearer=near,
        by_direction=Other(aligned, before[step_column("cosine", COSINE)]) if directed else None,
        activation_counts=None if None in active else active,
        labels=before["told"] or (),
    )


def _dies(row: Mapping[str, Any]) -> bool:
    """Also in a run whose paths are not made yet."""
    return bool(row["dies"] or (row["matched"] and row["partner"] is None))


def _end(row: Mapping[str, Any], beyond: str, fate: str) -> str:
    if fate == "born" and row["born"]:
        return f"born at {row['key']}: nothing at {beyond} was matched to it"
    if fate == "dies" and _dies(row):
        return f"dies at {row['key']}: it is matched to nothing at {beyond}"
    return (
        f"{beyond} is not matched to {row['key']} yet, or that file cannot be used: saematch run makes "
        "what is missing"
    )


def becomings(catalogue: Catalogue, key: str, features: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What becomes of features, in words and in parts; `path`: the consensus path through each, with what
    becomes of every member, and `here`, its place on it; `problems`: what could not be used, in words."""
    told = Becomings(catalogue.run)
    try:
        found = told.of(key, features)
        names = {(one.key, one.feature) for each in found.values() for one in each.path}
        members = {at: told.of(at, some, follow=False) for at, some in by_key(names).items()}
    except (InputError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        said = f"what becomes of features is left out: {error}"
        return {
            feature: {
                "key": key,
                "feature": feature,
                "sentence": "",
                "path": [],
                "problems": [said],
            }
            for feature in features
        }
    meant: dict[tuple[str, int], dict[str, Any]] = {}
    for at, some in by_key(names).items():
        with suppress(InputError):  # the layer is named among the problems of the page
            [index] = catalogue.of([at])
            meant |= {(at, feature): row for feature, row in read_rows(index, some).items()}

    def member(one: Member) -> dict[str, Any]:
        row = meant.get((one.key, one.feature), {})
        parts = _parts(members[one.key][one.feature])
        return {**parts, **vars(one), **{name: row.get(name) for name in MEANING_COLUMNS}}

    return {
        feature: {
            **_parts(one),
            "sentence": one.sentence,
            "path": [member(each) for each in one.path],
            "here": next((n for n, each in enumerate(one.path) if each.key == key), None),
            "problems": [],
        }
        for feature, one in found.items()
    }


def _parts(one: Becoming) -> dict[str, Any]:
    several = ("partners", "merged", "origins")
    parts = {name: [vars(other) for other in getattr(one, name)] for name in several}
    names = ("key", "feature", "following", "before", "fate", "born", "notes")
    return {**{name: getattr(one, name) for name in names}, "any": one.probability, **parts}


MOST_EXAMPLES = 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def evidence(
    catalogue: Catalogue, key: str, features: Sequence[int], limit: int
) -> dict[int, dict[str, Any]]:
    """The max-activating examples of features, `limit` of each, and every description they have;
    `problems`: files that could not be used, in words."""
    run = catalogue.run
    problems: list[str] = []

    def rows(role: str, name: str, sql: str, **more: Any) -> dict[int, list[dict[str, Any]]]:
        if run.sha256(name) is None:
            return {}
        try:
            values = {"file": run.file(name), **_among(features), **more}
            return _by_feature(catalogue.database.rows(sql, values))
        except InputError as error:
            problems.append(f"{role} are left out: {error}")
            return {}

    examples = rows(
        "examples",
        named.examples_name(key),
        "SELECT feature, corpus, document, position, activation, place, tokens, activations "
        f"FROM read_parquet($file) WHERE {_AMONG} "
        "QUALIFY row_number() OVER (PARTITION BY feature ORDER BY activation DESC, half, rank) <= $limit "
        "ORDER BY activation DESC, half, rank",
        limit=limit,
    )
    said = f"SELECT feature, text, explainer, licence FROM read_parquet($file) WHERE {_AMONG}"
    texts = {source: rows("descriptions", name, said) for source, name in run.descriptions(key)}
    page = _neuronpedia_source(run, key)
    return {
        feature: {
            "key": key,
            "feature": feature,
            "examples": examples.get(feature, []),
            "descriptions": [
                {**row, "source": source}
                for source, of in texts.items()
                for row in of.get(feature, ())
            ],
            "neuronpedia": None if page is None else f"{page}/{feature}",
            "problems": problems,
        }
        for feature in features
    }


def _neuronpedia_source(run: RunFiles, key: str) -> str | None:
    """The address of an SAE's features' pages, where the run has descriptions from there."""
    name = named.descriptions_name("neuronpedia", key)
    if run.sha256(name) is None:
        return None
    try:
        details = pq.read_schema(run.file(name)).metadata[b"saematch"]
        source = json.loads(details).get("neuronpedia")
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the descriptions that it would come from are named among the problems
    if not isinstance(source, str) or not _ID.fullmatch(source):
        return None
    return f"https://www.neuronpedia.org/{source}"


def candidates(
    catalogue: Catalogue, key: str, features: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """The features of the next layer that are nearest to features by cost, and which of them they got; last
    that of greatest cosine where it is none of them (its `rank` is None)."""
    [own] = catalogue.of([key])
    known = read_rows(own, features)
    steps = {
        feature: {name: known.get(feature, {}).get(name) for name in ("next", "partner", "cost")}
        for feature in features
    }
    following = next((step["next"] for step in steps.values() if step["next"]), "")
    name = named.candidates_name(key, following)
    near: dict[int, list[dict[str, Any]]] = {}
    if catalogue.run.sha256(name) is not None:
        [index] = catalogue.of([following])
        values = {"near": catalogue.run.file(name), "following": index, "own": own}
        near = _by_feature(catalogue.database.rows(_CANDIDATES, {**values, **_among(features)}))
    return {
        feature: {"key": key, "feature": feature, **step, "candidates": near.get(feature, [])}
        for feature, step in steps.items()
    }


def judgements(
    catalogue: Catalogue, key: str, features: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """What judges said of the pairs that features make with their partners at the next layer; `stands`: whose
    label the page shows; `warning`: why not to trust that judge."""
    run = catalogue.run
    samples = [named.sample_name(one) for one in answered_experiments(run.directory)]
    said: dict[int, list[dict[str, Any]]] = {}
    if run.sha256(named.JUDGEMENTS_NAME) is not None and samples:
        [own] = catalogue.of([key])
        values = {
            "samples": run.files(samples),
            "judgements": run.file(named.JUDGEMENTS_NAME),
            "own": own,
        }
        said = _by_feature(catalogue.database.rows(_JUDGEMENTS, {**values, **_among(features)}))
    stands = {(experiment, one.judge): one for experiment, one in run.judges.items()}
    for row in (row for rows in said.values() for row in rows):
        judge = stands.get((row["experiment"], row["judge"]))
        row["stands"] = judge is not None
        row["warning"] = "" if judge is None or judge.passes_controls else judge.verdict
    return {
        feature: {"key": key, "feature": feature, "judgements": said.get(feature, [])}
        for feature in features
    }


_AMONG = "feature BETWEEN $least AND $most AND list_contains($among, feature)"
"""The bounds let a reader skip most of a file; its rows are in order of the feature."""


_CANDIDATES = f"""
WITH own AS (SELECT * FROM read_parquet($own) WHERE {_AMONG}),
kept AS (
  SELECT feature, rank, candidate, cost, cosine FROM read_parquet($near) WHERE {_AMONG}
),
near AS (
  FROM kept UNION ALL
  SELECT own.feature, NULL, own.{COSINE}_partner, own.{COSINE}_cost, own.{COSINE}_cosine FROM own
  WHERE own.{COSINE}_partner IS NOT NULL AND NOT EXISTS (
    FROM kept WHERE kept.feature = own.feature AND kept.candidate = own.{COSINE}_partner
  )
)
SELECT near.*, other.status, other.description, given.feature AS given_to FROM near
LEFT JOIN read_parquet($following) AS other ON other.feature = near.candidate
LEFT JOIN read_parquet($own) AS given ON given.partner = near.candidate
ORDER BY near.rank NULLS LAST"""


_JUDGEMENTS = f"""
SELECT DISTINCT step.feature, answer.experiment, answer.judge, answer.label, answer.score, answer.reason,
  sample.text_a, sample.text_b
FROM (SELECT * FROM read_parquet($own) WHERE {_AMONG}) AS step
JOIN ({answered(*ASKED)})
  ON sample.a = step.key AND sample.b = step.next AND sample.feature = step.feature
  AND sample.partner = step.partner
ORDER BY ALL"""


def _among(features: Sequence[int]) -> dict[str, Any]:
    return {"among": list(features), "least": min(features), "most": max(features)}


def _by_feature(rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row.pop("feature")].append(row)
    return found
