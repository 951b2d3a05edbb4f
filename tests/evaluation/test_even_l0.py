"""Choosing SAEs for even L0 against brute force."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saematch import choose_suite
from saematch.errors import UsageError

CANDIDATES = st.lists(st.floats(1, 500), min_size=1, max_size=4)


def cost(values: tuple[float, ...], target: float | None) -> float:
    steps = sum(math.log(b / a) ** 2 for a, b in itertools.pairwise(values))
    return steps + (sum(math.log(v / target) ** 2 for v in values) if target else 0)


@given(st.lists(CANDIDATES, min_size=1, max_size=5), st.none() | st.floats(5, 300))
def test_no_choice_is_more_even(layers: list[list[float]], target: float | None) -> None:
    l0 = {
        layer: {f"{layer}.{n}": value for n, value in enumerate(values)}
        for layer, values in enumerate(layers)
    }
    chosen = choose_suite(l0, target)
    assert list(chosen) == list(l0)
    found = tuple(l0[layer][key] for layer, key in chosen.items())
    best = min(cost(values, target) for values in itertools.product(*layers))
    assert cost(found, target) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    ("l0", "target", "said"),
    [
        ({}, None, "at least one layer"),
        ({3: {}}, None, "at least one SAE at layer 3"),
        ({3: {"3.a": 0.0}}, None, "positive mean L0 for 3.a"),
        ({3: {"3.a": 1.0}}, -1.0, "positive target"),
    ],
)
def test_what_cannot_be_chosen_from(l0, target, said) -> None:
    with pytest.raises(UsageError, match=said):
        choose_suite(l0, target)
