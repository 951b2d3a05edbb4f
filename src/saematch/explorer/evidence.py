"""What is known of one feature: examples, descriptions, what else is near, who judged it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saematch.errors import InputError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import read_rows
from saematch.explorer.database import Database
from saematch.explorer.run_files import RunFiles
from saematch.explorer.selection import check_names, whole_number
from saematch.matching.matchers import COSINE
from saematch.store.judge_results import answered_experiments
from saematch.store.names import (
    JUDGEMENTS_NAME,
    candidates_name,
    descriptions_name,
    examples_name,
    sample_name,
)
from saematch.types import find_feature

MOST_EXAMPLES = 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def evidence(catalogue: Catalogue, database: Database, asked: Mapping[str, str]) -> dict[str, Any]:
    """The max-activating examples of a feature, and every description it has; `problems`: files that could
    not be used, in words."""
    check_names(asked, ("feature", "limit"))
    key, feature = _feature(catalogue, asked)
    limit = whole_number(asked, "limit", 3, 1, MOST_EXAMPLES)
    return evidence_of(catalogue, database, key, [feature], limit)[feature]


def evidence_of(
    catalogue: Catalogue, database: Database, key: str, features: Sequence[int], limit: int
) -> dict[int, dict[str, Any]]:
    """The same of several features of one SAE, by feature."""
    run = catalogue.run
    problems: list[str] = []

    def rows(role: str, name: str, sql: str, **more: Any) -> dict[int, list[dict[str, Any]]]:
        if run.sha256(name) is None:
            return {}
        try:
            values = {"file": run.file(name), **_among(features), **more}
            return _by_feature(database.rows(sql, values))
        except InputError as error:
            problems.append(f"{role} are left out: {error}")
            return {}

    examples = rows(
        "examples",
        examples_name(key),
        "SELECT feature, corpus, document, position, activation, place, tokens, activations "
        f"FROM read_parquet($file) WHERE {_AMONG} "
        "QUALIFY row_number() OVER (PARTITION BY feature ORDER BY activation DESC, half, rank) <= $limit "
        "ORDER BY activation DESC, half, rank",
        limit=limit,
    )
    texts = [
        (
            source,
            rows(
                "descriptions",
                name,
                f"SELECT feature, text, explainer, licence FROM read_parquet($file) WHERE {_AMONG}",
            ),
        )
        for source, name in run.descriptions(key)
    ]
    page = neuronpedia_source(run, database, key)
    return {
        feature: {
            "key": key,
            "feature": feature,
            "examples": examples.get(feature, []),
            "descriptions": [
                {**row, "source": source} for source, of in texts for row in of.get(feature, ())
            ],
            "neuronpedia": None if page is None else f"{page}/{feature}",
            "problems": problems,
        }
        for feature in features
    }


def neuronpedia_source(run: RunFiles, database: Database, key: str) -> str | None:
    """The address of an SAE's features' pages, where the run has descriptions from there."""
    name = descriptions_name("neuronpedia", key)
    if run.sha256(name) is None:
        return None
    try:
        source = json.loads(database.details(run.file(name))).get("neuronpedia")
    except (InputError, ValueError, AttributeError):
        return None  # the descriptions that it would come from are named among the problems
    if not isinstance(source, str) or not _ID.fullmatch(source):
        return None
    return f"https://www.neuronpedia.org/{source}"


def candidates(
    catalogue: Catalogue, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """The features of the next layer that are nearest to a feature by cost, and which of them it got; last
    that of greatest cosine where it is none of them (its `rank` is None)."""
    check_names(asked, ("feature",))
    key, feature = _feature(catalogue, asked)
    return candidates_of(catalogue, database, key, [feature])[feature]


def candidates_of(
    catalogue: Catalogue, database: Database, key: str, features: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """The same of several features of one SAE, by feature."""
    [own] = catalogue.of([key])
    known = read_rows(own, features)
    steps = {
        feature: {name: known.get(feature, {}).get(name) for name in ("next", "partner", "cost")}
        for feature in features
    }
    following = next((step["next"] for step in steps.values() if step["next"]), "")
    name = candidates_name(key, following)
    near: dict[int, list[dict[str, Any]]] = {}
    if catalogue.run.sha256(name) is not None:
        [index] = catalogue.of([following])
        near = _by_feature(
            database.rows(
                _CANDIDATES,
                {
                    "near": catalogue.run.file(name),
                    "following": index,
                    "own": own,
                    **_among(features),
                },
            )
        )
    return {
        feature: {"key": key, "feature": feature, **step, "candidates": near.get(feature, [])}
        for feature, step in steps.items()
    }


def judgements(
    catalogue: Catalogue, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """What judges said of the pair that a feature makes with its partner at the next layer; `stands`: whose
    label the page shows; `warning`: why not to trust that judge."""
    check_names(asked, ("feature",))
    key, feature = _feature(catalogue, asked)
    return judgements_of(catalogue, database, key, [feature])[feature]


def judgements_of(
    catalogue: Catalogue, database: Database, key: str, features: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """The same of several features of one SAE, by feature."""
    run = catalogue.run
    samples = [sample_name(one) for one in answered_experiments(run.directory)]
    said: dict[int, list[dict[str, Any]]] = {}
    if run.sha256(JUDGEMENTS_NAME) is not None and samples:
        [own] = catalogue.of([key])
        said = _by_feature(
            database.rows(
                "SELECT DISTINCT step.feature, answer.experiment, answer.judge, answer.label, "
                "answer.score, answer.reason, sample.text_a, sample.text_b "
                f"FROM (SELECT * FROM read_parquet($own) WHERE {_AMONG}) AS step "
                "JOIN read_parquet($samples, filename = true) AS sample "
                "ON sample.kind = 'pair' AND NOT sample.swapped AND sample.a = step.key "
                "AND sample.b = step.next AND sample.feature = step.feature "
                "AND sample.partner = step.partner "
                "JOIN read_parquet($answers) AS answer ON answer.question = sample.question "
                "AND answer.experiment = string_split(replace(sample.filename, chr(92), '/'), '/')[-2] "
                "ORDER BY ALL",
                {
                    "own": own,
                    "samples": run.files(samples),
                    "answers": run.file(JUDGEMENTS_NAME),
                    **_among(features),
                },
            )
        )
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


def _among(features: Sequence[int]) -> dict[str, Any]:
    return {"among": list(features), "least": min(features), "most": max(features)}


def _by_feature(rows: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row.pop("feature")].append(row)
    return found


def _feature(catalogue: Catalogue, asked: Mapping[str, str]) -> tuple[str, int]:
    return find_feature(asked.get("feature", ""), catalogue.widths())
