"""A sparse map with weights obeys the laws of the dense matrix that it stands for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch.errors import UsageError
from saematch.matching.correspondence import Correspondence, compose, inverse, permute_features


def dense(one: Correspondence) -> np.ndarray:
    matrix = np.zeros((one.d_a, one.d_b))
    matrix[one.features, one.partners] = one.weights
    return matrix


@st.composite
def correspondences(draw: st.DrawFn, d_a: int | None = None) -> Correspondence:
    d_a = draw(st.integers(1, 6)) if d_a is None else d_a
    d_b = draw(st.integers(1, 6))
    every = [(i, j) for i in range(d_a) for j in range(d_b)]
    pairs = draw(st.lists(st.sampled_from(every), unique=True))
    weights = draw(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]),
                            min_size=len(pairs), max_size=len(pairs)))  # fmt: skip
    i, j = (np.array([pair[n] for pair in pairs], dtype=np.int64) for n in (0, 1))
    return Correspondence.of_pairs(i, j, np.array(weights), d_a, d_b)


@st.composite
def permutations(draw: st.DrawFn, d_a: int | None = None) -> tuple[np.ndarray, int]:
    d_a = draw(st.integers(1, 6)) if d_a is None else d_a
    d_b = draw(st.integers(d_a, 8))
    found = np.array(draw(st.permutations(range(d_b)))[:d_a], dtype=np.int64)
    found[draw(st.lists(st.integers(0, d_a - 1)))] = -1
    return found, d_b


@settings(deadline=None)
@given(st.data())
def test_composing_multiplies(data: st.DataObject) -> None:
    first = data.draw(correspondences())
    second = data.draw(correspondences(first.d_b))
    np.testing.assert_allclose(dense(first.compose(second)), dense(first) @ dense(second))


@settings(deadline=None)
@given(correspondences())
def test_transposing_twice_and_applying(one: Correspondence) -> None:
    np.testing.assert_array_equal(dense(one.transposed()), dense(one).T)
    back = one.transposed().transposed()
    np.testing.assert_array_equal(back.partners, one.partners)
    np.testing.assert_array_equal(back.weights, one.weights)
    f = torch.randn(2, 3, one.d_a, dtype=torch.float64)
    torch.testing.assert_close(one.apply(f), f @ torch.from_numpy(dense(one)))


@settings(deadline=None)
@given(correspondences())
def test_rows_go_by_strength_and_ranks_hold_every_pair(one: Correspondence) -> None:
    total = np.zeros((one.d_a, one.d_b))
    for partner, weight in one.ranked():
        some = partner >= 0
        assert (weight[~some] == 0).all()
        total[np.flatnonzero(some), partner[some]] = weight[some]
    np.testing.assert_array_equal(total, dense(one))
    for i in range(one.d_a):
        row = dense(one)[i]
        strongest = int(np.abs(row).argmax()) if row.any() else -1
        assert one.permutation[i] == strongest


@settings(deadline=None)
@given(st.data())
def test_a_permutation_is_one_partner_of_weight_one(data: st.DataObject) -> None:
    p, d_b = data.draw(permutations())
    q, d_c = data.draw(permutations(d_b))
    one, two = Correspondence.of_permutation(p, d_b), Correspondence.of_permutation(q, d_c)
    assert one.single
    assert one.one_to_one
    np.testing.assert_array_equal(one.permutation, p)
    np.testing.assert_array_equal(one.compose(two).permutation, compose(p, q))
    np.testing.assert_array_equal(one.transposed().permutation, inverse(p, d_b))
    f = torch.randn(4, len(p))
    assert torch.equal(one.apply(f), permute_features(f, p, d_b))


def test_what_is_refused() -> None:
    i, j, w = np.array([0, 0]), np.array([1, 1]), np.array([1.0, 2.0])
    with pytest.raises(UsageError, match="every pair once"):
        Correspondence.of_pairs(i, j, w, 1, 2)
    with pytest.raises(UsageError, match="features of B from 0 to 0, got 1"):
        Correspondence.of_pairs(i[:1], j[:1], w[:1], 1, 1)
    with pytest.raises(UsageError, match="finite"):
        Correspondence.of_pairs(i[:1], j[:1], np.array([np.nan]), 1, 2)
    one = Correspondence.of_permutation(np.array([0, 0]), 1)
    assert one.single
    assert not one.one_to_one
    with pytest.raises(UsageError, match="from 1 features, got one from 2"):
        one.compose(one)
