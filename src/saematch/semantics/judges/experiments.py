"""Which pairs of features a judge is asked about, and the controls that are mixed among them.

Sampling is seeded.  Features are drawn in equal numbers from strata of equal size by cost, so that plain
means of the sample are those of the population; every strategy is asked about the same features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from saematch.errors import UsageError

if TYPE_CHECKING:
    from saematch.matching.matched import Matching

PAIR = "pair"
SAME, DIFFERENT = "same", "different"
CALIBRATION = "calibration-"
"""Before the kind of control that thresholds are set on; its features are in no other control."""
HALF_WIDTH = 1.96
"""Standard errors on either side of a mean that make a 95% interval."""


@dataclass(frozen=True)
class Compared:
    """Two features whose descriptions are to be compared."""

    kind: str
    strategy: str
    """That pairs the two; '' of controls."""
    a: str
    b: str
    """Keys of their SAEs."""
    feature: int
    partner: int
    mse_decoder: float
    """Decoder MSE of the two; NaN if it was not measured."""
    stratum: int
    swapped: bool = False


def strata_of(
    values: np.ndarray,
    eligible: np.ndarray,
    count: int,
    strata: int,
    generator: np.random.Generator,
) -> list[tuple[int, int]]:
    """(feature, stratum) of about `count` features drawn from equal strata of the eligible, by value.

    Every stratum gives the same number; fewer than `count` in all if there are not so many.
    """
    features = np.flatnonzero(eligible)
    strata = max(1, min(strata, len(features)))
    order = features[np.argsort(values[features], kind="stable")]
    parts = np.array_split(order, strata)
    each = min(-(-count // strata), *(len(part) for part in parts))
    return [
        (int(feature), stratum)
        for stratum, part in enumerate(parts)
        for feature in np.sort(generator.permutation(part)[:each])
    ]


def pairs_of(
    a: str,
    b: str,
    matchings: Mapping[str, "Matching"],
    count: int,
    generator: np.random.Generator,
    strata: int,
    by: str = "cost",
) -> list[Compared]:
    """Features by `strata` strata of `by` of the first matching, and each strategy's partners of them.

    `matchings`: by strategy.  Several are asked about `same_features`, whether or not their partners are
    live; one alone is asked about its live pairs.
    """
    from saematch.matching.matched import (
        same_features,  # which needs torch; readers of samples do not
    )

    first = next(iter(matchings.values()))
    eligible = same_features(matchings.values()) if len(matchings) > 1 else first.live
    chosen = strata_of(getattr(first, by), eligible, count, strata, generator)
    return partners_of(a, b, matchings, chosen)


def partners_of(
    a: str, b: str, matchings: Mapping[str, "Matching"], chosen: Sequence[tuple[int, int]]
) -> list[Compared]:
    """The pairs of the chosen (feature, stratum) under each strategy."""
    return [
        Compared(PAIR, strategy, a, b, feature, int(partner), float(mse), stratum)
        for strategy, matching in matchings.items()
        for feature, stratum in chosen
        for partner, mse in [(matching.permutation[feature], matching.mse_decoder[feature])]
        if partner >= 0
    ]


def controls_of(
    a: str,
    b: str,
    live_a: np.ndarray,
    live_b: np.ndarray,
    count: int,
    generator: np.random.Generator,
    prefix: str = "",
) -> list[Compared]:
    """Features of a compared with themselves, and with features of b drawn at random; `count` of each,
    or half of what there are."""
    found = []
    mine = generator.permutation(live_a)
    count = min(count, -(-len(mine) // 2))
    others = mine[count : 2 * count] if len(live_b) else mine[:0]
    for kind, features in ((SAME, mine[:count]), (DIFFERENT, others)):
        for feature in features.tolist():
            partner = feature if kind == SAME else int(generator.choice(live_b))
            other = a if kind == SAME else b
            found.append(Compared(prefix + kind, "", a, other, feature, partner, np.nan, -1))
    return found


def also_swapped(
    compared: Sequence[Compared], strategy: str, share: float, generator: np.random.Generator
) -> list[Compared]:
    """A share of a strategy's pairs again, to be asked the other way round."""
    mine = [one for one in compared if one.kind == PAIR and one.strategy == strategy]
    chosen = generator.permutation(len(mine))[: round(share * len(mine))]
    return [replace(mine[number], swapped=True) for number in sorted(chosen.tolist())]


def half_width_of_mean(count: int) -> float:
    """The most that a 95% interval of a mean label can reach to either side: labels are 1 to 3."""
    if count < 1:
        raise UsageError("expected at least one pair to judge, got none")
    return float(HALF_WIDTH / np.sqrt(count))


def half_width_of_share(count: int) -> float:
    """The same of the share of a label."""
    return half_width_of_mean(count) / 2
