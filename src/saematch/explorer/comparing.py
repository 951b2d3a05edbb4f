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
    ASKED,
    empty,
    label_parameters,
    labels_query,
    paired_labels,
    step_column,
    strategies,
    strategies_of,
    with_meanings,
)
from saematch.explorer.run_files import RunFiles
from saematch.explorer.search import (
    check_names,
    last_page,
    one_of,
    page_of,
    parse_keys,
    whole_number,
)
from saematch.matching.matchers import COSINE, MAIN
from saematch.store.schema import JUDGEMENTS, PAIR_SOURCE, SAMPLE

_DIFFER = "partner_one IS DISTINCT FROM partner_other"
_BOTH = "partner_one IS NOT NULL AND partner_other IS NOT NULL"
SHOWN = {
    "differ": _DIFFER,
    "one": f"{_DIFFER} AND score_one > score_other",
    "other": f"{_DIFFER} AND score_other > score_one",
    "judge_one": f"{_DIFFER} AND label_one > label_other",
    "judge_other": f"{_DIFFER} AND label_other > label_one",
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


def compare(
    catalogue: Catalogue, asked: Mapping[str, str]
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
    corpora = list(run.pair_sources)
    usual = "difference" if corpora else "labels" if labels else "mse"
    sort = one_of(asked, "sort", tuple(SORTS), usual)
    active = whole_number(asked, "active", ACTIVE if corpora else 0, 0, 1 << 40)
    limit, offset = page_of(asked, 25)
    corpus = one_of(asked, "corpus", corpora or [""], next(iter(corpora), ""))
    every = catalogue.all()
    keys = parse_keys(asked.get("layer", ""), [a for a, _ in run.adjacent if a in every])
    answer: dict[str, Any] = {
        "one": one, "other": other, "corpus": corpus, "show": show, "sort": sort, "active": active,
        "judged": bool(labels), "judges": list(labels.get("judges", ())), "left_out": left_out,
        "limit": limit, "offset": offset, "problems": catalogue.problems,
    }  # fmt: skip
    if not keys:
        return {**answer, "pairs": [], "total": 0, "features": []}
    measured = _usable(
        lambda: {"scores": run.file(run.pair_sources[corpus])} if corpus else {}, "scores", left_out
    )
    values = {"judges": [], "passing": [], **labels, **measured, "compared": [one, other]}
    listed = f"({SHOWN[show]})"
    if measured and (sort == "difference" or show in ("one", "other")):
        listed += (
            f" AND coalesce(greatest(activation_count_one, activation_count_other), 0) >= {active}"
        )
    compared = f"WITH compared AS ({_compared(one, other, bool(measured), bool(labels))})"

    def ask(sql: str, **more: Any) -> Iterator[dict[str, Any]]:
        """Ask some layers after others, so that memory does not grow with their number."""
        for some in _grouped(keys, run):
            files = {"files": [every[key] for key in some], "keys": some}
            yield from catalogue.database.rows(f"{compared} {sql}", {**values, **files, **more})

    counts = list(ask(_COUNTS.format(listed=listed)))
    total = sum(row.pop("listed") for row in counts)
    offset = min(offset, last_page(total, limit))
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
    found = ask(
        "SELECT * FROM compared WHERE list_contains($names, key || '/' || feature) "
        "ORDER BY list_position($keys, key)",
        names=[f"{key}/{feature}" for key, feature in page],
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


def _mean(name: str) -> str:
    """The means of a column over the features that have both partners and a value under both."""
    known = f"{_BOTH} AND {name}_one IS NOT NULL AND {name}_other IS NOT NULL"
    return ", ".join(
        f"avg({name}_{side}) FILTER ({known}) AS {name}_{side}" for side in ("one", "other")
    )


_COUNTS = f"""
SELECT key AS a, any_value(next) AS b, count(*) AS features, count(*) FILTER ({SHOWN["same"]}) AS same,
  count(*) FILTER ({_DIFFER}) AS differ, count(*) FILTER ({SHOWN["one"]}) AS for_one,
  count(*) FILTER ({SHOWN["other"]}) AS for_other,
  count(*) FILTER ({_DIFFER} AND score_one = score_other) AS ties,
  count(*) FILTER ({_DIFFER} AND (score_one IS NULL OR score_other IS NULL)) AS unmeasured,
  count(*) FILTER ({_BOTH}) AS compared, {_mean("score")}, {_mean("phi")}, {_mean("mse")},
  count(label_one) AS judged, avg(label_one) AS label_one, avg(label_other) AS label_other,
  count(*) FILTER (label_one IS NOT NULL AND {SHOWN["same"]}) AS judged_same,
  count(*) FILTER ({{listed}}) AS listed, count(*) FILTER ({SHOWN["judge_one"]}) AS judge_one,
  count(*) FILTER ({SHOWN["judge_other"]}) AS judge_other
FROM compared GROUP BY key ORDER BY list_position($keys, key)"""


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


_SCORES = """(SELECT *,
  CASE WHEN activation_count > 0 THEN joint_activation_count / activation_count END AS score
  FROM {table} WHERE list_contains($keys, a) AND list_contains($compared, strategy))"""


def _compared(one: str, other: str, measured: bool, judged: bool) -> str:
    """A row per live feature that either strategy pairs, with both partners, their scores and labels."""
    asked = ASKED if judged else (empty(SAMPLE, filename=True), empty(JUDGEMENTS))
    scores = _SCORES.format(table="read_parquet($scores)" if measured else empty(PAIR_SOURCE))
    here = "a = step.key AND {0}.b = step.next AND {0}.feature = step.feature"  # non-adjacent pairs too
    columns, joins, same = [], [], []
    for side, strategy in (("one", one), ("other", other)):
        said, score, partner = (
            f"{side}_said",
            f"{side}_score",
            f"step.{step_column('partner', strategy)}",
        )
        columns += [
            f"step.{step_column(name, strategy)} AS {name}_{side}"
            for name in ("partner", "mse", "cosine")
        ]
        columns += [
            f"{score}.{name} AS {name}_{side}"
            for name in ("score", "phi", "lift", "activation_count")
        ]
        columns += [f"{said}.labels AS labels_{side}", f"judged.label_{side}"]
        joins += [
            f"LEFT JOIN ({labels_query(*asked)}) AS {said} ON {said}.{here.format(said)} "
            f"AND {said}.partner = {partner}",
            f"LEFT JOIN {scores} AS {score} ON {score}.{here.format(score)} "
            f"AND {score}.strategy = '{strategy}' AND {score}.partner = {partner}",
        ]
        same.append(f"judged.partner_{side} = {partner}")
    paired = paired_labels(*asked, one, other)
    joins.append(
        f"LEFT JOIN {paired} AS judged ON judged.{here.format('judged')} AND {' AND '.join(same)}"
    )
    return (
        f"SELECT step.key, step.feature, step.next, {', '.join(columns)} "
        f"FROM read_parquet($files) AS step {' '.join(joins)} "
        f"WHERE step.status = 'live' AND step.{step_column('matched', one)} "
        f"AND step.{step_column('matched', other)} AND coalesce(step.{step_column('partner', one)}, "
        f"step.{step_column('partner', other)}) IS NOT NULL"
    )


PARAMETERS_OF_RUNS = ("layer", "one", "other", "limit", "offset")


def compare_runs(
    first: Catalogue, second: Catalogue | None, asked: Mapping[str, str]
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
    limit, offset = page_of(asked, 25)
    indexes, others = first.all(), second.all()
    names = {_identity(second.run, key): key for key in others}
    steps = set(second.run.adjacent)
    shared = {}
    for a, b in first.run.adjacent:
        same = names.get(_identity(first.run, a), ""), names.get(_identity(first.run, b), "")
        if a in indexes and same in steps:
            shared[a, b] = others[same[0]]
    keys = parse_keys(asked.get("layer", ""), [a for a, _ in shared])
    values: dict[str, Any] = {}
    pairs, selects = [], []
    for place, ((a, b), index) in enumerate(shared.items()):
        if a in keys:
            values |= {f"first{place}": indexes[a], f"second{place}": index}
            selects.append(_compared_runs(place, one, other))
            pairs.append({"a": a, "b": b})
    counts: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    compared = f"WITH compared AS ({' UNION ALL '.join(selects)})"
    if pairs:
        counted = (
            f"{compared} SELECT key, count(*) AS features, count(*) FILTER ({SHOWN['same']}) AS same, "
            f"count(*) FILTER ({_DIFFER}) AS differ, count(*) FILTER ({_BOTH}) AS compared, "
            f"{_mean('mse')} FROM compared GROUP BY key"
        )
        counts = {row["key"]: row for row in first.database.rows(counted, values)}
    total = sum(row["differ"] for row in counts.values())
    offset = min(offset, last_page(total, limit))
    if total:
        rows = first.database.rows(
            f"{compared} SELECT * FROM compared WHERE {_DIFFER} "
            "ORDER BY list_position($keys, key), feature LIMIT $limit OFFSET $offset",
            {**values, "keys": list(keys), "limit": limit, "offset": offset},
        )
    zeros = dict.fromkeys(("features", "same", "differ", "compared"), 0)
    none = {**zeros, "mse_one": None, "mse_other": None}
    return {
        "one": one,
        "other": other,
        "settings": _differing_settings(first.run, second.run),
        "limit": limit,
        "offset": offset,
        "problems": {**second.problems, **first.problems},
        "pairs": [{**pair, **counts.get(pair["a"], none)} for pair in pairs],
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
        f"SELECT one.key, one.feature, one.next, {columns} FROM read_parquet($first{place}) AS one "
        f"JOIN read_parquet($second{place}) AS other ON other.feature = one.feature "
        f"WHERE one.status = 'live' AND one.{step_column('matched', one)} "
        f"AND other.{step_column('matched', other)} "
        f"AND coalesce(one.{step_column('partner', one)}, other.{step_column('partner', other)}) IS NOT NULL"
    )


def _differing_settings(one: RunFiles, other: RunFiles) -> list[dict[str, Any]]:
    ours, theirs = one.manifest["config"], other.manifest["config"]
    return [
        {"setting": name, "one": ours.get(name), "other": theirs.get(name)}
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]
