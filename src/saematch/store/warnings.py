"""Why to doubt that a pair of matched features are the same: what speaks against a step, in words.

Squared distance alone says little of a single pair: a feature of small norm, dead ones before all, is near
to everything.  So another feature counts against a step only if it is live and nearer by more than cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saematch.semantics.judges.protocol import Label

LIVE = "live"
DEAR_QUANTILE = 0.9
"""Steps that cost more than this share of the live pairs are doubted."""
NEAR_TIE = 1e-3
"""So are those of a margin below this share of their cost."""
BY_DIRECTION = 0.1
"""So are those where another live feature's cosine is greater by more than this."""
APART = 10
"""And those where both features fire at least so often on the texts of the evaluation, and never together."""


class Doubt(StrEnum):
    """What speaks against a step."""

    NOT_LIVE = "not live"
    DEAR = "dear"
    NEARER = "nearer"
    DIRECTION = "by direction"
    UNCERTAIN = "not certain"
    TIE = "near tie"
    NEVER = "never together"
    DIFFERENT = "judged different"


RULES = {
    Doubt.NOT_LIVE: "status != 'live' or partner_status != 'live'",
    Doubt.DEAR: f"live_pair and quantile > {DEAR_QUANTILE}",
    Doubt.NEARER: "live_pair and nearer_cost < cost",
    Doubt.DIRECTION: f"live_pair and beside_cosine - cosine > {BY_DIRECTION}",
    Doubt.UNCERTAIN: "not certain",
    Doubt.TIE: f"live_pair and certain and margin < {NEAR_TIE} * cost",
    Doubt.NEVER: f"live_pair and fired >= {APART} and partner_fired >= {APART} and joint_fired == 0",
    Doubt.DIFFERENT: "different",
}
"""Which pairs are doubted, in the order in which reasons are told.  Python and SQL read the expressions
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
    """Of the two, as layer/index."""
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
    firings: tuple[int, int, int] | None = None
    """Of the feature, of its partner, and of both at once, on all texts of the evaluation."""
    labels: Sequence[str] = ()
    """What the judges that stand, and tell their controls apart, call the two."""

    @property
    def doubts(self) -> list[tuple[Doubt, str]]:
        """Why to doubt the pair, each in words; empty where nothing speaks against it."""
        values = self._values
        return [
            (kind, self._words(kind)) for kind, rule in _COMPILED.items() if eval(rule, {}, values)
        ]

    @property
    def _values(self) -> dict[str, Any]:
        """What the rules ask for."""
        nearer, beside = self.nearer, self.by_direction
        if nearer is not None and beside is not None and nearer.feature == beside.feature:
            beside = None
        fired = self.firings or (math.nan,) * 3
        known = {
            "quantile": self.quantile,
            "cost": self.cost,
            "cosine": self.cosine,
            "margin": self.margin,
            "nearer_cost": nearer and nearer.cost,
            "beside_cosine": beside and beside.cosine,
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
            **dict(zip(("fired", "partner_fired", "joint_fired"), fired, strict=True)),
            "live_pair": self.statuses == (LIVE, LIVE),
            "certain": self.certain or self.cost is None,
            "different": tuple(self.labels) == (str(Label.DIFFERENT),),
        }

    def _words(self, kind: Doubt) -> str:
        layer = self.names[1].rpartition("/")[0]
        match kind:
            case Doubt.NOT_LIVE:
                found = zip(self.names, self.statuses, strict=True)
                return "; ".join(
                    f"{name} is {status}" for name, status in found if status not in (LIVE, None)
                )
            case Doubt.DEAR:
                return "among the dearest tenth of the live pairs"
            case Doubt.NEARER:
                nearer = self.nearer
                assert nearer is not None
                return (
                    f"{layer}/{nearer.feature} is nearer (cost {nearer.cost:.4g} against {self.cost:.4g}, "
                    f"cosine {nearer.cosine:.3f} against {self.cosine:.3f}), but was given to another"
                )
            case Doubt.DIRECTION:
                beside = self.by_direction
                assert beside is not None
                return (
                    f"{layer}/{beside.feature} is nearer by direction (cosine {beside.cosine:.2f} against "
                    f"{self.cosine:.2f})"
                )
            case Doubt.UNCERTAIN:
                return "an equally good matching may pair it otherwise"
            case Doubt.TIE:
                return (
                    f"a near tie: a matching without the pair may cost only {self.margin:.2g} more"
                )
            case Doubt.NEVER:
                assert self.firings is not None
                one, other, _ = self.firings
                return f"the two never fire together ({one:,} and {other:,} firings)"
            case Doubt.DIFFERENT:
                return "judged DIFFERENT"
