"""The stages that measure what folding is for: thresholds, and how far features reach.

The norm of a folded decoder row is what a feature writes at the moment it activates, in units of the
residual stream.  The paper's figure 1 sets its growth along matched features next to that of the stream.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.matching.registry import MAIN
from saematch.pipelines.matching.measures import as_columns, mean_of, measure_rows
from saematch.pipelines.suite import Member
from saematch.store.build import Output, stage
from saematch.store.directory import KeptFile
from saematch.store.matchings import kept_matching
from saematch.store.schema import MEASURE_SOURCE
from saematch.types import Interval, parts_slug


@dataclass(frozen=True)
class NormsTask:
    """Mean threshold and folded decoder norm of one SAE's live features."""

    member: Member
    scale: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {"sae": self.member.identity, "scale": self.scale}


@dataclass(frozen=True)
class NormGrowthTask:
    """Growth of folded decoder norms from a to b; the stage reads the folded matching's file."""

    a: Member
    b: Member
    scale: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, for hashing."""
        return {"a": self.a.identity, "b": self.b.identity, "scale": self.scale}


@stage("measure_norms")
def measure_norms(task: NormsTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures/norms-{key}.parquet`."""
    started = time.perf_counter()
    sae = task.member.load()
    live = np.array(sae.status) == "live"
    threshold = math.nan
    if sae.threshold is not None:
        threshold = mean_of(sae.threshold.double().numpy(), live)
    measures: dict[str, Interval] = {
        "threshold": Interval(threshold),
        "decoder_norm": Interval(mean_of(_decoder_norms(task.member, task.scale), live)),
    }
    key = task.member.key
    data = MEASURE_SOURCE.encode(as_columns(measure_rows(key, key, "", "", measures)))
    return Output(data, {"total": time.perf_counter() - started})


@stage("measure_growth")
def measure_growth(task: NormGrowthTask, files: Sequence[KeptFile]) -> Output:
    """`evaluation/measures/norms-{a}--{b}.parquet`."""
    started = time.perf_counter()
    found = kept_matching(files[0])
    live = np.flatnonzero(found.live)
    norms_a, norms_b = (_decoder_norms(member, task.scale) for member in (task.a, task.b))
    ratios = np.log(norms_b[found.permutation[live]] / norms_a[live])
    ratio = math.exp(ratios.mean()) if len(live) else math.nan
    measures: dict[str, Interval] = {"decoder_norm_ratio": Interval(ratio)}
    slug = parts_slug(dict(found.parts))
    rows = measure_rows(task.a.key, task.b.key, MAIN, slug, measures)
    data = MEASURE_SOURCE.encode(as_columns(rows))
    return Output(data, {"total": time.perf_counter() - started})


def _decoder_norms(member: Member, scale: str | None) -> np.ndarray:
    """[d_sae]: norms of the folded decoder rows."""
    return member.folded(scale).W_dec.double().norm(dim=1).numpy()
