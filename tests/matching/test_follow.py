"""Paths that agree with their start: every choice of members as the oracle."""

import itertools

import numpy as np
import pytest
import torch
from core_builders import make_sae, relabelled
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import SAE, UsageError, follow
from saematch.matching.paths import CANDIDATES, START


def worth(saes: list[SAE], path: tuple[int, ...]) -> float:
    rows = [torch.nn.functional.normalize(s.W_dec.double(), dim=1) for s in saes]
    first = rows[0][path[0]]
    total = 0.0
    for t in range(1, len(path)):
        here, before = rows[t][path[t]], rows[t - 1][path[t - 1]]
        total += START * float(first @ here) + (1 - START) * float(before @ here)
    return total


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 10**6))
def test_no_other_path_is_worth_more(widths: list[int], seed: int) -> None:
    assert max(widths) <= CANDIDATES  # so that every feature is a candidate
    saes = [make_sae(width, 5, seed + n, layer=n) for n, width in enumerate(widths)]
    paths = follow(saes)
    for path in paths.features[: widths[0]]:
        best = max(
            worth(saes, (int(path[0]), *later))
            for later in itertools.product(*(range(width) for width in widths[1:]))
        )
        assert worth(saes, tuple(path.tolist())) == pytest.approx(best, abs=1e-5)


def test_every_feature_is_on_a_path_and_starts_one_where_none_passes() -> None:
    saes = [make_sae(width, 6, n, layer=n) for n, width in enumerate((12, 20, 9))]
    paths = follow(saes)
    first = (paths.features != -1).argmax(axis=1)
    for column, width in enumerate((12, 20, 9)):
        here = paths.features[:, column]
        assert set(here[here != -1]) == set(range(width))
        started = here[first == column]
        assert len(set(started)) == len(started)
        assert not set(started) & set(here[first < column])


def test_the_same_sae_relabelled_is_followed_exactly() -> None:
    first = make_sae(40, 24, 1)
    orders = [torch.randperm(40, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    saes = [first] + [relabelled(first, order) for order in orders]
    for layer, sae in enumerate(saes):
        object.__setattr__(sae, "layer", layer)
    paths = follow(saes)
    assert len(paths) == 40
    for column, order in enumerate(orders, 1):
        assert order[paths.features[:, column]].tolist() == paths.features[:, 0].tolist()
    assert np.allclose(paths.cosine, 1)


def test_features_that_are_not_live_are_not_followed_and_not_reached() -> None:
    saes = [make_sae(width, 6, n, layer=n) for n, width in enumerate((8, 9, 7))]
    for sae in saes:
        assert sae.threshold is not None
        sae.threshold[:2] = 1e-6
    paths = follow(saes)
    passed = (paths.features != -1).sum(axis=1)
    for column in range(3):
        for feature in (0, 1):
            (path,) = paths.through(column, feature)
            assert passed[path] == 1
    assert (passed[paths.features[:, 0] > 1] == 3).all()


def test_a_layer_without_live_features_ends_paths() -> None:
    saes = [make_sae(5, 6, n, layer=n) for n in range(3)]
    saes[1].W_dec[:] = 0
    paths = follow(saes)
    assert (paths.features[:5, 1:] == -1).all()


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_without_thresholds_there_are_paths_and_no_probabilities(activation: str) -> None:
    saes = [make_sae(9, 6, n, activation, layer=n) for n in range(3)]  # pyright: ignore[reportArgumentType]
    paths = follow(saes)
    assert len(paths.through(0, 3)) == 1
    assert np.isnan(paths.probability).all()
    assert np.isnan(paths.start_probability).all()
    assert "expected SAEs with thresholds" in paths.notes[0]


def test_bad_input_in_words() -> None:
    one, other = make_sae(5, 6, 0, layer=1), make_sae(5, 7, 0, layer=2)
    with pytest.raises(UsageError, match="at least two SAEs"):
        follow([one])
    with pytest.raises(UsageError, match="order of depth, got 1 before 1"):
        follow([one, one])
    with pytest.raises(UsageError, match="one d_model, got 6 and 7"):
        follow([one, other])


def test_exact_is_the_nearest_to_the_start_in_every_layer() -> None:
    saes = [make_sae(width, 7, n, layer=n) for n, width in enumerate((11, 14, 9))]
    paths = follow(saes, way="exact")
    for later in (1, 2):
        nearest = torch.nn.functional.cosine_similarity(
            saes[0].W_dec[:, None], saes[later].W_dec[None], dim=2
        ).argmax(dim=1)
        assert paths.features[:11, later].tolist() == nearest.tolist()
    with pytest.raises(UsageError, match="a way of consensus, exact"):
        follow(saes, way="straight")
