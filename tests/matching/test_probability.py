"""Probabilities of pairs: descriptors from their definitions, the regression against scikit-learn's law of an
optimum, and what a calibration refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import SAE, InputError, Transport, UsageError, fates, load_suite, match
from saematch.matching.fates import Fates
from saematch.matching.probability import (
    ANY_DESCRIPTORS,
    DESCRIPTORS,
    PENALTY,
    Calibration,
    Descriptors,
    Labelled,
    Regression,
    expected_calibration_error,
)
from saematch.types import Fate


def by_definition(a: SAE, b: SAE, i: int, j: int) -> list[float]:
    """The descriptors of a pair as the module's docstring has them, all features live."""

    def unit(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x.double(), dim=1)

    found = []
    for one, other in ((a.W_dec, b.W_dec), (a.W_enc.T, b.W_enc.T)):
        cosine = (unit(one) @ unit(other).T).numpy()
        row, column = np.delete(cosine[i], j), np.delete(cosine[:, j], i)
        found += [cosine[i, j], cosine[i, j] - row.max(), cosine[i, j] - column.max()]

    def response(of: SAE, k: int, by: SAE, n: int) -> float:
        assert of.threshold is not None
        assert by.threshold is not None
        written = of.threshold[k].double() * of.W_dec[k].double()
        return max(0.0, float(written @ by.W_enc[:, n].double() / by.threshold[n].double()))

    found.append(min(3.0, np.sqrt(response(a, i, b, j) * response(b, j, a, i))))

    def own(sae: SAE, n: int) -> list[float]:
        assert sae.threshold is not None
        W, D, theta = sae.W_enc.double(), sae.W_dec.double(), sae.threshold.double()
        covariance = (D * theta[:, None]).T @ (D * theta[:, None])
        spread = torch.stack([(w @ covariance @ w).sqrt() for w in W.T])
        height = (theta - W.T @ sae.b_dec.double() - sae.b_enc.double()) / spread
        written, length = theta * D.norm(dim=1), W.norm(dim=0)
        return [
            float(height[n] / height.median()),
            float((written[n] / written.median()).log()),
            float((length[n] / length.median()).log()),
        ]

    mine, theirs = own(a, i), own(b, j)
    return found + [value for pair in zip(mine, theirs, strict=True) for value in pair]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(3, 8), st.integers(0, 10**6))
def test_descriptors_are_as_defined(d_a: int, d_b: int, d_model: int, seed: int) -> None:
    a, b = make_sae(d_a, d_model, seed), make_sae(d_b, d_model, seed + 1)
    found = Descriptors(a, b)
    values = found.candidates()
    cosine = torch.nn.functional.cosine_similarity(a.W_dec[:, None], b.W_dec[None], dim=2)
    assert len(DESCRIPTORS) == values.shape[2]
    for i in range(d_a):
        assert set(found.near[i].tolist()) == set(cosine[i].topk(min(10, d_b)).indices.tolist())
        for place, j in enumerate(found.near[i].tolist()):
            assert values[i, place] == pytest.approx(by_definition(a, b, i, j), abs=2e-5, rel=1e-4)


def random_problem(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(n, 3)) * [1, 5, 0.1] + [0, 3, 1]
    score = inputs[:, 0] + 0.5 * (inputs[:, 1] - 3) ** 2 / 5 - 1
    return inputs, generator.random(n) < 1 / (1 + np.exp(-score))


@pytest.mark.parametrize("products", [False, True])
def test_the_regression_is_the_optimum_of_its_loss(products: bool) -> None:
    inputs, truth = random_problem(0)
    found = Regression.fit(("x", "y", "z"), inputs, truth, products)
    terms = found._terms(inputs)
    slope = terms.T @ (found(inputs) - truth) / len(truth)
    slope[1:] += PENALTY * found.weights[1:]
    assert np.abs(slope).max() < 1e-4


def test_a_prior_gives_way_to_many_labels_and_keeps_few_in_place() -> None:
    before = Regression.fit(("x", "y", "z"), *random_problem(1), products=True)
    inputs, truth = random_problem(2, 20_000)
    flipped = Regression.fit(before.names, inputs, ~truth, True, before)
    assert np.corrcoef(flipped(inputs), before(inputs))[0, 1] < 0
    rarer = truth & (np.arange(len(truth)) % 2 == 0)
    few = Regression.fit(before.names, inputs, rarer, True, before)
    assert few(inputs).mean() == pytest.approx(rarer.mean(), abs=0.01)
    assert before(inputs).mean() > 1.5 * rarer.mean()


def test_labels_of_one_kind_are_refused() -> None:
    inputs, truth = random_problem(3)
    with pytest.raises(UsageError, match="are the same and pairs that are not"):
        Regression.fit(("x", "y", "z"), inputs, np.zeros_like(truth), True)


def test_a_file_gives_the_same_calibration_back(tmp_path: Path) -> None:
    shipped = Calibration.load()
    shipped.save(tmp_path / "mine.json")
    again = Calibration.load(tmp_path / "mine.json")
    values = np.random.default_rng(0).normal(size=(7, 10, len(DESCRIPTORS)))
    for one, other in zip(shipped.probabilities(values), again.probabilities(values), strict=True):
        assert (one == other).all()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected a calibration in .*bad\.json"):
        Calibration.load(tmp_path / "bad.json")


def test_calibration_error_of_known_bins() -> None:
    probability = np.repeat([0.1, 0.7], 50)
    truth = np.zeros(100, dtype=bool)
    truth[:5] = True  # a tenth of the first half; none of the second
    assert expected_calibration_error(probability, truth, 2) == pytest.approx(0.35)


def test_fates_by_their_rules() -> None:
    nan = np.nan
    found = Fates(
        candidates=np.array([[0, 1], [2, 3], [4, 5], [4, 0], [6, 1], [-1, -1], [-1, -1]]),
        pair_probability=np.array(
            [[0.9, 0.1], [0.8, 0.6], [0.7, 0.2], [0.6, 0.3], [0.3, 0.1], [nan, nan], [nan, nan]]
        ),
        probability=np.array([0.95, 0.9, 0.8, 0.7, 0.4, nan, nan]),
        origin_probability=np.array([0.9, 0.4, 0.6, 0.7, 0.8, 0.2, nan, 0.9]),
        live=np.array([True] * 6 + [False]),
        live_b=np.array([True] * 6 + [False, True]),
        partner_probability=np.zeros(0),
    )
    assert found.fate.tolist() == [
        Fate.PERSISTS, Fate.SPLITS, Fate.MERGES, Fate.MERGES, Fate.DIES, Fate.UNKNOWN, Fate.NOT_LIVE,
    ]  # fmt: skip
    assert np.flatnonzero(found.born).tolist() == [1, 5]


def test_unlike_saes_get_no_number_but_a_reason() -> None:
    one, other = make_sae(30, 8, 0), make_sae(30, 8, 1)
    told = fates(one, other)
    assert set(told.fate) == {Fate.UNKNOWN}
    assert np.isnan(told.probability).all()
    assert "unlike those that the calibration was fitted on" in told.notes[0]
    topk = make_sae(30, 8, 0, "topk")
    assert "expected SAEs with thresholds" in fates(topk, other).notes[0]
    dead = make_sae(4, 8, 2)
    dead.W_dec[:] = 0
    assert "no live features" in fates(one, dead).notes[0]


def test_partners_of_a_match_have_the_probabilities_of_its_fates() -> None:
    a, b = load_suite("bundled:smollm2-135m", layers=[12, 13])
    found = match(a, b, matcher=Transport(partners=4))
    told = found.fates
    assert told is not None
    assert told.known
    assert found.fate.tolist() == told.fate.tolist()
    assert set(found.fate) <= {*Fate}
    for feature in (int(np.flatnonzero(told.fate == Fate.SPLITS)[0]), 345):
        table = found.partners(feature)
        ranked = dict(zip(told.candidates[feature], told.pair_probability[feature], strict=True))
        for partner, probability in zip(table["feature"], table["probability"], strict=True):
            if partner in ranked:
                assert probability == pytest.approx(ranked[partner], abs=1e-9)
            else:
                assert 0 < probability < 1
    with pytest.raises(UsageError, match="matching with fates"):
        _ = match(a, b, strategy="cosine").fate


def test_what_any_descriptor_is_about() -> None:
    assert set(ANY_DESCRIPTORS[3:]) <= set(DESCRIPTORS)


def test_labels_follow_phi() -> None:
    a, b = make_sae(6, 5, 0), make_sae(8, 5, 1)
    phi = np.zeros((6, 8))
    pairs = Descriptors(a, b, candidates=3)
    phi[2, int(pairs.near[2, 1])] = 0.3
    beyond = next(j for j in range(8) if j not in pairs.near[4].tolist())
    phi[4, beyond] = 0.9
    seen = np.array([True, True, True, True, True, False])
    labelled = Labelled.of(pairs, lambda rows: torch.from_numpy(phi)[rows], seen)
    assert np.argwhere(labelled.same).tolist() == [[2, 1]]
    assert labelled.any.tolist() == [False, False, True, False, True]
