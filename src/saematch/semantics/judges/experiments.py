"""Which pairs of features a judge is asked about, the controls that are mixed among them, and what follows
from the labels: means with intervals, strategies compared, and how good the judge is.

1. Sampling is seeded.  Features are drawn in equal numbers from strata of equal size by cost, so that plain
   means of the sample are those of the population; every strategy is asked about the same features.
2. The unit is a question; intervals are the 2.5% and 97.5% quantiles of 2,000 seeded bootstrap draws of
   questions.  Strategies are compared on the features that were judged under every one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.semantics.judges.judge import Judgement, Label, Outcome
from saematch.stats import auc, mean_interval
from saematch.text import plural

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
    # Which needs torch; readers of samples do not.
    from saematch.matching.matched import same_features

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
    return float(HALF_WIDTH / np.sqrt(count))


ResultRow = tuple[Any, ...]
"""strategy, a, b, measure, value, low, high, judged."""
CONTROLS = {SAME: "control: same", DIFFERENT: "control: different"}
"""What stands for a strategy in the rows of controls."""
LEAST_CONTROLS = 10
"""Controls of each kind: with fewer, a judge that guesses would often seem to pass."""
CHANCE = 0.5
"""AUC of a judge that guesses."""


@dataclass(frozen=True)
class Answer:
    """A question of the sample and what the judge said; None: it could not be asked, or was not."""

    kind: str
    strategy: str
    a: str
    b: str
    feature: int
    partner: int
    swapped: bool
    askable: bool
    judgement: Judgement | None

    @property
    def label(self) -> Label | None:
        return None if self.judgement is None else self.judgement.label

    @property
    def rating(self) -> float:
        """What controls are ranked by: the score, or else the label."""
        assert self.judgement is not None
        assert self.label is not None
        score = self.judgement.score
        return float(self.label.value_in_means) if score is None else score


_OF_LABELS: Mapping[str, Callable[[Any], float]] = {
    "mean": lambda label: label.value_in_means,
    "different": lambda label: label is Label.DIFFERENT,
    "maybe": lambda label: label is Label.MAYBE,
    "same": lambda label: label is Label.SAME,
}


def results(answers: Sequence[Answer], seed: int, reference: str) -> list[ResultRow]:
    """Every measure of every strategy and pair of SAEs, of all pairs together, and of the controls.

    `reference`: the strategy that the others are compared with.
    """
    labelled = [one for one in answers if one.label is not None and not one.swapped]
    pairs = [one for one in labelled if one.kind == PAIR]
    rows: list[ResultRow] = []
    places = [*dict.fromkeys((one.a, one.b) for one in pairs), ("", "")]
    for strategy in dict.fromkeys(one.strategy for one in pairs):
        for place in places:
            here = _compared([one for one in pairs if place in (("", ""), (one.a, one.b))])
            mine, base = (
                [one for one in here if one.strategy == name] for name in (strategy, reference)
            )
            rows += _label_rows((strategy, *place), mine, seed)
            if strategy != reference:
                # Paired: the same features under both strategies.
                of_base = {(one.a, one.b, one.feature): one.label for one in base}
                differences = {
                    f"{measure}_minus_{reference}": [
                        float(of(one.label)) - of(of_base[at])
                        for one in mine
                        if (at := (one.a, one.b, one.feature)) in of_base
                    ]
                    for measure, of in _OF_LABELS.items()
                }
                rows += _mean_rows((strategy, *place), differences, seed)
    for kind, name in CONTROLS.items():
        rows += _label_rows((name, "", ""), [one for one in labelled if one.kind == kind], seed)
    return rows + _quality(answers, seed)


def _compared(pairs: Sequence[Answer]) -> list[Answer]:
    """Those of features that have a label under every strategy that any of these pairs is of."""
    under: dict[tuple[str, str, int], set[str]] = {}
    for one in pairs:
        under.setdefault((one.a, one.b, one.feature), set()).add(one.strategy)
    strategies = {one.strategy for one in pairs}
    return [one for one in pairs if under[one.a, one.b, one.feature] == strategies]


def _mean_rows(
    where: tuple[str, str, str], values: Mapping[str, list[Any]], seed: int
) -> list[ResultRow]:
    """The mean of every measure that has values; `where`: strategy, a, b."""
    return [
        (*where, measure, *mean_interval(np.array(some), seed), len(some))
        for measure, some in values.items()
        if some
    ]


def _label_rows(where: tuple[str, str, str], mine: Sequence[Answer], seed: int) -> list[ResultRow]:
    values = {measure: [of(one.label) for one in mine] for measure, of in _OF_LABELS.items()}
    scores = [one.judgement.score for one in mine if one.judgement is not None]
    return _mean_rows(
        where, {**values, "score": [score for score in scores if score is not None]}, seed
    )


def _quality(answers: Sequence[Answer], seed: int) -> list[ResultRow]:
    """AUC of the controls, order bias, and shares of what could not be asked or read."""
    rows: list[ResultRow] = []
    rated = [one for one in answers if one.label is not None]
    same, different = (
        [one.rating for one in rated if one.kind == kind] for kind in (SAME, DIFFERENT)
    )
    if same and different:
        span = auc(same, different, seed)
        rows.append(("", "", "", "auc", *span, len(same) + len(different)))
    # Pairs asked in both orders: as usual, and swapped.
    asked_as: list[dict[tuple[Any, ...], float]] = [{}, {}]
    for one in rated:
        if one.kind == PAIR or one.swapped:
            key = one.strategy, one.a, one.b, one.feature, one.partner
            asked_as[one.swapped][key] = _OF_LABELS["mean"](one.label)
    usual, swapped = asked_as
    shifts = [usual[key] - label for key, label in swapped.items() if key in usual]
    counted = [one for one in answers if not one.kind.startswith(CALIBRATION) and not one.swapped]
    asked = [one.judgement for one in counted if one.judgement is not None]
    shares = {
        "order_bias": shifts,
        "order_changed": [shift != 0 for shift in shifts],
        "no_description": [not one.askable for one in counted],
        "unreadable": [one.outcome is not Outcome.JUDGED for one in asked],
    }
    return rows + _mean_rows(("", "", ""), shares, seed)


def verdict(rows: Sequence[ResultRow], answers: Sequence[Answer]) -> tuple[bool, str]:
    """Whether the judge passes its controls, and the sentence that says so.

    `rows`: the `results` of `answers`.
    """
    found = next((row for row in rows if row[3] == "auc"), None)
    unknown = "it is not known whether the judge passes its controls:"
    if found is None:
        return False, f"{unknown} {_why_unknown(answers)}"
    fewest = min(row[7] for row in rows if row[0] in CONTROLS.values() and row[3] == "mean")
    if fewest < LEAST_CONTROLS:
        were = f"{fewest} controls of a kind were judged"
        return False, f"{unknown} {were}, and {LEAST_CONTROLS} are needed"
    value, low, high = found[4:7]
    if low is None or low <= CHANCE:
        return False, (
            f"the judge fails its controls: AUC {value:.2f}, where {CHANCE} is chance; its labels "
            "of the pairs mean nothing"
        )
    return True, f"the judge passes its controls: AUC {value:.2f} [{low:.2f}, {high:.2f}]"


def _why_unknown(answers: Sequence[Answer]) -> str:
    """Why there is no AUC: there must be both kinds of controls, asked and read."""
    controls = [one for one in answers if one.kind in CONTROLS and one.askable]
    if not any(one.kind == SAME for one in controls):
        return "no feature could be compared with itself, described from other examples"
    asked = [one for one in controls if one.judgement is not None]
    if not asked:
        return "none of its controls was asked yet"
    read = sum(one.label is not None for one in asked)
    return (
        f"of {plural(len(asked), 'control')} that were asked {read} were given a label that could be read, "
        "and both kinds are needed"
    )
