"""Causal agreement against a straight re-computation, one ablation and one document at a time."""

import itertools

import numpy as np
import pytest
import torch
from core_builders import make_sae
from tiny_models import WIDTH, tiny_model

from saematch import match
from saematch.evaluation.ablation import agreement_measures, causal_agreement, sample
from saematch.models import Corpus, Documents
from saematch.stats import interval

MODEL = tiny_model()
A, B = (make_sae(24, WIDTH, seed, layer=layer) for layer, seed in ((1, 1), (2, 2)))
TEXTS = ("The committee met.", "Bridges were counted twice; nobody had counted them before.")
DOCUMENTS = Documents.of(Corpus("mine", "a test", TEXTS), MODEL, 40, 2)


def straight(i: int, j: int, document: int, tokens: int) -> float:
    ids = torch.tensor([DOCUMENTS.token_ids[document][:tokens]])
    streams, base = MODEL.capture_and_predict(ids, [1, 2])
    f_a, f_b = A.encode(streams[1][0]), B.encode(streams[2][0])
    active = [t for t in range(1, ids.shape[1]) if f_a[t, i] > 0]
    changes = []
    for sae, f, k, block in ((A, f_a, i, 1), (B, f_b, j, 2)):
        stream = streams[block].clone()
        for t in active:
            stream[0, t] -= f[t, k] * sae.W_dec[k]
        change = (MODEL.predict_from(ids, block, stream) - base)[0, active].double()
        changes.append((change - change.mean(dim=1, keepdim=True)).flatten())
    size = changes[0].norm() * changes[1].norm()
    return float(changes[0] @ changes[1] / size) if size > 1e-9 else 0.0


def test_every_agreement() -> None:
    matching = match(A, B)
    partners = {
        "folded": matching.permutation,
        "cosine": match(A, B, strategy="cosine").permutation,
        "none": np.full(24, -1),
    }
    chosen = sample(matching, matching.compared, 6, seed=0)
    found = causal_agreement(MODEL, DOCUMENTS, A, B, partners, chosen, tokens=30)
    assert {one.stratum for one in found} == set(range(6))
    assert len(found) == 18
    some = 0
    for one in found:
        if one.strategy == "none":
            assert (one.partner, one.agreement) == (-1, 0.0)
            continue
        expected = straight(one.feature, one.partner, one.document, 30)
        assert one.agreement == pytest.approx(expected, abs=2e-3)
        some += abs(expected) > 0.01
    assert some >= 4


def test_a_feature_agrees_with_itself() -> None:
    matching = match(A, A)
    found = causal_agreement(
        MODEL,
        DOCUMENTS,
        A,
        A,
        {"self": np.arange(24)},
        sample(matching, matching.compared, 5, seed=1),
        tokens=30,
    )
    assert [one.agreement for one in found] == pytest.approx([1.0] * 5)


def test_the_sample_is_stratified_by_cost_and_live() -> None:
    matching = match(A, B)
    strata = sample(matching, matching.compared, 4, seed=0)
    every = strata[strata >= 0]
    assert sorted(every) == sorted(np.flatnonzero(matching.compared))
    costs = [matching.cost[row[row >= 0]] for row in strata]
    for lower, upper in itertools.pairwise(costs):
        assert lower.max() <= upper.min()
    assert (sample(matching, matching.compared, 4, seed=0) == strata).all()
    assert (sample(matching, matching.compared, 4, seed=1) != strata).any()


def test_means_are_paired() -> None:
    matching = match(A, B)
    partners = {"folded": matching.permutation, "same": matching.permutation}
    found = causal_agreement(
        MODEL, DOCUMENTS, A, B, partners, sample(matching, matching.compared, 6, seed=0), tokens=30
    )
    measures = agreement_measures(found, seed=0)
    mine = [one.agreement for one in found if one.strategy == "folded"]
    value, low, high = interval(measures["folded"]["causal_agreement"])
    assert value == pytest.approx(np.mean(mine))
    assert low is not None
    assert high is not None
    assert low <= value <= high
    assert not measures["same"]["causal_agreement_minus_folded"].any()
