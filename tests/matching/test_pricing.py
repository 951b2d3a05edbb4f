"""Unmatched costs, from weights to paths."""

from pathlib import Path

import numpy as np
import pytest
from core_builders import make_sae, relabelled, torch
from scipy.optimize import linear_sum_assignment

from saematch import UsageError, chain, match, match_pairs, price_curve, verify_matching
from saematch._io.files import sha256
from saematch.sae import fold_thresholds
from saematch.store.directory import KeptFile
from saematch.store.matchings import encode_matching, kept_matching
from saematch.types import PARTS, part_weights

A, B, C = (make_sae(14, 5, seed, layer=seed) for seed in range(3))
WIDE = make_sae(19, 5, 7, layer=1)
ALL = part_weights(PARTS)


def least_total(costs: np.ndarray, prices: np.ndarray) -> float:
    """By scipy, with a column of its own for every row to stay unmatched in."""
    n = len(costs)
    own = np.full((n, n), 1e9)
    np.fill_diagonal(own, prices)
    padded = np.hstack([costs, own])
    i, j = linear_sum_assignment(padded)
    return float(padded[i, j].sum())


def all_costs(a, b) -> np.ndarray:
    from saematch.matching.strategies import factors

    rows, columns = (factors(fold_thresholds(sae), ALL).double() for sae in (a, b))
    return (rows[:, None] - columns[None]).square().sum(dim=2).numpy()


@pytest.mark.parametrize(("a", "b"), [(A, B), (A, WIDE), (WIDE, A)])
@pytest.mark.parametrize("price", [0.0, 12.0, 25.0, 1e4])
def test_the_total_is_least_with_its_prices(a, b, price: float) -> None:
    found = match(a, b, unmatched_cost=price)
    costs = all_costs(a, b)
    total = np.nansum(found.cost) + price * (~found.matched).sum()
    assert total == pytest.approx(least_total(costs, np.full(a.d_sae, price)), rel=1e-6)
    assert verify_matching(a, b, found).ok
    assert found.gap is not None
    assert found.gap <= 1e-6
    assert (found.cost[found.matched] <= price * (1 + 1e-6)).all()
    if price == 0:
        assert not found.matched.any()


def test_a_price_for_each_feature(tmp_path: Path) -> None:
    prices = np.linspace(0, 40, A.d_sae)
    found = match(A, B, unmatched_cost=prices)
    data = encode_matching(found)
    path = tmp_path / "kept.parquet"
    path.write_bytes(data)
    kept = kept_matching(KeptFile(path.name, path, sha256(data)))
    assert kept.unmatched_cost.tolist() == prices.tolist()
    assert kept.permutation.tolist() == found.permutation.tolist()
    total = np.nansum(found.cost) + prices[~found.matched].sum()
    assert total == pytest.approx(least_total(all_costs(A, B), prices), rel=1e-6)
    assert verify_matching(A, B, found).ok


def test_a_copy_survives_and_strangers_die() -> None:
    order = torch.tensor([3, 1, 0, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
    copy = relabelled(A, order)
    copy.W_dec[:7] += 50
    found = match(A, copy, unmatched_cost=10.0)
    assert found.matched.sum() == 7
    alive = found.permutation[found.matched]
    assert order[torch.from_numpy(alive)].tolist() == np.flatnonzero(found.matched).tolist()
    assert found.unmatched_b.tolist() == list(range(7))
    assert found.certain[found.matched].all()


def test_the_curve_rises_with_the_price() -> None:
    curve = price_curve(A, B)
    assert (curve["share"].diff().dropna() >= 0).all()
    assert curve["price"].is_monotonic_increasing
    assert (curve["gap"] <= 1e-6).all()
    assert price_curve(A, B, [0.0, 1e6])["share"].tolist() == [0.0, 1.0]


def test_paths_die_and_are_born() -> None:
    first, second = match(A, B, unmatched_cost=15.0), match(B, C, unmatched_cost=15.0)
    assert 0 < first.matched.sum() < A.d_sae
    frame = chain([first, second]).to_frame()
    at = {layer: frame[frame["layer"] == layer] for layer in (0, 1, 2)}
    assert at[0]["dies"].sum() == (~first.matched).sum()
    assert at[1]["born"].sum() == len(first.unmatched_b)
    assert at[1]["dies"].sum() == (~second.matched).sum()
    assert not at[0]["born"].any()
    assert not at[2]["dies"].any()
    complete = chain([match(A, B), match(B, C)]).to_frame()
    assert not complete["born"].any()
    assert not complete["dies"].any()


def test_pairs_of_a_suite_equal_single_matchings() -> None:
    for found, (a, b) in zip(match_pairs([A, B, C], "all"), [(A, B), (A, C), (B, C)], strict=True):
        assert found.permutation.tolist() == match(a, b).permutation.tolist()
    assert len(list(match_pairs([A, B, C]))) == 2


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf"), np.ones(3)])
def test_prices_that_are_none(price) -> None:
    with pytest.raises(UsageError, match="unmatched cost"):
        match(A, B, unmatched_cost=price)


def test_a_price_needs_a_strategy_that_solves() -> None:
    with pytest.raises(UsageError, match="folded or unfolded"):
        match(A, B, strategy="cosine", unmatched_cost=1.0)
    with pytest.raises(UsageError, match="proof to verify"):
        verify_matching(A, B, match(A, B, strategy="cosine"))
