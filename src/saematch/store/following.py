"""Every path of a run, step by step, with warnings: why a step's two features may not be the same, in words.

Squared distance alone says little of a single pair: a feature of small norm, above all a dead one, is near
to everything.  So another feature counts against a step only if it is live and nearer by more than cost.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saematch.matching.matchers import COSINE, MAIN
from saematch.semantics.judges.judge import Label
from saematch.store.judge_results import labels_of_pairs
from saematch.store.names import PAIR_SOURCES, candidates_name, matching_name

if TYPE_CHECKING:
    import pandas as pd

    from saematch.store.tables import Tables


LIVE = "live"
COSTLY_QUANTILE = 0.9
"""Steps that cost more than this share of the live pairs are flagged."""
NEAR_TIE = 1e-3
"""So are those of a margin below this share of their cost."""
BY_DIRECTION = 0.1
"""So are those where another live feature's cosine is greater by more than this."""
APART = 10
"""And those where both features are active at least so often on the texts of the evaluation, and never
together."""


class StepWarning(StrEnum):
    """Kinds of warning about a step."""

    NOT_LIVE = "not live"
    COSTLY = "costly"
    NEARER = "nearer"
    DIRECTION = "by direction"
    UNCERTAIN = "not certain"
    TIE = "near tie"
    NEVER = "never together"
    DIFFERENT = "judged different"


RULES = {
    StepWarning.NOT_LIVE: "status != 'live' or partner_status != 'live'",
    StepWarning.COSTLY: f"live_pair and quantile > {COSTLY_QUANTILE}",
    StepWarning.NEARER: "live_pair and nearer_cost < cost",
    StepWarning.DIRECTION: f"live_pair and beside_cosine - cosine > {BY_DIRECTION}",
    StepWarning.UNCERTAIN: "not certain",
    StepWarning.TIE: f"live_pair and certain and margin < {NEAR_TIE} * cost",
    StepWarning.NEVER: f"live_pair and active >= {APART} and partner_active >= {APART} and joint_active == 0",
    StepWarning.DIFFERENT: "different",
}
"""Which pairs are flagged, in the order in which reasons are told.  Python and SQL read the expressions
alike, since the explorer's index finds the kinds of all pairs by SQL.  A value that is not known makes a
comparison false.

nearer_cost: of `Pair.nearer`; beside_cosine: of `Pair.by_direction`, where that is not `nearer` too;
different: whether DIFFERENT is all that the judges say."""
_COMPILED = {kind: compile(rule, f"<{kind}>", "eval") for kind, rule in RULES.items()}


class Other(NamedTuple):
    """Another live feature of the next layer."""

    feature: int
    cosine: float
    cost: float | None = None
    """None where only its direction is known."""


@dataclass(frozen=True)
class Pair:
    """What is known of a feature and its partner; None: it is not known, or there is none."""

    names: tuple[str, str]
    """The two, as layer/index."""
    statuses: tuple[str | None, str | None]
    cost: float | None = None
    quantile: float | None = None
    """Share of the step's live pairs that cost at most as much."""
    cosine: float | None = None
    margin: float | None = None
    """None also where no bound is finite."""
    certain: bool | None = None
    nearer: Other | None = None
    """The live feature of least cost that is nearer than the partner both by cost and by cosine."""
    by_direction: Other | None = None
    """The live feature of greatest cosine, where that is not the partner."""
    activation_counts: tuple[int, int, int] | None = None
    """Tokens on which the feature, its partner and both are active, over all texts of the evaluation."""
    labels: Sequence[str] = ()
    """What the judges whose labels count, and who pass their controls, call the two."""

    @property
    def warnings(self) -> list[tuple[StepWarning, str]]:
        """Warnings about the pair, each in words; empty if there are none."""
        values = self._values
        return [
            (kind, self._words(kind)) for kind, rule in _COMPILED.items() if eval(rule, {}, values)
        ]

    @property
    def _values(self) -> dict[str, Any]:
        """What the rules ask for; NaN is what is not known."""
        nearer, aligned = self.nearer, self.by_direction
        if nearer is not None and aligned is not None and nearer.feature == aligned.feature:
            aligned = None
        active, partner_active, joint_active = self.activation_counts or (None,) * 3
        values = {
            "quantile": self.quantile,
            "cost": self.cost,
            "cosine": self.cosine,
            "margin": self.margin,
            "nearer_cost": nearer and nearer.cost,
            "beside_cosine": aligned and aligned.cosine,
            "active": active,
            "partner_active": partner_active,
            "joint_active": joint_active,
            "status": self.statuses[0] or LIVE,
            "partner_status": self.statuses[1] or LIVE,
            "live_pair": self.statuses == (LIVE, LIVE),
            "certain": self.certain or self.cost is None,
            "different": tuple(self.labels) == (str(Label.DIFFERENT),),
        }
        return {name: math.nan if value is None else value for name, value in values.items()}

    def _words(self, kind: StepWarning) -> str:
        layer = self.names[1].rpartition("/")[0]
        match kind:
            case StepWarning.NOT_LIVE:
                found = zip(self.names, self.statuses, strict=True)
                return "; ".join(
                    f"{name} is {status}" for name, status in found if status not in (LIVE, None)
                )
            case StepWarning.COSTLY:
                return "among the most costly 10% of the live pairs"
            case StepWarning.NEARER if self.nearer is not None:
                other, cosine, cost = self.nearer
                return (
                    f"{layer}/{other} is nearer (cost {cost:.4g} against {self.cost:.4g}, "
                    f"cosine {cosine:.3f} against {self.cosine:.3f}), but was given to another"
                )
            case StepWarning.DIRECTION if self.by_direction is not None:
                other, cosine, _ = self.by_direction
                return (
                    f"{layer}/{other} is nearer by direction (cosine {cosine:.2f} against "
                    f"{self.cosine:.2f})"
                )
            case StepWarning.UNCERTAIN:
                return "an equally good matching may pair it otherwise"
            case StepWarning.TIE:
                return (
                    f"a near tie: a matching without the pair may cost only {self.margin:.2g} more"
                )
            case StepWarning.NEVER if self.activation_counts is not None:
                one, other, _ = self.activation_counts
                return f"the two are never active together ({one:,} and {other:,} activations)"
            case StepWarning.DIFFERENT:
                return "judged DIFFERENT"
        raise AssertionError(f"{kind} without what its rule asks for")


@dataclass(frozen=True)
class Step:
    """A path at one layer; what belongs to a step is in the value of its end, None at the start.  Its fields
    are the columns of `Run.follow`."""

    key: str
    feature: int
    status: str
    cost: float | None = None
    cosine: float | None = None
    margin: float | None = None
    """None also where no bound is finite."""
    certain: bool = False
    born: bool = False
    """Nothing at the layer before was matched to it."""
    dies: bool = False
    """It is matched to nothing at the next layer."""
    quantile: float | None = None
    """Share of the step's live pairs that cost at most as much."""
    runner_up: int | None = None
    """The nearest other feature by cost."""
    extra_cost: float | None = None
    """Its cost less that of the feature taken; below zero it is nearer, but was given away."""
    runner_up_cosine: float | None = None
    runner_up_status: str | None = None
    warnings: tuple[str, ...] = ()
    """Warnings about the step, in words; empty if there are none."""
    kinds: tuple[StepWarning, ...] = ()
    """The kinds of these warnings."""


def followed_steps(run: "Tables") -> Mapping[int, Sequence[Step]]:
    """All paths by number."""
    paths = run.paths()
    return _follow(run, paths, paths)


def steps_through(run: "Tables", key: str, feature: int) -> Sequence[Step]:
    """The path through a feature; empty where no path goes through its layer."""
    paths = run.paths()
    through = paths.loc[(paths["key"] == key) & (paths["feature"] == feature), "path"]
    found = _follow(run, paths, paths[paths["path"].isin(through)])
    return next(iter(found.values()), ())


def _follow(
    run: "Tables", paths: "pd.DataFrame", wanted: "pd.DataFrame"
) -> dict[int, Sequence[Step]]:
    """Steps of the paths whose rows are `wanted`; the tables of two layers are read when they are needed."""
    labels, counts = labels_of_pairs(run), _activation_counts_of_pairs(run, wanted)
    near = cache(lambda a, b: _near(run, paths, wanted, a, b))
    found: dict[int, list[Step]] = {}
    for row in wanted.to_dict("records"):
        path = found.setdefault(row["path"], [])
        step = Step(row["key"], row["feature"], row["status"], born=row["born"], dies=row["dies"])
        if path:
            before, row = path[-1], {**row, "margin": _known(row["margin"])}
            beside = near(before.key, step.key)
            quantile = _known(beside.quantile[before.feature])
            measured = {name: row[name] for name in ("cost", "cosine", "margin", "certain")}
            ends = before.key, step.key, before.feature, step.feature
            warnings = Pair(
                names=(f"{before.key}/{before.feature}", f"{step.key}/{step.feature}"),
                statuses=(before.status, step.status),
                quantile=quantile,
                **measured,
                nearer=beside.nearer.get(before.feature),
                by_direction=beside.by_direction.get(before.feature),
                activation_counts=counts.get(ends),
                labels=labels.get(ends, ()),
            ).warnings
            step = replace(
                step,
                quantile=quantile,
                **measured,
                warnings=tuple(words for _, words in warnings),
                kinds=tuple(kind for kind, _ in warnings),
            )
            other = beside.runner_up.get(before.feature)
            if other is not None and other.cost is not None:
                step = replace(
                    step,
                    runner_up=other.feature,
                    extra_cost=other.cost - row["cost"],
                    runner_up_cosine=other.cosine,
                    runner_up_status=beside.statuses.get(other.feature),
                )
        path.append(step)
    return dict(found)


class _Near(NamedTuple):
    """What is near to the features of one layer at the next, by feature."""

    quantile: np.ndarray
    """NaN for a pair that is not live."""
    runner_up: Mapping[int, Other]
    nearer: Mapping[int, Other]
    by_direction: Mapping[int, Other]
    statuses: Mapping[int, str]
    """Of the features of the next layer."""


def _near(run: "Tables", paths: "pd.DataFrame", wanted: "pd.DataFrame", a: str, b: str) -> _Near:
    table = run.matching_table(a, b)
    cost, cosine, partner = (table[name].to_numpy() for name in ("cost", "cosine", "partner"))
    live = ((table["status"] == LIVE) & (table["partner_status"] == LIVE)).to_numpy()
    quantile = np.full(len(table), np.nan)
    if live.any():
        quantile[live] = np.searchsorted(np.sort(cost[live]), cost[live], "right") / live.sum()
    sources = wanted.loc[wanted["key"] == a, "feature"]
    ends = paths[paths["key"] == b]
    statuses = dict(zip(ends["feature"].tolist(), ends["status"].tolist(), strict=True))
    current = run.directory.is_current
    near, nearer, aligned = None, None, None
    if current(candidates_name(a, b)):  # in order of cost; none where the run is not finished
        near = run.candidates(a, b)
        feature = near["feature"].to_numpy()
        near = near[near["feature"].isin(sources) & (near["candidate"] != partner[feature])]
        feature = near["feature"].to_numpy()
        closer = (near["cost"] < cost[feature]) & (near["cosine"] > cosine[feature])
        nearer = near[closer & (near["candidate"].map(statuses) == LIVE)]
    if current(matching_name(a, b, COSINE, run.config.slug)):
        argmax = run.matching_table(a, b, COSINE).rename(columns={"partner": "candidate"})
        other = (argmax["partner_status"] == LIVE) & (argmax["candidate"] != partner)
        aligned = argmax[other & argmax["feature"].isin(sources)]
    return _Near(quantile, _first(near), _first(nearer), _first(aligned), statuses)


def _first(near: "pd.DataFrame | None") -> dict[int, Other]:
    """The first candidate of each feature."""
    if near is None:
        return {}
    first = near.drop_duplicates("feature").set_index("feature")
    others = first[["candidate", "cosine", "cost"]].itertuples(index=False, name=None)
    return {
        feature: Other(*other) for feature, other in zip(first.index.tolist(), others, strict=True)
    }


def _activation_counts_of_pairs(
    run: "Tables", wanted: "pd.DataFrame"
) -> dict[tuple[str, str, int, int], tuple[int, int, int]]:
    """Tokens on which a feature, its partner and both are active, on all texts, by (a, b, feature, partner);
    `wanted`: rows of paths that features are taken from."""
    import pandas as pd

    pair = ["a", "b", "feature", "partner"]
    counts = ["activation_count", "partner_activation_count", "joint_activation_count"]
    frames = []
    for name in run.directory.current_names(PAIR_SOURCES):
        table = run.directory.table(name)[0].select([*pair, *counts, "strategy"]).to_pandas()
        frames.append(table[(table["strategy"] == MAIN) & table["feature"].isin(wanted["feature"])])
    if not frames:
        return {}
    summed = pd.concat(frames).groupby(pair, sort=False)[counts].sum()
    rows = summed.itertuples(index=False, name=None)
    return dict(zip(summed.index.tolist(), rows, strict=True))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
