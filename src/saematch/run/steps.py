"""Every path of a run, step by step, with what a reader needs to doubt a step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.run.doubts import Other, Pair
from saematch.run.judged import labels_of_pairs
from saematch.run.names import matching_name

if TYPE_CHECKING:
    import pandas as pd

    from saematch.run.read import Run


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
    """The nearest other feature by cost."""
    extra_cost: float | None = None
    """Its cost less that of the feature taken; below zero it is nearer, but was given away."""
    runner_up_cosine: float | None = None
    runner_up_status: str | None = None
    born: bool = False
    """Nothing at the layer before was matched to it."""
    dies: bool = False
    """It is matched to nothing at the next layer."""
    doubts: tuple[str, ...] = ()
    """Why to doubt the step, in words; empty where nothing speaks against it."""


def followed_steps(run: "Run") -> Mapping[int, Sequence[Step]]:
    """All paths by number."""
    paths = run.paths()
    steps = _Steps(run, paths)
    found: dict[int, list[Mapping[Any, Any]]] = {}
    for row in paths.to_dict("records"):
        found.setdefault(row["path"], []).append(row)
    return {path: steps.along(rows) for path, rows in found.items()}


def steps_through(run: "Run", key: str, feature: int) -> Sequence[Step]:
    """The path through a feature; empty where no path goes through its layer."""
    paths = run.paths()
    through = paths.loc[(paths["key"] == key) & (paths["feature"] == feature), "path"]
    if through.empty:
        return ()
    return _Steps(run, paths).along(paths[paths["path"] == through.iloc[0]].to_dict("records"))


class _Steps:
    """Makes steps out of rows of paths; the tables of two layers are read when they are needed."""

    def __init__(self, run: "Run", paths: "pd.DataFrame") -> None:
        self._run = run
        self._labels = labels_of_pairs(run)
        self._statuses = {
            key: dict(zip(rows["feature"], rows["status"], strict=True))
            for key, rows in paths.groupby("key")
        }
        self._near = cache(self._near_of)

    def along(self, rows: Iterable[Mapping[Any, Any]]) -> list[Step]:
        path: list[Step] = []
        for row in rows:
            path.append(self._step(path[-1], row) if path else _start(row))
        return path

    def _near_of(self, a: str, b: str) -> "_Near":
        return _near(self._run, a, b, self._statuses[b])

    def _step(self, before: Step, row: Mapping[Any, Any]) -> Step:
        near, source = self._near(before.key, row["key"]), before.feature
        cost = row["cost"]
        quantile, margin = _known(near.quantile[source]), _known(row["margin"])
        labels = self._labels.get((before.key, row["key"], source, row["feature"]), ())
        pair = Pair(
            names=(f"{before.key}/{source}", f"{row['key']}/{row['feature']}"),
            statuses=(before.status, row["status"]),
            cost=cost,
            quantile=quantile,
            cosine=row["cosine"],
            margin=margin,
            certain=row["certain"],
            nearer=near.nearer.get(source),
            by_direction=near.by_direction.get(source),
            labels=labels,
        )
        other, other_cosine = near.runner_up.get(source), None
        if other is not None:
            other_cosine = other.cosine
        extra = None if other is None or other.cost is None else other.cost - cost
        return Step(
            key=row["key"],
            feature=row["feature"],
            status=row["status"],
            cost=cost,
            quantile=quantile,
            cosine=row["cosine"],
            margin=margin,
            certain=row["certain"],
            runner_up=None if other is None else other.feature,
            extra_cost=extra,
            runner_up_cosine=other_cosine,
            runner_up_status=None
            if other is None
            else self._statuses[row["key"]].get(other.feature),
            dies=row["dies"],
            doubts=pair.doubts,
        )


def _start(row: Mapping[Any, Any]) -> Step:
    return Step(row["key"], row["feature"], row["status"], born=row["born"], dies=row["dies"])


@dataclass(frozen=True)
class _Near:
    """What is near to the features of one layer at the next, by feature."""

    quantile: np.ndarray
    """NaN for a pair that is not live."""
    runner_up: Mapping[int, Other]
    nearer: Mapping[int, Other]
    by_direction: Mapping[int, Other]


def _near(run: "Run", a: str, b: str, statuses: Mapping[int, str]) -> _Near:
    table = run.matching_table(a, b)
    live = ((table["status"] == "live") & (table["partner_status"] == "live")).to_numpy()
    cost, cosine = (table[name].to_numpy(dtype=float) for name in ("cost", "cosine"))
    quantile = np.full(len(table), np.nan)
    if live.any():
        quantile[live] = np.searchsorted(np.sort(cost[live]), cost[live], "right") / live.sum()
    near = run.candidates(a, b)  # in order of cost
    feature = near["feature"].to_numpy()
    others = near["candidate"].to_numpy() != table["partner"].to_numpy()[feature]
    nearer = (
        others
        & (near["candidate"].map(statuses) == "live").to_numpy()
        & (near["cost"].to_numpy() < cost[feature])
        & (near["cosine"].to_numpy() > cosine[feature])
    )
    return _Near(
        quantile, _first(near[others]), _first(near[nearer]), _by_direction(run, a, b, table)
    )


def _first(near: "pd.DataFrame") -> dict[int, Other]:
    first = near.drop_duplicates("feature")
    columns = (first[name].tolist() for name in ("feature", "candidate", "cosine", "cost"))
    return {
        feature: Other(other, cosine, cost)
        for feature, other, cosine, cost in zip(*columns, strict=True)
    }


def _by_direction(run: "Run", a: str, b: str, table: "pd.DataFrame") -> dict[int, Other]:
    if run.directory.record(matching_name(a, b, "cosine", run.config.slug)) is None:
        return {}
    argmax = run.matching_table(a, b, "cosine")
    other = (argmax["partner_status"] == "live") & (argmax["partner"] != table["partner"])
    columns = (argmax[name][other].tolist() for name in ("feature", "partner", "cosine"))
    return {
        feature: Other(partner, cosine) for feature, partner, cosine in zip(*columns, strict=True)
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
