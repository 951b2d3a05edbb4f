"""Warnings about a step: why its two features may not be the same, in words.

Squared distance alone says little of a single pair: a feature of small norm, above all a dead one, is
near to everything.  So another feature counts against a step only if it is live and nearer by more than cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from saematch.semantics.judges.protocol import Label

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
    def is_live(self) -> bool:
        return self.statuses == ("live", "live")

    @property
    def warnings(self) -> list[tuple[StepWarning, str]]:
        """Warnings about the pair, each in words; empty if there are none."""
        return [*self._of_statuses(), *self._of_distance(), *self._of_proof(), *self._of_use()]

    def _of_statuses(self) -> list[tuple[StepWarning, str]]:
        found = zip(self.names, self.statuses, strict=True)
        dead = [f"{name} is {status}" for name, status in found if status not in ("live", None)]
        return [(StepWarning.NOT_LIVE, "; ".join(dead))] if dead else []

    def _of_distance(self) -> list[tuple[StepWarning, str]]:
        if not self.is_live or self.cost is None or self.cosine is None:
            return []  # being dead says it all
        found = []
        if self.quantile is not None and self.quantile > COSTLY_QUANTILE:
            found.append((StepWarning.COSTLY, "among the most costly 10% of the live pairs"))
        layer = self.names[1].rpartition("/")[0]
        nearer, aligned = self.nearer, self.by_direction
        if nearer is not None and nearer.cost is not None:
            words = (
                f"{layer}/{nearer.feature} is nearer (cost {nearer.cost:.4g} against {self.cost:.4g}, "
                f"cosine {nearer.cosine:.3f} against {self.cosine:.3f}), but was given to another"
            )
            found.append((StepWarning.NEARER, words))
        if (
            aligned is not None
            and aligned.cosine - self.cosine > BY_DIRECTION
            and (nearer is None or aligned.feature != nearer.feature)
        ):
            words = (
                f"{layer}/{aligned.feature} is nearer by direction (cosine {aligned.cosine:.2f} against "
                f"{self.cosine:.2f})"
            )
            found.append((StepWarning.DIRECTION, words))
        return found

    def _of_proof(self) -> list[tuple[StepWarning, str]]:
        if self.cost is None:
            return []
        if not self.certain:
            return [(StepWarning.UNCERTAIN, "an equally good matching may pair it otherwise")]
        if self.is_live and self.margin is not None and self.margin < NEAR_TIE * self.cost:
            words = f"a near tie: a matching without the pair may cost only {self.margin:.2g} more"
            return [(StepWarning.TIE, words)]
        return []

    def _of_use(self) -> list[tuple[StepWarning, str]]:
        found = []
        if self.is_live and self.activation_counts is not None:
            one, other, both = self.activation_counts
            if min(one, other) >= APART and both == 0:
                words = f"the two are never active together ({one:,} and {other:,} activations)"
                found.append((StepWarning.NEVER, words))
        if tuple(self.labels) == (str(Label.DIFFERENT),):
            found.append((StepWarning.DIFFERENT, "judged DIFFERENT"))
        return found
