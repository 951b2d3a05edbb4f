"""Each rewriting preserves reconstructions, for any scale; hypothesis draws the cases."""

from dataclasses import replace

import loading_checkpoints as build
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saematch.errors import InputError
from saematch.loading import canonical
from saematch.loading.canonical import Draft

ACTIVATIONS = ("relu", "jumprelu", "topk")
K = 5


def draft(seed: int, activation: str) -> Draft:
    t = build.weights(seed)
    return Draft(
        W_enc=t["W_enc"], b_enc=t["b_enc"], W_dec=t["W_dec"], b_dec=t["b_dec"],
        activation=activation,  # pyright: ignore[reportArgumentType]
        threshold=t["threshold"] if activation == "jumprelu" else None,
        k=K if activation == "topk" else None,
    )  # fmt: skip


def activate(pre: Tensor, d: Draft) -> Tensor:
    if d.activation == "jumprelu":
        assert d.threshold is not None
        return build.jump(pre, d.threshold.double()).relu()
    return pre.relu() if d.activation == "relu" else build.largest(pre.relu(), K)


def reconstruct(d: Draft, x: Tensor) -> Tensor:
    pre = x @ d.W_enc.double() + d.b_enc.double()
    return activate(pre, d) @ d.W_dec.double() + d.b_dec.double()


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


cases = given(
    seed=st.integers(0, 10_000),
    activation=st.sampled_from(ACTIVATIONS),
    scale=st.floats(0.05, 20.0),
    ratio=st.floats(0.5, 2.0),
)


@settings(max_examples=25, deadline=None)
@cases
def test_rewritings(seed: int, activation: str, scale: float, ratio: float) -> None:
    d = draft(seed, activation)
    x = build.inputs(1 / scale)
    W_enc, b_enc, W_dec, b_dec = (t.double() for t in (d.W_enc, d.b_enc, d.W_dec, d.b_dec))

    biased = canonical.fold_input_bias(d)
    expected = activate((x - b_dec) @ W_enc + b_enc, d) @ W_dec + b_dec
    assert_close(reconstruct(biased, x), expected)

    scaled = canonical.fold_scale(d, scale, scale * ratio)
    f = activate(scale * x @ W_enc + b_enc, d)
    assert_close(reconstruct(scaled, x), (f @ W_dec + b_dec) / (scale * ratio))

    both = canonical.fold_scale(biased, scale)
    f = activate((scale * x - b_dec) @ W_enc + b_enc, d)
    assert_close(reconstruct(both, x), (f @ W_dec + b_dec) / scale)

    n = W_dec.norm(dim=1)
    normed = canonical.fold_decoder_norms(d)
    f = activate((x @ W_enc + b_enc) * n, d) / n
    assert_close(reconstruct(normed, x), f @ W_dec + b_dec)

    gain = 0.5 + torch.rand(build.D_SAE, generator=torch.Generator().manual_seed(seed))
    gained = canonical.fold_feature_gain(d, gain)
    f = activate(x @ W_enc + b_enc, d) * gain.double()
    assert_close(reconstruct(gained, x), f @ W_dec + b_dec)


def test_a_uniform_scale_leaves_the_matrices_untouched() -> None:
    d = draft(1, "jumprelu")
    scaled = canonical.fold_scale(d, 7.0)
    assert scaled.W_enc is d.W_enc
    assert scaled.W_dec is d.W_dec


def test_zero_decoder_rows_fold_to_finite_numbers() -> None:
    for activation in ("jumprelu", "topk"):
        d = draft(1, activation)
        W_dec = d.W_dec.clone()
        W_dec[3] = 0
        folded = canonical.fold_decoder_norms(replace(d, W_dec=W_dec))
        for tensor in (folded.W_enc, folded.W_dec, folded.b_enc):
            assert torch.isfinite(tensor).all()
        assert folded.threshold is None or torch.isfinite(folded.threshold).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(InputError, match="positive"):
        canonical.fold_scale(draft(0, "relu"), scale)


def test_blocked_products_are_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "BLOCK_ELEMENTS", 100)
    t = build.doubles(build.weights())
    assert torch.allclose(canonical.product(t["b_dec"], t["W_enc"]), t["b_dec"] @ t["W_enc"])
    assert torch.allclose(canonical.row_norms(t["W_dec"]), t["W_dec"].norm(dim=1))
    assert not canonical.is_centred(t["W_dec"], t["b_dec"])
    assert canonical.is_centred(t["W_dec"] - t["W_dec"].mean(1, keepdim=True), t["b_dec"] * 0)
