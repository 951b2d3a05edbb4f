"""Mixes of a few partners: scipy, every support and plain matching pursuit as oracles."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from saematch import SAE, Transport, UsageError, fold_thresholds, match
from saematch.matching.matchers import TopCosine, is_matcher, matcher
from saematch.matching.strategies import unit_rows
from saematch.matching.transport import mixtures


def sae(d_sae: int, d_model: int, seed: int, layer: int = 0) -> SAE:
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(d_sae, d_model, generator=generator)
    threshold = torch.rand(d_sae, generator=generator) + 0.5
    return SAE(
        W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_model), "jumprelu",
        threshold=threshold, layer=layer,
    )  # fmt: skip


def left_over(w: np.ndarray, atoms: np.ndarray) -> float:
    """Squared distance of a vector from the non-negative mixes of some rows, by scipy."""
    return float(nnls(atoms.T, w)[1] ** 2) if len(atoms) else float(w @ w)


def pursued(w: np.ndarray, unit: np.ndarray, partners: int) -> tuple[list[int], np.ndarray]:
    """Orthogonal matching pursuit as its definition has it, one row."""
    chosen: list[int] = []
    left, coefficients = w, np.zeros(0)
    for _ in range(partners):
        scores = unit @ left
        scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        coefficients = nnls(unit[chosen].T, w)[0]
        left = w - coefficients @ unit[chosen]
    return chosen, coefficients


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 5), st.integers(0, 10**6))
@example(3, 3, 3, 633)  # atoms that nearly coincide
def test_plain_matching_pursuit_where_all_are_candidates(
    d_b: int, d_model: int, partners: int, seed: int
) -> None:
    a, b = sae(7, d_model, seed), sae(d_b, d_model, seed + 1)
    unit = unit_rows(b.W_dec)
    found = mixtures(a.W_dec, unit, partners, candidates=d_b)
    for i, w in enumerate(a.W_dec.double().numpy()):
        chosen, coefficients = pursued(w, unit.double().numpy(), min(partners, d_b))
        mix = (found.coefficients[i][:, None] * unit[found.partners[i]].double()).sum(dim=0)
        least = float((w - coefficients @ unit[chosen].double().numpy()) @ w)
        assert float(((torch.from_numpy(w) - mix) ** 2).sum()) == pytest.approx(
            least, rel=1e-6, abs=1e-9 * float(w @ w)
        )
        assert found.coefficients[i].min() >= 0
        assert float(mix.norm()) == pytest.approx(float(found.fitted[i]), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(2, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_never_below_the_best_support_and_equal_to_it_for_one_partner(
    d_b: int, d_model: int, partners: int, seed: int
) -> None:
    """No support of so many rows leaves less than the best; greedy choice finds it for one."""
    a, b = sae(4, d_model, seed), sae(d_b, d_model, seed + 1)
    unit = unit_rows(b.W_dec).double().numpy()
    found = mixtures(a.W_dec, unit_rows(b.W_dec), partners)
    for i, w in enumerate(a.W_dec.double().numpy()):
        supports = combinations(range(d_b), min(partners, d_b))
        best = min(left_over(w, unit[list(some)]) for some in supports)
        own = left_over(w, unit[found.partners[i].numpy()])
        assert own >= best - 1e-9 * float(w @ w)
        if partners == 1:
            assert own == pytest.approx(best, rel=1e-6, abs=1e-9 * float(w @ w))


def test_a_planted_mix_is_found() -> None:
    b = sae(300, 64, 1)
    generator = torch.Generator().manual_seed(2)
    truth = torch.stack([torch.randperm(300, generator=generator)[:3] for _ in range(50)])
    weights = torch.rand(50, 3, generator=generator) + 0.5
    rows = (weights[:, :, None] * unit_rows(b.W_dec)[truth]).sum(dim=1)
    found = mixtures(rows, unit_rows(b.W_dec), 3)
    right = (found.partners.sort(dim=1).values == truth.sort(dim=1).values).all(dim=1)
    assert right.float().mean() > 0.8


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_scale_is_between_least_squares_and_the_features_own_norm(power: float) -> None:
    a, b = fold_thresholds(sae(20, 16, 0)), fold_thresholds(sae(40, 16, 1))
    found = match(a, b, matcher=Transport(partners=3, power=power))
    mix = torch.from_numpy(found.weights @ b.W_dec.double().numpy())
    own = a.W_dec.double()
    plain = mixtures(a.W_dec, unit_rows(b.W_dec), 3)
    scale = (own.norm(dim=1) / plain.fitted) ** power
    assert torch.allclose(mix.norm(dim=1), plain.fitted * scale, rtol=1e-6)
    # Least squares leaves nothing in its own direction, and no scale changes what a mix explains.
    unexplained = 1 - (plain.fitted / own.norm(dim=1)) ** 2
    assert np.allclose(found.unexplained, unexplained, atol=1e-6)


def test_folding_changes_the_units_alone() -> None:
    a, b = sae(20, 16, 0), sae(40, 16, 1)
    f = torch.rand(5, 20)
    decoded = []
    for scale in ("threshold", "none", "decoder_norm"):
        one, other = fold_thresholds(a, scale), fold_thresholds(b, scale)
        found = match(one, other, matcher="transport:4")
        decoded.append(found.correspondence.apply(f / one.scale).float() @ other.W_dec)
    assert torch.allclose(decoded[0], decoded[1], atol=1e-4)
    assert torch.allclose(decoded[0], decoded[2], atol=1e-4)


def test_partners_are_live_and_few_features_suffice() -> None:
    a, b = sae(10, 6, 0), sae(3, 6, 1)
    found = match(a, b, matcher=Transport(partners=8))
    assert found.correspondence.counts.max() <= 3
    b.W_dec[1] = 0
    b.W_enc[:, 1] = 0
    again = match(a, SAE(b.W_enc, b.b_enc, b.W_dec, b.b_dec, "jumprelu", threshold=b.threshold),
                  matcher=Transport())  # fmt: skip
    assert 1 not in again.correspondence.partners
    empty = SAE(b.W_enc * 0, b.b_enc, b.W_dec * 0, b.b_dec, "jumprelu", threshold=b.threshold)
    with pytest.raises(UsageError, match="live features to be partners"):
        match(a, empty, matcher=Transport())


def test_a_zero_row_has_no_partner() -> None:
    a, b = sae(10, 6, 0), sae(12, 6, 1)
    a.W_dec[3] = 0
    found = match(a, b, matcher=Transport())
    assert found.correspondence.counts[3] == 0
    assert found.unexplained[3] == 1
    assert not len(found.partners(3))


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = sae(50, 16, 0), sae(70, 16, 1)
    whole = match(a, b, matcher=Transport())
    monkeypatch.setattr("saematch.matching.transport.ENTRIES", 70 * 16 * 3)
    again = match(a, b, matcher=Transport()).weights
    assert np.allclose(again.toarray(), whole.weights.toarray(), rtol=1e-9, atol=0)


def test_names() -> None:
    assert matcher("transport:8") is matcher("transport_8")
    assert matcher("transport") is matcher("transport_4")
    assert matcher("transport:8").label == "transport, 8 partners"
    assert isinstance(matcher("top_cosine:2"), TopCosine)
    assert is_matcher("transport_8")
    with pytest.raises(UsageError, match="partners from 1"):
        matcher("transport:0")
    with pytest.raises(UsageError, match="transport:PARTNERS"):
        matcher("transportt")


def test_the_table_of_partners() -> None:
    a, b = sae(20, 16, 0), sae(40, 16, 1)
    found = match(a, b, matcher=Transport(partners=3))
    table = found.partners(7)
    row = found.weights[[7]].toarray()[0]
    assert list(table["feature"]) == list(np.argsort(-row)[: len(table)])
    assert np.allclose(table["weight"], row[table["feature"]])
    units = unit_rows(a.W_dec)[7] @ unit_rows(b.W_dec)[table["feature"].tolist()].T
    assert np.allclose(table["cosine"], units, atol=1e-6)
    with pytest.raises(UsageError, match="from 0 to 19"):
        found.partners(20)
    plain = match(a, b)
    assert (plain.weights.sum(axis=1) == 1).all()
    assert np.allclose(plain.pair_cosine, plain.cosine)
    assert np.allclose(plain.unexplained, 1 - np.maximum(plain.cosine, 0) ** 2)
