"""`release:sae_id`: our loaders where they can, SAELens where they cannot."""

import importlib.util
from pathlib import Path
from types import ModuleType

import loading_checkpoints as build
import pytest
import torch

from saematch.errors import MissingDependencyError, UnsupportedError, UsageError
from saematch.loading import inspect_sae, load_sae, load_suite, registry, source_files


def test_gemma_scope_by_release(hub: Path) -> None:
    built = build.gemma_scope(hub / "google/gemma-scope-2b-pt-res", 12, 82)
    sae = load_sae("gemma-scope-2b-pt-res-canonical:layer_12/width_16k/canonical")
    x = build.inputs()
    assert torch.allclose(sae.reconstruct(x.float()), built.reconstruct(x).float(), atol=1e-4)
    assert sae.layer == 12
    assert sae.reference == "gemma-scope-2b-pt-res-canonical:layer_12/width_16k/canonical"
    assert source_files(sae.reference) == (built.path,)


def test_llama_scope_by_release_is_what_saelens_makes_of_it(
    hub: Path, sae_lens: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    import sae_lens.loading.pretrained_sae_loaders as loaders

    line = registry.find("llama_scope_lxr_8x", "l15r_8x")
    assert line.overrides.get("norm_scaling_factor") is not None
    norm = build.D_MODEL**0.5 / line.overrides.get("norm_scaling_factor")
    build.llama_scope(
        hub / "fnlp/Llama3_1-8B-Base-LXR-8x",
        dataset_average_activation_norm={"in": norm, "out": norm},
        sparsity_include_decoder_norm=False,
    )
    monkeypatch.setattr(loaders, "hf_hub_download", huggingface_hub.hf_hub_download)
    theirs = sae_lens.SAE.from_pretrained("llama_scope_lxr_8x", "l15r_8x")
    sae = load_sae("llama_scope_lxr_8x:l15r_8x")
    x = build.inputs().float()
    expected = theirs(x).detach()
    assert (sae.reconstruct(x) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(sae.encode(x) > 0, theirs.encode(x) > 0)
    assert sae.layer == 15
    assert sae.model_name == "meta-llama/Llama-3.1-8B"


def test_dictionary_learning_by_release(hub: Path) -> None:
    line = registry.find(
        "sae_bench_pythia70m_sweep_topk_ctx128_0730", "blocks.3.hook_resid_post__trainer_0"
    )
    folder = hub / line.repository / line.path
    built = build.dictionary_learning(folder.parent.parent, "AutoEncoderTopK", layer=3)
    assert built.path == folder
    sae = load_sae(line.reference)
    x = build.inputs()
    assert torch.allclose(sae.reconstruct(x.float()), built.reconstruct(x).float(), atol=1e-4)
    assert sae.layer == 3


def test_the_registry_says_centred_and_its_overrides_win(hub: Path) -> None:
    line = registry.find("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
    build.saelens(
        hub / line.repository,
        folder=line.path,
        metadata={"hook_name": "blocks.8.hook_resid_pre", "model_from_pretrained_kwargs": {}},
    )
    sae = load_sae(line.reference)
    assert sae.centred
    assert sae.layer == 7


def test_per_token_rescaling_that_only_the_registry_knows_is_refused(hub: Path) -> None:
    line = registry.find("mistral-7b-res-wg", "blocks.8.hook_resid_pre")
    build.saelens(
        hub / line.repository, folder=line.path, metadata={"hook_name": "blocks.8.hook_resid_pre"}
    )
    with pytest.raises(UnsupportedError, match="constant_norm_rescale"):
        load_sae(line.reference)


def test_other_releases_go_through_saelens(
    hub: Path, sae_lens: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = sae_lens.SAE.from_dict(
        {
            "architecture": "topk",
            "k": 4,
            "d_in": build.D_MODEL,
            "d_sae": build.D_SAE,
            "apply_b_dec_to_input": True,
            "metadata": {"hook_name": "blocks.3.hook_resid_post"},
        }
    )
    t = build.weights()
    theirs.load_state_dict({n: t[n] for n in theirs.state_dict()})
    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", lambda *_, **__: theirs)
    reference = "qwen-scope-3-1.7b-base-w32k-l50:layer3"
    sae = load_sae(reference)
    x = build.inputs().float()
    assert torch.allclose(sae.reconstruct(x), theirs(x), atol=1e-4)
    assert (sae.layer, sae.reference) == (3, reference)
    assert inspect_sae(reference).format == "saelens-registry"
    line = registry.find(*reference.split(":"))
    (hub / line.repository).mkdir(parents=True)
    (hub / line.repository / line.path).write_bytes(b"x")
    assert source_files(reference) == (hub / line.repository / line.path,)


@pytest.mark.parametrize(
    ("reference", "word"),
    [
        ("gpt2-small-hook-z-kk:blocks.0.hook_z", "hook_z"),
        ("gemma-scope-2b-pt-transcoders:layer_0/width_16k/average_l0_76", "transcoder"),
        ("temporal-sae-gemma-2-2b:blocks.12.hook_resid_post", "temporal"),
    ],
)
def test_releases_without_a_canonical_form(reference: str, word: str) -> None:
    with pytest.raises(UnsupportedError, match=word):
        load_sae(reference)


def test_unknown_names_come_with_close_ones() -> None:
    with pytest.raises(UsageError, match="gemma-scope-2b-pt-res"):
        load_sae("gemma-scope-2b-pt-ress:layer_12/width_16k/canonical")
    with pytest.raises(UsageError, match="average_l0_105"):
        load_sae("gemma-scope-2b-pt-res:layer_0/width_16k/average_l0_102")


def test_without_saelens(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.read_registry.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"saematch\[saelens\]"):
        load_sae("gemma-scope-2b-pt-res:layer_0/width_16k/average_l0_105")


def test_release_as_a_suite() -> None:
    suite = load_suite("gpt2-small-res-jb:")
    assert suite.layers == (-1, *range(12))
    assert suite.keys[0] == "-1"
    suite = load_suite("gemma-scope-2b-pt-res-canonical:*/width_16k/*", layers=[13, 12])
    assert suite.keys == ("12", "13")
    suite = load_suite("gemma-scope-2b-pt-res:width_16k", layers=[12])
    assert "12.width_16k_average_l0_82" in suite.keys
    with pytest.raises(UsageError, match="fit"):
        load_suite("gemma-scope-2b-pt-res:width_17k")
    with pytest.raises(UnsupportedError, match=r"attention's output \(12\)"):
        load_suite("gpt2-small-attn-out-v5-32k:")


def test_every_release_lists_or_says_why_not() -> None:
    """No release of the registry ends in anything but a suite or a clear error."""
    from saematch.errors import SaematchError

    listed = 0
    for release in registry.read_registry():
        try:
            listed += bool(len(load_suite(f"{release}:")))
        except SaematchError:
            continue
    assert listed > 60
