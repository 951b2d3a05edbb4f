"""SAELens's own checkpoints, against SAELens itself."""

from pathlib import Path
from types import ModuleType
from typing import Any

import loading_checkpoints as build
import pytest
import torch
from torch import Tensor

from saematch.errors import InputError, UnsupportedError
from saematch.loading import load_sae
from saematch.sae import SAE


def assert_same(sae: SAE, expected: Tensor, x: Tensor) -> None:
    found = sae.reconstruct(x.float()).double()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    fired = sae.encode(x.float()) > 0
    assert fired.any()
    assert not fired.all()


def saelens_sae(sae_lens: ModuleType, architecture: str, **config: Any) -> Any:
    """A SAELens SAE in float64 with our weights."""
    cfg = {
        "architecture": architecture, "d_in": build.D_MODEL, "d_sae": build.D_SAE,
        "dtype": "float64", "device": "cpu",
        "metadata": {"hook_name": "blocks.4.hook_resid_post", "model_name": "gpt2-small"}, **config,
    }  # fmt: skip
    sae = sae_lens.SAE.from_dict(cfg)
    t = build.doubles(build.weights(6))
    sae.load_state_dict({name: t[name] for name in sae.state_dict()})
    return sae


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("standard", {"apply_b_dec_to_input": True}),
        ("standard", {"apply_b_dec_to_input": False}),
        ("jumprelu", {"apply_b_dec_to_input": True}),
        ("jumprelu", {"apply_b_dec_to_input": False}),
        ("topk", {"apply_b_dec_to_input": True, "k": 5}),
        ("topk", {"apply_b_dec_to_input": False, "k": 5, "rescale_acts_by_decoder_norm": True}),
        ("topk", {"apply_b_dec_to_input": True, "k": 5, "rescale_acts_by_decoder_norm": True}),
    ],
    ids=str,
)
def test_version_6(
    sae_lens: ModuleType, tmp_path: Path, architecture: str, config: dict[str, Any]
) -> None:
    theirs = saelens_sae(sae_lens, architecture, **config)
    theirs.save_model(tmp_path / "sae")
    sae = load_sae(str(tmp_path / "sae"))
    x = build.inputs()
    assert_same(sae, theirs(x).detach(), x)
    assert sae.layer == 4
    assert sae.metadata["model_name"] == sae.model_name == "gpt2-small"
    assert bool(sae.conversions) == (
        config["apply_b_dec_to_input"] or "rescale_acts_by_decoder_norm" in config
    )


@pytest.mark.parametrize(
    "older",
    [
        {},
        {"apply_b_dec_to_input": False},
        {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}},
        {"architecture": "jumprelu"},
        {"normalize_activations": False},
        {"normalize_activations": None},
    ],
    ids=str,
)
def test_before_version_6(sae_lens: ModuleType, tmp_path: Path, older: dict[str, Any]) -> None:
    t = build.weights(7)
    if older.get("architecture") != "jumprelu":
        del t["threshold"]
    build.write_safetensors(
        tmp_path / "sae_weights.safetensors", {**t, "scaling_factor": torch.ones(build.D_SAE)}
    )
    build.write_json(
        tmp_path / "cfg.json",
        {
            "d_in": build.D_MODEL, "d_sae": build.D_SAE, "dtype": "float64", "device": "cpu",
            "model_name": "gpt2-small", "hook_point": "blocks.3.hook_resid_pre",
            "finetuning_scaling_factor": False, "prepend_bos": True, **older,
        },
    )  # fmt: skip
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    sae = load_sae(str(tmp_path))
    x = build.inputs()
    assert_same(sae, theirs(x).detach(), x)
    assert (sae.layer, sae.model_name, sae.hook_name) == (
        2,
        "gpt2-small",
        "blocks.3.hook_resid_pre",
    )


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_activation_scale(
    sae_lens: ModuleType, tmp_path: Path, architecture: str, apply_b_dec_to_input: bool
) -> None:
    """SAELens moves the scale into W_enc and W_dec, we into the biases and the threshold."""
    extra = {"k": 5} if architecture == "topk" else {}
    theirs = saelens_sae(
        sae_lens,
        architecture,
        apply_b_dec_to_input=apply_b_dec_to_input,
        normalize_activations="expected_average_only_in",
        **extra,
    )
    theirs.save_model(tmp_path)
    build.write_json(tmp_path / "activation_scaler.json", {"scaling_factor": 3.7})
    theirs.fold_activation_norm_scaling_factor(3.7)
    x = build.inputs(0.5)
    sae = load_sae(str(tmp_path))
    assert_same(sae, theirs(x).detach(), x)
    assert torch.equal(sae.W_dec.float(), build.weights(6)["W_dec"])


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
def test_whitening(sae_lens: ModuleType, tmp_path: Path, apply_b_dec_to_input: bool) -> None:
    theirs = saelens_sae(
        sae_lens,
        "topk",
        k=5,
        apply_b_dec_to_input=apply_b_dec_to_input,
        rescale_acts_by_decoder_norm=True,
        normalize_activations="covariance_whitening",
    )
    theirs.save_model(tmp_path)
    generator = torch.Generator().manual_seed(3)
    matrix = torch.eye(build.D_MODEL) + 0.2 * torch.randn(
        build.D_MODEL, build.D_MODEL, generator=generator
    )
    whitening = {
        "mean": torch.randn(build.D_MODEL, generator=generator),
        "matrix": matrix,
        "inverse_matrix": matrix.inverse(),
    }
    build.write_safetensors(tmp_path / "activation_whitening.safetensors", whitening)
    theirs.fold_activation_whitening(
        whitening["mean"].double(),
        whitening["matrix"].double(),
        whitening["inverse_matrix"].double(),
    )
    x = build.inputs()
    assert_same(load_sae(str(tmp_path)), theirs(x).detach(), x)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_batchtopk_training_checkpoint_is_its_inference_model(
    sae_lens: ModuleType, tmp_path: Path, architecture: str, rescale: bool
) -> None:
    from sae_lens.registry import get_sae_training_class

    sae_class, cfg_class = get_sae_training_class(architecture)
    widths = {"matryoshka_widths": [10, build.D_SAE]} if "matry" in architecture else {}
    cfg = cfg_class(
        d_in=build.D_MODEL,
        d_sae=build.D_SAE,
        k=5,
        dtype="float64",
        apply_b_dec_to_input=True,
        rescale_acts_by_decoder_norm=rescale,
        **widths,
    )
    cfg.metadata.hook_name = "blocks.4.hook_resid_post"
    training = sae_class(cfg)
    t = build.doubles(build.weights(6))
    training.load_state_dict(
        {**training.state_dict(), **{n: t[n] for n in ("W_enc", "b_enc", "W_dec", "b_dec")}}
    )
    training.topk_threshold.fill_(2.5)
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    x = build.inputs()
    expected = theirs(x).detach()
    assert_same(load_sae(str(tmp_path / "inference")), expected, x)
    assert_same(load_sae(str(tmp_path / "training")), expected, x)


def test_log_threshold(tmp_path: Path) -> None:
    t = build.weights()
    plain = load_sae(str(build.saelens(tmp_path, folder="a", tensors=dict(t))))
    logged = load_sae(
        str(
            build.saelens(
                tmp_path,
                folder="b",
                tensors={**t, "threshold": None, "log_threshold": t["threshold"].log()},
            )
        )
    )
    assert torch.allclose(plain.threshold, logged.threshold)
    assert any("exp(log_threshold)" in words for words in logged.conversions)


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_finetuned_gain_scales_decoder_rows(tmp_path: Path, name: str) -> None:
    t = build.weights(5)
    gain = 0.5 + torch.rand(build.D_SAE, generator=torch.Generator().manual_seed(1))
    folder = build.saelens(
        tmp_path, tensors={name: gain}, config={"finetuning_scaling_factor": True}
    )
    d = build.doubles(t)
    x = build.inputs()
    f = build.jump(x @ d["W_enc"] + d["b_enc"], d["threshold"])
    assert_same(load_sae(str(folder)), (f * gain.double()) @ d["W_dec"] + d["b_dec"], x)


def test_gain_that_the_config_denies_is_an_error(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, tensors={"scaling_factor": torch.full((build.D_SAE,), 2.0)})
    with pytest.raises(InputError, match="finetuning_scaling_factor"):
        load_sae(str(folder))


def test_firing_counts_beside_a_checkpoint(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path)
    assert load_sae(str(folder)).firing is None
    counts = torch.arange(build.D_SAE)
    build.firing_counts(folder, counts)
    sae = load_sae(str(folder))
    assert sae.firing is not None
    assert torch.equal(sae.firing.counts, counts.int())
    assert (sae.firing.tokens, sae.firing.corpus) == (1000, "web")
    assert sae.status[0] == "dead"
    assert sae.status.count("dead") == 1


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        (torch.ones(build.D_SAE - 1), 10),
        (torch.full((build.D_SAE,), -1), 10),
        (torch.full((build.D_SAE,), 11), 10),
    ],
)
def test_bad_firing_counts(tmp_path: Path, counts: Tensor, tokens: int) -> None:
    folder = build.saelens(tmp_path)
    build.firing_counts(folder, counts, tokens)
    with pytest.raises(InputError, match="counts"):
        load_sae(str(folder))


def test_metadata_is_kept(tmp_path: Path) -> None:
    sae = load_sae(str(build.saelens(tmp_path)))
    assert sae.metadata["model_weights_sha256"] == "ab" * 32
    assert sae.metadata["bos_token_id"] == 0
    assert not sae.centred


def test_centred_by_config_and_by_weights(tmp_path: Path) -> None:
    said = build.saelens(
        tmp_path,
        folder="said",
        metadata={"model_from_pretrained_kwargs": {"center_writing_weights": True}},
    )
    denied = build.saelens(
        tmp_path,
        folder="denied",
        metadata={"model_from_pretrained_kwargs": {"center_writing_weights": False}},
    )
    t = build.weights(5)
    seen = build.saelens(
        tmp_path,
        folder="seen",
        tensors={
            "W_dec": t["W_dec"] - t["W_dec"].mean(dim=1, keepdim=True),
            "b_dec": t["b_dec"] - t["b_dec"].mean(),
        },
    )
    bias_left = build.saelens(
        tmp_path,
        folder="bias",
        tensors={"W_dec": t["W_dec"] - t["W_dec"].mean(dim=1, keepdim=True)},
    )
    centred = [load_sae(str(path)).centred for path in (said, denied, seen, bias_left)]
    assert centred == [True, False, True, False]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"architecture": "gated"}, "gated"),
        ({"architecture": "matching_pursuit"}, "matching_pursuit"),
        ({"architecture": "temporal"}, "temporal"),
        ({"architecture": "abstopk", "k": 3}, "abstopk"),
        ({"architecture": "transcoder"}, "transcoder"),
        ({"architecture": "jumprelu_skip_transcoder"}, "transcoder"),
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"normalize_activations": "constant_norm_rescale"}, "constant_norm_rescale"),
        ({"normalize_activations": "covariance_whitening"}, "activation_whitening"),
        ({"normalize_activations": "something"}, "something"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"architecture": "standard", "activation_fn_str": "tanh-relu"}, "tanh-relu"),
    ],
    ids=str,
)
def test_what_has_no_canonical_form_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], word: str
) -> None:
    folder = build.saelens(tmp_path, config=config)
    with pytest.raises(UnsupportedError, match=word):
        load_sae(str(folder))


def test_scale_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, config={"normalize_activations": "expected_average_only_in"})
    with pytest.raises(InputError, match="norm_scaling_factor"):
        load_sae(str(folder))


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.hook_mlp_out",
        "blocks.3.attn.hook_z",
        "blocks.3.hook_resid_mid",
        "blocks.3.hook_attn_out",
    ],
)
def test_other_hooks_are_refused(tmp_path: Path, hook: str) -> None:
    folder = build.saelens(tmp_path, metadata={"hook_name": hook})
    with pytest.raises(UnsupportedError, match=hook):
        load_sae(str(folder), layer=3)
