"""Where features are active, against a straight search through every document."""

from collections import Counter

import numpy as np
import pytest
import torch
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import WIDTH, tiny_model

from saematch.evaluation import interventions
from saematch.models import Corpus, Documents
from saematch.semantics.descriptions import describing as firing
from saematch.semantics.descriptions.describing import NONE, Examples, watch

MODEL = tiny_model()
A, B = (make_sae(24, WIDTH, seed, layer=layer) for layer, seed in ((1, 1), (2, 2)))
SAES = {"1": A, "2": B}


def documents_of(*texts: str, tokens: int = 30) -> Documents:
    return Documents.of(Corpus("mine", "a test", texts), MODEL, tokens, len(texts))


DOCUMENTS = documents_of(
    "The committee met twice.",
    "Bridges were counted; nobody had counted them before.",
    "a",
    "Rain fell on the harbour, and the boats stayed in.",
    "aaaaaaaaaaaa",
    "if x > 0: return x  # sign",
    "The committee met twice.",
)


def straight(sae, documents: Documents) -> list[np.ndarray]:
    """[tokens, d_sae] activations of each document, alone; BOS's and massive-activation tokens' set to
    zero."""
    found = []
    for ids in documents.token_ids:
        with torch.no_grad():
            streams = MODEL.capture(torch.tensor([ids]), [one.layer for one in SAES.values()])
            active = sae.encode(streams[sae.layer][0]).numpy().copy()
        active[0] = 0
        for one in streams.values():
            norms = one[0].double().norm(dim=1).numpy()
            median = np.sort(norms[1:])[(len(norms) - 2) // 2]
            active[norms > interventions.MASSIVE * median] = 0
        found.append(active)
    return found


def strongest(examples: Examples) -> np.ndarray:
    return examples.activations[..., firing.BEFORE]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("massive_tokens", [1.05, 10.0])
def test_examples_are_the_strongest_of_each_half(
    batch_tokens: int, count: int, massive_tokens: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interventions, "MASSIVE", massive_tokens)
    monkeypatch.setattr(firing, "BEFORE", 3)
    monkeypatch.setattr(firing, "AFTER", 2)
    found = watch(MODEL, DOCUMENTS, SAES, count, batch_tokens)
    for key, sae in SAES.items():
        active = straight(sae, DOCUMENTS)
        examples, _ = found[key]
        for feature in range(sae.d_sae):
            for half in (0, 1):
                best = sorted(
                    (
                        (-active[d][:, feature].max(), d)
                        for d in range(len(DOCUMENTS))
                        if d % 2 == half and active[d][:, feature].max() > 0
                    ),
                )[:count]
                values = [-value for value, _ in best]
                kept = examples.document[half, feature]
                assert (kept != NONE).sum() == len(best)
                np.testing.assert_allclose(
                    strongest(examples)[half, feature, : len(best)], values, rtol=1e-4, atol=1e-5
                )
                for rank in range(len(best)):
                    d, t = kept[rank], examples.position[half, feature, rank]
                    around = [
                        active[d][t + k, feature] if 0 <= t + k < len(active[d]) else 0
                        for k in range(-3, 3)
                    ]
                    np.testing.assert_allclose(
                        examples.activations[half, feature, rank], around, rtol=1e-3, atol=1e-4
                    )


@pytest.mark.parametrize("massive_tokens", [1.05, 10.0])
def test_statistics(massive_tokens: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interventions, "MASSIVE", massive_tokens)
    monkeypatch.setattr(firing, "WAITING_ENTRIES", 50)
    _, statistics = watch(MODEL, DOCUMENTS, SAES, batch_tokens=40)["1"]
    active = straight(A, DOCUMENTS)
    assert statistics.tokens + statistics.massive_tokens == DOCUMENTS.tokens
    assert (statistics.massive_tokens > 0) == (massive_tokens < 2)
    together = np.concatenate(active)
    assert statistics.activation_count.tolist() == (together > 0).sum(axis=0).tolist()
    np.testing.assert_allclose(statistics.total, together.sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics.greatest, together.max(axis=0), rtol=1e-4)
    for half in (None, 0, 1):
        top = statistics.top_tokens(100, half)
        for feature in range(A.d_sae):
            mass: Counter[int] = Counter()
            for d, (ids, values) in enumerate(zip(DOCUMENTS.token_ids, active, strict=True)):
                for token, value in zip(ids, values[:, feature], strict=True):
                    if value > 0 and half in (None, d % 2):
                        mass[token] += float(value)
            assert {token for token, _ in top.get(feature, [])} == set(mass)
            for token, share in top.get(feature, []):
                assert share == pytest.approx(mass[token] / mass.total(), rel=1e-3)
            shares = [share for _, share in top.get(feature, [])]
            assert shares == sorted(shares, reverse=True)


def test_token_sums_that_grow_too_many_keep_the_heaviest(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = watch(MODEL, DOCUMENTS, SAES)["1"][1].top_tokens(3)
    monkeypatch.setattr(firing, "TOKEN_ENTRIES", 10)
    monkeypatch.setattr(firing, "TOKENS_A_FEATURE", 8)
    cut = watch(MODEL, DOCUMENTS, SAES)["1"][1]
    assert len(cut.token_sums) <= 2 * 8 * A.d_sae
    first = {feature: tokens[0][0] for feature, tokens in whole.items()}
    assert {feature: tokens[0][0] for feature, tokens in cut.top_tokens(1).items()} == first


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4))
def test_batches_change_nothing(batch_tokens: int, count: int) -> None:
    one, _ = watch(MODEL, DOCUMENTS, SAES, count, batch_tokens=batch_tokens)["2"]
    other, _ = watch(MODEL, DOCUMENTS, SAES, count, batch_tokens=10_000)["2"]
    np.testing.assert_allclose(strongest(one), strongest(other), rtol=1e-3, atol=1e-5)


def test_equal_activations_keep_the_earlier_document() -> None:
    same = documents_of(*["The committee met twice."] * 7)
    examples, statistics = watch(MODEL, same, SAES, 2, batch_tokens=1)["1"]
    fired = statistics.activation_count > 0
    assert fired.any()
    assert (examples.document[0, fired] == [0, 2]).all()
    assert (examples.document[1, fired] == [1, 3]).all()
