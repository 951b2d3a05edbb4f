"""What a judge is asked: the same features for every strategy, controls that are what they say."""

import numpy as np
import pytest
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import match
from saematch.semantics.judges.experiments import (
    CALIBRATION,
    DIFFERENT,
    PAIR,
    SAME,
    also_swapped,
    controls_of,
    half_width_of_mean,
    pairs_of,
    strata_of,
)

A, B = (make_sae(64, 8, seed, layer=layer) for layer, seed in ((1, 1), (2, 2)))
MATCHINGS = {s: match(A, B, strategy=s) for s in ("folded", "cosine")}


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 80), st.integers(1, 8), st.integers(0, 5), st.data())
def test_strata_give_equal_numbers_and_are_ordered(
    count: int, strata: int, seed: int, data: st.DataObject
) -> None:
    values = np.array(data.draw(st.lists(st.floats(0, 9), min_size=40, max_size=40)))
    eligible = np.array(data.draw(st.lists(st.booleans(), min_size=40, max_size=40)))
    found = strata_of(values, eligible, count, strata, np.random.default_rng(seed))
    assert found == strata_of(values, eligible, count, strata, np.random.default_rng(seed))
    features = [feature for feature, _ in found]
    assert len(set(features)) == len(features)
    assert all(eligible[feature] for feature in features)
    by_stratum = {k: [values[f] for f, s in found if s == k] for k in range(strata)}
    assert len({len(some) for some in by_stratum.values()}) == 1
    for k in range(strata - 1):
        if by_stratum[k]:
            assert max(by_stratum[k]) <= min(by_stratum[k + 1])


def test_every_strategy_is_asked_about_the_same_features() -> None:
    found = pairs_of("1", "2", MATCHINGS, 20, np.random.default_rng(0), 4)
    chosen = {s: [one.feature for one in found if one.strategy == s] for s in MATCHINGS}
    assert chosen["folded"] == chosen["cosine"]
    assert len(chosen["folded"]) == 20
    for one in found:
        assert one.partner == MATCHINGS[one.strategy].permutation[one.feature]
        assert MATCHINGS["folded"].compared[one.feature]
    again = also_swapped(found, "folded", 0.25, np.random.default_rng(0))
    assert len(again) == 5
    assert all(one.swapped and one.strategy == "folded" for one in again)


def test_controls() -> None:
    live = np.arange(0, 60, 2)
    found = controls_of("1", "2", live, np.arange(5), 8, np.random.default_rng(0))
    same = [one for one in found if one.kind == SAME]
    different = [one for one in found if one.kind == DIFFERENT]
    assert len(same) == len(different) == 8
    assert all((one.feature, one.a) == (one.partner, one.b) for one in same)
    assert all(one.b == "2" and one.partner < 5 for one in different)
    assert not {one.feature for one in same} & {one.feature for one in different}
    aside = controls_of("1", "2", live, live, 3, np.random.default_rng(0), CALIBRATION)
    assert {one.kind for one in aside} == {CALIBRATION + SAME, CALIBRATION + DIFFERENT}
    assert PAIR not in {one.kind for one in found}


def test_few_features_are_shared_out_among_the_controls() -> None:
    """Otherwise all are compared with themselves, and no judge can be calibrated."""
    found = controls_of("1", "2", np.arange(9), np.arange(5), 60, np.random.default_rng(0))
    assert [one.kind for one in found] == [SAME] * 5 + [DIFFERENT] * 4


def test_a_sample_as_large_as_said_is_as_sure_as_said() -> None:
    labels = np.repeat([1, 3], 50)  # as spread as labels can be
    deviation = labels.std() / np.sqrt(100)
    assert half_width_of_mean(100) == pytest.approx(1.96 * deviation)
    share = 1.96 * (labels == 3).std() / 10  # of one label: half as wide
    assert half_width_of_mean(100) / 2 == pytest.approx(share)
