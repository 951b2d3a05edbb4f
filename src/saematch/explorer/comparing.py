"""Two strategies, or two runs, on the same features: where they disagree, and who is right.

A feature's score under a strategy is the share of its activations on which its partner is active too (the
matching score of that pair); its label is what a judge calls the two, from 1 (DIFFERENT) to 3 (SAME).  Labels
are compared where one experiment asked about both partners: one that asks about one strategy alone would
count features for both only where the partners are equal.  Only live features are compared; means are over
those that both pair, whether or not their partners are live.

SAEs of two runs are the same where the sha256 of their files is, whatever the runs call them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from saematch.errors import InputError, UsageError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import (
    label_parameters,
    labels_query,
    paired_labels,
    step_column,
    strategies,
    with_meanings,
)
from saematch.explorer.database import Database
from saematch.explorer.overview import strategies_of
from saematch.explorer.run_files import RunFiles
from saematch.explorer.selection import (
    MOST_ROWS,
    check_names,
    last_page,
    one_of,
    parse_keys,
    whole_number,
)
from saematch.matching.matchers import COSINE, MAIN

SHOWN = {
    "differ": "partner_one IS DISTINCT FROM partner_other",
    "one": "partner_one IS DISTINCT FROM partner_other AND score_one > score_other",
    "other": "partner_one IS DISTINCT FROM partner_other AND score_other > score_one",
    "judge_one": "partner_one IS DISTINCT FROM partner_other AND label_one > label_other",
    "judge_other": "partner_one IS DISTINCT FROM partner_other AND label_other > label_one",
    "same": "partner_one = partner_other",
    "all": "true",
}
"""Which features: those on which the two differ, those where the one's (the other's) partner is
active together with the feature more often, or is called more alike by the judge, those on which they agree,
all."""
SORTS = {
    "difference": "abs(score_one - score_other)",
    "labels": "abs(label_one - label_other)",
    "layer": "NULL",
    "mse": "mse_one",
}
"""What features are sorted by, the greatest first, those where it is not known last."""
GROUP = 300_000
"""Features that one question looks at."""
MOST_OFFSET = 10_000
"""Last offset of a page over several layers, whose features are put in order here."""
PARAMETERS = ("layer", "one", "other", "corpus", "show", "sort", "active", "limit", "offset")
ACTIVE = 10
"""How often a feature was active that is listed by its score, unless asked otherwise: of one that was active
once the score is 0 or 1."""
_SCORE = ("score", "phi", "lift", "activation_count")
_NO_SCORES = (
    "(SELECT NULL::VARCHAR AS a, NULL::VARCHAR AS b, NULL::BIGINT AS feature, NULL::BIGINT AS partner, "
    "NULL::VARCHAR AS strategy, NULL::DOUBLE AS score, NULL::DOUBLE AS phi, NULL::DOUBLE AS lift, "
    "NULL::BIGINT AS activation_count WHERE false)"
)
_SCORES = (
    "(SELECT a, b, feature, partner, strategy, activation_count, phi, lift, "
    "CASE WHEN activation_count > 0 THEN joint_activation_count / activation_count END AS score "
    "FROM read_parquet($scores) WHERE list_contains($keys, a) AND list_contains($compared, strategy))"
)
_NO_LABELS = (
    "(SELECT NULL::VARCHAR AS a, NULL::VARCHAR AS b, NULL::BIGINT AS feature, NULL::BIGINT AS partner, "
    "NULL::VARCHAR[] AS labels WHERE false)"
)
_NO_PAIRED = (
    "(SELECT NULL::VARCHAR AS a, NULL::VARCHAR AS b, NULL::BIGINT AS feature, "
    "NULL::BIGINT AS partner_one, NULL::BIGINT AS partner_other, NULL::DOUBLE AS label_one, "
    "NULL::DOUBLE AS label_other WHERE false)"
)


def compare(
    catalogue: Catalogue, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:  # fmt: skip
    """Counts for every pair of layers, and a page of features, scores on the corpus that is asked for."""
    check_names(asked, PARAMETERS)
    run = catalogue.run
    one = one_of(asked, "one", strategies(), MAIN)
    other = one_of(asked, "other", strategies(), _other_than(one, strategies_of(run)))
    if one == other:
        raise UsageError(f"expected two strategies to compare, got {one} twice")
    show = one_of(asked, "show", tuple(SHOWN), "differ")
    left_out: list[str] = []
    labels = _usable(lambda: label_parameters(run), "labels", left_out)
    usual = "difference" if run.pair_sources else "labels" if labels else "mse"
    sort = one_of(asked, "sort", tuple(SORTS), usual)
    active = whole_number(asked, "active", ACTIVE if run.pair_sources else 0, 0, 1 << 40)
    limit = whole_number(asked, "limit", 25, 1, MOST_ROWS)
    offset = whole_number(asked, "offset", 0, 0, 1 << 40)
    corpora = list(run.pair_sources)
    corpus = asked.get("corpus", "") or (corpora[0] if corpora else "")
    if corpus and corpus not in corpora:
        raise UsageError(f"expected a corpus among {', '.join(corpora)}, got '{corpus[:80]}'")
    every = catalogue.all()
    firsts = [a for a, _ in run.adjacent if a in every]
    keys = parse_keys(asked.get("layer", ""), firsts)
    answer: dict[str, Any] = {
        "one": one, "other": other, "corpus": corpus, "show": show, "sort": sort, "active": active,
        "judged": bool(labels), "judges": list(labels.get("judges", ())), "left_out": left_out,
        "limit": limit, "offset": offset, "problems": catalogue.problems,
    }  # fmt: skip
    if not keys:
        return {**answer, "pairs": [], "total": 0, "features": []}
    values: dict[str, Any] = dict(labels)
    measured = _usable(
        lambda: {"scores": run.file(run.pair_sources[corpus])} if corpus else {},
        "scores",
        left_out,
    )
    if measured:
        values |= {**measured, "compared": [one, other]}
    by_score = measured and (sort == "difference" or show in ("one", "other"))
    listed = f"({SHOWN[show]})"
    if by_score:
        listed += (
            f" AND coalesce(greatest(activation_count_one, activation_count_other), 0) >= {active}"
        )
    compared = f"WITH compared AS ({_compared(one, other, bool(measured), bool(labels))})"

    def ask(sql: str, **more: Any) -> Iterator[dict[str, Any]]:
        """Ask some layers after others, so that memory does not grow with their number."""
        for some in _grouped(keys, run):
            files = {"files": [every[key] for key in some], "keys": some}
            yield from database.rows(f"{compared} {sql}", {**values, **files, **more})

    counts = list(ask(_COUNTS.format(listed=listed)))
    total = sum(row.pop("listed") for row in counts)
    offset = min(offset, last_page(total, limit)) if total else 0
    if len(keys) > 1 and offset > MOST_OFFSET:
        raise UsageError(
            f"expected an offset of at most {MOST_OFFSET} over several layers, got {offset}; choose one layer"
        )
    best = ask(
        f"SELECT key, feature, {SORTS[sort]} AS sorted FROM compared WHERE {listed} "
        "ORDER BY sorted DESC NULLS LAST, list_position($keys, key), feature LIMIT $most",
        most=offset + limit,
    )
    ranked = sorted(
        (row["sorted"] is None, -(row["sorted"] or 0.0), keys.index(row["key"]), row["feature"])
        for row in best
    )[offset : offset + limit]
    page = [(keys[place], feature) for _, _, place, feature in ranked]
    names = [f"{key}/{feature}" for key, feature in page]
    found = ask(
        "SELECT * FROM compared WHERE list_contains($names, key || '/' || feature) "
        "ORDER BY list_position($keys, key)",
        names=names,
    )
    rows = {(row["key"], row["feature"]): row for row in found}
    return {
        **answer,
        "offset": offset,
        "pairs": counts,
        "total": total,
        "features": with_meanings([rows[one] for one in page], every),
    }


def _grouped(keys: Sequence[str], run: RunFiles) -> Iterator[list[str]]:
    group: list[str] = []
    for key in keys:
        if group and sum(map(run.width, [*group, key])) > GROUP:
            yield group
            group = []
        group.append(key)
    yield group


_BOTH = "partner_one IS NOT NULL AND partner_other IS NOT NULL"


def _mean(name: str) -> str:
    """The means of a column over the features that have both partners and a value under both."""
    known = f"{_BOTH} AND {name}_one IS NOT NULL AND {name}_other IS NOT NULL"
    return ", ".join(
        f"avg({name}_{side}) FILTER ({known}) AS {name}_{side}" for side in ("one", "other")
    )


_COUNTS = (
    "SELECT key AS a, any_value(next) AS b, count(*) AS features, "
    "count(*) FILTER (partner_one = partner_other) AS same, "
    f"count(*) FILTER ({SHOWN['differ']}) AS differ, "
    f"count(*) FILTER ({SHOWN['one']}) AS for_one, count(*) FILTER ({SHOWN['other']}) AS for_other, "
    f"count(*) FILTER ({SHOWN['differ']} AND score_one = score_other) AS ties, "
    f"count(*) FILTER ({SHOWN['differ']} AND (score_one IS NULL OR score_other IS NULL)) AS unmeasured, "
    f"count(*) FILTER ({_BOTH}) AS compared, "
    f"{_mean('score')}, {_mean('phi')}, {_mean('mse')}, "
    "count(label_one) AS judged, avg(label_one) AS label_one, avg(label_other) AS label_other, "
    "count(*) FILTER (label_one IS NOT NULL AND partner_one = partner_other) AS judged_same, "
    "count(*) FILTER ({listed}) AS listed, "
    f"count(*) FILTER ({SHOWN['judge_one']}) AS judge_one, "
    f"count(*) FILTER ({SHOWN['judge_other']}) AS judge_other "
    "FROM compared "
    "GROUP BY key ORDER BY list_position($keys, key)"
)


def _usable(
    make: Callable[[], dict[str, Any]], what: str, left_out: list[str]
) -> dict[str, Any]:  # fmt: skip
    """What is made of the run's files; nothing, and the reason in `left_out`, where they cannot be used."""
    try:
        return make()
    except InputError as error:
        left_out.append(f"{what} are left out: {error}")
        return {}


def _other_than(one: str, there: Sequence[str]) -> str:
    """What a strategy is compared with where nothing is said."""
    usual = (COSINE, *there, *strategies())
    return next(other for other in usual if other != one and (other in there or not there))


def _compared(one: str, other: str, measured: bool, judged: bool) -> str:
    """A row per live feature that either strategy pairs, with both partners, their scores and labels."""
    columns, joins = [], []
    tables = "read_parquet($samples, filename = true)", "read_parquet($answers)"
    scores = _SCORES if measured else _NO_SCORES
    labels = f"({labels_query(*tables)})" if judged else _NO_LABELS
    paired = paired_labels(*tables, one, other) if judged else _NO_PAIRED
    for side, strategy in (("one", one), ("other", other)):
        columns += [
            f"step.{step_column(name, strategy)} AS {name}_{side}"
            for name in ("partner", "mse", "cosine")
        ]
        columns += [f"{side}_score.{name} AS {name}_{side}" for name in _SCORE]
        columns += [f"{side}_said.labels AS labels_{side}", f"judged.label_{side}"]
        joins.append(
            f"LEFT JOIN {labels} AS {side}_said ON {side}_said.a = step.key "
            f"AND {side}_said.b = step.next AND {side}_said.feature = step.feature "
            f"AND {side}_said.partner = step.{step_column('partner', strategy)}"
        )
        joins.append(
            f"LEFT JOIN {scores} AS {side}_score ON {side}_score.a = step.key "
            f"AND {side}_score.b = step.next "  # non-adjacent pairs are measured too
            f"AND {side}_score.feature = step.feature AND {side}_score.strategy = '{strategy}' "
            f"AND {side}_score.partner = step.{step_column('partner', strategy)}"
        )
    partners = (
        f"judged.partner_{side} = step.{step_column('partner', strategy)}"
        for side, strategy in (("one", one), ("other", other))
    )
    joins.append(
        f"LEFT JOIN {paired} AS judged ON judged.a = step.key AND judged.b = step.next "
        f"AND judged.feature = step.feature AND {' AND '.join(partners)}"
    )
    either = " OR ".join(f"step.{step_column('partner', one)} IS NOT NULL" for one in (one, other))
    return (
        f"SELECT step.key, step.feature, step.next, {', '.join(columns)} "
        f"FROM read_parquet($files) AS step {' '.join(joins)} "
        f"WHERE step.status = 'live' AND step.{step_column('matched', one)} "
        f"AND step.{step_column('matched', other)} AND ({either})"
    )


PARAMETERS_OF_RUNS = ("layer", "one", "other", "limit", "offset")
_DIFFER = "partner_one IS DISTINCT FROM partner_other"


def compare_runs(
    first: Catalogue, second: Catalogue | None, database: Database, asked: Mapping[str, str]
) -> dict[str, Any]:
    """Counts for every pair of SAEs that both runs match, and a page of the features that differ.

    `one`, `other`: the strategy that is taken from the first and from the second run.
    """
    check_names(asked, PARAMETERS_OF_RUNS)
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
        selects.append(_compared_runs(place, one, other))
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


def _compared_runs(place: int, one: str, other: str) -> str:
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
