"""Ablated pairs against a straight re-computation with hooks of torch, one ablation and one document at a
time."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from core_builders import make_sae
from tiny_models import WIDTH, tiny_model

from saematch import SAE, fold_thresholds, match
from saematch.evaluation.ablation import (
    AblatedPair,
    ablate_pairs,
    causal_measures,
    causal_values,
    sample,
)
from saematch.evaluation.interventions import Term, strongest
from saematch.models import Corpus, Documents
from saematch.stats import interval

MODEL = tiny_model()
A, B = (make_sae(24, WIDTH, seed, layer=layer) for layer, seed in ((1, 1), (2, 2)))
TEXTS = ("The committee met.", "Bridges were counted twice; nobody had counted them before.")
DOCUMENTS = Documents.of(Corpus("mine", "a test", TEXTS), MODEL, 40, 2)


def passed(ids: torch.Tensor, block: int, edit: Callable[[torch.Tensor], None]) -> dict[str, Any]:
    """The streams after blocks 1 and 2 and the logits; `edit` changes the output of a block in place."""
    layers = MODEL.model.model.layers
    found: dict[str, Any] = {}

    def hook(number: int) -> Callable[..., None]:
        def note(_module: Any, _inputs: Any, output: Any) -> None:
            stream = output if isinstance(output, torch.Tensor) else output[0]
            if number == block:
                edit(stream)
            found[str(number)] = stream[0].clone()

        return note

    handles = [layers[number].register_forward_hook(hook(number)) for number in (1, 2)]
    with torch.no_grad():
        found["logits"] = MODEL.model(ids, use_cache=False).logits[0].double()
    for handle in handles:
        handle.remove()
    return found


def straight(i: int, j: int, weight: float, document: int, tokens: int) -> tuple[float, ...]:
    """Agreement, deactivation, substitution."""
    ids = torch.tensor([DOCUMENTS.token_ids[document][:tokens]])
    base = passed(ids, 1, lambda stream: None)
    f_a, f_b = A.encode(base["1"]), B.encode(base["2"])
    every = range(1, ids.shape[1])
    active = [t for t in every if f_a[t, i] > 0]
    of_j = [t for t in every if f_b[t, j] > 0]

    def adding(block: int, row: torch.Tensor, amounts: Mapping[int, float]) -> dict[str, Any]:
        def edit(stream: torch.Tensor) -> None:
            for t, amount in amounts.items():
                stream[0, t] += amount * row

        return passed(ids, block, edit)

    own = adding(1, A.W_dec[i], {t: -float(f_a[t, i]) for t in active})
    theirs = adding(2, B.W_dec[j], {t: -float(f_b[t, j]) for t in active})
    changes = []
    for edited in (own, theirs):
        change = (edited["logits"] - base["logits"])[active]
        changes.append((change - change.mean(dim=1, keepdim=True)).flatten())
    size = changes[0].norm() * changes[1].norm()
    agreement = float(changes[0] @ changes[1] / size) if size > 1e-9 else 0.0

    after = B.encode(own["2"])
    drops = [1 - float(after[t, j] / f_b[t, j]) for t in active if f_b[t, j] > 0]
    deactivation = sum(drops) / len(drops) if drops else 0.0

    taken = adding(2, B.W_dec[j], {t: -float(f_b[t, j]) for t in of_j})
    put = adding(2, B.W_dec[j], {t: float(weight * f_a[t, i] - f_b[t, j]) for t in of_j})
    kl = [
        sum(
            torch.nn.functional.kl_div(
                edited["logits"][t].log_softmax(0), base["logits"][t].softmax(0), reduction="sum"
            )
            for t in of_j
        )
        for edited in (taken, put)
    ]
    substitution = max(-1.0, 1 - float(kl[1] / kl[0])) if of_j else 0.0
    return agreement, deactivation, substitution


def stand_in(permutation: np.ndarray, sae: SAE, weight: float = 1.0) -> Term:
    factor = torch.full((len(permutation),), weight)
    return Term(sae.W_dec, torch.tensor(permutation), factor)


def test_every_pair_that_is_ablated() -> None:
    matching = match(A, B)
    a, b = fold_thresholds(A), fold_thresholds(B)
    several = match(A, B, strategy="transport:2").correspondence
    maps = {
        "folded": strongest(a, b, matching.correspondence),
        "transport_2": strongest(a, b, several),
        "half": stand_in(match(A, B, strategy="cosine").permutation, B, 0.5),
        "none": stand_in(np.full(24, -1), B),
    }
    partner, weight = next(several.ranked())
    of_b = b.scale[torch.tensor(partner).clamp(min=0)]
    expected = torch.tensor(weight).float() * of_b / a.scale
    torch.testing.assert_close(maps["transport_2"].factor, expected)
    chosen = sample(matching, matching.compared, 6, seed=0)
    found = ablate_pairs(MODEL, DOCUMENTS, A, B, maps, chosen, tokens=30)
    assert {one.stratum for one in found} == set(range(6))
    assert len(found) == 24
    some = np.zeros(3, dtype=int)
    for one in found:
        got = one.agreement, one.deactivation, one.substitution
        if one.strategy == "none":
            assert (one.partner, one.cosine, *got) == (-1, None, 0.0, 0.0, 0.0)
            continue
        of_map = float(maps[one.strategy].factor[one.feature])
        expected = straight(one.feature, one.partner, of_map, one.document, 30)
        assert got == pytest.approx(expected, abs=2e-3)
        some += np.abs(expected) > 0.01
        rows = A.W_dec[one.feature], B.W_dec[one.partner]
        assert one.cosine == pytest.approx(float(torch.cosine_similarity(*rows, dim=0)), abs=1e-6)
        assert one.joint_tokens <= min(one.tokens, one.partner_tokens)
    assert (some >= 4).all()


def test_a_feature_agrees_with_itself_and_stands_in_for_itself() -> None:
    matching = match(A, A)
    maps = {"self": stand_in(np.arange(24), A), "nothing": stand_in(np.arange(24), A, 0.0)}
    chosen = sample(matching, matching.compared, 5, seed=1)
    found = ablate_pairs(MODEL, DOCUMENTS, A, A, maps, chosen, tokens=30)
    mine = [one for one in found if one.strategy == "self"]
    assert [one.agreement for one in mine] == pytest.approx([1.0] * 5)
    assert [one.substitution for one in mine] == pytest.approx([1.0] * 5)
    # A map that hands nothing on is as good as taking the partner off.
    assert [one.substitution for one in found if one.strategy == "nothing"] == pytest.approx(
        [0.0] * 5
    )
    # On one layer nothing runs between: what falls silent follows from the encoder.
    for one in mine:
        ids = torch.tensor([DOCUMENTS.token_ids[one.document][:30]])
        x = MODEL.capture(ids, [1])[1][0, 1:]
        f = A.encode(x)[:, one.feature]
        after = A.encode(x - f[:, None] * A.W_dec[one.feature])[:, one.feature]
        drop = 1 - after[f > 0] / f[f > 0]
        assert one.deactivation == pytest.approx(float(drop.mean()), abs=1e-4)


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
    term = stand_in(matching.permutation, B)
    chosen = sample(matching, matching.compared, 6, seed=0)
    maps = {"folded": term, "same": term}
    found = ablate_pairs(MODEL, DOCUMENTS, A, B, maps, chosen, tokens=30)
    measures = causal_measures(found, seed=0)
    columns = {"causal_agreement": "agreement"} | {n: n for n in ("deactivation", "substitution")}
    for measure, column in columns.items():
        mine = [getattr(one, column) for one in found if one.strategy == "folded"]
        value, low, high = interval(measures["folded"][measure])
        assert value == pytest.approx(np.mean(mine))
        assert low is not None
        assert high is not None
        assert low <= value <= high
        assert not measures["same"][f"{measure}_minus_folded"].any()


def pair(feature: int, cosine: float | None, substitution: float) -> AblatedPair:
    return AblatedPair(feature, 0, "folded", 0, 0, 1, 1, 1, cosine, 0.0, 0.0, substitution)


def test_the_area_is_under_the_means_of_the_most_similar() -> None:
    found = [pair(0, 0.2, 0.1), pair(1, 0.9, 0.8), pair(2, None, 0.0), pair(3, 0.5, -0.4)]
    area = causal_values(found, seed=0)["folded"]["ausqc"]
    # In order: 0.8, -0.4, 0.1, 0.0.
    assert area[0] == pytest.approx(np.mean([0.8, 0.4 / 2, 0.5 / 3, 0.5 / 4]))
    # A draw of one pair alone is that pair.
    few = causal_values([pair(0, 0.2, 0.1), pair(1, 0.9, 0.8)], seed=0)["folded"]["ausqc"]
    assert {round(value, 9) for value in few} == {0.1, 0.8, round((0.8 + 0.45) / 2, 9)}
