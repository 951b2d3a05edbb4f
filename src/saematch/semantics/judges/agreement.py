"""What follows from the labels: means with intervals, strategies compared, and how good the judge is.

The unit is a question; intervals are the 2.5% and 97.5% quantiles of 2,000 seeded bootstrap draws of
questions.  Strategies are compared on the features that were judged under every one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.semantics.judges.experiments import CALIBRATION, DIFFERENT, PAIR, SAME
from saematch.semantics.judges.judge import Judgement, Label, Outcome
from saematch.stats import auc, mean_interval
from saematch.text import plural

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
        if self.judgement.score is not None:
            return self.judgement.score
        assert self.judgement.label is not None
        return float(self.judgement.label.value_in_means)


_OF_LABELS: Mapping[str, Callable[[Answer], float]] = {
    "mean": lambda one: float(one.label.value_in_means) if one.label else np.nan,
    "different": lambda one: float(one.label is Label.DIFFERENT),
    "maybe": lambda one: float(one.label is Label.MAYBE),
    "same": lambda one: float(one.label is Label.SAME),
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
        for a, b in places:
            here = _compared(
                [one for one in pairs if (a, b) == ("", "") or (one.a, one.b) == (a, b)]
            )
            mine = [one for one in here if one.strategy == strategy]
            rows += _label_rows(strategy, a, b, mine, seed)
            if strategy != reference:
                base = [one for one in here if one.strategy == reference]
                rows += _difference_rows(strategy, a, b, mine, base, seed, reference)
    for kind, name in CONTROLS.items():
        rows += _label_rows(name, "", "", [one for one in labelled if one.kind == kind], seed)
    return rows + quality(answers, seed)


def _compared(pairs: Sequence[Answer]) -> list[Answer]:
    """Those of features that have a label under every strategy that any of these pairs is of."""
    under: dict[tuple[str, str, int], set[str]] = {}
    for one in pairs:
        under.setdefault((one.a, one.b, one.feature), set()).add(one.strategy)
    strategies = {one.strategy for one in pairs}
    return [one for one in pairs if under[one.a, one.b, one.feature] == strategies]


def quality(answers: Sequence[Answer], seed: int) -> list[ResultRow]:
    """AUC of the controls, order bias, and shares of what could not be asked or read."""
    rows: list[ResultRow] = []
    rated = [one for one in answers if one.label is not None]
    same, different = (
        [one.rating for one in rated if one.kind == kind] for kind in (SAME, DIFFERENT)
    )
    if same and different:
        span = auc(same, different, seed)
        rows.append(("", "", "", "auc", *span, len(same) + len(different)))
    both = _both_ways(rated)
    if both:
        shift = np.array([x.label.value_in_means - y.label.value_in_means for x, y in both])  # pyright: ignore[reportOptionalMemberAccess]
        rows.append(("", "", "", "order_bias", *mean_interval(shift, seed), len(both)))
        rows.append(("", "", "", "order_changed", *mean_interval(shift != 0, seed), len(both)))
    counted = [one for one in answers if not one.kind.startswith(CALIBRATION) and not one.swapped]
    if counted:
        no_text = np.array([not one.askable for one in counted])
        rows.append(("", "", "", "no_description", *mean_interval(no_text, seed), len(counted)))
    asked = [one.judgement for one in counted if one.judgement is not None]
    if asked:
        unread = np.array([one.outcome is not Outcome.JUDGED for one in asked])
        rows.append(("", "", "", "unreadable", *mean_interval(unread, seed), len(asked)))
    return rows


def verdict(rows: Sequence[ResultRow], answers: Sequence[Answer]) -> tuple[bool, str]:
    """Whether the judge passes its controls, and the sentence that says so.

    `rows`: the `results` of `answers`.
    """
    found = next((row for row in rows if row[3] == "auc"), None)
    if found is None:
        return (
            False,
            f"it is not known whether the judge passes its controls: {_why_unknown(answers)}",
        )
    fewest = min(row[7] for row in rows if row[0] in CONTROLS.values() and row[3] == "mean")
    if fewest < LEAST_CONTROLS:
        return False, (
            f"it is not known whether the judge passes its controls: {fewest} controls of a kind "
            f"were judged, and "
            f"{LEAST_CONTROLS} are needed"
        )
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


def _both_ways(rated: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Pairs asked in both orders: as usual, and swapped."""

    def key(one: Answer) -> tuple[Any, ...]:
        return one.strategy, one.a, one.b, one.feature, one.partner

    usual = {key(one): one for one in rated if one.kind == PAIR and not one.swapped}
    return [(usual[key(one)], one) for one in rated if one.swapped and key(one) in usual]


def _label_rows(
    strategy: str, a: str, b: str, mine: Sequence[Answer], seed: int
) -> list[ResultRow]:
    if not mine:
        return []
    rows: list[ResultRow] = [
        (
            strategy,
            a,
            b,
            measure,
            *mean_interval(np.array([of(one) for one in mine]), seed),
            len(mine),
        )
        for measure, of in _OF_LABELS.items()
    ]
    scores = [one.judgement.score for one in mine if one.judgement is not None]
    known = np.array([score for score in scores if score is not None])
    if len(known):
        rows.append((strategy, a, b, "score", *mean_interval(known, seed), len(known)))
    return rows


def _difference_rows(
    strategy: str,
    a: str,
    b: str,
    mine: Sequence[Answer],
    base: Sequence[Answer],
    seed: int,
    reference: str,
) -> list[ResultRow]:
    """Paired: the same features under both strategies."""
    of_base = {(one.a, one.b, one.feature): one for one in base}
    both = [
        (one, of_base[one.a, one.b, one.feature])
        for one in mine
        if (one.a, one.b, one.feature) in of_base
    ]
    if not both:
        return []
    rows: list[ResultRow] = []
    for measure, of in _OF_LABELS.items():
        difference = np.array([of(x) - of(y) for x, y in both])
        name = f"{measure}_minus_{reference}"
        rows.append((strategy, a, b, name, *mean_interval(difference, seed), len(both)))
    return rows
