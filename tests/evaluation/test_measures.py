"""Every measure and intervention against a straight re-computation in float64 on a tiny model."""

import re

import numpy as np
import pytest
import torch
from core_builders import make_sae, relabelled
from tiny_models import WIDTH, tiny_model

from saematch import SAE, fold_thresholds, match
from saematch.evaluation import fitting
from saematch.evaluation.collecting import Collected, PairInputs, collect, conditions_of
from saematch.evaluation.fitting import RidgeSums, fit
from saematch.evaluation.interventions import encode_sparse, typical_rows
from saematch.evaluation.measuring import CorpusMeasures
from saematch.matching.correspondence import UNMATCHED
from saematch.matching.strategies import random_permutation
from saematch.models import Corpus, Documents
from saematch.store.schema import DATA_MEASURES

TEXTS = (
    "The committee met in the town hall.",
    "Bridges were counted twice; nobody had counted them before.",
    "def area(w, h): return w * h",
    "A short one.",
    "Numbers follow: 1 2 3 5 8 13 21.",
)
MODEL = tiny_model("llama")


def sae(layer: int, seed: int, activation="jumprelu") -> SAE:
    return make_sae(24, WIDTH, seed, activation, layer=layer)


A, B = sae(1, 1), sae(2, 2)


def documents(texts=TEXTS, tokens: int = 40) -> Documents:
    return Documents.of(Corpus("mine", "a test", tuple(texts)), MODEL, tokens, len(texts))


def collected(a: SAE, b: SAE, batch_tokens: int = 64, **settings) -> tuple[Collected, PairInputs]:
    folded = [fold_thresholds(one, None if one.threshold is not None else "none") for one in (a, b)]
    strategies = ("folded", "unfolded", "naive", "cosine")
    matchings = {s: match(*folded, strategy=s) for s in strategies}
    inputs = PairInputs(*folded, "all", matchings)
    conditions = {("a", "b"): conditions_of(inputs, drawn=["random"], draws=2, seed=5, **settings)}
    parts = collect(MODEL, documents(), {"a": a, "b": b}, conditions, batch_tokens)
    return Collected.joined(list(parts)), inputs


def measured(found: Collected) -> dict[tuple[str, str], tuple]:
    measures = CorpusMeasures("mine", found, {"a": 24, "b": 24}, seed=0)
    return {(row[3], row[5]): row[6:] for row in measures.rows()}


@pytest.fixture(scope="module")
def whole() -> tuple[Collected, PairInputs]:
    return collected(A, B, quantiles=(0.0, 0.3, 1.0))


def straight(decode, layer: int = 2) -> dict[str, float]:
    """EV and ΔL of `decode(x_a, x_b)`, document by document in float64."""
    model = MODEL.model.double()
    streams, errors, losses, base = [], [], [], []
    try:
        for ids in documents().token_ids:
            token_ids = torch.tensor([ids])
            captured, logits = MODEL.capture_and_predict(token_ids, [1, 2])
            x_a, x_b = captured[1][0], captured[2][0]
            replaced = x_b.clone()
            replaced[1:] = decode(x_a[1:], x_b[1:])
            after = MODEL.predict_from(token_ids, layer, replaced[None])
            streams.append(x_b[1:])
            errors.append(replaced[1:] - x_b[1:])
            for one, into in ((logits, base), (after, losses)):
                log_p = one[0].log_softmax(dim=1)
                into += [-float(log_p[t, ids[t + 1]]) for t in range(1, len(ids) - 1)]
    finally:
        model.float()
    x, e = torch.cat(streams), torch.cat(errors)
    fvu = float(e.var(dim=0, correction=0).sum() / x.var(dim=0, correction=0).sum())
    return {
        "explained_variance": 1 - fvu,
        "fvu": fvu,
        "delta_loss": float(np.mean(losses) - np.mean(base)),
    }


def encode(one: SAE, x: torch.Tensor) -> torch.Tensor:
    """A JumpReLU encoder in float64."""
    pre = x @ one.W_enc.double() + one.b_enc.double()
    assert one.threshold is not None
    return torch.where(pre > one.threshold.double(), pre, 0.0).clamp(min=0)


def permuted(x_a: torch.Tensor, p: np.ndarray, folded: bool) -> torch.Tensor:
    assert A.threshold is not None
    assert B.threshold is not None
    s_a, s_b = (A.threshold.double(), B.threshold.double()) if folded else (torch.ones(24),) * 2
    f_a = encode(A, x_a) / s_a
    f_b = torch.zeros(len(f_a), 24, dtype=torch.float64)
    matched = torch.from_numpy(np.flatnonzero(p != UNMATCHED))
    f_b.index_add_(1, torch.from_numpy(p)[matched], f_a[:, matched])
    return (f_b * s_b) @ B.W_dec.double() + B.b_dec.double()


def quantile_of(inputs: PairInputs, q: float):
    m = inputs.matchings["folded"]
    chosen = np.zeros(24, dtype=bool)
    order = sorted(range(24), key=lambda i: (m.mse_decoder[i], i))
    chosen[order[: int(np.ceil(q * 24))]] = True
    p = np.where(chosen, m.permutation, UNMATCHED)

    def decode(x_a: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        own = encode(A, x_a) * torch.from_numpy(~chosen) @ A.W_dec.double()
        return permuted(x_a, p, True) + own

    return decode


def interventions(inputs: PairInputs):
    p = {name: m.permutation for name, m in inputs.matchings.items()}
    yield "layer_drop", lambda x_a, _: x_a
    yield (
        "reconstruct_current",
        lambda _, x: encode(B, x) @ B.W_dec.double() + B.b_dec.double(),
    )
    yield (
        "reconstruct_previous",
        lambda x, _: encode(A, x) @ A.W_dec.double() + A.b_dec.double(),
    )
    for name in ("folded", "naive", "cosine"):
        yield name, lambda x, _, name=name: permuted(x, p[name], True)
    yield "unfolded", lambda x, _: permuted(x, p["unfolded"], False)
    yield "unfolded_refolded", lambda x, _: permuted(x, p["unfolded"], True)
    for q in (0.0, 0.3, 1.0):
        yield f"quantile({q:g})", quantile_of(inputs, q)


def test_every_intervention(whole) -> None:
    found, inputs = whole
    values = measured(found)
    for name, decode in interventions(inputs):
        for measure, expected in straight(decode).items():
            got = values[name, measure][0]
            assert got == pytest.approx(expected, rel=2e-4, abs=2e-4), (name, measure)


def activations_of_both() -> tuple[torch.Tensor, torch.Tensor]:
    """[tokens, 24] bool, of A and B over all documents."""
    fired: tuple[list, list] = ([], [])
    for ids in documents().token_ids:
        captured = MODEL.capture(torch.tensor([ids]), [1, 2])
        for one, block, into in ((A, 1, fired[0]), (B, 2, fired[1])):
            into.append(one.encode(captured[block][0, 1:]) > 0)
    return torch.cat(fired[0]), torch.cat(fired[1])


@pytest.mark.parametrize("thresholds", [True, False])
def test_f1_of_predicted_activations(thresholds: bool) -> None:
    """Of a map of several partners, features of B decoded at more than their threshold, or than 0."""
    a, b = A, B if thresholds else sae(2, 2, "relu")
    folded = [fold_thresholds(one, None if thresholds else "none") for one in (a, b)]
    matchings = {s: match(*folded, matcher=s) for s in ("folded", "unfolded", "transport:3")}
    inputs = PairInputs(*folded, "all", matchings)
    conditions = {("a", "b"): conditions_of(inputs)}
    found = Collected.joined(list(collect(MODEL, documents(), {"a": a, "b": b}, conditions, 64)))
    values = measured(found)
    said = {name: [0, 0, 0] for name in matchings}
    for ids in documents().token_ids:
        captured = MODEL.capture(torch.tensor([ids]), [1, 2])
        f_a, f_b = (one.encode(captured[layer][0, 1:]).double() for one, layer in ((a, 1), (b, 2)))
        for name, matching in matchings.items():
            ends = [1.0, 1.0] if name == "unfolded" else [one.scale.double() for one in folded]
            decoded = (f_a / ends[0]) @ torch.from_numpy(matching.weights.toarray())
            least = b.threshold.double() / ends[1] if b.threshold is not None else 0.0
            active = decoded > least * (1 + 1e-6)
            for place, some in enumerate((active & (f_b > 0), active, f_b > 0)):
                said[name][place] += int(some.sum())
    for name, (right, predicted, there) in said.items():
        assert right > 0
        assert values[name, "f1"][0] == pytest.approx(2 * right / (predicted + there)), name


@pytest.mark.parametrize("strategy", ["folded", "cosine", "naive"])
def test_every_measure_of_matching(whole, strategy: str) -> None:
    found, inputs = whole
    p = inputs.matchings[strategy].permutation
    a, b = (one.double().numpy() for one in activations_of_both())
    n = len(a)
    joint = np.array([(a[:, i] * b[:, p[i]]).sum() for i in range(24)])
    count_a, count_b = a.sum(axis=0), b.sum(axis=0)[p]
    ever = count_a > 0
    phi = [
        np.nan_to_num(np.corrcoef(a[:, i], b[:, p[i]])[0, 1]) if b[:, p[i]].std() else 0.0
        for i in np.flatnonzero(ever)
        if a[:, i].std()
    ]
    chance = (count_a * count_b / n).sum() / count_a.sum()
    expected = {
        "matching_score": joint.sum() / count_a.sum(),
        "matching_score_reverse": joint.sum() / count_b.sum(),
        "jaccard": joint.sum() / (count_a + count_b - joint).sum(),
        "matching_score_macro": (joint[ever] / count_a[ever]).mean(),
        "chance": chance,
        "lift": joint.sum() / count_a.sum() / chance,
        "phi": np.sum(phi) / ever.sum(),
    }
    values = measured(found)
    for name, value in expected.items():
        assert values[strategy, name][0] == pytest.approx(value), name
    assert values["", "l0"][0] in (pytest.approx(a.sum() / n), pytest.approx(b.sum() / n))


def test_every_measure_says_its_unit_and_meaning(whole) -> None:
    said = re.compile("|".join(re.sub(r"\{\w+\}", ".+", name) for name in DATA_MEASURES))
    names = {name for _, name in measured(whole[0])}
    assert len(names) > 20
    assert [name for name in names if not said.fullmatch(name)] == []


def test_random_is_the_mean_least_and_greatest_of_its_draws(whole) -> None:
    a, b = (one.double().numpy() for one in activations_of_both())
    scores = []
    for seed in (5, 6):
        p = random_permutation(24, 24, seed)
        scores.append(sum((a[:, i] * b[:, p[i]]).sum() for i in range(24)) / a.sum())
    expected = np.mean(scores), min(scores), max(scores)
    assert measured(whole[0])["random", "matching_score"][:3] == pytest.approx(expected)


def test_the_batches_do_not_matter(whole) -> None:
    one_by_one = measured(collected(A, B, batch_tokens=1, quantiles=(0.0, 0.3, 1.0))[0])
    for key, row in measured(whole[0]).items():
        assert one_by_one[key][0] == pytest.approx(row[0], rel=1e-4, abs=1e-4, nan_ok=True), key


def test_intervals_bootstrap_documents(whole) -> None:
    found, _ = whole
    rows = found.layers["b"]
    active = np.array([row["counts"].sum() for row in rows])
    tokens = np.array([row["tokens"] for row in rows])
    generator = np.random.default_rng(7)
    drawn = generator.integers(0, len(rows), (4000, len(rows)))
    values = active[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    measures = CorpusMeasures("mine", found, {"a": 24, "b": 24}, seed=0)
    row = next(r for r in measures.rows() if r[:2] == ("b", "b") and r[5] == "l0")
    assert row[7:9] == pytest.approx(np.quantile(values, (0.025, 0.975)), rel=0.02)
    assert row[7] <= row[6] <= row[8]


def test_differences_are_paired(whole) -> None:
    values = measured(whole[0])
    difference = values["unfolded", "explained_variance_minus_folded"]
    assert difference[0] == pytest.approx(
        values["unfolded", "explained_variance"][0] - values["folded", "explained_variance"][0]
    )
    assert ("folded", "explained_variance_minus_folded") not in values


# Identities


def perfect(layer: int) -> SAE:
    """x̂ = x: a feature for each direction and sign."""
    eye = torch.eye(WIDTH)
    both = torch.cat([eye, -eye])
    zeros = torch.zeros(2 * WIDTH)
    return SAE(both.T.contiguous(), zeros, both, torch.zeros(WIDTH), "relu", layer=layer)


def test_a_perfect_sae_changes_nothing() -> None:
    a, b = perfect(1), perfect(2)
    folded = [fold_thresholds(one, "none") for one in (a, b)]
    inputs = PairInputs(*folded, "all", {"folded": match(*folded)})
    conditions = {("a", "b"): conditions_of(inputs)}
    found = Collected.joined(list(collect(MODEL, documents(), {"a": a, "b": b}, conditions, 64)))
    values = {
        (row[3], row[5]): row[6]
        for row in CorpusMeasures("mine", found, {"a": 32, "b": 32}, 0).rows()
    }
    assert values["reconstruct_current", "explained_variance"] == pytest.approx(1)
    assert values["reconstruct_current", "delta_loss"] == pytest.approx(0, abs=1e-5)
    # The same features at both layers, so encode-permute-decode drops the layer and no more.
    for measure in ("explained_variance", "delta_loss"):
        assert values["folded", measure] == pytest.approx(values["layer_drop", measure], abs=1e-5)


def test_relabelling_features_changes_nothing(whole) -> None:
    orders = [torch.randperm(24, generator=torch.Generator().manual_seed(n)) for n in (3, 4)]
    found, _ = collected(relabelled(A, orders[0]), relabelled(B, orders[1]))
    values = measured(whole[0])
    for (strategy, measure), row in measured(found).items():
        if strategy in ("folded", "cosine", "unfolded", "reconstruct_previous"):
            assert row[0] == pytest.approx(
                values[strategy, measure][0], rel=1e-4, abs=1e-5, nan_ok=True
            )


def test_quantile_ends(whole) -> None:
    values = measured(whole[0])
    for measure in ("explained_variance", "delta_loss"):
        assert values["quantile(1)", measure][0] == pytest.approx(values["folded", measure][0])
    # quantile(0) is reconstruct_previous but for the bias, which no variance of the error sees.
    assert values["quantile(0)", "explained_variance"][0] == pytest.approx(
        values["reconstruct_previous", "explained_variance"][0]
    )


def test_a_planted_permutation_has_matching_score_one() -> None:
    """The next layer's SAE reads the same stream (block 2 hands it on) in another order."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(9))
    planted = relabelled(A, order)
    conditions = {("a", "b"): conditions_of(planted_inputs(planted))}
    found = Collected.joined(
        list(collect(MODEL, documents(), {"a": A, "b": planted}, conditions, 64))
    )
    values = measured(found)
    assert values["folded", "matching_score"][0] == 1
    assert values["folded", "phi"][0] == pytest.approx(1)
    assert values["folded", "explained_variance"][0] == pytest.approx(
        values["reconstruct_current", "explained_variance"][0], abs=1e-5
    )
    assert ("layer_drop", "fvu") not in values  # one layer: there is no block to skip


def planted_inputs(planted: SAE) -> PairInputs:
    folded = [fold_thresholds(one) for one in (A, planted)]
    m = match(*folded)
    return PairInputs(*folded, "all", {"folded": m})


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_other_activations_encode_the_same(activation: str) -> None:
    one = sae(1, 3, activation)
    x = torch.randn(50, WIDTH)
    torch.testing.assert_close(encode_sparse(one, x).dense(), one.encode(x))


# Fitting


def test_ridge_recovers_a_linear_map() -> None:
    x = torch.randn(4000, 6) * 3 + 1
    weight, bias = torch.randn(6, 6), torch.randn(6)
    sums = RidgeSums(6, 6, torch.device("cpu"))
    for part in x.split(700):
        sums.add(part, part @ weight + bias)
    found = sums.solve()
    torch.testing.assert_close(found.weight, weight, rtol=0.02, atol=0.02)
    explained = x @ found.weight + found.bias
    torch.testing.assert_close(explained, x @ weight + bias, rtol=0.1, atol=0.3)


def test_pairs_whose_sums_do_not_fit_together_are_fitted_in_passes(monkeypatch) -> None:
    """Sums of one pair of 16,384 features take 1 GiB, and a suite has dozens of pairs."""
    saes = {str(layer): fold_thresholds(sae(layer, layer)) for layer in range(4)}
    pairs = [("0", "1"), ("1", "2"), ("2", "3")]
    texts = [documents(tuple(f"{text} {n}" for n in range(4) for text in TEXTS))]
    calls = []

    def fitted():
        calls.clear()
        ridges, maps, notes = fit(
            MODEL, texts, saes, pairs, 64, strategies=["correlation"], progress=calls.append
        )
        assert not notes
        return ridges, maps, sum(calls)

    ridges, maps, read = fitted()
    assert read == len(texts[0])
    # Room for one pair: 24 × 24 float32 and two 16 × 16 float64.
    monkeypatch.setattr(fitting, "SUMS_BYTES", 7000)
    ridges_again, maps_again, read = fitted()
    assert read == 3 * len(texts[0])
    for pair in pairs:
        assert torch.equal(ridges[pair].weight, ridges_again[pair].weight)
        found, again = (some[pair, "correlation"].permutation for some in (maps, maps_again))
        assert found.tolist() == again.tolist()


def test_typical_rows_are_judged_within_their_document() -> None:
    x = torch.ones(6, 2)
    x[2] *= 11
    x[3:] *= 100
    typical = typical_rows(x, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert typical.tolist() == [True, True, False, True, True, True]


def test_the_public_function_gives_the_same_numbers(whole, monkeypatch) -> None:
    import saematch
    from saematch.evaluation import evaluate as module

    corpus = Corpus("mine", "a test", (*TEXTS, *TEXTS), notes=("mine: left out line 3",))
    monkeypatch.setattr(module, "load_corpus", lambda *_: corpus)
    found = saematch.evaluate(
        A, B, model=MODEL, documents=len(TEXTS), tokens=40, seed=0,
        strategies=("folded", "unfolded", "cosine", "naive", "random", "correlation", "ridge"),
    )  # fmt: skip
    values = measured(whole[0])
    rows = found[found["strategy"].isin(["folded", "unfolded", "cosine", "layer_drop"])]
    assert len(rows) > 60
    for row in rows.to_dict("records"):
        expected = values[row["strategy"], row["measure"]][0]
        assert row["value"] == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True)
    assert {"correlation"} <= set(found["strategy"])
    assert "mine: left out line 3" in found.attrs["notes"]
    with pytest.raises(saematch.UsageError, match="folded with them, got cosine"):
        saematch.evaluate(A, B, model=MODEL, strategies=("cosine",))
