"""Every path of a run, step by step, with warnings: why a step's two features may not be the same, in words.

Squared distance alone says little of a single pair: a feature of small norm, above all a dead one, is near
to everything.  So another feature counts against a step only if it is live and nearer by more than cost.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.matching.matchers import COSINE, MAIN
from saematch.semantics.judges.judge import Label
from saematch.store.judge_results import labels_of_pairs
from saematch.store.names import PAIR_SOURCES, candidates_name, matching_name
from saematch.store.schema import CANDIDATES

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


@dataclass(frozen=True)
class Other:
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
        """What the rules ask for."""
        nearer, aligned = self.nearer, self.by_direction
        if nearer is not None and aligned is not None and nearer.feature == aligned.feature:
            aligned = None
        counts = self.activation_counts or (math.nan,) * 3
        known = {
            "quantile": self.quantile,
            "cost": self.cost,
            "cosine": self.cosine,
            "margin": self.margin,
            "nearer_cost": nearer and nearer.cost,
            "beside_cosine": aligned and aligned.cosine,
        }
        return {
            **{name: math.nan if value is None else value for name, value in known.items()},
            **dict(
                zip(
                    ("status", "partner_status"),
                    (one or LIVE for one in self.statuses),
                    strict=True,
                )
            ),
            **dict(zip(("active", "partner_active", "joint_active"), counts, strict=True)),
            "live_pair": self.statuses == (LIVE, LIVE),
            "certain": self.certain or self.cost is None,
            "different": tuple(self.labels) == (str(Label.DIFFERENT),),
        }

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
            case StepWarning.NEARER:
                nearer = self.nearer
                assert nearer is not None
                return (
                    f"{layer}/{nearer.feature} is nearer (cost {nearer.cost:.4g} against {self.cost:.4g}, "
                    f"cosine {nearer.cosine:.3f} against {self.cosine:.3f}), but was given to another"
                )
            case StepWarning.DIRECTION:
                aligned = self.by_direction
                assert aligned is not None
                return (
                    f"{layer}/{aligned.feature} is nearer by direction (cosine {aligned.cosine:.2f} against "
                    f"{self.cosine:.2f})"
                )
            case StepWarning.UNCERTAIN:
                return "an equally good matching may pair it otherwise"
            case StepWarning.TIE:
                return (
                    f"a near tie: a matching without the pair may cost only {self.margin:.2g} more"
                )
            case StepWarning.NEVER:
                assert self.activation_counts is not None
                one, other, _ = self.activation_counts
                return f"the two are never active together ({one:,} and {other:,} activations)"
            case StepWarning.DIFFERENT:
                return "judged DIFFERENT"


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
    warnings: tuple[str, ...] = ()
    """Warnings about the step, in words; empty if there are none."""
    kinds: tuple[StepWarning, ...] = ()
    """The kinds of these warnings."""


def followed_steps(run: "Tables") -> Mapping[int, Sequence[Step]]:
    """All paths by number."""
    paths = run.paths()
    steps = _Steps(run, paths, paths)
    found: dict[int, list[Mapping[Any, Any]]] = {}
    for row in paths.to_dict("records"):
        found.setdefault(row["path"], []).append(row)
    return {path: steps.along(rows) for path, rows in found.items()}


def steps_through(run: "Tables", key: str, feature: int) -> Sequence[Step]:
    """The path through a feature; empty where no path goes through its layer."""
    paths = run.paths()
    through = paths.loc[(paths["key"] == key) & (paths["feature"] == feature), "path"]
    if through.empty:
        return ()
    path = paths[paths["path"] == through.iloc[0]]
    return _Steps(run, paths, path).along(path.to_dict("records"))


class _Steps:
    """Makes steps out of rows of paths; the tables of two layers are read when they are needed."""

    def __init__(self, run: "Tables", paths: "pd.DataFrame", wanted: "pd.DataFrame") -> None:
        """`wanted`: those rows of `paths` that steps are made of."""
        self._run, self._paths, self._wanted = run, paths, wanted
        self._labels = labels_of_pairs(run)
        self._activation_counts = _activation_counts_of_pairs(run, wanted)
        self._near = cache(self._near_of)

    def along(self, rows: Iterable[Mapping[Any, Any]]) -> list[Step]:
        path: list[Step] = []
        for row in rows:
            path.append(self._step(path[-1], row) if path else _start(row))
        return path

    def _step(self, before: Step, row: Mapping[Any, Any]) -> Step:
        near, source = self._near(before.key, row["key"]), before.feature
        values = {
            "cost": row["cost"],
            "quantile": _known(near.quantile[source]),
            "cosine": row["cosine"],
            "margin": _known(row["margin"]),
            "certain": row["certain"],
        }
        pair = Pair(
            names=(f"{before.key}/{source}", f"{row['key']}/{row['feature']}"),
            statuses=(before.status, row["status"]),
            **values,
            nearer=near.nearer.get(source),
            by_direction=near.by_direction.get(source),
            activation_counts=self._activation_counts.get(
                (before.key, row["key"], source, row["feature"])
            ),
            labels=self._labels.get((before.key, row["key"], source, row["feature"]), ()),
        )
        warnings = pair.warnings
        other = near.runner_up.get(source)
        if other is not None and other.cost is not None:
            values |= {
                "runner_up": other.feature,
                "extra_cost": other.cost - row["cost"],
                "runner_up_cosine": other.cosine,
                "runner_up_status": near.statuses.get(other.feature),
            }
        return Step(
            key=row["key"],
            feature=row["feature"],
            status=row["status"],
            dies=row["dies"],
            warnings=tuple(words for _, words in warnings),
            kinds=tuple(kind for kind, _ in warnings),
            **values,
        )

    def _near_of(self, a: str, b: str) -> "_Near":
        table = self._run.matching_table(a, b)
        live = ((table["status"] == "live") & (table["partner_status"] == "live")).to_numpy()
        cost, cosine = (table[name].to_numpy(dtype=float) for name in ("cost", "cosine"))
        quantile = np.full(len(table), np.nan)
        if live.any():
            quantile[live] = np.searchsorted(np.sort(cost[live]), cost[live], "right") / live.sum()
        sources = self._wanted.loc[self._wanted["key"] == a, "feature"]
        near = self._candidates(a, b)
        near = near[near["feature"].isin(sources)]
        ends = self._paths[self._paths["key"] == b].set_index("feature")["status"]
        feature = near["feature"].to_numpy()
        others = near["candidate"].to_numpy() != table["partner"].to_numpy()[feature]
        nearer = (
            others
            & (near["candidate"].map(ends) == "live").to_numpy()
            & (near["cost"].to_numpy() < cost[feature])
            & (near["cosine"].to_numpy() > cosine[feature])
        )
        shown = ends[ends.index.isin(near["candidate"])]
        return _Near(
            quantile=quantile,
            runner_up=_first(near[others]),
            nearer=_first(near[nearer]),
            by_direction=self._by_direction(a, b, table, sources),
            statuses=dict(zip(shown.index.tolist(), shown.tolist(), strict=True)),
        )

    def _candidates(self, a: str, b: str) -> "pd.DataFrame":
        """In order of cost; none where the run is not finished."""
        import pandas as pd

        if not self._run.directory.is_current(candidates_name(a, b)):
            return pd.DataFrame({name: [] for name in CANDIDATES.names}).astype({"feature": int})
        return self._run.candidates(a, b)

    def _by_direction(
        self, a: str, b: str, table: "pd.DataFrame", sources: "pd.Series"
    ) -> dict[int, Other]:
        name = matching_name(a, b, COSINE, self._run.config.slug)
        if not self._run.directory.is_current(name):
            return {}
        argmax = self._run.matching_table(a, b, COSINE)
        other = (argmax["partner_status"] == "live") & (argmax["partner"] != table["partner"])
        argmax = argmax[other & argmax["feature"].isin(sources)]
        columns = (argmax[name].tolist() for name in ("feature", "partner", "cosine"))
        return {
            feature: Other(partner, cosine)
            for feature, partner, cosine in zip(*columns, strict=True)
        }


def _activation_counts_of_pairs(
    run: "Tables", wanted: "pd.DataFrame"
) -> dict[tuple[str, str, int, int], tuple[int, int, int]]:
    """Tokens on which a feature, its partner and both are active, on all texts, by (a, b, feature, partner);
    `wanted`: rows of paths that features are taken from."""
    import pandas as pd

    pair, counts = (
        ["a", "b", "feature", "partner"],
        ["activation_count", "partner_activation_count", "joint_activation_count"],
    )
    frames = []
    for name in run.directory.current_names(PAIR_SOURCES):
        table = run.directory.table(name)[0].select([*pair, *counts, "strategy"]).to_pandas()
        chosen = (table["strategy"] == MAIN) & table["feature"].isin(wanted["feature"])
        frames.append(table.loc[chosen, [*pair, *counts]])
    if not frames:
        return {}
    summed = pd.concat(frames).groupby(pair, sort=False)[counts].sum().reset_index()
    columns = (summed[name].tolist() for name in (*pair, *counts))
    return {
        (a, b, feature, partner): (one, other, both)
        for a, b, feature, partner, one, other, both in zip(*columns, strict=True)
    }


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
    statuses: Mapping[int, str]
    """The candidates."""


def _first(near: "pd.DataFrame") -> dict[int, Other]:
    first = near.drop_duplicates("feature")
    columns = (first[name].tolist() for name in ("feature", "candidate", "cosine", "cost"))
    return {
        feature: Other(other, cosine, cost)
        for feature, other, cosine, cost in zip(*columns, strict=True)
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
