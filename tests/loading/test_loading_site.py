"""What a dictionary reads and writes: recognised from every kind of evidence, or refused by name."""

import json
from pathlib import Path
from typing import Any

import loading_checkpoints as build
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saematch.errors import InputError, SaematchError, UnsupportedError, UsageError
from saematch.loading import load_sae, load_suite, registry
from saematch.loading.site import (
    EMBEDDING,
    Claim,
    Site,
    claim_of_hook,
    claims_of_config,
    claims_of_path,
    decide,
    without_layer,
)

RESIDUAL = "residual"


def site_of_path(path: str, layer: int | None = None) -> Site:
    return decide(claims_of_path(path), path, layer=layer)


def change(path: Path, **sections: Any) -> None:
    """Adds to the sections of a JSON config; None takes a section out."""
    config = json.loads(path.read_text())
    for name, value in sections.items():
        if isinstance(value, dict):
            config[name] = {**config.get(name, {}), **value}
        else:
            config[name] = value
    path.write_text(json.dumps(config))


# Hook and module names ---------------------------------------------------------------------------

PREFIXES = {
    "gpt2": "transformer.h", "gpt2 alone": "h", "bloom": "transformer.h", "neox": "gpt_neox.layers",
    "llama": "model.layers", "gemma": "model.layers", "opt": "model.decoder.layers",
    "gemma 3": "model.language_model.layers", "older gemma 3": "language_model.model.layers",
    "base model": "layers", "mpt": "transformer.blocks", "compiled": "_orig_mod.model.layers",
}  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=list(PREFIXES))
def test_modules_of_every_family(prefix: str) -> None:
    for suffix, kind, layer in (
        ("", RESIDUAL, 7), (".output", RESIDUAL, 7), (".input", RESIDUAL, 6),
        (".mlp", "mlp_out", 7), (".mlp.output", "mlp_out", 7), (".mlp.input", "mlp_in", 7),
        (".self_attn", "attention_out", 7), (".attn", "attention_out", 7),
        (".attention", "attention_out", 7), (".self_attention", "attention_out", 7),
        (".self_attn.o_proj.input", "attention_z", 7), (".mlp.act", "mlp_hidden", 7),
        (".mlp.down_proj.input", "mlp_hidden", 7), (".mlp.c_proj", "mlp_out", 7),
        (".input_layernorm", "normalised", 7),
    ):  # fmt: skip
        claim = claim_of_hook(f"{prefix}.7{suffix}", "hook")
        assert (claim.kind, claim.layer) == (kind, layer), suffix


@pytest.mark.parametrize(
    ("hook", "kind", "layer"),
    [
        ("blocks.3.hook_resid_post", RESIDUAL, 3), ("blocks.3.hook_resid_pre", RESIDUAL, 2),
        ("blocks.3.hook_out", RESIDUAL, 3), ("blocks.3.hook_in", RESIDUAL, 2),
        ("blocks.0.hook_resid_pre", RESIDUAL, -1), ("blocks.0.hook_in", RESIDUAL, -1),
        ("hook_embed", "embedding", -1), ("model.embed_tokens", "embedding", -1),
        ("transformer.wte", "embedding", -1), ("gpt_neox.embed_in", "embedding", -1),
        ("transformer.word_embeddings", "embedding", -1), ("embed.hook_out", "embedding", -1),
        ("blocks.3.hook_resid_mid", "residual_mid", 3),
        ("blocks.3.hook_attn_out", "attention_out", 3),
        ("blocks.3.attn.hook_out", "attention_out", 3),
        ("blocks.3.attn.hook_z", "attention_z", 3), ("blocks.3.hook_z", "attention_z", 3),
        ("blocks.3.attn.o.hook_in", "attention_z", 3),
        ("blocks.3.attn.hook_q", "attention_inner", 3),
        ("blocks.3.attn.hook_pattern", "attention_inner", 3),
        ("blocks.3.hook_mlp_out", "mlp_out", 3), ("blocks.3.mlp.hook_out", "mlp_out", 3),
        ("blocks.3.hook_mlp_in", "mlp_in", 3), ("blocks.3.mlp.hook_in", "mlp_in", 3),
        ("blocks.3.mlp.hook_post", "mlp_hidden", 3), ("blocks.3.mlp.hook_pre", "mlp_hidden", 3),
        ("blocks.3.ln2.hook_normalized", "normalised", 3),
        ("blocks.3.ln1.hook_normalized", "normalised", 3),
        ("model.layers.3.post_feedforward_layernorm.output", "mlp_out", 3),
        ("model.layers.3.pre_feedforward_layernorm.output", "mlp_in", 3),
        (" blocks.3.hook_resid_post ", RESIDUAL, 3),
    ],
)  # fmt: skip
def test_hooks(hook: str, kind: str, layer: int) -> None:
    claim = claim_of_hook(hook, "hook")
    assert (claim.kind, claim.layer) == (kind, layer)


@pytest.mark.parametrize(
    "hook",
    ["something", "layers.x", "blocks.3", "blocks.3.hook_resid_poste", "model.layers.3.foo",
     "model.norm", "ln_final.hook_normalized", "unembed", "hook_pos_embed", "lm_head",
     "vision_tower.layers.3", "model.visual.blocks.3", "encoder.layers.3", "audio.layers.3.output",
     "blocks.3.hook_resid_post.hook_sae_error", "blocks.-1.hook_resid_post", "model.layers.3.4",
     "xblocks.3.hook_resid_post", "blocks.3.HOOK_RESID_POST", "model.layers.3.cross_attn"],
)  # fmt: skip
def test_unknown_hooks_are_refused_by_name(hook: str) -> None:
    if hook == "blocks.3":  # a module of MPT: the block itself
        assert claim_of_hook(hook, "hook").kind == RESIDUAL
        return
    with pytest.raises(UnsupportedError, match=r"expected a hook name .* got .*not recognised"):
        claim_of_hook(hook, "hook")


@given(st.text(max_size=40))
def test_any_text_is_a_known_hook_or_one_of_our_errors(text: str) -> None:
    try:
        claim = claim_of_hook(text, "hook")
    except SaematchError:
        return
    assert claim.kind is not None


@given(st.sampled_from(["blocks.{}.hook_", "model.layers.{}.", "transformer.h.{}."]),
       st.integers(0, 9999), st.from_regex(r"[a-z_]{1,12}(\.[a-z_]{1,12})?", fullmatch=True))  # fmt: skip
def test_no_unknown_suffix_is_residual(prefix: str, block: int, suffix: str) -> None:
    """Only the written names are the residual stream: whatever else follows a block is not."""
    known = {"resid_post", "resid_pre", "out", "in", "output", "input"}
    known |= {"input_layernorm.input", "ln_1.input", "ln1.hook_in"}
    try:
        claim = claim_of_hook(prefix.format(block) + suffix, "hook")
    except UnsupportedError:
        return
    assert claim.kind != RESIDUAL or suffix in known


# Paths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz", 12),
        ("google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6/params.npz", -1),
        ("fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x", 15), ("x/l15r_8x", 15),
        ("sae-pythia-160m-32k/layers.5/sae.safetensors", 5), ("run/h.5/sae.safetensors", 5),
        ("run/transformer.h.5/sae.safetensors", 5), ("run/gpt_neox.layers.5/sae.safetensors", 5),
        ("run/model.layers.5/sae.safetensors", 5), ("run/embed_tokens/sae.safetensors", -1),
        ("Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer7.sae.pt", 7),
        ("resid_post_layer_3/trainer_1/ae.pt", 3), ("resid_out_layer3/10_32768/ae.pt", 3),
        ("embed/10_32768/ae.pt", -1), ("resid_pre_layer_3/ae.pt", 2),
        ("gemma-scope-2-1b-pt/resid_post/layer_13_width_16k_l0_big", 13),
        ("standard/blocks.4.hook_resid_pre", 3), ("v5_128k_layer_0.pt", 0),
        ("mistral_7b_layer_8/blocks.8.hook_resid_pre", 7),
        ("gemma_2b_blocks.6.hook_resid_post_16384_anthropic_fast_lr", 6),
        ("sae_layer3_out/ae.pt", 3), ("layer_3_post_training/ae.pt", 3), ("out/layer_3_out/ae.pt", 3),
        ("saes/Layer_3/ae.pt", 3), ("D:\\saes\\layer 3\\ae.pt", 3), ("layer=3/ae.pt", 3),
        ("block_3/ae.pt", 3),
        ("blocks_3_hook_resid_post/ae.pt", 3), ("blocks_3_hook_resid_pre/ae.pt", 2),
        ("layer_3/resid_pre/ae.pt", 2), ("hook_resid_pre/layer_3/ae.pt", 2), ("resid-pre/layer_3/x.npz", 2),
        ("runs/2024-05-01_layer_3_seed_1/ae.pt", 3), ("gpt2-small/blocks.5.hook_resid_pre", 4),
        ("mlp-interp-project/layer_3/ae.pt", 3), ("z-scored/layer_3/ae.pt", 3),
        ("models--google--gemma-scope-2b-pt-res/snapshots/ab/layer_3/width_16k/average_l0_3/params.npz", 3),
        ("my_saes/L9.npz", 9), ("layer_3_1024/ae.pt", 3), ("skip/layer_3/ae.pt", 3), ("layer_30-5/ae.pt", 30),
        ("h100-runs/layer_3/ae.pt", 3), ("mlp-notes/pythia/layer_3/ae.pt", 3), ("res/gemma/layer_3/ae.pt", 3),
        ("my-attn-study/gemma/layer_3/ae.pt", 3),
        ("layer_2/again/layer_2/x.npz", 2), ("home/h100/layer_2/x.npz", 2),
    ],
)  # fmt: skip
def test_residual_paths(path: str, layer: int) -> None:
    site = site_of_path(path)
    assert site.supported
    assert site.layer == layer


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mlp_out_layer3/10_32768/ae.pt", "mlp_out"), ("attn_out_layer3/ae.pt", "attention_out"),
        ("attention_out_layer3/trainer_0/ae.pt", "attention_out"), ("mlp_layer_3", "mlp_out"),
        ("attn_layer3", "attention_out"), ("resid_mid_layer_3", "residual_mid"),
        ("layer_3_mlp_out/x", "mlp_out"), ("layer_3/mlp/x.pt", "mlp_out"), ("mlp/layer_3/x", "mlp_out"),
        ("layer_3/attn_out/trainer_0/ae.pt", "attention_out"), ("hook_z_layer_3", "attention_z"),
        ("run/layers.5.mlp/sae.safetensors", "mlp_out"), ("run/layers.5.attention", "attention_out"),
        ("run/h.5.attn/sae.safetensors", "attention_out"), ("run/h.5.mlp.act/x", "mlp_hidden"),
        ("x/Llama3_1-8B-Base-L15M-8x", "mlp_out"), ("x/Llama3_1-8B-Base-L15A-8x", "attention_out"),
        ("x/Llama3_1-8B-Base-L15TC-8x", "transcoder"), ("x/l15tc_8x", "transcoder"),
        ("google/gemma-scope-2b-pt-mlp/layer_3/x", "mlp_out"),
        ("google/gemma-scope-9b-pt-att/layer_3/width_16k/x", "attention_z"),
        ("google/gemma-scope-2b-pt-transcoders/layer_3/width_16k/x", "transcoder"),
        ("google/gemma-scope-2-1b-pt/transcoder_all/layer_3_width_16k/x", "transcoder"),
        ("google/gemma-scope-2-1b-pt/clt/width_262k_layer_3", "cross_layer"),
        ("google/gemma-scope-2-1b-pt/crosscoder/layer_3", "cross_layer"),
        ("models--google--gemma-scope-2b-pt-mlp/snapshots/ab/layer_3/width_16k/params.npz", "mlp_out"),
        ("google_gemma-scope-2b-pt-att/layer_3/x", "attention_z"),
        ("gemma_scope_2b_pt_mlp/layer_3/x", "mlp_out"),
        ("gemma-scope-2b-pt-mlp (1)/layer_3/x", "mlp_out"), ("LXM-8x/L3/x", "mlp_out"),
        ("LXTC/L3/x", "transcoder"),
        ("cross-coder/layer_3/x", "cross_layer"), ("mlp-out/layer_3/x", "mlp_out"),
        ("tc/layer_3/x", "transcoder"),
        ("layer_3/mlp_out_16k/ae.pt", "mlp_out"), ("layer_3/attn_16k/ae.pt", "attention_out"),
        ("mlp_16k/layer_3/ae.pt", "mlp_out"), ("mlp/width_16k/layer_3/average_l0_3/params.npz", "mlp_out"),
        ("layer_3/hook_mlp_out/ae.pt", "mlp_out"), ("hook_attn_out/layer_3/ae.pt", "attention_out"),
        ("layer_3/hook_resid_mid/ae.pt", "residual_mid"), ("resid-mid/layer_3/x", "residual_mid"),
        ("layer_3/input_layernorm/ae.pt", "normalised"), ("ln2/layer_3/ae.pt", "normalised"),
        ("ln_layer_3", "normalised"), ("attnout_layer_3/x", "attention_out"),
        ("down_proj/layer_3/x", "mlp_out"),
        ("mlp/Layer_3/x", "mlp_out"),
        ("attn_out/layer_3_width_16k", "attention_out"), ("attn_out_all/layer_3_x", "attention_out"),
        ("layer_3_h5/ae.pt", "attention_head"), ("layer_3_head_5/ae.pt", "attention_head"),
        ("sae_group_gpt2_blocks.3.hook_mlp_out_24576:v1", "mlp_out"), ("transcoder_layer_3", "transcoder"),
    ],
)  # fmt: skip
def test_other_paths_are_named(path: str, kind: str) -> None:
    assert site_of_path(path).kind == kind
    # The caller's layer supplies a number, never another kind.
    assert site_of_path(path, layer=3).kind == kind


@pytest.mark.parametrize(
    "path",
    ["layers.3.foo/x", "mlps_layer3", "layer_3_in", "layer_3_pre", "hidden_states_layer_3", "layer_3_moe",
     "layer_3_o_proj_x_mlp", "up_proj_layer_3", "layer_3_keys", "encoder_layer_3", "vision_layer_3",
     "vision_tower.layers.3/sae.safetensors", "feedforward_layer_3", "neuron_layer_3", "unembed_layer_3",
     "crosscoded_layer_3", "L3_mlps", "layers_3-5", "layers_3_4_5", "layer_3-5/x", "blocks3to5", "L3-5",
     "vit/layer_3", "pos_embed/layer_3", "attn-only/layer_3", "mlp3/layer_3/ae.pt", "layer_3_value",
     "layer_3_key", "saes/mlp/gemma/layer_3/ae.pt",
     "vision-tower/layer_3/trainer_0/ae.pt", "experts/layer_3"],
)  # fmt: skip
def test_unknown_words_beside_a_layer_are_refused_by_name(path: str) -> None:
    for layer in (None, 3):
        with pytest.raises(UnsupportedError, match="not recognised"):
            site_of_path(path, layer)


@pytest.mark.parametrize(
    "path", ["L3A_resid_post", "L3R_mlp_out", "mlp_out/resid_post_layer_3", "layer_3/mlp_out/L3R"]
)
def test_a_path_that_says_two_sites_is_an_error(path: str) -> None:
    for layer in (None, 3):
        with pytest.raises(InputError, match="expected one site"):
            site_of_path(path, layer)


def test_a_config_that_names_the_site_outweighs_words_that_are_not_recognised() -> None:
    for path in ("layer_4_skip_bos/x", "saes/mlp/gemma/layer_4/x", "vit/layer_4/x", "layers_2-6/x"):
        assert site_of_config(POST_4, path) == Site(RESIDUAL, 4)
    with pytest.raises(UnsupportedError, match="not recognised"):
        site_of_config({"hook_layer": 4}, "layer_4_skip_bos/x")
    with pytest.raises(InputError, match="expected one site"):
        site_of_config(POST_4, "layer_4_mlp/x")


def test_two_layers_none_and_the_callers() -> None:
    with pytest.raises(UsageError, match=r"got 'layer_4' .*'layer_3' .*layer="):
        site_of_path("layer_3/layer_4/x")
    with pytest.raises(InputError, match=r"layer_N.*layer="):
        site_of_path("width_16k/average_l0_82")
    assert site_of_path("layer_9/layer_8/x", layer=5) == Site(RESIDUAL, 5)
    assert site_of_path("width_16k", layer=5) == Site(RESIDUAL, 5)
    assert site_of_path("width_16k", layer=-1) == Site("embedding", EMBEDDING)
    assert site_of_path("embed/layer_3", layer=3) == Site(RESIDUAL, 3)
    assert site_of_path("embed/layer_3", layer=-1) == Site("embedding", EMBEDDING)
    with pytest.raises(InputError, match="from 0 to"):
        site_of_path("layer_" + "1" * 5000)
    for wrong in (-2, True, 10**30):
        with pytest.raises(UsageError, match="whole number"):
            site_of_path("layer_3", layer=wrong)


@pytest.mark.parametrize("path", ["embed/ae.pt", "embedding/width_4k/average_l0_6", "embed_tokens"])
def test_the_callers_layer_makes_no_residual_sae_of_an_embedding(path: str) -> None:
    assert site_of_path(path, layer=-1) == Site("embedding", EMBEDDING)
    with pytest.raises(UsageError, match=r"path says, got layer=3 .*emb.*layer -1"):
        site_of_path(path, layer=3)


@pytest.mark.parametrize(
    ("path", "rest"),
    [("layer_12/width_16k/average_l0_82", "width_16k/average_l0_82"), ("12", "12"),
     ("layer_13_width_16k_l0_big", "width_16k_l0_big"), ("layers.5", ""), ("h.5", ""),
     ("resid_post_layer_3/trainer_1", "resid_post/trainer_1")],
)  # fmt: skip
def test_what_is_left_tells_saes_of_one_layer_apart(path: str, rest: str) -> None:
    assert without_layer(path) == rest


# Configs -----------------------------------------------------------------------------------------


def site_of_config(config: dict[str, Any], path: str = "x", layer: int | None = None) -> Site:
    return decide((*claims_of_config(config, "cfg.json"), *claims_of_path(path)), path, layer=layer)


POST_4 = {"hook_name": "blocks.4.hook_resid_post"}


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        ({**POST_4, "hook_layer": 7}, "x", ["blocks.4.hook_resid_post", "hook_layer 7"]),
        ({**POST_4, "hook_point_layer": 3}, "x", ["blocks.4", "hook_point_layer 3"]),
        ({"hook_name": "blocks.4.hook_resid_pre", "hook_layer": 5}, "x", ["blocks.4", "hook_layer 5"]),
        ({"hook_name": "blocks.9.hook_resid_post"}, "run/layer_3", ["blocks.9", "layer_3"]),
        ({"trainer": {"layer": 9}}, "run/layer_3", ["trainer.layer 9", "layer_3"]),
        ({"trainer": {"layer": 9, "submodule_name": "resid_post_layer_3"}}, "x",
         ["trainer.layer 9", "resid_post_layer_3"]),
        (POST_4, "mlp_out_layer4", ["blocks.4", "mlp_out_layer4"]),
        ({**POST_4, "hf_hook_name": "model.layers.5"}, "x", ["blocks.4", "model.layers.5"]),
        ({**POST_4, "metadata": {"hook_name": "blocks.5.hook_resid_post"}}, "x", ["blocks.4", "blocks.5"]),
        ({"hook_name": "hook_embed"}, "layer_3", ["hook_embed", "layer_3"]),
    ],
)  # fmt: skip
def test_contradictions_name_both(config: dict[str, Any], path: str, words: list[str]) -> None:
    with pytest.raises(InputError, match="against") as caught:
        site_of_config(config, path)
    for word in words:
        assert word in str(caught.value)
    assert not isinstance(caught.value, UnsupportedError)


def test_what_agrees() -> None:
    pre = {"hook_name": "blocks.4.hook_resid_pre"}
    assert site_of_config({**pre, "hook_layer": 4}, "layer_4/x") == Site(RESIDUAL, 3)
    assert site_of_config(pre, "layer_3/x") == Site(RESIDUAL, 3)
    assert site_of_config({"hook_name": "hook_embed", "hook_layer": 0}) == Site("embedding", -1)
    # The nearest folder counts; a suite's path may be called after another layer.
    assert site_of_config(POST_4, "layer_3/layer_4/x") == Site(RESIDUAL, 4)
    # The caller wins over the path, not over the config.
    assert site_of_config(POST_4, "layer_3", layer=4) == Site(RESIDUAL, 4)
    assert site_of_config(POST_4, "embedding/x", layer=4) == Site(RESIDUAL, 4)
    with pytest.raises(UsageError, match=r"layer=5 .*blocks\.4"):
        site_of_config(POST_4, layer=5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({**POST_4, "hook_head_index": 0}, "attention_head"),
        ({**POST_4, "hook_point_head_index": 3}, "attention_head"),
        ({**POST_4, "metadata": {"hook_head_index": 3}}, "attention_head"),
        ({**POST_4, "hook_name_out": "blocks.4.hook_mlp_out"}, "transcoder"),
        ({**POST_4, "hook_name_out": "blocks.5.hook_resid_post"}, "transcoder"),
        ({**POST_4, "architecture": "jumprelu_skip_transcoder"}, "transcoder"),
        ({**POST_4, "transcode": True}, "transcoder"), ({"transcode": True}, "transcoder"),
        ({"affine_connection": True}, "transcoder"), ({"type": "clt"}, "cross_layer"),
        ({"sae_type": "crosscoder"}, "cross_layer"), ({"hook_name": ["a", "b"]}, "cross_layer"),
        ({**POST_4, "reshape_activations": "hook_z"}, "attention_z"),
        ({"buffer": {"layer": 3}, "trainer": {"layer": 3}}, "attention_head"),
    ],
)  # fmt: skip
def test_kinds_that_a_config_states_in_other_words(config: dict[str, Any], kind: str) -> None:
    assert site_of_config(config, "layer_4", layer=4).kind == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [("hook_layer", v) for v in (-77, 10**30, 3.5, True, "3", [3])] + [("hook_name", 3)],
)  # fmt: skip
def test_values_that_are_no_layer(name: str, value: object) -> None:
    with pytest.raises(InputError, match="expected"):
        site_of_config({name: value})


# dictionary_learning -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("io", "layer"), [("in", 2), ("out", 3), (None, 3), ("in_and_out", None), ("in_to_out", None)]
)
def test_buffer_io(tmp_path: Path, io: str | None, layer: int | None) -> None:
    built = build.dictionary_learning(tmp_path, "AutoEncoder", layer=3)
    change(built.path / "config.json", buffer={"io": io})
    if layer is None:
        with pytest.raises(UnsupportedError, match=f"transcoder.*buffer.io '{io}'"):
            load_sae(str(built.path))
        with pytest.raises(UnsupportedError, match=r"a transcoder \(1\)"):
            load_suite(str(tmp_path))
        return
    assert load_sae(str(built.path)).layer == layer
    assert load_suite(str(tmp_path)).layers == (layer,)
    assert load_suite(str(tmp_path)).load(layer).layer == layer


def test_buffer_io_of_no_meaning(tmp_path: Path) -> None:
    built = build.dictionary_learning(tmp_path, "AutoEncoder", layer=3)
    change(built.path / "config.json", buffer={"io": "sideways"})
    with pytest.raises(InputError, match=r"'in', 'out' or 'in_and_out'.*'sideways'"):
        load_sae(str(built.path))


@pytest.mark.parametrize(
    ("submodule", "words"),
    [("mlp_out_layer3", "MLP's output"), ("attention_out_layer3", "attention's output"),
     ("attn_out_layer3", "attention's output"), ("model.layers.3.mlp", "MLP's output"),
     ("gpt_neox.layers.3.attention", "attention's output"), ("resid_mid_layer_3", "between"),
     ("mlp", "MLP's output"), ("mystery", "'mystery'")],
)  # fmt: skip
def test_submodules_that_are_refused(tmp_path: Path, submodule: str, words: str) -> None:
    built = build.dictionary_learning(tmp_path, "AutoEncoder", layer=3)
    change(built.path / "config.json", trainer={"submodule_name": submodule})
    bare = built.path.parent.parent / "mine"
    built.path.rename(bare)
    for layer in (None, 3):
        with pytest.raises(UnsupportedError, match=words):
            load_sae(str(bare), layer=layer)


def test_a_suite_of_every_site_names_what_it_leaves_out(tmp_path: Path) -> None:
    """As the dictionaries of Marks et al. lie on disk."""
    for index, name in enumerate(
        ("resid_out_layer0", "resid_out_layer1", "mlp_out_layer0", "mlp_out_layer1",
         "attn_out_layer0", "embed"),
    ):  # fmt: skip
        built = build.dictionary_learning(tmp_path / "made" / str(index), "AutoEncoder", layer=0)
        trainer = {"layer": None, "submodule_name": None}
        change(built.path / "config.json", trainer=trainer)
        target = tmp_path / "pythia" / name / "10_32768"
        target.parent.mkdir(parents=True)
        built.path.rename(target)
    suite = load_suite(str(tmp_path / "pythia"))
    assert suite.layers == (-1, 0, 1)
    assert [sae.layer for sae in suite] == [-1, 0, 1]
    assert suite.notes == (
        "left out 3 that cannot be loaded: the MLP's output (2), the attention's output (1)",
    )
    for name in ("mlp_out_layer1", "attn_out_layer0"):
        with pytest.raises(UnsupportedError, match=name):
            load_sae(str(tmp_path / "pythia" / name / "10_32768"))


# Loading and listing, format by format -------------------------------------------------------------


@pytest.mark.parametrize("hookpoint", ["h.3", "layers.3", "transformer.h.3", "gpt_neox.layers.3"])
def test_sparsify_hookpoints(tmp_path: Path, hookpoint: str) -> None:
    built = build.sparsify(tmp_path, hookpoint)
    assert load_sae(str(built.path)).layer == 3
    assert load_suite(str(tmp_path)).layers == (3,)


@pytest.mark.parametrize(
    "hookpoint", ["h.3.mlp", "layers.3.attention", "layers.3.mlp.act", "layers.3.x"]
)
def test_sparsify_hookpoints_that_are_refused(tmp_path: Path, hookpoint: str) -> None:
    built = build.sparsify(tmp_path, hookpoint)
    for layer in (None, 3):
        with pytest.raises(UnsupportedError, match=f"'{hookpoint}'"):
            load_sae(str(built.path), layer=layer)
    with pytest.raises(UnsupportedError, match="left out 1"):
        load_suite(str(tmp_path))


@pytest.mark.parametrize(
    ("hook", "layer"),
    [("blocks.5.hook_out", 5), ("blocks.5.hook_in", 4), ("hook_embed", -1), ("model.layers.5", 5)],
)
def test_saelens_hooks(tmp_path: Path, hook: str, layer: int) -> None:
    folder = build.saelens(tmp_path, folder="mine", metadata={"hook_name": hook})
    assert load_sae(str(folder)).layer == layer
    assert load_suite(str(tmp_path)).layers == (layer,)


def test_a_hook_name_of_older_saelens_with_a_place_for_the_layer(tmp_path: Path) -> None:
    older = {"hook_point": "blocks.{layer}.hook_resid_pre", "hook_point_layer": 5, "metadata": ...}
    sae = load_sae(str(build.saelens(tmp_path, folder="mine", config=older)))
    assert (sae.layer, sae.hook_name) == (4, "blocks.5.hook_resid_pre")


def test_an_sae_that_contradicts_itself_is_named_in_a_suite(tmp_path: Path) -> None:
    build.saelens(tmp_path, 3, folder="layer_3")
    build.saelens(tmp_path, 9, folder="layer_4")
    for call in (lambda: load_suite(str(tmp_path)), lambda: load_sae(str(tmp_path / "layer_4"))):
        with pytest.raises(InputError, match=r"blocks\.9\.hook_resid_post.*'layer_4'"):
            call()
    assert load_sae(str(tmp_path / "layer_4"), layer=9).layer == 9


def test_head_restricted(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, 3, metadata={"hook_head_index": 2})
    with pytest.raises(UnsupportedError, match=r"one attention head.*hook_head_index 2"):
        load_sae(str(folder))


@pytest.mark.parametrize(("name", "words"), [("A", "attention's output"), ("M", "MLP's output")])
def test_llama_scope_of_other_sites(tmp_path: Path, name: str, words: str) -> None:
    hook = {"A": "blocks.4.hook_attn_out", "M": "blocks.4.hook_mlp_out"}[name]
    built = build.llama_scope(tmp_path, 4, hook_point_in=hook, hook_point_out=hook)
    moved = tmp_path / f"Llama3_1-8B-Base-L4{name}-8x"
    built.path.rename(moved)
    with pytest.raises(UnsupportedError, match=words):
        load_sae(str(moved))


@pytest.mark.parametrize("local", [False, True])
def test_qwen_scope_names_its_release(hub: Path, local: bool) -> None:
    folder = hub / "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    folder.mkdir(parents=True)
    t = build.weights()
    torch.save(
        {name: tensor for name, tensor in t.items() if name != "threshold"},
        folder / "layer7.sae.pt",
    )
    root = str(folder) if local else "hf://Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
    with pytest.raises(InputError, match=r"try qwen-scope-3-1\.7b-base-w32k-l50:layer7"):
        load_sae(f"{root}/layer7.sae.pt")
    for call in (load_sae, load_suite):
        with pytest.raises(InputError, match=r"try qwen-scope-3-1\.7b-base-w32k-l50:"):
            call(root)


def test_a_bare_release_suggests_its_colon() -> None:
    for call in (load_sae, load_suite):
        with pytest.raises(InputError, match="try 'gpt2-small-res-jb:' for all of it"):
            call("gpt2-small-res-jb")


def test_a_claim_without_a_number_says_what_it_is() -> None:
    assert str(Claim("'x'", "transcoder")).startswith("'x' (a transcoder")
    assert str(Site("transcoder", None)).startswith("a transcoder")
    assert registry.find("gpt2-small-res-jb", "blocks.8.hook_resid_pre").site == Site(RESIDUAL, 7)
