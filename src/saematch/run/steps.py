"""Every path of a run, step by step, with what a reader needs to doubt a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from saematch.run.read import Run

DEAR_QUANTILE = 0.9


@dataclass(frozen=True)
class Step:
    """A path at one layer; what belongs to a step is in the value of its end, None at the start."""

    key: str
    feature: int
    status: str
    cost: float | None = None
    quantile: float | None = None
    """Share of the step's live pairs that cost at most as much."""
    cosine: float | None = None
    margin: float | None = None
    """None also where no bound is finite."""
    certain: bool = False
    runner_up: int | None = None
    """The nearest other feature."""
    extra_cost: float | None = None
    """Its cost less that of the feature taken; below zero it is nearer, but was given away."""
    born: bool = False
    """Nothing at the layer before was matched to it."""
    dies: bool = False
    """It is matched to nothing at the next layer."""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why to doubt the step, in words; empty where nothing speaks against it."""
        found = [f"the feature is {self.status}"] if self.status != "live" else []
        return (*found, *doubts_of(self.cost, self.quantile, self.extra_cost, self.certain))


def doubts_of(
    cost: float | None, quantile: float | None, extra_cost: float | None, certain: bool
) -> tuple[str, ...]:
    """Why to doubt a step whose features are live; the arguments are those of `Step`."""
    found = []
    if quantile is not None and quantile > DEAR_QUANTILE:
        found.append("among the dearest tenth of the live pairs")
    if extra_cost is not None and extra_cost < 0:
        found.append("another feature is nearer, but was given to a third")
    if cost is not None and not certain:
        found.append("an equally good matching may pair it otherwise")
    return tuple(found)


@dataclass(frozen=True)
class _Pair:
    """Per-feature columns of one adjacent pair, as arrays."""

    quantile: np.ndarray
    runner_up: np.ndarray
    extra_cost: np.ndarray


def followed_steps(run: "Run") -> Mapping[int, Sequence[Step]]:
    """All paths by number."""
    pairs = {pair: _pair(run, *pair) for chain in run.chains for pair in pairwise(chain)}
    paths: dict[int, list[Step]] = {}
    for row in run.paths().to_dict("records"):
        path = paths.setdefault(row["path"], [])
        if not path:
            path.append(
                Step(
                    row["key"],
                    row["feature"],
                    row["status"],
                    born=row["born"],
                    dies=row["dies"],
                )
            )
            continue
        before = path[-1]
        pair, source = pairs[before.key, row["key"]], before.feature
        runner_up = int(pair.runner_up[source])
        path.append(
            Step(
                key=row["key"],
                feature=row["feature"],
                status=row["status"],
                cost=row["cost"],
                quantile=_known(pair.quantile[source]),
                cosine=row["cosine"],
                margin=_known(row["margin"]),
                certain=row["certain"],
                runner_up=None if runner_up < 0 else runner_up,
                extra_cost=_known(pair.extra_cost[source]),
                dies=row["dies"],
            )
        )
    return paths


def _pair(run: "Run", a: str, b: str) -> _Pair:
    table = run.matching_table(a, b)
    live = ((table["status"] == "live") & (table["partner_status"] == "live")).to_numpy()
    cost = table["cost"].to_numpy(dtype=float)
    quantile = np.full(len(table), np.nan)
    if live.any():
        quantile[live] = np.searchsorted(np.sort(cost[live]), cost[live], "right") / live.sum()
    near = run.candidates(a, b)
    partner = table["partner"].to_numpy()
    others = near[near["candidate"].to_numpy() != partner[near["feature"].to_numpy()]]
    first = others.drop_duplicates("feature")  # candidates are in order of cost
    runner_up = np.full(len(table), -1, dtype=np.int64)
    extra_cost = np.full(len(table), np.nan)
    runner_up[first["feature"]] = first["candidate"]
    extra_cost[first["feature"]] = first["cost"].to_numpy() - cost[first["feature"]]
    return _Pair(quantile, runner_up, extra_cost)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
