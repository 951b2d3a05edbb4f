"""The query that puts all that finding and following need of one SAE's features into one table, and the
rows of single features.

A row per feature: where it is, the step from it to the next layer under every strategy, the nearest other
feature, how often the two are active together, what it activates on, its top logits, what it is said to mean,
how a judge labelled the pair.

Parquet answers questions about all features at once; a few rows of many columns it gives only after unpacking
thousands.  SQLite finds a row by its number, so that what is shown of single features is kept in it too, one
file an SAE.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from saematch.errors import InputError
from saematch.explorer.run_files import RunFiles
from saematch.matching.matchers import COSINE, MAIN, is_matcher, matchers
from saematch.semantics.judges.judge import Label
from saematch.store import names as named
from saematch.store.following import RULES
from saematch.store.schema import (
    CANDIDATES,
    DESCRIPTIONS,
    EXAMPLES,
    FEATURES,
    JUDGEMENTS,
    MATCHINGS,
    PAIR_SOURCE,
    PATHS,
    SAMPLE,
    Table,
)

STEP_COLUMNS = ("partner", "cost", "mse", "cosine", "margin", "matched", "both_live")
"""What is kept of a step under each of them.  `matched`: whether the run has this matching; without it
nothing is known of a partner, which is not the same as none.  `both_live`: whether both
features of the pair are live."""
ACTIVE_COLUMNS = ("phi_texts", "lift_texts", "active", "partner_active", "joint_active")
"""On how many texts φ and lift are known, and the activations on all of them."""
MAIN_COLUMNS = ("certain", "quantile", "labels", "phi", "lift", *ACTIVE_COLUMNS, "warnings")
"""What is known of the main strategy's step alone."""
SEPARATOR = "chr(31)"
"""Between tokens in the columns that are searched; no token holds it."""
TABLES = {
    "paths": PATHS, "previous": MATCHINGS, "candidates": CANDIDATES, "features": FEATURES,
    "examples": EXAMPLES, "samples": SAMPLE, "judgements": JUDGEMENTS, "pairs": PAIR_SOURCE,
    "descriptions": DESCRIPTIONS,
}  # fmt: skip
"""What the files of each role are, but for the matchings by each strategy."""
MOST_TEXT = 2000
"""Characters of a description that an index holds, and that are searched; a card shows all of them."""
_KINDS = {
    pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN",
}  # fmt: skip


def strategies() -> tuple[str, ...]:
    """Those whose partners are kept for every feature; a run may have some of them."""
    return tuple(one.name for one in matchers())


def strategies_of(run: RunFiles) -> list[str]:
    """Strategies that have matched at least one pair, by the run's parts."""
    return [one for one in strategies() if run.names(f"matchings/{one}/{run.config.slug}/")]


def role_of(strategy: str) -> str:
    return f"by_{strategy}"


@dataclass(frozen=True)
class Sources:
    """Names of the files that an index is made from, by what they are for."""

    following: str
    """Key of the SAE after it on its chain; '' at the end."""
    tables: Mapping[str, Sequence[str]]
    """Names by role (`TABLES`); of descriptions first those that are preferred."""
    texts: Mapping[str, str]
    """Where descriptions are from, by name."""
    judges: Sequence[str]
    """Whose labels are shown, as experiment/judge."""
    passing: Sequence[str]
    """Those of them that pass their controls."""

    @property
    def names(self) -> list[tuple[str, str]]:
        return [(role, name) for role, some in self.tables.items() for name in some]

    def without(self, names: set[str]) -> "Sources":
        """The same but for these files; samples and judgements say nothing without each other."""
        left = {
            role: [one for one in some if one not in names] for role, some in self.tables.items()
        }
        if not left.get("samples") or not left.get("judgements"):
            left |= {"samples": [], "judgements": []}
        return replace(self, tables={role: some for role, some in left.items() if some})


def sources_of(run: RunFiles, key: str) -> Sources:
    following = next((b for a, b in run.adjacent if a == key), "")
    before = next((a for a, b in run.adjacent if b == key), "")
    texts = {name: source for source, name in run.descriptions(key)}
    tables = {
        "paths": [named.PATHS_NAME],
        "previous": [run.matching(before, key)],
        "candidates": [named.candidates_name(key, following)],
        "features": [named.features_name(key)],
        "examples": [named.examples_name(key)],
        "samples": [named.sample_name(experiment) for experiment in run.judges],
        "judgements": [named.JUDGEMENTS_NAME],
        "pairs": list(run.pair_sources.values()),
        **{role_of(one): [run.matching(key, following, one)] for one in strategies()},
        "descriptions": list(texts),
    }
    every = Sources(following, tables, texts, *standing_judges(run))
    return every.without({name for _, name in every.names if run.sha256(name) is None})


def step_column(name: str, strategy: str) -> str:
    """The column of a step's value under a strategy; both from the lists above."""
    assert name in STEP_COLUMNS, name
    assert is_matcher(strategy), strategy
    return name if strategy == MAIN else f"{strategy}_{name}"


def probe_query(role: str) -> str:
    """A query that fails where $file is not a table of this role, read to its end."""
    columns = TABLES.get(role, MATCHINGS).columns
    counts = (f'count(CAST("{one.name}" AS {_sql_type(one.type)}))' for one in columns)
    return f"SELECT {', '.join(counts)} FROM read_parquet($file)"


def catalogue_query(
    key: str, sources: Sources, file: Callable[[str], str]
) -> tuple[str, dict[str, Any]]:
    """The query of the features from $start until before $end, and its other parameters; `file`: the path of
    a file by its name."""
    values: dict[str, Any] = {
        "key": key, "next": sources.following, "judges": list(sources.judges),
        "passing": list(sources.passing),
    }  # fmt: skip

    def whole(role: str, filename: bool = False) -> str:
        if role not in sources.tables:
            return empty(TABLES.get(role, MATCHINGS), filename)
        values[role] = list(map(file, sources.tables[role]))
        return f"read_parquet(${role}, filename = {filename})"

    def table(role: str, column: str = "feature") -> str:
        return f"(SELECT * FROM {whole(role)} WHERE {_within(column)})"

    others, joins = [], []
    for strategy in (one for one in strategies() if one != MAIN):
        role = role_of(strategy)
        joins.append(f"LEFT JOIN {table(role)} AS {role} ON {role}.feature = base.feature")
        others.append(
            f"nullif({role}.partner, -1)::INTEGER AS {strategy}_partner, "
            f"{role}.cost AS {strategy}_cost, {role}.mse_decoder AS {strategy}_mse, "
            f"{role}.cosine AS {strategy}_cosine, {role}.margin AS {strategy}_margin, "
            f"{role}.feature IS NOT NULL AS {strategy}_matched, "
            f"coalesce({role}.status = 'live' AND {role}.partner_status = 'live', false) "
            f"AS {strategy}_both_live"
        )
    return _QUERY.format(
        paths=table("paths"), before=table("previous", "partner"), main=whole(role_of(MAIN)), strategy=MAIN,
        every_path=whole("paths"),
        candidates=table("candidates"), features=table("features"), pairs=table("pairs"),
        examples=table("examples"),
        labelled=labels_query(whole("samples", filename=True), whole("judgements")),
        others=",\n".join(others), joins="\n".join(joins), texts=_texts(sources, file, values),
        activates_on=_searched("list_concat(activates_on, peaks)"), top_logits=_searched("top_logits"),
        warnings=_warnings(), cosine=COSINE, different=Label.DIFFERENT,
    ), values  # fmt: skip


def _within(column: str) -> str:
    return f"{column} >= $start AND {column} < $end"


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    return _KINDS[kind]


def empty(table: Table, filename: bool = False) -> str:
    """Stands in for a table that the run does not have."""
    nulls = [f'CAST(NULL AS {_sql_type(one.type)}) AS "{one.name}"' for one in table.columns]
    nulls += ["CAST(NULL AS VARCHAR) AS filename"] * filename
    return f"(SELECT {', '.join(nulls)} WHERE false)"


def _texts(sources: Sources, file: Callable[[str], str], values: dict[str, Any]) -> str:
    selects = [
        f"SELECT feature, text, '' AS source, 0 AS place, 0 AS row FROM {empty(DESCRIPTIONS)}"
    ]
    for place, name in enumerate(sources.tables.get("descriptions", ())):
        values[f"text{place}"], values[f"source{place}"] = file(name), sources.texts[name]
        selects.append(
            f"SELECT feature, left(text, {MOST_TEXT}) AS text, $source{place} AS source, "
            f"{place} AS place, file_row_number AS row "
            f"FROM read_parquet($text{place}, file_row_number = true) WHERE {_within('feature')}"
        )
    return (
        "SELECT feature, arg_min(text, (place, row)) AS description, "
        "arg_min(source, (place, row)) AS source, lower(string_agg(text, chr(10))) AS searched "
        f"FROM ({' UNION ALL '.join(selects)}) GROUP BY feature"
    )


def _searched(column: str) -> str:
    """Tokens in small letters without the blanks around them, each once and between two separators."""
    tokens = f"list_distinct(list_transform({column}, lambda token: lower(trim(token, ' '))))"
    return f"{SEPARATOR} || array_to_string({tokens}, {SEPARATOR}) || {SEPARATOR}"


def _warnings() -> str:
    """The kinds of warning about a step; NULL if there is no step."""
    kinds = ", ".join(f"CASE WHEN {holds} THEN '{kind}' END" for kind, holds in RULES.items())
    return (
        f"CASE WHEN matched AND partner IS NOT NULL "
        f"THEN list_filter([{kinds}], lambda kind: kind IS NOT NULL) END"
    )


_QUERY = """
WITH base AS (SELECT CAST(range AS INTEGER) AS feature FROM range($start, $end)),
path AS (
  SELECT feature, min(path) AS path, any_value(status) AS status, bool_or(born) AS born,
    bool_or(dies) AS dies
  FROM {paths} WHERE key = $key GROUP BY feature
),
before AS (
  SELECT partner AS feature, any_value(partner_status) AS status
  FROM {before} WHERE partner >= 0 GROUP BY partner
),
taken AS (
  SELECT feature, nullif(partner, -1)::INTEGER AS partner, status, partner_status, cost, mse_decoder,
    mse_encoder, cosine, margin, certain,
    coalesce(status = 'live' AND partner_status = 'live', false) AS live_pair
  FROM {main}
),
step AS (
  SELECT *, CASE WHEN live_pair THEN cume_dist() OVER (PARTITION BY live_pair ORDER BY cost) END
    AS quantile
  FROM taken
),
following AS (
  SELECT feature, any_value(status) AS status FROM (
    SELECT feature, status FROM {every_path} WHERE key = $next
    UNION ALL SELECT partner, partner_status FROM {main} WHERE partner >= 0
  ) GROUP BY feature
),
near AS (
  SELECT near.feature, near.candidate, near.rank, near.cost, near.cosine, following.status,
    following.status = 'live' AND near.cost < taken.cost AND near.cosine > taken.cosine AS nearer
  FROM {candidates} AS near JOIN taken ON near.feature = taken.feature
  LEFT JOIN following ON following.feature = near.candidate
  WHERE near.candidate IS DISTINCT FROM taken.partner
),
other AS (
  SELECT feature, arg_min(candidate, rank)::INTEGER AS runner_up,
    arg_min(cost, rank) AS runner_up_cost, arg_min(cosine, rank) AS runner_up_cosine,
    arg_min(coalesce(status, ''), rank) AS runner_up_status,
    arg_min(candidate, rank) FILTER (nearer)::INTEGER AS nearer,
    arg_min(cost, rank) FILTER (nearer) AS nearer_cost,
    arg_min(cosine, rank) FILTER (nearer) AS nearer_cosine
  FROM near GROUP BY feature
),
together AS (
  SELECT feature, partner, avg(phi) AS phi, avg(lift) AS lift, count(phi) AS phi_texts,
    count(lift) AS lift_texts, sum(activation_count)::BIGINT AS active,
    sum(partner_activation_count)::BIGINT AS partner_active,
    sum(joint_activation_count)::BIGINT AS joint_active
  FROM {pairs} WHERE a = $key AND b = $next AND strategy = '{strategy}' GROUP BY feature, partner
),
peaked AS (
  SELECT feature, list(token ORDER BY activation DESC, token) AS peaks FROM (
    SELECT feature, tokens[place + 1] AS token, max(activation) AS activation FROM {examples}
    GROUP BY feature, token
  ) GROUP BY feature
),
described AS ({texts}),
labelled AS (SELECT * FROM ({labelled}) WHERE a = $key AND b = $next)
SELECT * EXCLUDE (beside_cosine, different), {warnings} AS warnings FROM (SELECT *,
  CASE WHEN {cosine}_both_live AND {cosine}_partner <> partner AND {cosine}_partner IS DISTINCT FROM nearer
    THEN {cosine}_cosine END AS beside_cosine,
  coalesce(told = ['{different}'], false) AS different
FROM (SELECT CAST($key AS VARCHAR) AS key, base.feature, path.path,
  coalesce(path.status, step.status, before.status) AS status,
  coalesce(path.born, false) AS born, coalesce(path.dies, false) AS dies,
  nullif(CAST($next AS VARCHAR), '') AS next, step.partner, step.cost, step.mse_decoder AS mse,
  step.mse_encoder,
  step.cosine, step.margin, step.certain, step.feature IS NOT NULL AS matched,
  coalesce(step.live_pair, false) AS live_pair, live_pair AS both_live, step.quantile,
  step.partner_status, other.runner_up, other.runner_up_cost - step.cost AS extra_cost,
  other.runner_up_cosine, nullif(other.runner_up_status, '') AS runner_up_status,
  other.nearer, other.nearer_cost, other.nearer_cosine,
  together.phi, together.lift, together.phi_texts, together.lift_texts, together.active,
  together.partner_active, together.joint_active,
  features.activation_count, features.activation_frequency, features.mean_activation,
  features.greatest_activation,
  features.activates_on, features.activates_on_share, features.amid, features.top_logits, peaked.peaks,
  {activates_on} AS searched_activates_on, {top_logits} AS searched_top_logits,
  described.description, described.source, described.searched AS searched_text,
  labelled.labels, labelled.told,
  {others}
FROM base
LEFT JOIN path ON path.feature = base.feature
LEFT JOIN before ON before.feature = base.feature
LEFT JOIN step ON step.feature = base.feature
LEFT JOIN other ON other.feature = base.feature
LEFT JOIN together ON together.feature = base.feature AND together.partner = step.partner
LEFT JOIN {features} AS features ON features.feature = base.feature
LEFT JOIN peaked ON peaked.feature = base.feature
LEFT JOIN described ON described.feature = base.feature
LEFT JOIN labelled ON labelled.feature = base.feature AND labelled.partner = step.partner
{joins}))
ORDER BY feature
"""


_JUDGE = "answer.experiment || '/' || answer.judge"
_VALUES = " ".join(f"WHEN '{one}' THEN {one.value_in_means}" for one in Label)
ASKED = "read_parquet($samples, filename = true)", "read_parquet($judgements)"
"""What was asked and what judges said of it; the file names of the samples must be known."""


def answered(samples: str, judgements: str) -> str:
    """Answers about pairs with their questions."""
    return (
        f"{samples} AS sample JOIN {judgements} AS answer ON answer.question = sample.question "
        "AND answer.experiment = string_split(replace(sample.filename, chr(92), '/'), '/')[-2] "
        "AND sample.kind = 'pair' AND NOT sample.swapped"
    )


def _labelled(samples: str, judgements: str) -> str:
    """Those with a label by one of $judges (experiment/judge)."""
    return (
        f"{answered(samples, judgements)} "
        f"WHERE answer.label IS NOT NULL AND list_contains($judges, {_JUDGE})"
    )


def standing_judges(run: RunFiles) -> tuple[list[str], list[str]]:
    """Whose labels are shown, and who of them passes its controls, as experiment/judge."""
    named = {
        f"{experiment}/{judge.judge}": judge.passes_controls
        for experiment, judge in run.judges.items()
    }
    return list(named), [name for name, passes_controls in named.items() if passes_controls]


def label_parameters(run: RunFiles) -> dict[str, Any]:
    """Parameters of `paired_labels`; none where nothing was judged.

    Raises InputError where a file of them cannot be used.
    """
    judges, passing = standing_judges(run)
    if not judges or run.sha256(named.JUDGEMENTS_NAME) is None:
        return {}
    samples = run.files([named.sample_name(experiment) for experiment in run.judges])
    judgements = run.file(named.JUDGEMENTS_NAME)
    return {"judges": judges, "passing": passing, "samples": samples, "judgements": judgements}


def labels_query(samples: str, judgements: str) -> str:
    """What the judges of $judges (experiment/judge) call the two features of a pair, whatever paired them:
    distinct labels, and those of the judges of $passing."""
    return (
        "SELECT sample.a, sample.b, sample.feature, sample.partner, "
        "list_sort(list(DISTINCT answer.label)) AS labels, "
        f"list_sort(list(DISTINCT answer.label) FILTER (list_contains($passing, {_JUDGE}))) AS told "
        f"FROM {_labelled(samples, judgements)} GROUP BY ALL"
    )


def paired_labels(samples: str, judgements: str, one: str, other: str) -> str:
    """Mean labels of a feature's partners by two strategies, where one experiment has both."""
    return (
        "(WITH said AS (SELECT answer.experiment, answer.judge, sample.strategy, sample.a, sample.b, "
        f"sample.feature, sample.partner, avg(CASE answer.label {_VALUES} END) AS label "
        f"FROM {_labelled(samples, judgements)} GROUP BY ALL) "
        "SELECT one.a, one.b, one.feature, one.partner AS partner_one, other.partner AS partner_other, "
        "avg(one.label) AS label_one, avg(other.label) AS label_other "
        "FROM said AS one JOIN said AS other USING (experiment, judge, a, b, feature) "
        f"WHERE one.strategy = '{one}' AND other.strategy = '{other}' GROUP BY ALL)"
    )


_COLUMNS = (
    "key", "feature", "path", "status", "born", "dies", "next", "certain", "live_pair", "quantile",
    "mse_encoder", "runner_up", "extra_cost", "runner_up_cosine", "runner_up_status", "nearer",
    "nearer_cost", "nearer_cosine", "warnings", "phi", "lift", *ACTIVE_COLUMNS, "activation_count",
    "activation_frequency", "mean_activation", "greatest_activation", "activates_on",
    "activates_on_share", "amid", "top_logits", "peaks", "description", "source", "labels", "told",
)  # fmt: skip
MEANING = ("description", "source", "activates_on", "amid", "top_logits")
"""What is said of a feature."""


def rows_file(index: str | Path) -> Path:
    return Path(index).with_suffix(".rows")


def columns() -> tuple[str, ...]:
    steps = (step_column(name, strategy) for strategy in strategies() for name in STEP_COLUMNS)
    return (*_COLUMNS, *steps)


def rows_query() -> str:
    """The numbers of the features from $start until before $end of an index, each with its row as JSON."""
    return (
        f"SELECT feature, CAST(json_array({', '.join(columns())}) AS VARCHAR) AS data "
        "FROM read_parquet($index) WHERE feature >= $start AND feature < $end"
    )


def write_rows(path: Path, batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Write the rows of an SAE, as `rows_query` gives them, into a new file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")  # it is renamed when it is whole
        connection.execute("CREATE TABLE feature (number INTEGER PRIMARY KEY, data TEXT NOT NULL)")
        for batch in batches:
            connection.executemany("INSERT INTO feature VALUES ($feature, $data)", batch)
        connection.commit()


def read_rows(index: str | Path, features: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The rows of some features, by feature; raises InputError where the file cannot be used."""
    path = rows_file(index)
    try:
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            found, names = {}, columns()
            for feature in features:
                wanted = "SELECT data FROM feature WHERE number = ?"
                for (data,) in connection.execute(wanted, (feature,)):
                    values = json.loads(data, parse_constant=lambda name: None)
                    found[feature] = dict(zip(names, values, strict=True))
            return found
    except (sqlite3.Error, ValueError) as error:
        raise InputError(
            f"the index {path} cannot be read ({error}); delete {path.parent} and start again"
        ) from error


def read_named(
    names: Iterable[tuple[str, int]], indexes: Mapping[str, str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of features of several SAEs, by key and number; raises as `read_rows`."""
    return {
        (key, feature): row
        for key, features in by_key(names).items()
        for feature, row in read_rows(indexes[key], features).items()
    }


def by_key(names: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    wanted: dict[str, list[int]] = defaultdict(list)
    for key, feature in names:
        wanted[key].append(feature)
    return wanted


def with_meanings(
    rows: Sequence[Mapping[str, Any]], indexes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of features with what these mean; a question about all features asks for no texts, which are most
    of an index."""
    known = read_named(((row["key"], row["feature"]) for row in rows), indexes)
    return [
        {**row, **{name: known[row["key"], row["feature"]][name] for name in MEANING}}
        for row in rows
    ]
