"""The canonical SAE, folding, and which features count as degenerate or dead."""

import dataclasses

import pytest
import torch
from core_builders import make_sae, residual_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import SAE, FoldedSAE, InputError, UsageError, fold_thresholds
from saematch.sae import Activation, Firing
from saematch.types import ScaleKind

KINDS: list[tuple[Activation, ScaleKind]] = [
    (activation, scale)
    for activation in ("jumprelu", "relu", "topk")
    for scale in ("threshold", "decoder_norm", "activation", "none")
    if activation == "jumprelu" or scale != "threshold"
]


def fold(sae: SAE, scale: ScaleKind, seed: int = 5) -> FoldedSAE:
    mean = torch.rand(sae.d_sae, generator=torch.Generator().manual_seed(seed)) * 3 + 0.1
    return fold_thresholds(sae, scale, mean_activation=mean if scale == "activation" else None)


def reconstruct_from_formula(folded: FoldedSAE, x: torch.Tensor) -> torch.Tensor:
    """What the folded weights say, in float64 and by the definition alone."""
    pre = x.double() @ folded.W_enc.double() + folded.b_enc.double()
    if folded.threshold is not None:
        f = torch.where(pre > folded.threshold.double(), pre, 0.0).clamp(min=0)
    elif folded.sae.k is None:
        f = pre.clamp(min=0)
    else:
        unscaled = pre * folded.scale.double()
        kept = unscaled.topk(folded.sae.k, dim=-1).indices
        f = torch.zeros_like(pre).scatter(-1, kept, pre.gather(-1, kept)).clamp(min=0)
    return f @ folded.W_dec.double() + folded.b_dec.double()


@pytest.mark.parametrize(("activation", "scale"), KINDS)
@settings(max_examples=15, deadline=None)
@given(d_sae=st.integers(1, 20), d_model=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_folding_changes_no_reconstruction(
    activation: Activation, scale: ScaleKind, d_sae: int, d_model: int, seed: int
) -> None:
    sae = make_sae(d_sae, d_model, seed, activation, k=min(3, d_sae))
    folded = fold(sae, scale, seed)
    x = residual_stream(16, d_model, seed + 1)
    torch.testing.assert_close(folded.reconstruct(x), sae.reconstruct(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.encode(x) * folded.scale, sae.encode(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("activation", "scale"), KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_the_folded_weights_say_the_same(
    activation: Activation, scale: ScaleKind, seed: int
) -> None:
    sae = make_sae(24, 8, seed, activation)
    folded = fold(sae, scale)
    x = residual_stream(32, 8)
    expected = sae.reconstruct(x).double()
    assert (sae.encode(x) > 0).any()
    torch.testing.assert_close(reconstruct_from_formula(folded, x), expected, rtol=1e-4, atol=1e-4)


def test_the_folded_weights_are_the_formula() -> None:
    sae = make_sae()
    folded = fold_thresholds(sae)
    assert sae.threshold is not None
    assert folded.threshold is not None
    assert folded.scale_kind == "threshold"
    for j, s in enumerate(sae.threshold.tolist()):
        torch.testing.assert_close(folded.W_enc[:, j], sae.W_enc[:, j] / s)
        torch.testing.assert_close(folded.b_enc[j], sae.b_enc[j] / s)
        torch.testing.assert_close(folded.W_dec[j], sae.W_dec[j] * s)
        assert float(folded.threshold[j]) == 1
    assert torch.equal(folded.b_dec, sae.b_dec)


def test_scales_are_what_their_names_say() -> None:
    sae = make_sae()
    mean = torch.arange(1.0, sae.d_sae + 1)
    by_norm = fold_thresholds(sae, "decoder_norm")
    torch.testing.assert_close(by_norm.W_dec.norm(dim=1), torch.ones(sae.d_sae))
    assert torch.equal(fold_thresholds(sae, "activation", mean).scale, mean)
    assert torch.equal(fold_thresholds(sae, "none").scale, torch.ones(sae.d_sae))
    assert torch.equal(fold_thresholds(sae, "none").W_dec, sae.W_dec)


def test_topk_selects_on_unscaled_pre_activations() -> None:
    """Divided by the scale, the second feature would win; it must not."""
    sae = SAE(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), "topk", k=1)
    folded = fold_thresholds(sae, "activation", torch.tensor([100.0, 0.1]))
    x = torch.tensor([[3.0, 2.0]])
    assert folded.encode(x)[0].tolist() == pytest.approx([0.03, 0])
    assert folded.reconstruct(x)[0].tolist() == pytest.approx([3, 0])


def test_topk_keeps_k_after_relu() -> None:
    sae = SAE(torch.eye(4), torch.zeros(4), torch.eye(4), torch.zeros(4), "topk", k=2)
    x = torch.tensor([[3.0, 1.0, 2.0, -5.0], [-1.0, -2.0, 4.0, -3.0]])
    assert sae.encode(x).tolist() == [[3, 0, 2, 0], [0, 0, 4, 0]]


def test_jumprelu_is_strict_at_its_threshold() -> None:
    sae = SAE(
        torch.eye(3), torch.zeros(3), torch.eye(3), torch.zeros(3), "jumprelu", torch.ones(3) * 2
    )
    assert sae.encode(torch.tensor([1.9, 2.0, 2.1])).tolist() == pytest.approx([0, 0, 2.1])


def test_a_negative_threshold_lets_no_negative_activation_out() -> None:
    sae = dataclasses.replace(make_sae(), threshold=torch.full((12,), -5.0))
    activations = sae.encode(residual_stream(200, 6))
    assert (activations >= 0).all()
    assert (activations > 0).any()


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_a_threshold_that_cannot_be_a_scale_names_the_feature(value: float) -> None:
    threshold = torch.ones(12)
    threshold[[7, 9]] = value
    sae = dataclasses.replace(make_sae(), threshold=threshold)
    with pytest.raises(InputError, match=r"feature 7 and 2 such of 12") as caught:
        fold_thresholds(sae)
    assert "decoder_norm" in str(caught.value)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_an_sae_made_in_memory_holds_only_numbers_that_float32_holds(
    name: str, value: float
) -> None:
    tensor = getattr(make_sae(), name).double().clone()
    tensor.view(-1)[-1] = value
    with pytest.raises(InputError, match=rf"'{name}' of an SAE in memory"):
        dataclasses.replace(make_sae(), **{name: tensor})
    for bad in (tensor.to(torch.float8_e4m3fn), tensor.to("meta")):
        with pytest.raises(InputError, match=rf"'?{name}"):
            dataclasses.replace(make_sae(), **{name: bad})


@pytest.mark.parametrize("k", [0, -1, 13])
def test_k_lies_between_one_and_the_number_of_features(k: int) -> None:
    with pytest.raises(InputError, match="k between 1 and 12"):
        dataclasses.replace(make_sae(activation="topk"), k=k)


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_without_thresholds_a_scale_must_be_named(activation: Activation) -> None:
    sae = make_sae(activation=activation)
    with pytest.raises(UsageError, match="decoder_norm, activation or none"):
        fold_thresholds(sae)
    with pytest.raises(UsageError, match="decoder_norm, activation or none"):
        fold_thresholds(sae, "threshold")


def test_scale_activation_needs_mean_activations_of_the_right_length() -> None:
    with pytest.raises(UsageError, match="mean_activation"):
        fold_thresholds(make_sae(), "activation")
    with pytest.raises(UsageError, match=r"\[12\]"):
        fold_thresholds(make_sae(), "activation", torch.ones(11))
    with pytest.raises(InputError, match="feature 0"):
        fold_thresholds(make_sae(), "activation", torch.zeros(12))


def test_uniform_says_that_all_scales_are_equal() -> None:
    one = dataclasses.replace(make_sae(), threshold=torch.full((12,), 0.7))
    assert fold_thresholds(one).uniform
    assert fold_thresholds(one, "none").uniform
    assert not fold_thresholds(make_sae()).uniform
    assert not fold_thresholds(one, "decoder_norm").uniform


def test_a_zero_decoder_row_folds_by_its_norm_without_nan() -> None:
    sae = make_sae()
    sae.W_dec[3] = 0
    folded = fold_thresholds(sae, "decoder_norm")
    assert torch.isfinite(folded.W_enc).all()
    assert (folded.W_dec[3] == 0).all()


def test_degenerate_below_a_twentieth_of_the_median_threshold() -> None:
    threshold = torch.full((12,), 2.0)
    threshold[1], threshold[2], threshold[3], threshold[4] = 0.0999, 0.1001, 0.0, -1.0
    sae = dataclasses.replace(make_sae(), threshold=threshold)
    expected = ["live"] * 12
    for feature in (1, 3, 4):
        expected[feature] = "degenerate"
    assert list(sae.status) == expected


def test_a_threshold_at_exactly_the_share_is_degenerate() -> None:
    threshold = torch.full((5,), 1.0, dtype=torch.float64)
    threshold[2] = 0.05
    sae = dataclasses.replace(make_sae(5), threshold=threshold)
    assert list(sae.status) == ["live", "live", "degenerate", "live", "live"]


def test_the_median_of_an_even_number_lies_between_the_two() -> None:
    """The median is 0.53; torch.median says 0.06, of which 0.02 is more than a twentieth."""
    threshold = torch.tensor([0.02, 0.06, 1.0, 3.0])
    sae = dataclasses.replace(make_sae(4), threshold=threshold)
    assert list(sae.status) == ["degenerate", "live", "live", "live"]


@pytest.mark.parametrize("activation", ["jumprelu", "relu", "topk"])
def test_zero_rows_and_columns_are_degenerate(activation: Activation) -> None:
    sae = make_sae(activation=activation)
    sae.W_dec[2] = 0
    sae.W_enc[:, 5] = 0
    assert [j for j, s in enumerate(sae.status) if s == "degenerate"] == [2, 5]


def test_dead_from_firing_and_degenerate_wins() -> None:
    counts = torch.ones(12, dtype=torch.int64)
    counts[[2, 4]] = 0
    sae = make_sae(firing=Firing(counts, tokens=1000, corpus="made up"))
    sae.W_dec[2] = 0
    assert sae.status[2] == "degenerate"
    assert sae.status[4] == "dead"
    assert sae.status.count("live") == 10
    assert "dead" not in make_sae().status


def test_key_is_unique_within_a_suite() -> None:
    assert make_sae(layer=3).key == "3"
    assert make_sae(layer=3, name="width_16k/average_l0_82").key == "3.width_16k_average_l0_82"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), log_low=st.floats(-4, 0), log_high=st.floats(0, 4))
def test_rescaling_features_leaves_the_folded_sae_unchanged(
    seed: int, log_low: float, log_high: float
) -> None:
    """f → c·f is a change of units: encoder × c, θ × c, decoder / c."""
    sae = make_sae(seed=seed)
    assert sae.threshold is not None
    draw = torch.rand(12, generator=torch.Generator().manual_seed(seed + 1))
    c = torch.exp(log_low + (log_high - log_low) * draw)
    other = dataclasses.replace(
        sae,
        W_enc=sae.W_enc * c,
        b_enc=sae.b_enc * c,
        W_dec=sae.W_dec / c[:, None],
        threshold=sae.threshold * c,
    )
    one, two = fold_thresholds(sae), fold_thresholds(other)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-5, atol=1e-7)
    x = residual_stream(8, 6, seed)
    torch.testing.assert_close(sae.reconstruct(x), other.reconstruct(x), rtol=1e-4, atol=1e-4)


def test_bfloat16_weights_encode_in_float32() -> None:
    sae = make_sae(dtype=torch.bfloat16)
    x = residual_stream(8, 6)
    wide = dataclasses.replace(
        sae,
        **{
            name: getattr(sae, name).float()
            for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        },
    )
    assert sae.encode(x).dtype == torch.float32
    assert torch.equal(sae.encode(x), wide.encode(x))
    assert torch.equal(sae.reconstruct(x), wide.reconstruct(x))
    folded = fold_thresholds(sae)
    assert folded.W_dec.dtype == folded.scale.dtype == torch.float32
    assert torch.equal(folded.W_dec, fold_thresholds(wide).W_dec)


def test_batch_axes_are_kept() -> None:
    x = residual_stream(6, 6).reshape(2, 3, 6)
    for activation in ("jumprelu", "relu", "topk"):
        sae = make_sae(activation=activation)
        assert sae.encode(x).shape == (2, 3, 12)
        assert sae.reconstruct(x).shape == (2, 3, 6)
        assert sae.encode(x[0, 0]).shape == (12,)


def test_thresholds_and_k_belong_to_their_activations() -> None:
    W, b = torch.eye(2), torch.zeros(2)
    for activation, threshold, k in [
        ("jumprelu", None, None),
        ("relu", torch.ones(2), None),
        ("topk", None, None),
        ("relu", None, 1),
    ]:
        with pytest.raises(InputError, match="for nothing else"):
            SAE(W, b, W, b, activation, threshold=threshold, k=k)
