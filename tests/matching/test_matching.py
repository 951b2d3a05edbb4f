"""Matching: the pairs, what they cost, and what each strategy promises."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from core_builders import make_sae, relabelled
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import (
    SAE,
    FoldedSAE,
    InputError,
    Matching,
    UsageError,
    compose,
    fold_thresholds,
    inverse,
    match,
    match_pairs,
    measure,
)
from saematch.matching.matchers import data_free
from saematch.matching.strategies import nearest_by_cosine
from saematch.sae import Firing
from saematch.types import PARTS

A, B = make_sae(seed=0, layer=0), make_sae(seed=1, layer=1)
WIDE = make_sae(d_sae=17, seed=2, layer=2)


def cost_by_hand(
    a: SAE, b: SAE, permutation: np.ndarray, weights: Mapping[str, float]
) -> np.ndarray:
    fa, fb = fold_thresholds(a), fold_thresholds(b)
    cost = np.full(len(permutation), np.nan)
    for i, j in enumerate(permutation):
        if j == -1:
            continue
        squares = {
            "decoder": (fa.W_dec[i].double() - fb.W_dec[j].double()).square().sum(),
            "encoder": (fa.W_enc[:, i].double() - fb.W_enc[:, j].double()).square().sum(),
            "bias": (fa.b_enc[i].double() - fb.b_enc[j].double()).square(),
        }
        cost[i] = sum(weight * float(squares[part]) for part, weight in weights.items())
    return cost


def total(matching: Matching) -> float:
    return float(np.nansum(matching.cost))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    d_a=st.integers(1, 12),
    d_b=st.integers(1, 12),
    parts=st.sampled_from([PARTS, ("decoder",), ("encoder", "bias")]),
)
def test_folded_costs_least_of_all_one_to_one_strategies(
    seed: int, d_a: int, d_b: int, parts: Sequence[str]
) -> None:
    a, b = make_sae(d_a, 5, seed), make_sae(d_b, 5, seed + 1)
    least = match(a, b, parts=parts)
    others = [match(a, b, parts=parts, strategy="unfolded")]
    others += [match(a, b, parts=parts, strategy="random", seed=s) for s in range(4)]
    if d_a == d_b:
        others.append(match(a, b, parts=parts, strategy="naive"))
    assert total(least) == pytest.approx(least.assignment.primal, rel=1e-5, abs=1e-9)
    for other in others:
        assert other.matched.sum() == min(d_a, d_b)
        assert total(least) <= total(other) * (1 + 1e-6)


@pytest.mark.parametrize("strategy", data_free())
@pytest.mark.parametrize(
    "weights", [{"decoder": 1.0}, {"decoder": 2.0, "encoder": 0.5, "bias": 3.0}, {"bias": 0.25}]
)
def test_the_cost_is_the_formula_whatever_the_strategy(
    strategy: str, weights: dict[str, float]
) -> None:
    found = match(A, B, parts=weights, strategy=strategy)
    expected = cost_by_hand(A, B, found.permutation, weights)
    np.testing.assert_allclose(found.cost, expected, rtol=1e-9)
    assert found.parts == weights


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    d_b=st.integers(6, 9),
    weights=st.dictionaries(st.sampled_from(PARTS), st.sampled_from([0.1, 1.0, 7.0]), min_size=1),
)
def test_the_permutation_is_the_optimum_of_the_formula(
    seed: int, d_b: int, weights: dict[str, float]
) -> None:
    a, b = make_sae(6, 2, seed, layer=0), make_sae(d_b, 2, seed + 1, layer=1)
    rolled = [(np.arange(6) + shift) % d_b for shift in range(d_b)]
    costs = np.empty((6, d_b))
    for permutation in rolled:
        costs[np.arange(6), permutation] = cost_by_hand(a, b, permutation, weights)
    best = linear_sum_assignment(costs)
    found = match(a, b, parts=weights)
    assert total(found) == pytest.approx(costs[best].sum(), rel=1e-6)
    assert found.permutation.tolist() == best[1].tolist()


def test_weights_decide_which_pairs_are_best() -> None:
    """Each part alone prefers its own pairs; the weight says whose wish counts."""
    order = torch.tensor([1, 2, 0, 3])
    a = make_sae(4, 6, 0)
    b = dataclasses.replace(a, W_enc=a.W_enc[:, order], threshold=torch.ones(4))
    a = dataclasses.replace(a, threshold=torch.ones(4))
    encoder = inverse(order.numpy(), 4)
    assert match(a, b, parts=["decoder"]).permutation.tolist() == [0, 1, 2, 3]
    assert match(a, b, parts=["encoder"]).permutation.tolist() == encoder.tolist()
    light, heavy = {"decoder": 1.0, "encoder": 1e-6}, {"decoder": 1e-6, "encoder": 1.0}
    assert match(a, b, parts=light).permutation.tolist() == [0, 1, 2, 3]
    assert match(a, b, parts=heavy).permutation.tolist() == encoder.tolist()


def test_parts_default_to_all_with_weight_one() -> None:
    found = match(A, B)
    assert found.parts == {"decoder": 1.0, "encoder": 1.0, "bias": 1.0}
    np.testing.assert_allclose(found.cost, cost_by_hand(A, B, found.permutation, found.parts))
    assert match(A, B, parts="decoder,bias").parts == {"decoder": 1.0, "bias": 1.0}


def test_mse_and_cosine_are_what_the_definitions_say() -> None:
    found = match(A, B)
    fa, fb = fold_thresholds(A), fold_thresholds(B)
    p = found.permutation
    decoder = (fa.W_dec.double() - fb.W_dec.double()[p]).square().mean(dim=1)
    encoder = (fa.W_enc.double() - fb.W_enc.double()[:, p]).square().mean(dim=0)
    bias = (fa.b_enc.double() - fb.b_enc.double()[p]).square()
    cosine = torch.cosine_similarity(A.W_dec.double(), B.W_dec.double()[p])
    np.testing.assert_allclose(found.mse_decoder, decoder, rtol=1e-9)
    np.testing.assert_allclose(found.mse_encoder, encoder, rtol=1e-9)
    np.testing.assert_allclose(found.mse_bias, bias, rtol=1e-9)
    np.testing.assert_allclose(found.cosine, cosine, rtol=1e-6)


@pytest.mark.parametrize("parts", [PARTS, ("decoder",), {"decoder": 2.0, "bias": 0.5}])
def test_shares_sum_to_one(parts: Sequence[str] | Mapping[str, float]) -> None:
    found = match(A, WIDE, parts=parts)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares.keys() == found.parts.keys()
    decoder = float(np.nansum(found.mse_decoder)) * found.d_model * found.parts["decoder"]
    assert found.shares["decoder"] == pytest.approx(decoder / total(found))


@pytest.mark.parametrize("strategy", ["folded", "unfolded", "random"])
@pytest.mark.parametrize(("a", "b"), [(A, WIDE), (WIDE, A)])
def test_different_widths_match_the_smaller_side_completely(strategy: str, a: SAE, b: SAE) -> None:
    found = match(a, b, strategy=strategy)
    matched = found.permutation != -1
    assert found.permutation.shape == (a.d_sae,)
    assert matched.sum() == 12
    assert len(set(found.permutation[matched].tolist())) == 12
    assert (found.matched == matched).all()
    assert len(found.unmatched_b) == b.d_sae - 12
    assert not set(found.unmatched_b.tolist()) & set(found.permutation.tolist())
    for name in ("cost", "mse_decoder", "mse_encoder", "mse_bias", "cosine"):
        assert (np.isnan(getattr(found, name)) == ~matched).all()
    if strategy == "random":
        assert np.isnan(found.margin).all()
    else:
        assert (np.isnan(found.margin) == ~matched).all()
    assert not found.certain[~matched].any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), d_a=st.integers(1, 10), d_b=st.integers(1, 10))
def test_the_other_direction_is_the_inverse(seed: int, d_a: int, d_b: int) -> None:
    a, b = make_sae(d_a, 6, seed), make_sae(d_b, 6, seed + 1)
    there, back = match(a, b), match(b, a)
    assert back.permutation.tolist() == inverse(there.permutation, d_b).tolist()
    assert total(back) == pytest.approx(total(there))


@pytest.mark.parametrize("strategy", ["folded", "unfolded", "cosine"])
def test_relabelling_b_relabels_the_permutation(strategy: str) -> None:
    order = torch.randperm(17, generator=torch.Generator().manual_seed(3))
    one = match(A, WIDE, strategy=strategy)
    two = match(A, relabelled(WIDE, order), strategy=strategy)
    assert order[torch.from_numpy(two.permutation)].tolist() == one.permutation.tolist()
    np.testing.assert_allclose(two.cost, one.cost)


def test_a_relabelled_copy_is_found_again() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(4))
    copy = relabelled(A, order)
    found = match(A, copy)
    assert order[torch.from_numpy(found.permutation)].tolist() == list(range(12))
    assert total(found) == 0
    assert found.certain.all()
    assert found.cosine == pytest.approx(np.ones(12))
    assert compose(found.permutation, match(copy, A).permutation).tolist() == list(range(12))


def test_means_are_over_live_features_of_a_whatever_their_partners() -> None:
    counts = torch.ones(12, dtype=torch.int64)
    counts[3] = 0
    a = make_sae(seed=0, firing=Firing(counts, 100, "made up"))
    b = make_sae(seed=1)
    b.W_dec[5] = 0
    found = match(a, b)
    live = np.ones(12, dtype=bool)
    live[3] = False
    assert found.compared.tolist() == live.tolist()
    assert found.live.tolist() == (live & (found.permutation != 5)).tolist()
    summary = found.summary()
    assert summary["pairs"] == 12
    assert summary["compared"] == 11
    assert summary["left_out"] == 1
    assert summary["mse_decoder"] == pytest.approx(found.mse_decoder[live].mean())
    assert summary["cosine"] == pytest.approx(found.cosine[live].mean())
    assert summary["total_cost"] == pytest.approx(found.cost[found.permutation != 5].sum())
    assert summary["total_cost"] == pytest.approx(found.assignment.primal)
    assert np.isfinite(found.cosine).all()


def test_naive_is_the_identity_of_equal_widths() -> None:
    assert match(A, B, strategy="naive").permutation.tolist() == list(range(12))
    with pytest.raises(UsageError, match="12 and 17"):
        match(A, WIDE, strategy="naive")


def test_random_is_one_to_one_and_seeded() -> None:
    draws = [match(A, B, strategy="random", seed=s).permutation for s in range(5)]
    assert all(sorted(p.tolist()) == list(range(12)) for p in draws)
    assert len({tuple(p.tolist()) for p in draws}) == 5
    assert match(A, B, strategy="random", seed=3).permutation.tolist() == draws[3].tolist()
    assert match(A, B, strategy="random").assignment is None


def test_cosine_is_the_nearest_by_direction_alone() -> None:
    found = match(WIDE, A, strategy="cosine")
    unit_a = torch.nn.functional.normalize(WIDE.W_dec.double())
    unit_b = torch.nn.functional.normalize(A.W_dec.double())
    assert found.permutation.tolist() == (unit_a @ unit_b.T).argmax(dim=1).tolist()
    assert found.assignment is None
    assert not found.certain.any()


def test_cosine_ties_go_to_the_lowest_index_and_zero_rows_are_no_nan() -> None:
    a, b = make_sae(4, 3, 0), make_sae(4, 3, 1)
    a.W_dec[:] = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 5]])
    b.W_dec[:] = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 4, 0], [3, 0, 0]])
    found = match(a, b, strategy="cosine")
    # Orthogonal to all, the last row ties everywhere, as the zero row does.
    assert found.permutation.tolist() == [3, 1, 0, 0]
    assert found.cosine.tolist() == [1, 1, 0, 0]
    assert np.isfinite(found.cost).all()


def test_equal_decoder_rows_tie_whatever_the_product_rounds_to() -> None:
    """A float32 product of few rows gives equal columns values that differ in the last bit."""
    for seed in range(400):
        g = torch.Generator().manual_seed(seed)
        d_b, d_model = (int(torch.randint(2, 70, (1,), generator=g)) for _ in range(2))
        a, b = torch.randn(1, d_model, generator=g), torch.randn(d_b, d_model, generator=g)
        b = b[torch.randint(0, d_b, (d_b,), generator=g)]
        (found,) = nearest_by_cosine(a, b)
        assert found == (b == b[found]).all(dim=1).nonzero()[0, 0]


def test_weights_that_are_parameters() -> None:
    a, b = (
        dataclasses.replace(sae, W_enc=sae.W_enc.clone().requires_grad_(),
                            W_dec=sae.W_dec.clone().requires_grad_())
        for sae in (A, B)
    )  # fmt: skip
    for strategy in data_free():
        found, same = match(a, b, strategy=strategy), match(A, B, strategy=strategy)
        np.testing.assert_array_equal(found.cost, same.cost)


def test_folded_saes_are_taken_as_they_are() -> None:
    scale = torch.arange(1.0, 13)
    a, b = (fold_thresholds(sae, "activation", scale) for sae in (A, B))
    found = match(a, b)
    assert isinstance(a, FoldedSAE)
    assert found.scale == "activation"
    np.testing.assert_allclose(
        found.mse_decoder * 6,
        ((a.W_dec - b.W_dec[found.permutation]).double() ** 2).sum(dim=1),
        rtol=1e-5,
    )
    same = match(fold_thresholds(A), fold_thresholds(B))
    assert same.permutation.tolist() == match(A, B).permutation.tolist()


def test_a_uniform_threshold_is_noted_for_decoder_only() -> None:
    a, b = (dataclasses.replace(sae, threshold=torch.full((12,), 0.7)) for sae in (A, B))
    noted = match(a, b, parts=["decoder"])
    assert any("one scalar threshold" in note for note in noted.notes)
    raw = match(a, b, parts=["decoder"], strategy="unfolded")
    assert noted.permutation.tolist() == raw.permutation.tolist()
    assert not match(a, b).notes
    assert not match(A, B, parts=["decoder"]).notes
    wide = dataclasses.replace(WIDE, threshold=torch.full((17,), 0.7))
    assert not match(a, wide, parts=["decoder"]).notes
    # Nothing was folded, so nothing is said of thresholds.
    assert not match(A, B, parts=["decoder"], scale="none").notes


@pytest.mark.parametrize("strategy", data_free())
def test_different_d_model_is_an_error(strategy: str) -> None:
    with pytest.raises(UsageError, match="6 and 5"):
        match(A, make_sae(d_model=5), strategy=strategy)


@pytest.mark.parametrize(
    "parts", [("decoder", "b_dec"), (), ("decoder", "decoder"), {"unknown": 1.0}, "decoder,x"]
)
def test_unknown_parts_are_an_error(parts: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="decoder, encoder, bias"):
        match(A, B, parts=parts)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_must_be_positive(weight: float) -> None:
    with pytest.raises(UsageError, match="positive weight for part 'decoder'"):
        match(A, B, parts={"decoder": weight})


def test_unknown_strategies_are_an_error() -> None:
    unchecked = inspect.unwrap(match)  # what a user meets, without the tests' type checks
    with pytest.raises(UsageError, match="folded, unfolded, naive, random, cosine"):
        unchecked(A, B, strategy="best")


@pytest.mark.parametrize(("a", "b"), [(A, B), (A, WIDE), (WIDE, A)])
def test_measuring_the_permutation_reproduces_the_cost(a: SAE, b: SAE) -> None:
    found = match(a, b, parts={"decoder": 1.0, "bias": 2.0})
    measured = measure(
        a, b, found.permutation, parts={"decoder": 1.0, "bias": 2.0}, strategy="composition"
    )
    for name in ("cost", "mse_decoder", "mse_encoder", "mse_bias", "cosine"):
        np.testing.assert_array_equal(getattr(measured, name), getattr(found, name))
    assert measured.strategy == "composition"
    assert measured.gap is None


def test_measuring_refuses_what_is_no_permutation_of_these() -> None:
    with pytest.raises(UsageError, match="12 features to 12, got one of 11"):
        measure(A, B, np.arange(11), strategy="composition")
    with pytest.raises(UsageError, match="got 12 at 0"):
        measure(A, B, np.arange(12) + 12, strategy="composition")


def test_without_thresholds_only_folded_needs_a_scale() -> None:
    a, b = make_sae(activation="relu"), make_sae(seed=1, activation="relu")
    with pytest.raises(UsageError, match="decoder_norm, activation or none"):
        match(a, b)
    for strategy in ("unfolded", "naive", "random", "cosine"):
        assert match(a, b, strategy=strategy).scale == "none"
    assert match(a, b, scale="decoder_norm").scale == "decoder_norm"
    raw, folded = match(a, b, strategy="unfolded"), match(a, b, scale="none")
    assert raw.permutation.tolist() == folded.permutation.tolist()


def test_unfolded_is_solved_on_raw_weights_and_measured_on_folded() -> None:
    found = match(A, B, strategy="unfolded")
    assert found.permutation.tolist() == match(A, B, scale="none").permutation.tolist()
    np.testing.assert_allclose(found.cost, cost_by_hand(A, B, found.permutation, found.parts))
    assert found.scale == "threshold"


def test_an_unfoldable_threshold_is_an_error() -> None:
    assert A.threshold is not None
    threshold = A.threshold.clone()
    threshold[0] = 0
    with pytest.raises(InputError, match="feature 0"):
        match(dataclasses.replace(A, threshold=threshold), B)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_thresholds_that_are_all_zero_or_less_are_a_relu_sae(value: float) -> None:
    a, b = (dataclasses.replace(one, threshold=torch.full((12,), value)) for one in (A, B))
    assert set(a.status) == {"live"}
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    relu = dataclasses.replace(a, activation="relu", threshold=None)
    assert torch.equal(a.encode(x), relu.encode(x))
    for scale in (None, "threshold"):
        with pytest.raises(UsageError, match=r"ReLU SAE.*decoder_norm, activation or none"):
            fold_thresholds(a, scale)
    found = match(a, b, scale="none")
    assert found.certain.any()
    assert found.permutation.tolist() == match(a, b, strategy="unfolded").permutation.tolist()


@pytest.mark.parametrize(("a", "b"), [(A, WIDE), (WIDE, A)])
def test_to_frame(a: SAE, b: SAE) -> None:
    found = match(a, b)
    frame = found.to_frame()
    assert list(frame.columns) == [
        "feature", "partner", "status", "partner_status", "cost", "mse_decoder", "mse_encoder",
        "cosine", "unexplained", "margin", "certain",
    ]  # fmt: skip
    assert frame["feature"].tolist() == list(range(a.d_sae))
    assert frame["partner"].tolist() == found.permutation.tolist()
    assert (frame["partner_status"].isna() == ~found.matched).all()
    np.testing.assert_array_equal(frame["cost"], found.cost)


def test_repr_says_that_it_is_proven() -> None:
    assert "optimal to 1e-6" in repr(match(A, B))
    assert "optimal" not in repr(match(A, B, strategy="cosine"))


def test_positions_that_there_are_not_are_said() -> None:
    saes = [make_sae(seed=0), make_sae(seed=1)]
    with pytest.raises(UsageError, match=r"positions from 0 to 1, got 12, 13 \(not layers\)"):
        list(match_pairs(saes, [(12, 13)]))
