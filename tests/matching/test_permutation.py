"""Permutations as arrays: direction, composition, inverse, and what they do to activations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import UsageError, compose, inverse, permute_features


def array(*entries: int) -> np.ndarray:
    return np.array(entries, dtype=np.int64)


@st.composite
def partial_maps(
    draw: st.DrawFn, d_a: int | None = None, d_b: int | None = None
) -> tuple[np.ndarray, int]:
    d_a = draw(st.integers(0, 8)) if d_a is None else d_a
    d_b = draw(st.integers(1, 8)) if d_b is None else d_b
    entries = draw(st.lists(st.integers(-1, d_b - 1), min_size=d_a, max_size=d_a))
    return np.array(entries, dtype=np.int64), d_b


@st.composite
def injective_maps(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    d_a, d_b = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    targets = draw(st.permutations(range(d_b)))
    sources = draw(st.permutations(range(d_a)))
    pairs = draw(st.integers(0, min(d_a, d_b)))
    permutation = np.full(d_a, -1, dtype=np.int64)
    permutation[list(sources[:pairs])] = targets[:pairs]
    return permutation, d_b


def test_a_three_cycle_adds_into_place() -> None:
    """f_B[p[i]] += f_A[i]; a gather, f_A[p], would be the inverse cycle."""
    cycle = array(1, 2, 0)
    f = torch.tensor([10.0, 20.0, 30.0])
    assert permute_features(f, cycle, 3).tolist() == [30, 10, 20]
    assert f[torch.from_numpy(cycle)].tolist() == [20, 30, 10]


def test_many_to_one_adds_up_and_unmatched_contribute_nothing() -> None:
    f = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 1.0, 1.0, 1.0]])
    assert permute_features(f, array(2, 2, -1, 0), 4).tolist() == [[8, 0, 3, 0], [1, 0, 2, 0]]


def test_all_unmatched_gives_zeros() -> None:
    assert permute_features(torch.ones(2, 3), array(-1, -1, -1), 5).tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_and_batch_axes_are_kept(dtype: torch.dtype) -> None:
    out = permute_features(torch.ones(2, 5, 3, dtype=dtype), array(0, 3, -1), 4)
    assert out.shape == (2, 5, 4)
    assert out.dtype == dtype


def test_any_array_of_integers_will_do() -> None:
    """Reversed, read-only (as pandas and parquet serve them) and narrow ones."""
    f = torch.tensor([10.0, 20.0, 30.0])
    fixed = array(1, 2, 0)
    fixed.flags.writeable = False
    for cycle in (array(0, 2, 1)[::-1], fixed):
        assert permute_features(f, cycle, 3).tolist() == [30, 10, 20]


@settings(max_examples=100, deadline=None)
@given(partial_maps())
def test_against_the_formula(drawn: tuple[np.ndarray, int]) -> None:
    permutation, d_b = drawn
    f = torch.arange(1.0, len(permutation) + 1)
    expected = [0.0] * d_b
    for i, j in enumerate(permutation.tolist()):
        if j != -1:
            expected[j] += float(f[i])
    assert permute_features(f, permutation, d_b).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_composition_is_one_step_after_the_other(data: st.DataObject) -> None:
    first, d_b = data.draw(partial_maps())
    second, d_c = data.draw(partial_maps(d_a=d_b))
    composed = compose(first, second)
    assert composed.tolist() == [-1 if j == -1 else int(second[j]) for j in first]
    f = torch.arange(1.0, len(first) + 1)
    stepped = permute_features(permute_features(f, first, d_b), second, d_c)
    assert permute_features(f, composed, d_c).tolist() == stepped.tolist()


def test_minus_one_absorbs() -> None:
    assert compose(array(-1, 0, 1), array(5, -1)).tolist() == [-1, 5, -1]
    # Read as an index, -1 would be the last feature of B.
    assert compose(array(-1, -1), array(0, 1, 2)).tolist() == [-1, -1]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_composition_is_associative(data: st.DataObject) -> None:
    p, d_b = data.draw(partial_maps())
    q, d_c = data.draw(partial_maps(d_a=d_b))
    r, _ = data.draw(partial_maps(d_a=d_c))
    assert compose(compose(p, q), r).tolist() == compose(p, compose(q, r)).tolist()


@settings(max_examples=100, deadline=None)
@given(injective_maps())
def test_composition_with_the_inverse_is_the_identity_on_matched(
    drawn: tuple[np.ndarray, int],
) -> None:
    permutation, d_b = drawn
    back = inverse(permutation, d_b)
    there_and_back = compose(permutation, back)
    matched = permutation != -1
    assert there_and_back[matched].tolist() == np.flatnonzero(matched).tolist()
    assert (there_and_back[~matched] == -1).all()
    assert (back != -1).sum() == matched.sum()
    assert inverse(back, len(permutation)).tolist() == permutation.tolist()


def test_a_map_that_is_not_one_to_one_has_no_inverse() -> None:
    with pytest.raises(UsageError, match="one-to-one") as caught:
        inverse(array(3, 1, -1, 1), 4)
    assert "both matched to 1" in str(caught.value)
    assert inverse(array(-1, -1), 1).tolist() == [-1]


@pytest.mark.parametrize("bad", [4, -2, 100])
def test_entries_outside_b_raise(bad: int) -> None:
    permutation = array(0, bad, 1)
    for call in (
        lambda: permute_features(torch.ones(3), permutation, 4),
        lambda: inverse(permutation, 4),
        lambda: compose(permutation, array(0, 1, 2, 3)),
    ):
        with pytest.raises(UsageError, match=f"got {bad} at 1"):
            call()


def test_activations_of_another_width_raise() -> None:
    with pytest.raises(UsageError, match="activations of 3 features, got 4"):
        permute_features(torch.ones(2, 4), array(0, 1, 2), 5)
