"""Measures of labels, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from saematch.semantics.judges.experiments import DIFFERENT, PAIR, SAME, Answer, results, verdict
from saematch.semantics.judges.judge import Judgement, Label, Outcome
from saematch.stats import auc, kappa

RATINGS = st.sampled_from([1.0, 2.0, 3.0])
LABELS = st.sampled_from(list(Label))


def answer(kind: str, label: Label | None, feature: int = 0, **more) -> Answer:
    judgement = Judgement(Outcome.JUDGED if label else Outcome.UNREADABLE, label)
    values = {"strategy": "folded" if kind == PAIR else "", "a": "1", "b": "2", "partner": feature,
              "swapped": False, "askable": True, "judgement": judgement}  # fmt: skip
    return Answer(**{**values, "kind": kind, "feature": feature, **more})


def value_of(rows, measure: str, strategy: str = "", a: str = "") -> float:
    found = [row[4] for row in rows if (row[0], row[1], row[3]) == (strategy, a, measure)]
    assert len(found) == 1
    return found[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(RATINGS, min_size=1, max_size=9), st.lists(RATINGS, min_size=1))
def test_auc(same: list[float], different: list[float]) -> None:
    truth = [1] * len(same) + [0] * len(different)
    value, low, high = auc(same, different, 0)
    assert value == pytest.approx(roc_auc_score(truth, [*same, *different]))
    if low is not None and high is not None:
        assert 0 <= low <= high <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=2, max_size=30))
def test_kappa(pairs: list[tuple[Label, Label]]) -> None:
    value, _, _ = kappa(pairs, list(Label), 0)
    if len({label for pair in pairs for label in pair}) == 1:
        assert np.isnan(value)
    else:
        expected = cohen_kappa_score(*zip(*pairs, strict=True), labels=list(Label))
        assert value == pytest.approx(expected, abs=1e-12)


def test_means_and_paired_differences() -> None:
    folded = [Label.SAME, Label.SAME, Label.MAYBE, Label.DIFFERENT]
    other = [Label.MAYBE, Label.SAME, None, Label.DIFFERENT]
    answers = [answer(PAIR, label, n) for n, label in enumerate(folded)]
    answers += [answer(PAIR, label, n, strategy="cosine") for n, label in enumerate(other)]
    rows = results(answers, 0, "folded")
    # Over the three that were judged under both.
    assert value_of(rows, "mean", "folded") == pytest.approx(7 / 3)
    assert value_of(rows, "same", "folded", "1") == pytest.approx(2 / 3)
    assert value_of(rows, "mean", "cosine") == pytest.approx(2)
    assert value_of(rows, "mean_minus_folded", "cosine") == pytest.approx(-1 / 3)
    assert value_of(rows, "same_minus_folded", "cosine", "1") == pytest.approx(-1 / 3)
    assert value_of(rows, "unreadable") == pytest.approx(1 / 8)
    assert value_of(rows, "no_description") == 0


def test_order_bias() -> None:
    answers = [answer(PAIR, Label.SAME, n) for n in range(3)]
    answers += [
        answer(PAIR, label, n, swapped=True) for n, label in ((0, Label.MAYBE), (2, Label.SAME))
    ]
    rows = results(answers, 0, "folded")
    assert value_of(rows, "order_bias") == 0.5
    assert value_of(rows, "order_changed") == 0.5
    assert value_of(rows, "mean", "folded") == 3  # swapped ones are not counted twice


def test_missing_texts_are_told() -> None:
    answers = [answer(PAIR, Label.SAME), answer(PAIR, None, 1, askable=False, judgement=None)]
    assert value_of(results(answers, 0, "folded"), "no_description") == 0.5


@pytest.mark.parametrize("passes_controls", [True, False])
def test_a_judge_that_fails_its_controls_is_said_to(passes_controls: bool) -> None:
    generator = np.random.default_rng(0)
    labels = list(Label)
    same = [Label.SAME if passes_controls else labels[k] for k in generator.integers(3, size=40)]
    different = [labels[k] for k in generator.integers(3, size=40)]
    answers = [answer(SAME, label, n) for n, label in enumerate(same)]
    answers += [answer(DIFFERENT, label, n) for n, label in enumerate(different)]
    found, sentence = verdict(results(answers, 0, "folded"), answers)
    assert found is passes_controls
    assert ("fails its controls" in sentence) is not passes_controls


def test_without_controls_nothing_is_known_of_the_judge() -> None:
    pair = answer(PAIR, Label.SAME)
    unasked = answer(SAME, None, judgement=None)
    unread = [answer(SAME, None), answer(DIFFERENT, Label.SAME)]
    for answers, why in (
        ([pair], "no feature could be compared with itself"),
        ([pair, answer(DIFFERENT, Label.SAME)], "no feature could be compared with itself"),
        ([pair, answer(SAME, None, askable=False)], "no feature could be compared with itself"),
        ([pair, unasked], "none of its controls was asked"),
        ([pair, *unread], "of 2 controls that were asked 1 were given a label"),
    ):
        found, sentence = verdict(results(answers, 0, "folded"), answers)
        assert not found
        assert "not known" in sentence
        assert why in sentence
