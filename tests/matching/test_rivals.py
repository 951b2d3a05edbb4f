"""Every rival against brute force in float64, and its law."""

import numpy as np
import pytest
import torch
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from saematch import FoldedSAE, UsageError, fold_thresholds, match
from saematch.matching import activity, cosines
from saematch.matching.activity import Observed
from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.entropic import TOLERANCE, potentials, strongest
from saematch.matching.matchers import (
    MAIN,
    Matcher,
    data_free,
    matcher,
    matchers,
    usual_fitted,
    usual_in_runs,
)

WIDTH, TOKENS = 6, 300
FITTED = [one.name for one in matchers() if one.needs_data]
NAMES = st.integers(0, 10**6)


def rows(count: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    a, b = a.double(), b.double()
    return ((a / a.norm(dim=1)[:, None]) @ (b / b.norm(dim=1)[:, None]).T).numpy()


def pair(d_a: int = 9, d_b: int = 12, seed: int = 0) -> tuple[FoldedSAE, FoldedSAE]:
    return (
        fold_thresholds(make_sae(d_a, WIDTH, seed, layer=0)),
        fold_thresholds(make_sae(d_b, WIDTH, seed + 1, layer=1)),
    )


def observed(a: FoldedSAE, b: FoldedSAE, seed: int = 0, tokens: int = TOKENS) -> Observed:
    """Activations that share causes; feature 0 of A and of B never active, 1 of A always."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(tokens, 4, generator=generator)

    def drawn(width: int) -> torch.Tensor:
        mixed = causes @ torch.randn(4, width, generator=generator)
        f = (mixed + 0.3 * torch.randn(tokens, width, generator=generator) - 0.5).relu()
        f[:, 0] = 0
        return f

    f_a, f_b = drawn(a.d_sae), drawn(b.d_sae)
    f_a[:, 1] += 0.1
    x = causes @ torch.randn(4, WIDTH, generator=generator) * 3 + 1
    x += torch.randn(tokens, WIDTH, generator=generator)
    typical = torch.rand(tokens, generator=generator) > 0.1
    x[~typical] *= 100
    return Observed(f_a, f_b, x, typical)


def fitted(way: Matcher, a: FoldedSAE, b: FoldedSAE, seen: Observed) -> Correspondence:
    """Added up in three batches."""
    sums = way.sums(a, b)
    for first in range(0, len(seen.x_b), 110):
        part = slice(first, first + 110)
        sums.add(Observed(seen.f_a[part], seen.f_b[part], seen.x_b[part], seen.typical[part]))
    return sums.correspondence()


def test_default_runs_and_evaluations_have_none_of_them() -> None:
    assert usual_in_runs() == ("folded", "unfolded", "naive", "random", "cosine")
    assert usual_fitted() == ("correlation",)


# Cosines


def test_encoder_cosine_is_the_argmax_of_encoder_columns() -> None:
    a, b = pair()
    expected = cosine(a.sae.W_enc.T, b.sae.W_enc.T).argmax(axis=1)
    assert match(a, b, matcher="encoder_cosine").permutation.tolist() == expected.tolist()


def test_backward_gives_each_feature_of_b_its_nearest_in_a() -> None:
    a, b = pair()
    b.sae.W_dec[4] = 0
    found = match(a, b, matcher="cosine_backward").weights.toarray()
    assert (found[:, 4] == 0).all()
    others = np.delete(np.arange(12), 4)
    nearest = cosine(a.sae.W_dec, b.sae.W_dec[others]).argmax(axis=0)
    expected = np.zeros((9, 12))
    expected[nearest, others] = 1
    assert (found == expected).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), NAMES)
def test_mutual_pairs_are_each_others_nearest_whichever_side_is_a(
    d_a: int, d_b: int, seed: int
) -> None:
    a, b = rows(d_a, seed), rows(d_b, seed + 1)
    table = cosine(a, b)
    found = cosines.mutual(a, b)
    for i, j in enumerate(found.permutation):
        best = int(table[i].argmax())
        assert j == (best if table[:, best].argmax() == i else UNMATCHED)
    back = cosines.mutual(b, a)
    assert (back.transposed().matrix != found.matrix).nnz == 0
    assert found.counts.sum() > 0


def sorted_pairs(table: np.ndarray) -> list[int]:
    """Greedy as its definition has it: all pairs sorted, the first by row and column of equal ones."""
    order = sorted(np.ndindex(table.shape), key=lambda ij: (-table[ij], ij))
    found, taken = [UNMATCHED] * table.shape[0], set()
    for i, j in order:
        if found[i] == UNMATCHED and j not in taken:
            found[i] = j
            taken.add(j)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), NAMES)
def test_greedy_takes_pairs_in_order_of_falling_cosine(
    d_a: int, d_b: int, width: int, seed: int
) -> None:
    a, b = rows(d_a, seed, width), rows(d_b, seed + 1, width)
    if width > 1:  # in one dimension every cosine is 1 or −1, and float64 cannot order them
        assert cosines.greedy(a, b).permutation.tolist() == sorted_pairs(cosine(a, b))
    found = cosines.greedy(a, b)
    assert found.one_to_one
    assert found.counts.sum() == min(d_a, d_b)
    # Its pairs descend: what is left when a pair is taken has no greater cosine.
    table = cosine(a, b)
    i, j = found.features, found.partners
    order = np.argsort(-table[i, j])
    for n in range(len(order)):
        left = table[np.ix_(i[order[n:]], j[order[n:]])]
        assert left.max() <= table[i[order[n]], j[order[n]]] + 1e-12


def test_greedy_with_equal_cosines_and_zero_rows_ends() -> None:
    a = torch.tensor([[1.0, 0], [1, 0], [0, 0], [2, 0]])
    b = torch.tensor([[3.0, 0], [-1, 0], [1, 0], [0, 0]])
    found = cosines.greedy(a, b).permutation.tolist()
    assert found[:2] == [0, 2]
    assert sorted(found) == [0, 1, 2, 3]


# Entropic transport


def plan(table: np.ndarray, mu: np.ndarray, nu: np.ndarray, epsilon: float) -> np.ndarray:
    """Sinkhorn as Cuturi has it, in float64."""
    kernel = np.exp(table / epsilon)
    u, v = np.ones(len(mu)), np.ones(len(nu))
    for _ in range(5000):
        u = mu / (kernel @ v)
        v = nu / (kernel.T @ u)
    return u[:, None] * kernel * v


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.05, 0.2, 1.0]), NAMES)
def test_the_marginals_of_the_plan_hold(n: int, m: int, epsilon: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = cosine(rows(n, seed), rows(m, seed + 1))
    mu, nu = (generator.dirichlet(np.ones(k) * 5) for k in (n, m))
    scaled = torch.from_numpy(table / epsilon).float()
    u, v, off = potentials(scaled, torch.from_numpy(mu), torch.from_numpy(nu))
    found = torch.exp(scaled.double() + u[:, None] + v).numpy()
    np.testing.assert_allclose(found.sum(axis=0), nu, rtol=1e-4)
    assert np.abs(found.sum(axis=1) - mu).sum() == pytest.approx(off, abs=1e-4)
    if off <= TOLERANCE:
        expected = plan(table, mu, nu, epsilon)
        assert np.abs(found - expected).sum() < 0.1


@pytest.mark.parametrize("entries", [1 << 22, 30])
def test_sinkhorn_takes_the_strongest_of_the_plan(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saematch.matching.entropic.ENTRIES", entries)
    a, b = pair(9, 12, 3)
    found = match(a, b, matcher="sinkhorn").permutation
    epsilon = matcher("sinkhorn").epsilon
    expected = plan(cosine(a.sae.W_dec, b.sae.W_dec), np.ones(9) / 9, np.ones(12) / 12, epsilon)
    assert found.tolist() == expected.argmax(axis=1).tolist()
    # Columns that many rows are near to are shared out.
    assert len(set(found)) > len(set(match(a, b, strategy="cosine").permutation))


def test_sinkhorn_by_activity_weighs_features_by_what_they_add() -> None:
    a, b = pair()
    seen = observed(a, b)
    way = matcher("sinkhorn_activity")
    found = fitted(way, a, b, seen).permutation
    masses = [
        f.double().sum(dim=0).numpy() * one.sae.W_dec.double().norm(dim=1).numpy()
        for f, one in ((seen.f_a, a), (seen.f_b, b))
    ]
    mu, nu = (mass[1:] / mass.sum() for mass in masses)  # the first is never active
    expected = plan(cosine(a.sae.W_dec[1:], b.sae.W_dec[1:]), mu, nu, way.epsilon)
    assert found.tolist() == [UNMATCHED, *(1 + expected.argmax(axis=1))]


def test_an_epsilon_of_nothing_and_a_plan_that_does_not_settle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = rows(30, 0), rows(30, 1)
    ones = torch.ones(30).double()
    with pytest.raises(UsageError, match=r"epsilon above 0, got -1\.0"):
        strongest(a, b, ones, ones, -1.0)
    monkeypatch.setattr("saematch.matching.entropic.ITERATIONS", 2)
    assert "stopped after 2 iterations" in strongest(a, b, ones, ones, 0.01).notes[0]
    nothing = strongest(a, b, torch.zeros(30).double(), ones, 0.1).correspondence
    assert (nothing.permutation == UNMATCHED).all()


# Activity


def textbook(name: str, f_a: np.ndarray, f_b: np.ndarray) -> float:
    """One pair by its definition."""
    if name == "correlation":
        return np.corrcoef(f_a, f_b)[0, 1] if f_a.std() and f_b.std() else np.nan
    a, b = f_a > 0, f_b > 0
    both, only_a, only_b, neither = (float(some.sum()) for some in (a & b, a & ~b, ~a & b, ~a & ~b))
    if name == "phi":
        sides = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
        return (both * neither - only_a * only_b) / np.sqrt(sides) if sides else np.nan
    if not both:
        return np.nan
    return both / (both + only_a + (only_b if name == "jaccard" else 0))


@pytest.mark.parametrize("entries", [1 << 24, 8])
@pytest.mark.parametrize("name", ["correlation", "phi", "jaccard", "implication"])
def test_scores_of_activity_are_those_of_the_textbook(
    name: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "BLOCK_ENTRIES", entries)
    a, b = pair()
    seen = observed(a, b)
    expected = np.array(
        [
            [textbook(name, i, j) for j in seen.f_b.double().numpy().T]
            for i in seen.f_a.double().numpy().T
        ]
    )
    sums = matcher(name).sums(a, b)
    sums.add(seen)
    got = sums.scores(slice(0, a.d_sae)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    best = np.where(np.isnan(expected), -np.inf, expected).argmax(axis=1)
    found = fitted(matcher(name), a, b, seen).permutation
    silent = np.isnan(expected).all(axis=1)
    assert silent[0]
    assert found.tolist() == np.where(silent, UNMATCHED, best).tolist()


@pytest.mark.parametrize("name", ["centroid", "centroid_cosine"])
def test_centroids_are_weighted_means_of_the_whitened_stream(name: str) -> None:
    a, b = pair()
    seen = observed(a, b)
    kept = seen.typical.numpy()
    x = seen.x_b.double().numpy()[kept]
    mean, covariance = x.mean(axis=0), np.cov(x.T, bias=True)
    shrunk = covariance + activity.SHRINKAGE * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    white = (x - mean) @ np.linalg.inv(np.linalg.cholesky(shrunk)).T
    centroids = [
        torch.from_numpy(f.double().numpy()[kept][:, 1:].T @ white) for f in (seen.f_a, seen.f_b)
    ]
    # Whitenings differ by a rotation, and cosines do not see the length of a mean.
    table = cosine(*centroids)
    if name == "centroid_cosine":
        table += cosine(a.sae.W_dec[1:], b.sae.W_dec[1:])
    found = fitted(matcher(name), a, b, seen).permutation
    assert found.tolist() == [UNMATCHED, *(1 + table.argmax(axis=1))]


def regressed(f_a: np.ndarray, y: np.ndarray, partners: int) -> np.ndarray:
    """Orthogonal matching pursuit as its definition has it, on activations."""
    norms = np.linalg.norm(f_a, axis=0)
    unit = f_a / np.where(norms > 0, norms, 1)
    chosen, left, t = [], y, np.zeros(0)
    for _ in range(partners):
        scores = unit.T @ left
        scores[chosen] = -np.inf
        chosen.append(int(scores.argmax()))
        t = nnls(unit[:, chosen], y)[0]
        left = y - unit[:, chosen] @ t
    weights = np.zeros(f_a.shape[1])
    weights[chosen] = t / np.where(norms > 0, norms, 1)[chosen]
    return weights


@pytest.mark.parametrize("entries", [1 << 24, 20])
@pytest.mark.parametrize("partners", [1, 3, 20])
def test_regression_is_matching_pursuit_on_activations(
    partners: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "BLOCK_ENTRIES", entries)
    a, b = pair()
    seen = observed(a, b)
    found = fitted(matcher(f"regression:{partners}"), a, b, seen)
    f_a, f_b = (f.double().numpy() for f in (seen.f_a, seen.f_b))
    raw = np.array([regressed(f_a, y, min(partners, 9)) for y in f_b.T]).T
    expected = raw * a.scale.double().numpy()[:, None] / b.scale.double().numpy()
    # The same fit, whichever of two features that say the same is given the weight.
    folded_a = f_a / a.scale.double().numpy()
    np.testing.assert_allclose(
        folded_a @ found.matrix.toarray(), folded_a @ expected, rtol=1e-3, atol=1e-3
    )
    assert (found.matrix.toarray() >= 0).all()
    assert np.bincount(found.partners, minlength=12).max() <= partners
    assert np.bincount(found.partners, minlength=12)[0] == 0


@pytest.mark.parametrize("name", FITTED)
def test_what_was_never_active_has_no_partner_and_is_none(name: str) -> None:
    a, b = pair()
    seen = observed(a, b)
    found = fitted(matcher(name), a, b, seen)
    assert found.counts[0] == 0
    assert 0 not in found.partners
    silent = Observed(seen.f_a * 0, seen.f_b * 0, seen.x_b, seen.typical)
    assert fitted(matcher(name), a, b, silent).counts.sum() == 0


@pytest.mark.parametrize("name", [*FITTED, "regression:2"])
def test_fitted_matchers_ask_for_text_and_say_their_memory(name: str) -> None:
    a, b = pair()
    with pytest.raises(UsageError, match="needs no text"):
        match(a, b, matcher=name)
    assert matcher(name).bytes_of_sums(a, b) > 0


@pytest.mark.parametrize("name", [one for one in data_free() if one != MAIN])
def test_one_feature_on_each_side(name: str) -> None:
    a, b = pair(1, 1)
    assert match(a, b, matcher=name).permutation.tolist() in ([0], [UNMATCHED])
