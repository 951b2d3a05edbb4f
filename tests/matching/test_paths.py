"""Paths through layers: chained steps, births and deaths."""

import itertools

import numpy as np
import pytest
from core_builders import make_sae

from saematch import FeaturePaths, UsageError, chain, compose, match, measure

WIDTHS = (12, 9, 15, 12)
SAES = [make_sae(d_sae, 6, seed=n, layer=n) for n, d_sae in enumerate(WIDTHS)]
STEPS = [match(a, b) for a, b in itertools.pairwise(SAES)]
COSINE = [match(a, b, strategy="cosine") for a, b in itertools.pairwise(SAES)]


def follow_by_hand(permutations: list[np.ndarray], widths: tuple[int, ...]) -> list[list[int]]:
    """Every path, by walking: from each feature that nothing steps to."""
    paths = []
    for start, width in enumerate(widths):
        reached = set() if start == 0 else set(permutations[start - 1].tolist())
        for feature in range(width):
            if feature in reached:
                continue
            path = [-1] * start + [feature]
            for permutation in permutations[start:]:
                here = path[-1]
                path.append(-1 if here == -1 else int(permutation[here]))
            paths.append(path)
    return paths


@pytest.mark.parametrize("steps", [STEPS, COSINE], ids=["one-to-one", "many-to-one"])
def test_paths_are_the_walks(steps: list) -> None:
    paths = chain(steps)
    expected = follow_by_hand([step.permutation for step in steps], WIDTHS)
    assert sorted(paths.features.tolist()) == sorted(expected)
    assert paths.features[:12, 0].tolist() == list(range(12))
    assert len(paths) == len(expected)
    assert paths.layers == (0, 1, 2, 3)
    assert paths.keys == ("0", "1", "2", "3")


@pytest.mark.parametrize("steps", [STEPS, COSINE], ids=["one-to-one", "many-to-one"])
def test_a_chain_is_the_composition_of_its_steps(steps: list) -> None:
    paths = chain(steps)
    for start in range(3):
        composed = steps[start].permutation
        for stop in range(start + 1, 4):
            if stop > start + 1:
                composed = compose(composed, steps[stop - 1].permutation)
            assert paths.permutation(start, stop).tolist() == composed.tolist()
    with pytest.raises(UsageError, match="later layer"):
        paths.permutation(2, 1)
    with pytest.raises(UsageError, match="later layer"):
        paths.permutation(2, 2)


def test_births_and_deaths() -> None:
    paths = chain(STEPS)
    births, deaths = (paths.features[:, 0] == -1), (paths.features[:, -1] == -1)
    # 12 → 9 ends 3 paths; 9 → 15 begins 6; 15 → 12 ends 3.
    assert births.sum() == 6
    assert deaths.sum() == 6
    for column, d_sae in enumerate(WIDTHS):
        here = paths.features[:, column]
        assert sorted(here[here != -1].tolist()) == list(range(d_sae))
    # Nothing returns from the dead, and nobody is there before birth.
    alive = (paths.features != -1).astype(int)
    assert (np.abs(np.diff(alive, prepend=0, append=0, axis=1)).sum(axis=1) == 2).all()


def test_step_columns_belong_to_the_step() -> None:
    paths = chain(STEPS)
    for step, matching in enumerate(STEPS):
        for row, path in enumerate(paths.features):
            source, target = path[step], path[step + 1]
            for name in ("cost", "cosine", "margin"):
                value = getattr(paths, name)[row, step]
                if source == -1 or target == -1:
                    assert np.isnan(value)
                else:
                    assert value == getattr(matching, name)[source]
            taken = source != -1 and target != -1
            assert paths.certain[row, step] == (taken and matching.certain[source])
    assert paths.certain.any()


def test_through_finds_every_path_of_a_feature() -> None:
    one, many = chain(STEPS), chain(COSINE)
    for column, d_sae in enumerate(WIDTHS):
        for feature in range(d_sae):
            assert len(one.through(column, feature)) == 1
            found = many.through(column, feature).tolist()
            assert found == np.flatnonzero(many.features[:, column] == feature).tolist()
    assert max(len(many.through(1, feature)) for feature in range(9)) > 1
    for feature in (-1, 9):
        with pytest.raises(UsageError, match="from 0 to 8"):
            one.through(1, feature)


def test_position_by_key_or_layer() -> None:
    a, b, c = (make_sae(seed=n, layer=layer, name=name) for n, (layer, name) in enumerate(
        [(3, "wide/x"), (4, ""), (4, "other")]
    ))  # fmt: skip
    paths = chain([match(a, b), match(b, c)])
    assert paths.position("3.wide_x") == paths.position(3) == paths.position("3") == 0
    assert paths.position("4.other") == 2
    with pytest.raises(UsageError, match="names several"):
        paths.position(4)
    with pytest.raises(UsageError, match=r"3\.wide_x, 4, 4\.other, got '7'"):
        paths.position(7)


def test_the_wrong_order_is_refused() -> None:
    with pytest.raises(UsageError, match="order of depth"):
        chain([STEPS[1], STEPS[0]])
    with pytest.raises(UsageError, match="order of depth"):
        chain([STEPS[0], STEPS[2]])
    with pytest.raises(UsageError, match="at least one"):
        chain([])


def test_to_frame_has_a_row_for_every_feature_passed() -> None:
    for steps in (STEPS, COSINE):
        paths = chain(steps)
        frame = paths.to_frame()
        assert len(frame) == (paths.features != -1).sum()
        for row in frame.itertuples():
            column = int(row.layer)
            assert paths.features[row.path, column] == row.feature
            assert row.key == str(column)
            assert row.status == SAES[column].status[row.feature] == paths.status(row.path, column)
            before = paths.features[row.path, column - 1] if column else -1
            if before == -1:
                assert np.isnan(row.cost)
                assert not row.certain
            else:
                assert row.cost == steps[column - 1].cost[before]
                assert row.cosine == steps[column - 1].cosine[before]
                assert row.certain == steps[column - 1].certain[before]


def test_live_paths_pass_every_layer_with_live_features() -> None:
    saes = [make_sae(8, 6, seed=n, layer=n) for n in range(3)]
    saes[1].W_dec[4] = 0
    identity = np.arange(8)
    paths = chain([measure(a, b, identity, strategy="naive") for a, b in itertools.pairwise(saes)])
    assert paths.live().tolist() == [feature != 4 for feature in range(8)]
    assert paths.status(4, 1) == "degenerate"
    through = chain(STEPS)
    assert (through.live() == (through.features != -1).all(axis=1)).all()
    assert through.status(int(np.flatnonzero(through.features[:, 0] == -1)[0]), 0) is None


def test_one_matching_is_a_chain() -> None:
    paths = chain([STEPS[0]])
    assert isinstance(paths, FeaturePaths)
    assert paths.permutation(0, 1).tolist() == STEPS[0].permutation.tolist()
    assert len(paths.to_frame()) == 12 + 9
