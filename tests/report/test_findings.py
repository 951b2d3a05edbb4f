"""When a finding holds, does not, or is open."""

import numpy as np
import pytest

from saematch.report.findings import BOTH_SIDES, FAILS, HOLDS, NO_INTERVAL, bounded


def found(values: list[float], bound: float, side: int):
    return bounded("x", "a claim", "an effect", np.array(values), bound, side)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("bound", [0.0, 0.1])
def test_an_interval_decides_where_it_lies_on_one_side(bound: float, side: int) -> None:
    def at(low: float, high: float) -> list[float]:
        draws = np.linspace(low, high, 2001)
        return (bound * side + np.concatenate([[draws.mean()], draws])).tolist()

    def verdict(values: list[float]) -> tuple[str, str]:
        one = found((np.array(values) * side).tolist(), bound, side)
        return one.verdict, one.needs

    assert verdict(at(0.01, 0.2)) == (HOLDS, "")
    assert verdict(at(-0.2, -0.01)) == (FAILS, "")
    assert verdict(at(-0.1, 0.1)) == (FAILS, BOTH_SIDES)


def test_the_bound_itself_is_within_a_bound_but_zero_is_no_difference() -> None:
    assert found([0.1] * 100, 0.1, -1).verdict == HOLDS
    assert found([0.0] * 100, 0.0, 1).verdict == FAILS


def test_without_an_interval_nothing_is_decided() -> None:
    one = found([0.3], 0.0, 1)
    assert (one.verdict, one.needs) == (FAILS, NO_INTERVAL)
    assert one.said == f"an effect; {NO_INTERVAL}"
