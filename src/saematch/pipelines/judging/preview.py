"""What an experiment of a judge is about to do, to be shown before it asks anything."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.semantics.judges.experiments import (
    CALIBRATION,
    PAIR,
    half_width_of_mean,
    half_width_of_share,
)
from saematch.semantics.judges.protocol import Question
from saematch.store.judgements import question_of


@dataclass(frozen=True)
class Intent:
    """What an experiment is about to do; shown before a judge is asked anything."""

    pairs: int
    """Questions about pairs of features, under all strategies."""
    controls: int
    without_text: int
    """Questions that cannot be asked: a feature has no description."""
    to_ask: Sequence[Question]
    """Different questions that this judge has not answered yet."""
    a_mean: int
    """Features behind the mean of one strategy at one pair of SAEs, the fewest of all; 0: some have none."""

    @property
    def half_width_of_mean(self) -> float:
        """The most that a 95% interval of such a mean can reach to either side."""
        return half_width_of_mean(max(1, self.a_mean))

    @property
    def half_width_of_share(self) -> float:
        return half_width_of_share(max(1, self.a_mean))


def intent_of(rows: Sequence[Mapping[str, Any]], is_answered: Callable[[Question], bool]) -> Intent:
    """`rows`: of the sample; questions left are in an order that tells nothing of their kind."""
    asked = [row for row in rows if not row["kind"].startswith(CALIBRATION)]
    questions = dict.fromkeys(
        one for row in asked if (one := question_of(row)) is not None and not is_answered(one)
    )
    order = np.random.default_rng(0).permutation(len(questions))
    waiting = list(questions)
    pairs = [row for row in asked if row["kind"] == PAIR and not row["swapped"]]
    counts = Counter({(row["strategy"], row["a"], row["b"]): 0 for row in pairs})
    counts.update(
        (row["strategy"], row["a"], row["b"]) for row in pairs if question_of(row) is not None
    )
    return Intent(
        pairs=len(pairs),
        controls=sum(row["kind"] != PAIR for row in asked),
        without_text=sum(question_of(row) is None and not row["swapped"] for row in asked),
        to_ask=[waiting[number] for number in order.tolist()],
        a_mean=min(counts.values(), default=0),
    )
