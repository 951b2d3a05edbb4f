"""The layer rule."""

import pytest

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.loading.layers import layer_of_hook, layer_of_path, resolve_layer, without_layer


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.3.hook_resid_post", 3), ("blocks.3.hook_resid_pre", 2),
        ("blocks.0.hook_resid_pre", -1), ("hook_embed", -1), ("model.layers.7", 7),
        ("model.layers.7.output", 7), ("model.layers.7.input", 6), ("layers.11", 11),
        ("transformer.h.4", 4), ("gpt_neox.layers.2", 2), ("model.embed_tokens", -1),
        ("language_model.model.layers.20.output", 20),
    ],
)  # fmt: skip
def test_hooks(hook: str, layer: int) -> None:
    assert layer_of_hook(hook) == layer


@pytest.mark.parametrize(
    "hook",
    ["blocks.3.hook_mlp_out", "blocks.3.attn.hook_z", "blocks.3.hook_resid_mid",
     "model.layers.3.mlp", "model.layers.3.self_attn.o_proj.input", "something", "layers.x"],
)  # fmt: skip
def test_other_hooks(hook: str) -> None:
    with pytest.raises(UnsupportedError, match=hook):
        layer_of_hook(hook)


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz", 12),
        ("google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6/params.npz", -1),
        ("fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", 15),
        ("sae-pythia-160m-32k/layers.5/sae.safetensors", 5),
        ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer7.sae.pt", 7),
        ("resid_post_layer_3/trainer_1/ae.pt", 3),
        ("gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big", 13),
        ("standard/blocks.4.hook_resid_pre", 3),
        ("mistral_7b_layer_8/blocks.8.hook_resid_pre", 7),
        ("my_saes/L9.npz", 9), ("layer_2/again/layer_2/x.npz", 2),
    ],
)  # fmt: skip
def test_paths(path: str, layer: int) -> None:
    assert layer_of_path(path) == layer


def test_two_layers_none_and_sublayers() -> None:
    with pytest.raises(UsageError, match=r"found 3 and 4 .*layer="):
        layer_of_path("layer_3/layer_4/x")
    with pytest.raises(InputError, match="layer="):
        layer_of_path("width_16k/average_l0_82")
    for path in (
        "run/layers.5.mlp/sae.safetensors", "run/layers.5.attention", "x/Llama3_1-8B-Base-L15M-8x",
        "google/gemma-scope-2b-pt-mlp/layer_3/x", "google/gemma-scope-2b-pt-att/layer_3/x",
        "google/gemma-scope-2-1b-pt/transcoder_all/layer_3/x", "attn_out/layer_3_width_16k",
    ):  # fmt: skip
        with pytest.raises(UnsupportedError, match="residual stream"):
            layer_of_path(path)
        with pytest.raises(UnsupportedError):
            resolve_layer(path, None, 3)


def test_hook_beats_path_and_the_caller_beats_both() -> None:
    assert resolve_layer("layer_9/x", "blocks.3.hook_resid_post", None) == 3
    assert resolve_layer("layer_9/x", "blocks.3.hook_resid_post", 5) == 5
    assert resolve_layer("layer_9/layer_8/x", None, 5) == 5
    with pytest.raises(UnsupportedError):
        resolve_layer("layer_9", "blocks.3.hook_mlp_out", 5)


@pytest.mark.parametrize(
    ("path", "rest"),
    [("layer_12/width_16k/average_l0_82", "width_16k/average_l0_82"), ("12", "12"),
     ("layer_13_width_16k_l0_big", "width_16k_l0_big"), ("layers.5", ""),
     ("resid_post_layer_3/trainer_1", "resid_post/trainer_1")],
)  # fmt: skip
def test_what_is_left_tells_saes_of_one_layer_apart(path: str, rest: str) -> None:
    assert without_layer(path) == rest
