"""The stages of a run: functions of picklable values that return the bytes of one output.

A stage gets a task (references, settings: no tensors) and the finished files it reads, and knows
nothing of the run directory's manifest; so it can run in another process or on another machine that
sees the same files.

Candidates are the k nearest live features of B for each feature of A, exactly, without the whole cost matrix:

1. For a block of rows of A take the rounded costs to all of B, which err by at most a known bound
   (assignment/costs.py).
2. A feature of B can be among the k nearest only if its cost less the bound is at most the k-th
   least of the costs plus their bounds.
3. Evaluate those pairs in float64 from the definition of the cost, and keep the k least; equal
   costs go by the lower feature.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.matching.correspondence import Correspondence
from saematch.matching.match import match, measure
from saematch.matching.matched import Matching
from saematch.matching.matchers import matcher
from saematch.matching.paths import chain
from saematch.matching.strategies import factors
from saematch.pipelines.matching.measures import (
    as_columns,
    compared_measures,
    details_of,
    measure_rows,
)
from saematch.pipelines.suite import Member
from saematch.sae import FoldedSAE
from saematch.store.build import Output, stage
from saematch.store.directory import KeptFile
from saematch.store.matchings import (
    encode_correspondence,
    kept_correspondence,
    kept_matching,
    matching_columns,
)
from saematch.store.schema import CANDIDATES, COMPARED, MATCHINGS, MEASURE_SOURCE, MEASURES, PATHS
from saematch.types import Interval, parts_slug

ROWS_PER_BLOCK = 512
PAIRS_AT_A_TIME = 4096


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest features of B, one row per (feature of A, rank)."""

    feature: Int64[np.ndarray, " rows"]
    rank: Int64[np.ndarray, " rows"]
    """From 1."""
    candidate: Int64[np.ndarray, " rows"]
    cost: Float64[np.ndarray, " rows"]
    cosine: Float64[np.ndarray, " rows"]
    """Cosine of decoder rows; 0 for a row of zeros."""


def nearest(a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], count: int) -> Nearest:
    """The `count` live features of `b` of least cost to each feature of `a`; all where b has fewer.

    Features that are dead or degenerate are small, and so near to everything: they are no candidates.
    `weights`: weight of each part of the cost.
    """
    live = np.flatnonzero(np.array(b.sae.status, dtype=object) == "live")
    count = min(count, len(live))
    if not count:
        none, no_cost = np.empty(0, dtype=np.int64), np.empty(0)
        return Nearest(none, none, none, no_cost, no_cost)
    costs = SquaredDistances.of(factors(a, weights), factors(b, weights, live))
    # Twice the bound covers what rounding the factors' weights adds to it.
    bound = 2 * costs.relative_error
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, a.d_sae, ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, a.d_sae)
        block = torch.empty(stop - start, len(live))
        costs.fill(start, stop, block)
        error = (bound * costs.column_norms).to(block.dtype)
        row_error = (bound * costs.row_norms[start:stop]).to(block.dtype)[:, None]
        ceiling = (block + error).kthvalue(count, dim=1, keepdim=True).values + 2 * row_error
        # Not "at most": costs beyond float32's range are infinite, and all of them may be the nearest.
        row, column = (~((block - error) > ceiling)).nonzero(as_tuple=True)
        column = torch.from_numpy(live)[column]
        exact = pair_costs(a, b, row + start, column, weights).numpy()
        row, column = row.numpy(), column.numpy()
        order = np.lexsort((column, exact, row))
        row, column, exact = row[order], column[order], exact[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row, side="left")
        first = rank < count
        kept.append((row[first] + start, column[first], exact[first]))
    feature, candidate, cost = (np.concatenate(values) for values in zip(*kept, strict=True))
    return Nearest(
        feature=feature.astype(np.int64),
        rank=np.tile(np.arange(1, count + 1), a.d_sae),
        candidate=candidate.astype(np.int64),
        cost=cost,
        cosine=_cosines(a, b, torch.from_numpy(feature), torch.from_numpy(candidate)).numpy(),
    )


def pair_costs(
    a: FoldedSAE,
    b: FoldedSAE,
    i: Int64[Tensor, " pairs"],
    j: Int64[Tensor, " pairs"],
    weights: Mapping[str, float],
) -> Float64[Tensor, " pairs"]:
    """Cost of the pairs (i, j) in float64: Σ over parts of weight × squared distance."""
    out = torch.zeros(len(i), dtype=torch.float64)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        if "decoder" in weights:
            difference = a.W_dec[i[part]].double() - b.W_dec[j[part]].double()
            out[part] += weights["decoder"] * difference.square().sum(dim=1)
        if "encoder" in weights:
            difference = a.W_enc.T[i[part]].double() - b.W_enc.T[j[part]].double()
            out[part] += weights["encoder"] * difference.square().sum(dim=1)
        if "bias" in weights:
            difference = a.b_enc[i[part]].double() - b.b_enc[j[part]].double()
            out[part] += weights["bias"] * difference.square()
    return out


def _cosines(
    a: FoldedSAE, b: FoldedSAE, i: Int64[Tensor, " pairs"], j: Int64[Tensor, " pairs"]
) -> Float64[Tensor, " pairs"]:
    out = torch.zeros(len(i), dtype=torch.float64)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        rows_a, rows_b = a.W_dec[i[part]].double(), b.W_dec[j[part]].double()
        norms = rows_a.norm(dim=1) * rows_b.norm(dim=1)
        out[part] = (rows_a * rows_b).sum(dim=1) / torch.where(norms > 0, norms, 1.0)
    return out


@dataclass(frozen=True)
class PairTask:
    """A pair of SAEs and how its cost is made up; base of the tasks on pairs."""

    a: Member
    b: Member
    parts: tuple[tuple[str, float], ...]
    """Weight of each part."""
    scale: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {
            "a": self.a.identity,
            "b": self.b.identity,
            "parts": dict(self.parts),
            "scale": self.scale,
        }


@dataclass(frozen=True)
class MatchingTask(PairTask):
    """Match the pair by a strategy; one that is drawn by that of `seed`."""

    strategy: str
    seed: int = 0
    unmatched_cost: float | str | None = None
    degenerate: str = "apart"

    @property
    def identity(self) -> dict[str, Any]:
        way = matcher(self.strategy)
        drawn = {"seed": self.seed} if way.seeded else {}
        price = {} if self.unmatched_cost is None else {"unmatched_cost": self.unmatched_cost}
        solved = {"degenerate": self.degenerate} if way.assigns else {}
        return {**super().identity, "strategy": self.strategy, **drawn, **price, **solved}


@dataclass(frozen=True)
class CompositionTask(PairTask):
    """Measure the composition of adjacent matchings, whose files the stage reads in order."""

    strategy: str
    """What the composition is called."""

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "strategy": self.strategy}


@dataclass(frozen=True)
class ComparisonTask(PairTask):
    """Measure the pair's matchings, whose files the stage reads, on the same features; `random` by
    `draws` draws from `seed` on."""

    seed: int
    draws: int

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "seed": self.seed, "draws": self.draws}


@dataclass(frozen=True)
class CandidatesTask(PairTask):
    """Find the `count` nearest features of b for each of a."""

    count: int

    @property
    def identity(self) -> dict[str, Any]:
        return {**super().identity, "count": self.count}


@dataclass(frozen=True)
class ConsistencyTask:
    """PW-MCC of the pair's decoders, and that of a random dictionary drawn by `seed`."""

    a: Member
    b: Member
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {"a": self.a.identity, "b": self.b.identity, "seed": self.seed}


@dataclass(frozen=True)
class PathsTask:
    """Chain matchings; the stage reads the files of all chains, one chain after the other."""

    steps: tuple[int, ...]
    """Number of matchings in each chain."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {"steps": list(self.steps)}


@dataclass(frozen=True)
class WeightsTask:
    """Put the measures of the pairs' matchings into one table; `pairs`: all pairs of the run."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {"pairs": [list(pair) for pair in self.pairs]}


@dataclass(frozen=True)
class MergeTask:
    """Put the tables of all sources of measures into one."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result besides the files."""
        return {}


@stage("match_pair")
def match_pair(task: MatchingTask, files: Sequence[KeptFile]) -> Output:
    """`matchings/{strategy}/{parts}/{a}--{b}.parquet`, with its proof as its details."""
    started = time.perf_counter()
    found = _matched(task)
    data = MATCHINGS.encode(matching_columns(found), details_of(found))
    solving = dict(found.assignment.seconds) if found.assignment else {}
    return Output(data, {"total": time.perf_counter() - started, **solving})


@stage("find_partners")
def find_partners(task: MatchingTask, files: Sequence[KeptFile]) -> Output:
    """`correspondences/{strategy}/{parts}/{a}--{b}.parquet` of a matcher of several partners."""
    started = time.perf_counter()
    found = _matched(task)
    data = encode_correspondence(found, {"notes": list(found.notes)})
    return Output(data, {"total": time.perf_counter() - started})


def _matched(task: MatchingTask) -> Matching:
    price: Any = task.unmatched_cost
    degenerate: Any = task.degenerate
    return match(
        task.a.folded(task.scale),
        task.b.folded(task.scale),
        parts=dict(task.parts),
        strategy=task.strategy,
        seed=task.seed,
        unmatched_cost=price,
        degenerate=degenerate,
    )


@stage("compose_pair")
def compose_pair(task: CompositionTask, files: Sequence[KeptFile]) -> Output:
    """`matchings/{composition}/{parts}/{a}--{b}.parquet`: adjacent maps, composed."""
    started = time.perf_counter()
    found, through = _composed(task, files)
    data = MATCHINGS.encode(matching_columns(found), {**details_of(found), **through})
    return Output(data, {"total": time.perf_counter() - started})


@stage("compose_partners")
def compose_partners(task: CompositionTask, files: Sequence[KeptFile]) -> Output:
    """`correspondences/{composition}/{parts}/{a}--{b}.parquet`: weights multiply along a way and add up over
    ways."""
    started = time.perf_counter()
    found, through = _composed(task, files)
    return Output(encode_correspondence(found, through), {"total": time.perf_counter() - started})


def _composed(task: CompositionTask, files: Sequence[KeptFile]) -> tuple[Matching, dict[str, Any]]:
    """Adjacent maps as one, and the keys that it passes through."""
    steps = [kept_matching(file) for file in files]
    composed = reduce(Correspondence.compose, (step.correspondence for step in steps))
    a, b = task.a.folded(task.scale), task.b.folded(task.scale)
    found = measure(a, b, composed, parts=dict(task.parts), strategy=task.strategy)
    return found, {"through": [step.b.key for step in steps[:-1]]}


@stage("measure_partners")
def measure_partners(task: MatchingTask | CompositionTask, files: Sequence[KeptFile]) -> Output:
    """The table of matchings that belongs to a table of correspondences, which the stage reads."""
    started = time.perf_counter()
    (file,) = files
    correspondence, _, about = kept_correspondence(file)
    a, b = task.a.folded(task.scale), task.b.folded(task.scale)
    found = measure(a, b, correspondence, parts=dict(task.parts), strategy=task.strategy)
    more = {name: about[name] for name in ("notes", "through") if name in about}
    details = {**details_of(found, file.sha256), **more}
    data = MATCHINGS.encode(matching_columns(found), details)
    return Output(data, {"total": time.perf_counter() - started})


@stage("compare_strategies")
def compare_strategies(task: ComparisonTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/compared/{a}--{b}.parquet`: measures of the pair's matchings over the same features."""
    started = time.perf_counter()
    a, b = task.a.folded(task.scale), task.b.folded(task.scale)
    matchings = {}
    for file in files:
        kept = kept_matching(file)
        again = measure(a, b, kept.correspondence, parts=kept.parts)  # tables do not keep mse_bias
        matchings[kept.strategy] = replace(kept, mse_bias=again.mse_bias)
    measures = compared_measures(a, b, matchings, seed=task.seed, draws=task.draws)
    slug = parts_slug(dict(task.parts))
    rows = [
        row
        for strategy, values in measures.items()
        for row in measure_rows(task.a.key, task.b.key, strategy, slug, values)
    ]
    return Output(COMPARED.encode(as_columns(rows)), {"total": time.perf_counter() - started})


@stage("find_candidates")
def find_candidates(task: CandidatesTask, files: Sequence[KeptFile]) -> Output:
    """`candidates/{a}--{b}.parquet`: the nearest live features by folded cost."""
    started = time.perf_counter()
    a, b = task.a.folded(task.scale), task.b.folded(task.scale)
    found = nearest(a, b, dict(task.parts), task.count)
    columns = {name: getattr(found, name) for name in CANDIDATES.names}
    details = {
        "a": task.a.key,
        "b": task.b.key,
        "parts": dict(task.parts),
        "scale": a.scale_kind,
        "d_a": a.d_sae,
        "d_b": b.d_sae,
    }
    return Output(CANDIDATES.encode(columns, details), {"total": time.perf_counter() - started})


@stage("measure_consistency")
def measure_consistency(task: ConsistencyTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures/consistency-{a}--{b}.parquet`: PW-MCC and its baseline."""
    from saematch.matching.consistency import pw_mcc

    started = time.perf_counter()
    found = pw_mcc(task.a.load(), task.b.load(), seed=task.seed)
    measures: dict[str, Interval] = {
        "pw_mcc": Interval(found.value),
        "pw_mcc_random": Interval(found.random),
    }
    rows = measure_rows(task.a.key, task.b.key, "", "", measures)
    data = MEASURE_SOURCE.encode(as_columns(rows), {"pairs_matched": found.pairs})
    return Output(data, {"total": time.perf_counter() - started})


@stage("chain_paths")
def chain_paths(task: PathsTask, files: Sequence[KeptFile]) -> Output:
    """`paths.parquet`: every chain of matchings as paths, numbered through."""
    started = time.perf_counter()
    columns: dict[str, list[np.ndarray]] = {name: [] for name in PATHS.names}
    chained: list[list[str]] = []
    count = position = 0
    for steps in task.steps:
        part = files[position : position + steps]
        position += steps
        paths = chain([kept_matching(file) for file in part])
        frame = paths.to_frame()
        frame["path"] += count
        count += len(paths)
        chained.append(list(paths.keys))
        for name in PATHS.names:
            columns[name].append(frame[name].to_numpy())
    data = PATHS.encode(
        {name: np.concatenate(values) for name, values in columns.items()},
        {"chains": chained, "paths": count},
    )
    return Output(data, {"total": time.perf_counter() - started})


@stage("collect_measures")
def collect_measures(task: WeightsTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures/weights.parquet`: the measures of all pairs' matchings."""
    details = {"pairs": [list(pair) for pair in task.pairs]}
    return Output(MEASURE_SOURCE.encode(_rows_of(files), details))


@stage("merge_sources")
def merge_sources(task: MergeTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures.parquet`: every source's rows, in the order of the files."""
    return Output(MEASURES.encode(_rows_of(files), {"sources": [file.name for file in files]}))


def _rows_of(files: Sequence[KeptFile]) -> dict[str, list[Any]]:
    """The rows of tables of measures as columns, in the order of the files."""
    columns: dict[str, list[Any]] = {name: [] for name in MEASURES.names}
    for file in files:
        table, _ = file.table()
        for name in MEASURES.names:
            columns[name] += table[name].to_pylist()
    return columns
