"""What stands behind one feature: where it fires, what is said of it, what else is near, who judged it."""

import json
import re
from collections.abc import Mapping
from typing import Any

from saematch.errors import InputError, UsageError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.database import Database
from saematch.explorer.run_files import RunFiles
from saematch.explorer.selection import check_names, parse_feature, whole_number
from saematch.run.names import (
    JUDGEMENTS_NAME,
    JUDGING,
    candidates_name,
    contexts_name,
    descriptions_name,
    experiments_of,
    sample_name,
)

MOST_CONTEXTS = 20
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def evidence(catalogue: Catalogue, database: Database, asked: Mapping[str, str]) -> dict[str, Any]:
    """The strongest contexts of a feature, and every description it has; `problems`: files that could not
    be used, in words."""
    check_names(asked, ("feature", "limit"))
    run = catalogue.run
    key, feature = _feature(catalogue, asked)
    limit = whole_number(asked, "limit", 3, 1, MOST_CONTEXTS)
    problems: list[str] = []

    def rows(role: str, name: str, sql: str, **more: Any) -> list[dict[str, Any]]:
        if run.sha256(name) is None:
            return []
        try:
            return database.rows(sql, {"file": run.file(name), "feature": feature, **more})
        except InputError as error:
            problems.append(f"{role} are left out: {error}")
            return []

    contexts = rows(
        "contexts",
        contexts_name(key),
        "SELECT corpus, document, position, activation, place, tokens, activations "
        "FROM read_parquet($file) WHERE feature = $feature "
        "ORDER BY activation DESC, half, rank LIMIT $limit",
        limit=limit,
    )
    texts = [
        {**row, "source": source}
        for source, name in run.descriptions(key)
        for row in rows(
            "descriptions",
            name,
            "SELECT text, explainer, licence FROM read_parquet($file) WHERE feature = $feature",
        )
    ]
    return {
        "key": key,
        "feature": feature,
        "contexts": contexts,
        "descriptions": texts,
        "neuronpedia": neuronpedia_page(run, database, key, feature),
        "problems": problems,
    }


def neuronpedia_page(run: RunFiles, database: Database, key: str, feature: int) -> str | None:
    """The address of a feature's page, where the run has descriptions from there."""
    name = descriptions_name("neuronpedia", key)
    if run.sha256(name) is None:
        return None
    try:
        source = json.loads(database.details(run.file(name))).get("neuronpedia")
    except (InputError, ValueError, AttributeError):
        return None  # the descriptions that it would come from are named among the problems
    if not isinstance(source, str) or not _ID.fullmatch(source):
        return None
    return f"https://www.neuronpedia.org/{source}/{feature}"


def candidates(
    catalogue: Catalogue, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """The features of the next layer that are nearest to a feature, and which of them it got."""
    check_names(asked, ("feature",))
    key, feature = _feature(catalogue, asked)
    [own] = catalogue.of([key])
    [step] = database.rows(
        "SELECT next, partner, cost FROM read_parquet($file) WHERE feature = $feature",
        {"file": own, "feature": feature},
    ) or [{"next": None, "partner": None, "cost": None}]
    name = candidates_name(key, step["next"] or "")
    if catalogue.run.sha256(name) is None:
        return {"key": key, "feature": feature, **step, "candidates": []}
    [following] = catalogue.of([step["next"]])
    rows = database.rows(
        "WITH near AS (SELECT rank, candidate, cost, cosine FROM read_parquet($near) "
        "WHERE feature = $feature) "
        "SELECT near.*, other.status, other.description, given.feature AS given_to "
        "FROM near LEFT JOIN read_parquet($following) AS other ON other.feature = near.candidate "
        "LEFT JOIN read_parquet($own) AS given ON given.partner = near.candidate ORDER BY near.rank",
        {"near": catalogue.run.file(name), "feature": feature, "following": following, "own": own},
    )
    return {"key": key, "feature": feature, **step, "candidates": rows}


def judgements(
    catalogue: Catalogue, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """What judges said of the pair that a feature makes with its partner at the next layer; `stands`: whose
    label the page shows; `doubt`: why not to trust that judge."""
    check_names(asked, ("feature",))
    key, feature = _feature(catalogue, asked)
    run = catalogue.run
    judges = run.judges
    samples = [sample_name(one) for one in experiments_of(run.names(JUDGING))]
    if run.sha256(JUDGEMENTS_NAME) is None or not samples:
        return {"key": key, "feature": feature, "judgements": []}
    [own] = catalogue.of([key])
    rows = database.rows(
        "SELECT DISTINCT answer.experiment, answer.judge, answer.label, answer.score, answer.reason, "
        "sample.text_a, sample.text_b "
        "FROM read_parquet($own) AS step JOIN read_parquet($samples, filename = true) AS sample "
        "ON sample.kind = 'pair' AND NOT sample.swapped AND sample.a = step.key "
        "AND sample.b = step.next AND sample.feature = step.feature AND sample.partner = step.partner "
        "JOIN read_parquet($answers) AS answer ON answer.question = sample.question "
        "AND answer.experiment = string_split(replace(sample.filename, chr(92), '/'), '/')[-2] "
        "WHERE step.feature = $feature AND sample.feature = $feature "
        "ORDER BY ALL",
        {
            "own": own,
            "samples": run.files(samples),
            "answers": run.file(JUDGEMENTS_NAME),
            "feature": feature,
        },
    )
    stands = {(experiment, one.judge): one for experiment, one in judges.items()}
    for row in rows:
        judge = stands.get((row["experiment"], row["judge"]))
        row["stands"] = judge is not None
        row["doubt"] = "" if judge is None or judge.tells else judge.verdict
    return {"key": key, "feature": feature, "judgements": rows}


def _feature(catalogue: Catalogue, asked: Mapping[str, str]) -> tuple[str, int]:
    key, feature = parse_feature(asked.get("feature", ""), tuple(catalogue.wanted()))
    width = catalogue.run.width(key)
    if feature >= width:
        raise UsageError(f"needed a feature of layer {key} from 0 to {width - 1}, found {feature}")
    return key, feature
