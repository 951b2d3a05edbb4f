"""From sums of documents to the tables of an evaluation, and back from files to sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.evaluation.ablation import Agreement, agreement_measures
from saematch.evaluation.collecting import Collected, Condition, Pair, Row
from saematch.evaluation.measuring import CorpusMeasures
from saematch.matching.matchers import is_matcher, matcher
from saematch.pipelines.matching.measures import as_columns
from saematch.stats import interval
from saematch.store.build import Output, stage
from saematch.store.directory import KeptFile
from saematch.store.matchings import kept_matching
from saematch.store.schema import (
    CAUSAL,
    CONDITIONS,
    DOCUMENTS,
    MEASURE_SOURCE,
    PAIR_SOURCE,
    PAIRS,
    STREAMS,
    Table,
)
from saematch.types import RIDGE


@dataclass(frozen=True)
class ConditionFile:
    """The sums of one strategy of a pair."""

    pair: Pair
    strategy: str
    parts: str
    name: str
    matching: str | None = None
    """File of the matching that was applied."""
    draws: int = 1
    seed: int = 0


@dataclass(frozen=True)
class CorpusTask:
    """Everything measured on one corpus; the stage reads all the files named here."""

    corpus: str
    documents: str
    """Files by what they are."""
    streams: tuple[tuple[str, str], ...]
    conditions: tuple[ConditionFile, ...]
    causal: tuple[tuple[Pair, str], ...]
    widths: tuple[tuple[str, int], ...]
    """d_sae by key."""
    parts: str
    """Slug of the run's parts."""
    seed: int
    about: tuple[tuple[str, Any], ...] = ()
    """The table's metadata: model, origin of the texts, settings, notes."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result besides the files."""
        return {
            "corpus": self.corpus,
            "conditions": [
                [
                    *condition.pair,
                    condition.strategy,
                    condition.parts,
                    condition.draws,
                    condition.seed,
                ]
                for condition in self.conditions
            ],
            "parts": self.parts,
            "seed": self.seed,
            "about": dict(self.about),
        }


@stage("measure_corpus")
def measure_corpus(task: CorpusTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures/corpus-{corpus}.parquet`."""
    read = {file.name: file for file in files}
    measures = corpus_measures(task, read)
    rows: list[tuple[Any, ...]] = list(measures.rows())
    for (a, b), found in agreements_of(task, read).items():
        for strategy, values in agreement_measures(found, task.seed).items():
            documents = len({one.document for one in found})
            tokens = sum(one.tokens for one in found if one.strategy == strategy)
            for name, value in values.items():
                span = interval(value)
                rows.append(
                    (a, b, task.corpus, strategy, task.parts, name, *span, documents, tokens)
                )
    return Output(MEASURE_SOURCE.encode(as_columns(rows), dict(task.about)))


@stage("measure_pairs")
def measure_pairs(task: CorpusTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/pairs/{corpus}.parquet`."""
    read = {file.name: file for file in files}
    causal = {
        (*pair, one.strategy, one.feature): one.agreement
        for pair, found in agreements_of(task, read).items()
        for one in found
    }
    tables = []
    for columns in corpus_measures(task, read).pairs(task.parts):
        keys = zip(columns["a"], columns["b"], columns["strategy"], columns["feature"], strict=True)
        agreement = np.array([causal.get((a, b, s, int(i)), np.nan) for a, b, s, i in keys])
        tables.append({**columns, "causal_agreement": agreement})
    merged = {name: np.concatenate([table[name] for table in tables]) for name in PAIRS.names}
    return Output(PAIR_SOURCE.encode(merged))


@dataclass(frozen=True)
class MergePairsTask:
    """Put the pairs of all corpora into one table."""

    @property
    def identity(self) -> dict[str, Any]:
        return {}


@stage("merge_pairs")
def merge_pairs(task: MergePairsTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/pairs.parquet`."""
    import pyarrow as pa

    tables = [file.table()[0] for file in files]
    merged = pa.concat_tables(tables)
    return Output(PAIRS.encode({name: merged[name].to_numpy() for name in PAIRS.names}))


def encode_documents(rows: Sequence[Row]) -> bytes:
    """`documents.parquet` of a corpus."""
    return _encode(DOCUMENTS, rows)


def encode_stream(rows: Sequence[Row]) -> bytes:
    """`streams/{key}.parquet` of a corpus."""
    return _encode(STREAMS, rows)


def encode_conditions(draws: Sequence[tuple[Condition, Sequence[Row]]]) -> bytes:
    """The sums of one strategy, all its draws."""
    nothing = np.zeros(0, dtype=np.int32)
    no_map = {
        "features": nothing, "counts": nothing, "predicted_count": None, "predicted_right": None,
    }  # fmt: skip
    rows = [{**no_map, **row, "draw": condition.draw} for condition, some in draws for row in some]
    return _encode(CONDITIONS, rows)


def encode_causal(found: Sequence[Agreement]) -> bytes:
    """`evaluation/causal/{corpus}/{a}--{b}.parquet`."""
    return CAUSAL.encode({name: [getattr(one, name) for one in found] for name in CAUSAL.names})


def _encode(table: Table, rows: Sequence[Row]) -> bytes:
    return table.encode({name: [row[name] for row in rows] for name in table.names})


def rows_of(file: KeptFile) -> list[Row]:
    """The rows of a table of sums, lists as arrays."""
    table, _ = file.table()
    rows = table.to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, list):
                row[name] = np.array(value, dtype=int if name in ("features", "counts") else float)
            elif value is None:
                row[name] = np.nan
    return rows


def corpus_measures(task: CorpusTask, read: Mapping[str, KeptFile]) -> CorpusMeasures:
    """The sums in the files, as what measures follow from."""
    widths = dict(task.widths)
    conditions: dict[Pair, list[tuple[Condition, list[Row]]]] = {}
    for one in task.conditions:
        rows = rows_of(read[one.name])
        for draw in range(one.draws):
            permutation = None
            if is_matcher(one.strategy) and matcher(one.strategy).seeded:
                d_a, d_b = (widths[key] for key in one.pair)
                permutation = matcher(one.strategy).draw(d_a, d_b, one.seed + draw).permutation
            elif one.matching is not None:
                permutation = kept_matching(read[one.matching]).permutation
            mine = [row for row in rows if row["draw"] == draw]
            condition = Condition(one.strategy, one.parts, draw, _measured, permutation)
            conditions.setdefault(one.pair, []).append((condition, mine))
    layers = {key: rows_of(read[name]) for key, name in task.streams}
    return CorpusMeasures(
        task.corpus, Collected(rows_of(read[task.documents]), layers, conditions), widths, task.seed
    )


def _measured(_: Any) -> Any:
    """Stands in for the intervention of a condition whose sums are at hand."""
    raise AssertionError(f"{RIDGE} and other interventions are not run again")


def agreements_of(task: CorpusTask, read: Mapping[str, KeptFile]) -> dict[Pair, list[Agreement]]:
    """Ablated feature pairs by pair of SAEs."""
    found = {}
    for pair, name in task.causal:
        table, _ = read[name].table()
        found[pair] = [Agreement(**row) for row in table.to_pylist()]
    return {pair: some for pair, some in found.items() if some}
