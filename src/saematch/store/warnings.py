"""Warnings about a step: why its two features may not be the same, in words.

Squared distance alone says little of a single pair: a feature of small norm, above all a dead one, is
near to everything.  So another feature counts against a step only if it is live and nearer by more than cost.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saematch.semantics.judges.protocol import Label

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
