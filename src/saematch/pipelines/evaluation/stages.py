"""From sums of documents to the tables of an evaluation, and back from files to sums."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from saematch.evaluation.ablation import AblatedPair, causal_measures
from saematch.evaluation.collecting import Collected, Condition, Pair, Row
from saematch.evaluation.measuring import CorpusMeasures
from saematch.matching.matchers import is_matcher, matcher
from saematch.pipelines.matching.stages import joined_tables
from saematch.stats import interval
from saematch.store.build import Output, stage
from saematch.store.directory import KeptFile
from saematch.store.matchings import kept_matching
from saematch.store.names import (
    causal_name,
    condition_name,
    corpus_slug,
    documents_name,
    matching_name,
    stream_name,
)
from saematch.store.schema import CONDITIONS, MEASURE_SOURCE, PAIR_SOURCE, PAIRS
from saematch.types import RIDGE


class Measured(NamedTuple):
    """A strategy or intervention whose sums are at hand."""

    a: str
    b: str
    strategy: str
    parts: str
    """Slug; '' if there are none."""
    draws: int = 1
    seed: int = 0


@stage("measure_corpus")
def measure_corpus(
    files: Sequence[KeptFile],
    corpus: str,
    conditions: Sequence[Measured],
    parts: str,
    seed: int,
    about: Mapping[str, Any],
) -> Output:
    """`evaluation/measures/corpus-{corpus}.parquet`.

    `parts`: slug of the run's; `about`: the table's metadata: model, origin of the texts, settings, notes.
    """
    rows: list[tuple[Any, ...]] = list(corpus_measures(files, corpus, conditions, seed).rows())
    for (a, b), found in ablated_pairs_of(files, corpus, conditions).items():
        documents = len({one.document for one in found})
        for strategy, values in causal_measures(found, seed).items():
            tokens = sum(one.tokens for one in found if one.strategy == strategy)
            rows += [
                (a, b, corpus, strategy, parts, name, *interval(value), documents, tokens)
                for name, value in values.items()
            ]
    return Output(MEASURE_SOURCE.encode_rows(rows, about))


@stage("measure_pairs")
def measure_pairs(
    files: Sequence[KeptFile],
    corpus: str,
    conditions: Sequence[Measured],
    parts: str,
    seed: int,
    about: Mapping[str, Any],
) -> Output:
    """`evaluation/pairs/{corpus}.parquet`; arguments as of `measure_corpus`."""
    causal = {
        (*pair, one.strategy, one.feature): one.agreement
        for pair, found in ablated_pairs_of(files, corpus, conditions).items()
        for one in found
    }
    tables = []
    for columns in corpus_measures(files, corpus, conditions, seed).pairs(parts):
        keys = zip(columns["a"], columns["b"], columns["strategy"], columns["feature"], strict=True)
        agreement = np.array([causal.get((a, b, s, int(i)), np.nan) for a, b, s, i in keys])
        tables.append({**columns, "causal_agreement": agreement})
    merged = {name: np.concatenate([table[name] for table in tables]) for name in PAIRS.names}
    return Output(PAIR_SOURCE.encode(merged))


@stage("merge_pairs")
def merge_pairs(files: Sequence[KeptFile]) -> Output:
    """`evaluation/pairs.parquet`: every corpus's rows."""
    return Output(PAIRS.encode(joined_tables(files)))


def encode_conditions(draws: Sequence[tuple[Condition, Sequence[Row]]]) -> bytes:
    """The sums of one strategy, all its draws."""
    nothing = np.zeros(0, dtype=np.int32)
    no_map = {
        "features": nothing, "counts": nothing, "predicted_count": None, "predicted_right": None,
    }  # fmt: skip
    rows = [{**no_map, **row, "draw": condition.draw} for condition, some in draws for row in some]
    return CONDITIONS.encode_records(rows)


def rows_of(file: KeptFile) -> list[Row]:
    """The rows of a table of sums, lists as arrays."""
    rows = file.table()[0].to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, list):
                row[name] = np.array(value, dtype=int if name in ("features", "counts") else float)
            elif value is None:
                row[name] = np.nan
    return rows


def corpus_measures(
    files: Sequence[KeptFile], corpus: str, conditions: Sequence[Measured], seed: int
) -> CorpusMeasures:
    """The sums in the files, as what measures follow from."""
    read, slug = {file.name: file for file in files}, corpus_slug(corpus)
    widths: dict[str, int] = {}
    maps: dict[str, Any] = {}
    for file in files:
        if file.name.startswith("matchings/"):
            kept = kept_matching(file)
            maps[file.name] = kept.permutation
            widths |= {side.key: side.d_sae for side in (kept.a, kept.b)}
    found: dict[Pair, list[tuple[Condition, list[Row]]]] = {}
    for a, b, strategy, parts, draws, first in conditions:
        rows = rows_of(read[condition_name(slug, strategy, parts, a, b)])
        for draw in range(draws):
            if is_matcher(strategy) and matcher(strategy).seeded:
                drawn = matcher(strategy).draw(widths[a], widths[b], first + draw)
                permutation = drawn.permutation
            else:
                permutation = maps.get(matching_name(a, b, strategy, parts))
            mine = [row for row in rows if row["draw"] == draw]
            condition = Condition(strategy, parts, draw, _measured, permutation)
            found.setdefault((a, b), []).append((condition, mine))
    streams = PurePosixPath(stream_name(slug, "any")).parent
    paths = {PurePosixPath(file.name): file for file in files}
    layers = {path.stem: rows_of(file) for path, file in paths.items() if path.parent == streams}
    documents = rows_of(read[documents_name(slug)])
    return CorpusMeasures(corpus, Collected(documents, layers, found), widths, seed)


def _measured(_: Any) -> Any:
    """Stands in for the intervention of a condition whose sums are at hand."""
    raise AssertionError(f"{RIDGE} and other interventions are not run again")


def ablated_pairs_of(
    files: Sequence[KeptFile], corpus: str, conditions: Sequence[Measured]
) -> dict[Pair, list[AblatedPair]]:
    """Ablated feature pairs by pair of SAEs."""
    read, slug = {file.name: file for file in files}, corpus_slug(corpus)
    found = {
        (a, b): [AblatedPair(**row) for row in read[name].table()[0].to_pylist()]
        for a, b in dict.fromkeys((one.a, one.b) for one in conditions)
        if (name := causal_name(slug, a, b)) in read
    }
    return {pair: some for pair, some in found.items() if some}
