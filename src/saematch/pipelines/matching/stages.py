"""The stages of a run: functions of picklable values that return the bytes of one output.

A stage gets the finished files it reads and a task (references, settings: no tensors), and knows
nothing of the run directory's manifest; so it can run in another process or on another machine that
sees the same files.

Candidates are the k nearest live features of B for each feature of A, exactly, without the whole cost matrix:

1. For a block of rows of A take the rounded costs to all of B, which err by at most a known bound
   (assignment/costs.py).
2. A feature of B can be among the k nearest only if its cost less the bound is at most the k-th
   least of the costs plus their bounds.
3. Evaluate those pairs in float64 from the definition of the cost, and keep the k least; equal
   costs go by the lower feature.

The norm of a folded decoder row is what a feature writes at the moment it activates, in units of the
residual stream.  The paper's figure 1 sets its growth along matched features next to that of the stream.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment.costs import SquaredDistances
from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.fates import fates
from saematch.matching.match import match, measure
from saematch.matching.matched import Matching
from saematch.matching.matchers import MAIN
from saematch.matching.paths import chain, follow_ways
from saematch.matching.probability import Calibration
from saematch.matching.strategies import factors, pair_cosines
from saematch.pipelines.matching.measures import compared_measures, mean_of, measure_rows
from saematch.pipelines.suite import LoadedInTurn, Member
from saematch.sae import FoldedSAE
from saematch.store.build import Output, stage
from saematch.store.directory import KeptFile
from saematch.store.matchings import (
    encode_correspondence,
    encode_matching,
    kept_correspondence,
    kept_matching,
)
from saematch.store.schema import (
    CANDIDATES,
    COMPARED,
    FATES,
    FOLLOWED,
    MEASURE_SOURCE,
    MEASURES,
    PATHS,
)
from saematch.types import FOLLOW_WAYS, Interval, parts_slug

ROWS_PER_BLOCK = 512
PAIRS_AT_A_TIME = 4096


def nearest(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], count: int
) -> dict[str, np.ndarray]:
    """The `count` live features of `b` of least cost to each feature of `a`; all where b has fewer.  The
    columns of `CANDIDATES`, one row per (feature of a, rank); the cosine of a row of zeros is 0.

    Features that are dead or degenerate are small, and so near to everything: they are no candidates.
    `weights`: weight of each part of the cost.
    """
    live = np.flatnonzero(np.array(b.sae.status, dtype=object) == "live")
    count = min(count, len(live))
    if not count:
        return {name: np.empty(0, dtype=np.int64) for name in CANDIDATES.names}
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
    return {
        "feature": feature,
        "rank": np.tile(np.arange(1, count + 1), a.d_sae),
        "candidate": candidate,
        "cost": cost,
        "cosine": pair_cosines(
            a.W_dec, b.W_dec, torch.from_numpy(feature), torch.from_numpy(candidate)
        ).numpy(),
    }


def pair_costs(
    a: FoldedSAE,
    b: FoldedSAE,
    i: Int64[Tensor, " pairs"],
    j: Int64[Tensor, " pairs"],
    weights: Mapping[str, float],
) -> Float64[Tensor, " pairs"]:
    """Cost of the pairs (i, j) in float64: Σ over parts of weight × squared distance."""
    rows = {
        "decoder": (a.W_dec, b.W_dec),
        "encoder": (a.W_enc.T, b.W_enc.T),
        "bias": (a.b_enc[:, None], b.b_enc[:, None]),
    }
    out = torch.zeros(len(i), dtype=torch.float64)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        some = slice(start, start + PAIRS_AT_A_TIME)
        for part, weight in weights.items():
            of_a, of_b = rows[part]
            difference = of_a[i[some]].double() - of_b[j[some]].double()
            out[some] += weight * difference.square().sum(dim=1)
    return out


Parts = Mapping[str, float]
"""The weight of each part of the cost."""


def _folded(a: Member, b: Member, scale: str | None) -> tuple[FoldedSAE, FoldedSAE]:
    return a.folded(scale), b.folded(scale)


@stage("match_pair")
def match_pair(files: Sequence[KeptFile], a: Member, b: Member, scale: Any, **how: Any) -> Output:
    """`matchings/{strategy}/{parts}/{a}--{b}.parquet`; `how`: arguments of `match`."""
    found = match(*_folded(a, b, scale), **how)
    return Output(encode_matching(found), found.assignment.seconds if found.assignment else {})


@stage("find_partners")
def find_partners(
    files: Sequence[KeptFile], a: Member, b: Member, scale: Any, **how: Any
) -> Output:
    """`correspondences/{strategy}/{parts}/{a}--{b}.parquet` of a matcher of several partners."""
    found = match(*_folded(a, b, scale), **how, fates=False)
    return Output(encode_correspondence(found, {"notes": list(found.notes)}))


@stage("compose_pair")
def compose_pair(files: Sequence[KeptFile], **task: Any) -> Output:
    """`matchings/{composition}/{parts}/{a}--{b}.parquet`: adjacent maps, composed."""
    return Output(encode_matching(*_composed(files, **task)))


@stage("compose_partners")
def compose_partners(files: Sequence[KeptFile], **task: Any) -> Output:
    """`correspondences/{composition}/{parts}/{a}--{b}.parquet`: weights multiply along a way and add up over
    ways."""
    return Output(encode_correspondence(*_composed(files, **task)))


def _composed(
    files: Sequence[KeptFile], a: Member, b: Member, scale: str | None, parts: Parts, strategy: str
) -> tuple[Matching, dict[str, Any]]:
    """Adjacent maps as one, and the keys that it passes through."""
    steps = [kept_matching(file) for file in files]
    composed = reduce(Correspondence.compose, (step.correspondence for step in steps))
    found = measure(*_folded(a, b, scale), composed, parts=parts, strategy=strategy)
    return found, {"through": [step.b.key for step in steps[:-1]]}


@stage("measure_partners")
def measure_partners(
    files: Sequence[KeptFile],
    a: Member,
    b: Member,
    scale: str | None,
    parts: Parts,
    strategy: str,
    **how: Any,
) -> Output:
    """The table of matchings that belongs to a table of correspondences, which the stage reads; `how`: what
    else that was made from."""
    (file,) = files
    correspondence, _, about = kept_correspondence(file)
    found = measure(*_folded(a, b, scale), correspondence, parts=parts, strategy=strategy)
    more = {name: about[name] for name in ("notes", "through") if name in about}
    return Output(encode_matching(found, more, file))


@stage("compare_strategies")
def compare_strategies(
    files: Sequence[KeptFile],
    a: Member,
    b: Member,
    scale: str | None,
    parts: Parts,
    seed: int,
    draws: int,
) -> Output:
    """`evaluation/compared/{a}--{b}.parquet`: measures of the pair's matchings over the same features;
    `random` by `draws` draws from `seed` on."""
    ends = _folded(a, b, scale)
    matchings = {}
    for file in files:
        kept = kept_matching(file)
        again = measure(*ends, kept.correspondence, parts=kept.parts)  # tables do not keep mse_bias
        matchings[kept.strategy] = replace(kept, mse_bias=again.mse_bias)
    measures = compared_measures(*ends, matchings, seed=seed, draws=draws)
    slug = parts_slug(parts)
    rows = [
        row
        for strategy, values in measures.items()
        for row in measure_rows(a.key, b.key, strategy, slug, values)
    ]
    return Output(COMPARED.encode_rows(rows))


@stage("find_candidates")
def find_candidates(
    files: Sequence[KeptFile], a: Member, b: Member, scale: str | None, parts: Parts, count: int
) -> Output:
    """`candidates/{a}--{b}.parquet`: the nearest live features by folded cost."""
    of_a, of_b = _folded(a, b, scale)
    details = {
        "a": a.key,
        "b": b.key,
        "parts": parts,
        "scale": of_a.scale_kind,
        "d_a": of_a.d_sae,
        "d_b": of_b.d_sae,
    }
    return Output(CANDIDATES.encode(nearest(of_a, of_b, parts, count), details))


@stage("measure_consistency")
def measure_consistency(files: Sequence[KeptFile], a: Member, b: Member, seed: int) -> Output:
    """`evaluation/measures/consistency-{a}--{b}.parquet`: PW-MCC of the pair's decoders, and that of a random
    dictionary drawn by `seed`."""
    from saematch.matching.consistency import pw_mcc

    found = pw_mcc(a.load(), b.load(), seed=seed)
    measures = {"pw_mcc": Interval(found.value), "pw_mcc_random": Interval(found.random)}
    rows = measure_rows(a.key, b.key, "", "", measures)
    return Output(MEASURE_SOURCE.encode_rows(rows, {"pairs_matched": found.pairs}))


@stage("measure_norms")
def measure_norms(files: Sequence[KeptFile], sae: Member, scale: str | None) -> Output:
    """`evaluation/measures/norms-{key}.parquet`: mean threshold and folded decoder norm of live features."""
    thresholds = sae.load().threshold
    live = np.array(sae.load().status) == "live"
    threshold = math.nan if thresholds is None else mean_of(thresholds.double().numpy(), live)
    measures = {
        "threshold": Interval(threshold),
        "decoder_norm": Interval(mean_of(_decoder_norms(sae, scale), live)),
    }
    return Output(MEASURE_SOURCE.encode_rows(measure_rows(sae.key, sae.key, "", "", measures)))


@stage("measure_growth")
def measure_growth(files: Sequence[KeptFile], a: Member, b: Member, scale: str | None) -> Output:
    """`evaluation/measures/norms-{a}--{b}.parquet`: growth of folded decoder norms along the main matching,
    which the stage reads."""
    found = kept_matching(files[0])
    live = np.flatnonzero(found.live)
    norms_a, norms_b = (_decoder_norms(member, scale) for member in (a, b))
    ratios = np.log(norms_b[found.permutation[live]] / norms_a[live])
    measures = {"decoder_norm_ratio": Interval(math.exp(ratios.mean()) if len(live) else math.nan)}
    rows = measure_rows(a.key, b.key, MAIN, parts_slug(found.parts), measures)
    return Output(MEASURE_SOURCE.encode_rows(rows))


def _decoder_norms(member: Member, scale: str | None) -> np.ndarray:
    """[d_sae]: norms of the folded decoder rows."""
    return member.folded(scale).W_dec.double().norm(dim=1).numpy()


@stage("chain_paths")
def chain_paths(files: Sequence[KeptFile], steps: Sequence[int]) -> Output:
    """`paths.parquet`: every chain of matchings as paths, numbered through.

    `steps`: how many matchings each chain has; the files are those of one chain after the other.
    """
    frames: list[pd.DataFrame] = []
    chained: list[list[str]] = []
    count, rest = 0, iter(files)
    for length in steps:
        paths = chain([kept_matching(file) for file in islice(rest, length)])
        frame = paths.to_frame()
        frames.append(frame.assign(path=frame["path"] + count))
        count += len(paths)
        chained.append(list(paths.keys))
    frame = pd.concat(frames)
    columns = {name: frame[name].to_numpy() for name in PATHS.names}
    return Output(PATHS.encode(columns, {"chains": chained, "paths": count}))


@stage("tell_fates")
def tell_fates(files: Sequence[KeptFile], a: Member, b: Member, shipped: str) -> Output:
    """`fates/{a}--{b}.parquet`, by the run's own calibration, or the one that ships (`shipped`: its sha256);
    next to it the features of b that are born."""
    told = fates(a.load(), b.load(), _calibration(files))
    partners = [row[row != UNMATCHED] for row in told.candidates]
    columns = {
        "feature": np.arange(len(partners)),
        "fate": told.fate,
        "probability": told.probability,
        "partners": partners,
        "probabilities": [
            row[: len(some)] for row, some in zip(told.pair_probability, partners, strict=True)
        ],
        "partner_count": told.counting.sum(axis=1),
    }
    details = {
        "a": a.key,
        "b": b.key,
        "notes": told.notes,
        "born": np.flatnonzero(told.born).tolist(),
    }
    return Output(FATES.encode(columns, details))


@stage("follow_paths")
def follow_paths(
    files: Sequence[KeptFile], chains: Sequence[Sequence[Member]], shipped: str
) -> Output:
    """`followed.parquet`: the paths through every chain that agree with their start, numbered through."""
    frames: list[pd.DataFrame] = []
    notes: dict[str, None] = {}
    count = 0
    for members in chains:
        found = follow_ways(LoadedInTurn(members), _calibration(files))
        for way, paths in zip(FOLLOW_WAYS, found, strict=True):
            frame = paths.to_frame()
            frames.append(frame.assign(path=frame["path"] + count, way=way))
            count += len(paths)
            notes |= dict.fromkeys(paths.notes)
    frame = pd.concat(frames)
    columns = {name: frame[name].to_numpy() for name in FOLLOWED.names}
    return Output(FOLLOWED.encode(columns, {"notes": list(notes)}))


def _calibration(files: Sequence[KeptFile]) -> Calibration:
    """The run's own, or the one that ships."""
    if files:
        return Calibration.read(files[0].read().decode(), str(files[0].path))
    return Calibration.load()


@stage("collect_measures")
def collect_measures(files: Sequence[KeptFile], pairs: Sequence[Sequence[str]]) -> Output:
    """`evaluation/measures/weights.parquet`: the measures of all pairs' matchings."""
    return Output(MEASURE_SOURCE.encode(joined_tables(files), {"pairs": pairs}))


@stage("merge_sources")
def merge_sources(files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures.parquet`: every source's rows, in the order of the files."""
    return Output(MEASURES.encode(joined_tables(files), {"sources": [file.name for file in files]}))


def joined_tables(files: Sequence[KeptFile]) -> dict[str, list[Any]]:
    """The rows of tables of the same columns, in the order of the files."""
    return pa.concat_tables([file.table()[0] for file in files]).to_pydict()
