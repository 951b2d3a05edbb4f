"""The embedding judge on the real offline model, and its thresholds on scores made up."""

import math

import numpy as np
import pytest

import saematch as sm
from saematch.errors import InputError, UsageError
from saematch.semantics.judges.embedding import EmbeddingJudge, Thresholds
from saematch.semantics.judges.judge import Label, Outcome, Question

CLOSE = [
    Question("names of cities in Europe", "European capitals"),
    Question("words for water and rain", "rainfall, rivers and water"),
    Question("opening brackets in source code", "brackets that open in program code"),
]
FAR = [
    Question("names of cities in Europe", "opening brackets in source code"),
    Question("words for water and rain", "past tense verbs of saying"),
    Question("statistics of baseball", "chemical elements"),
]


def test_real_model_tells_close_from_far() -> None:
    judge = EmbeddingJudge().calibrated(CLOSE, FAR)
    assert judge.name == "embedding-all-MiniLM-L6-v2"
    found = {}
    judge.judge([*CLOSE, *FAR], found.__setitem__)
    assert sorted(found) == list(range(6))
    assert [found[n].label for n in range(6)] == [Label.SAME] * 3 + [Label.DIFFERENT] * 3
    assert all(one.outcome is Outcome.JUDGED and -1 <= one.score <= 1 for one in found.values())
    # The order of the two, and what else is asked, change nothing.
    swapped = [Question(one.second, one.first) for one in CLOSE]
    np.testing.assert_allclose(judge.scores(swapped), judge.scores(CLOSE), atol=1e-6)
    assert judge.scores([Question("a b c", "a b c")])[0] == pytest.approx(1, abs=1e-5)


def test_thresholds_are_where_same_is_a_third_and_two_thirds_probable() -> None:
    generator = np.random.default_rng(0)
    same, different = (
        generator.normal(1, 1, 20_000).tolist(),
        generator.normal(0, 1, 9_000).tolist(),
    )
    found = Thresholds.between(same, different)
    # Of two normals with means 0 and 1 the log odds at x are x - 1/2, however many there are of each.
    assert found.same == pytest.approx(0.5 + math.log(2), abs=0.05)
    assert found.different == pytest.approx(0.5 - math.log(2), abs=0.05)
    labels = [found.label(x) for x in (-5.0, 0.5, 5.0)]
    assert labels == [Label.DIFFERENT, Label.MAYBE, Label.SAME]


def test_scores_that_tell_nothing_leave_all_maybe() -> None:
    upside_down = Thresholds.between([0.1, 0.2], [0.8, 0.9])
    assert {upside_down.label(x) for x in (-1.0, 0.0, 1.0)} == {Label.MAYBE}
    judge = EmbeddingJudge(thresholds=upside_down)
    assert judge.identity["thresholds"] == ["-inf", "inf"]


def test_separable_scores_have_thresholds_between_them() -> None:
    found = Thresholds.between([0.8, 0.9], [0.1, 0.2])
    assert 0.1 < found.different < found.same < 0.9


def test_pairs_of_ones_own_as_a_table() -> None:
    calibrated = EmbeddingJudge().calibrated(CLOSE, FAR)
    table = sm.judge([(one.first, one.second) for one in (*CLOSE, *FAR)], calibrated)
    assert table["label"].tolist() == ["SAME"] * 3 + ["DIFFERENT"] * 3
    np.testing.assert_allclose(table["score"], calibrated.scores([*CLOSE, *FAR]), atol=1e-6)
    assert table["first"].tolist() == [one.first for one in (*CLOSE, *FAR)]
    with pytest.raises(UsageError, match="pairs of two texts"):
        sm.judge([("one",)], calibrated)


def test_bad_input() -> None:
    with pytest.raises(UsageError, match="without thresholds"):
        EmbeddingJudge().judge(CLOSE, lambda *_: None)
    with pytest.raises(UsageError, match="expected controls"):
        Thresholds.between([], [0.5])
    with pytest.raises(InputError, match="no/such/model"):
        EmbeddingJudge("no/such/model").scores(CLOSE)
