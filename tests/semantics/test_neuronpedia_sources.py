"""Which checkpoint a Neuronpedia id describes, by the registry that is installed."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.loading import registry
from saematch.loading.references import origin_of
from saematch.loading.suite import CANONICAL_L0, PRESETS, TABLE_1_L0, table1_departures
from saematch.sae import SAE
from saematch.semantics.neuronpedia.sources import parse_id, source_of

GEMMA = "google/gemma-scope-2b-pt-res"
LLAMA = "fnlp/Llama3_1-8B-Base-LXR-8x"


def sae_at(
    reference: str,
    layer: int,
    *,
    d_sae: int = 16_384,
    model: str | None = "gemma-2-2b",
    metadata: Mapping[str, Any] | None = None,
) -> SAE:
    """An SAE that says where it is from; its weights are of no matter."""
    return SAE(
        torch.zeros(1, d_sae),
        torch.zeros(d_sae),
        torch.zeros(d_sae, 1),
        torch.zeros(1),
        "relu",
        layer=layer,
        reference=reference,
        model_name=model,
        metadata=metadata or {},
    )


def gemma(layer: int, l0: int) -> str:
    return f"layer_{layer}/width_16k/average_l0_{l0}"


@pytest.mark.parametrize("layer", range(26))
def test_every_canonical_layer_of_gemma(layer: int) -> None:
    expected = f"gemma-2-2b/{layer}-gemmascope-res-16k"
    references = (
        PRESETS["gemma-scope-2b/canonical"].entries[layer].reference,
        f"gemma-scope-2b-pt-res-canonical:layer_{layer}/width_16k/canonical",
        f"hf://{GEMMA}/{gemma(layer, CANONICAL_L0[layer])}",
        f"/data/gemma-scope-2b-pt-res/{gemma(layer, CANONICAL_L0[layer])}/params.npz",
    )
    for reference in references:
        found = source_of(sae_at(reference, layer))
        assert found.id == expected
        assert (found.repository, found.path) == (GEMMA, gemma(layer, CANONICAL_L0[layer]))
        assert bool(found.notes) == reference.startswith("/data")


@pytest.mark.parametrize("layer", range(26))
def test_table_1_is_described_where_it_is_canonical(layer: int) -> None:
    """Layers 0, 1, 4, 13 and 14 are other SAEs: refused by the name of the one described."""
    sae = sae_at(PRESETS["gemma-scope-2b/table1"].entries[layer].reference, layer)
    described = f"{GEMMA}/{gemma(layer, CANONICAL_L0[layer])}"
    if layer not in (0, 1, 4, 13, 14):
        assert source_of(sae).path == gemma(layer, CANONICAL_L0[layer])
        return
    assert layer in table1_departures()
    with pytest.raises(InputError, match="allow_other_sae") as caught:
        source_of(sae)
    assert described in str(caught.value)
    assert f"{GEMMA}/{gemma(layer, TABLE_1_L0[layer])}" in str(caught.value)
    found = source_of(sae, allow_other_sae=True)
    assert found.id == f"gemma-2-2b/{layer}-gemmascope-res-16k"
    assert f"another SAE: {found.id} describes {described}" in found.notes[0]


@pytest.mark.parametrize("layer", [0, 1, 4, 13, 14])
def test_table_1_from_a_folder_is_refused_too(layer: int) -> None:
    sae = sae_at(f"/data/gemma-scope-2b-pt-res/{gemma(layer, TABLE_1_L0[layer])}/params.npz", layer)
    with pytest.raises(InputError, match=gemma(layer, CANONICAL_L0[layer])):
        source_of(sae)
    assert source_of(sae, allow_other_sae=True).path == gemma(layer, CANONICAL_L0[layer])


@pytest.mark.parametrize("layer", range(32))
def test_llama_scope(layer: int) -> None:
    preset = PRESETS["llama-scope-8b/8x"].entries[layer].reference
    folder = f"Llama3_1-8B-Base-L{layer}R-8x"
    for reference in (
        preset,
        f"llama_scope_lxr_8x:l{layer}r_8x",
        f"{preset}/checkpoints/final.safetensors",
        f"hf://{LLAMA}@main/{folder}",
        f"/data/{folder}",
    ):
        sae = sae_at(reference, layer, d_sae=32_768, model="meta-llama/Llama-3.1-8B")
        found = source_of(sae)
        assert found.id == f"llama3.1-8b/{layer}-llamascope-res-32k"
        assert (found.repository, found.path) == (LLAMA, folder)
        assert any("revision main" in note for note in found.notes) == ("@" in reference)


def test_every_line_of_the_registry_finds_its_own_id() -> None:
    """By the Hub's address as by the release: no line leads to another checkpoint's descriptions."""
    lines = registry.find_described()
    assert len(lines) > 2000
    small = sae_at("", 0, d_sae=1)
    for line in lines[::97]:
        by_release = source_of(_from(small, line.reference))
        assert by_release.id == line.neuronpedia
        by_address = source_of(_from(small, f"hf://{line.repository}/{line.path}"))
        assert (by_address.repository, by_address.path) == (line.repository, line.path)


def _from(sae: SAE, reference: str) -> SAE:
    return SAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, "relu", reference=reference)


def test_a_checkpoint_described_twice_is_the_canonical_one_unless_named() -> None:
    reference = f"hf://{GEMMA}/layer_5/width_1m/average_l0_114/params.npz"
    found = source_of(sae_at(reference, 5, d_sae=1 << 20))
    assert found.id == "gemma-2-2b/5-gemmascope-res-1m"
    assert found.notes == ("also described as gemma-2-2b/5-gemmascope-res-1m__l0-114",)
    line = "gemma-scope-2b-pt-res:layer_5/width_1m/average_l0_114"
    assert source_of(sae_at(line, 5)).id == "gemma-2-2b/5-gemmascope-res-1m__l0-114"


def test_another_sparsity_with_descriptions_of_its_own() -> None:
    found = source_of(sae_at(f"hf://{GEMMA}/{gemma(5, 143)}/params.npz", 5))
    assert found.id == "gemma-2-2b/5-gemmascope-res-16k__l0-143"


# Folders


def test_a_folder_that_says_nothing_but_layer_width_and_sparsity() -> None:
    """9b has no such file and the mlp's are no residual SAEs: only one is left."""
    found = source_of(sae_at(f"/x/{gemma(4, 124)}/params.npz", 4, model=None))
    assert found.id == "gemma-2-2b/4-gemmascope-res-16k"
    assert found.notes == (f"taken for {GEMMA}/{gemma(4, 124)} by its path",)


def test_a_folder_of_the_hubs_cache_says_its_repository(tmp_path: Path) -> None:
    folder = tmp_path / "models--google--gemma-scope-2b-pt-res/snapshots/0123abcd"
    found = source_of(sae_at(str(folder / gemma(4, 124) / "params.npz"), 4, model=None))
    assert found.id == "gemma-2-2b/4-gemmascope-res-16k"
    assert not found.notes
    with pytest.raises(InputError, match="average_l0_124"):
        source_of(sae_at(str(folder / gemma(4, 125) / "params.npz"), 4, model=None))


def test_an_ambiguous_folder_is_refused_with_its_candidates() -> None:
    path = "/x/resid_post/layer_17_width_16k_l0_medium/params.safetensors"
    with pytest.raises(InputError, match="whose path ends so") as caught:
        source_of(sae_at(path, 17, model=None))
    assert "gemma-3-4b/17-gemmascope-2-res-16k" in str(caught.value)
    assert "gemma-3-1b-it/17-gemmascope-2-res-16k" in str(caught.value)
    assert source_of(sae_at(path, 17, model="google/gemma-3-1b-it")).model == "gemma-3-1b-it"
    named = path.replace("/x/", "/x/gemma-scope-2-4b-pt/")
    assert source_of(sae_at(named, 17, model=None)).model == "gemma-3-4b"
    stated = {"neuronpedia_id": "gemma-3-4b-it/17-gemmascope-2-res-16k"}
    assert source_of(sae_at(path, 17, model=None, metadata=stated)).model == "gemma-3-4b-it"


@pytest.mark.parametrize(
    ("layer", "d_sae", "model"),
    [(5, 16_384, "gemma-2-2b"), (4, 65_536, "gemma-2-2b"), (4, 16_384, "gemma-2-2b-it")],
)
def test_a_folder_whose_sae_is_not_what_the_path_says(layer: int, d_sae: int, model: str) -> None:
    with pytest.raises(InputError, match="got no id"):
        source_of(sae_at(f"/x/{gemma(4, 124)}/params.npz", layer, d_sae=d_sae, model=model))


def test_a_folder_is_only_compared_with_its_own_models() -> None:
    described = "google/gemma-scope-9b-pt-res/layer_4/width_16k/average_l0_91 "
    with pytest.raises(InputError, match=described):
        source_of(sae_at(f"/x/{gemma(4, 124)}/params.npz", 4, model="gemma-2-9b"))


def test_a_path_that_could_be_anybodys_needs_the_model() -> None:
    path = "/mine/blocks.8.hook_resid_pre/sae_weights.safetensors"
    assert source_of(sae_at(path, 7, d_sae=24_576, model="gpt2")).id == "gpt2-small/8-res-jb"
    with pytest.raises(InputError, match="got no id"):
        source_of(sae_at(path, 7, d_sae=24_576, model=None))
    with pytest.raises(InputError, match="got no id"):
        source_of(sae_at("/mine/0/sae.safetensors", 0, model="gemma-2-2b"))  # a transcoder's path


# Ids in the checkpoint's own config


def stating(text: str, reference: str, layer: int, **more: Any) -> SAE:
    return sae_at(reference, layer, model=None, metadata={"neuronpedia_id": text}, **more)


def test_a_stated_id() -> None:
    found = source_of(stating("gemma-2-2b/4-gemmascope-res-16k", "/x/mine.npz", 4))
    assert found.path == gemma(4, 124)
    assert "config says; it describes" in found.notes[0]
    found = source_of(stating("other-model/4-other-source", "/x/mine.npz", 4))
    assert (found.id, found.path) == ("other-model/4-other-source", "")
    assert "not in SAELens's registry" in found.notes[0]
    exact = stating("gemma-2-2b/4-gemmascope-res-16k", f"hf://{GEMMA}/{gemma(4, 124)}", 4)
    assert source_of(exact).notes == ()


@pytest.mark.parametrize(
    ("reference", "layer", "d_sae", "word"),
    [
        (f"hf://{GEMMA}/{gemma(4, 125)}/params.npz", 4, 16_384, "average_l0_125"),
        (f"/x/{gemma(4, 125)}/params.npz", 4, 16_384, "average_l0_125"),
        ("/x/mine.npz", 5, 16_384, "layer 5"),
        ("/x/mine.npz", 4, 32_768, "32,768 features"),
        ("", 3, 16_384, "made in memory"),
    ],
)
def test_a_stated_id_of_another_sae_is_refused(
    reference: str, layer: int, d_sae: int, word: str
) -> None:
    text = "gemma-2-2b/4-gemmascope-res-16k"
    sae = stating(text, reference, layer, d_sae=d_sae)
    with pytest.raises(InputError, match=word):
        source_of(sae)
    found = source_of(sae, allow_other_sae=True)
    assert found.id == text
    assert "descriptions of another SAE" in found.notes[0]


def test_an_id_in_the_checkpoints_own_config() -> None:
    stated = {"neuronpedia_id": "gpt2-small/9-mine"}
    found = source_of(sae_at("/x/mine", 9, model="gpt2", metadata=stated))
    assert found.id == "gpt2-small/9-mine"
    assert "the checkpoint's own config says" in found.notes[0]
    # A config copied from another checkpoint, as fine-tuning does.
    copied = {"neuronpedia_id": "gemma-2-2b/4-gemmascope-res-16k"}
    with pytest.raises(InputError, match="average_l0_124"):
        source_of(sae_at("hf://me/finetuned/layer_4", 4, metadata=copied))


@pytest.mark.parametrize("text", ["gemma-2-2b", "a/b/c", "../x", "a/..", "a b/c", "https://x/y"])
def test_texts_that_are_no_id(text: str) -> None:
    with pytest.raises(UsageError, match="expected a Neuronpedia id"):
        parse_id(text)
    with pytest.raises(UsageError, match="expected a Neuronpedia id"):
        source_of(stating(text, "/x/mine", 4))


@pytest.mark.parametrize("reference", ["", "bundled:smollm2-135m/12", "hf://me/mine/layer_4"])
def test_saes_that_nobody_described(reference: str) -> None:
    with pytest.raises(InputError, match="got no id of it"):
        source_of(sae_at(reference, 4))


def test_without_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.read_registry.cache_clear()
    registry.find_described.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    sae = sae_at(f"hf://{GEMMA}/{gemma(4, 124)}", 4)
    with pytest.raises(MissingDependencyError, match=r"Neuronpedia id.*saematch\[saelens\]"):
        source_of(sae)


# Origins


def test_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert origin_of("") is None
    hub = origin_of("hf://a/b@v1/c/d/sae.safetensors")
    assert hub is not None
    assert (hub.repository, hub.path, hub.revision) == ("a/b", "c/d", "v1")
    assert hub.is_at("A/B", "c/d")
    assert not hub.is_at("a/b", "d")
    monkeypatch.chdir(tmp_path)
    local = origin_of("c/d")
    assert local is not None
    assert local.repository is None
    assert local.is_at("any/thing", "c/d/params.npz")
    assert not local.is_at("any/thing", "x/d")
    assert not local.is_at("any/thing", "/d"[1:] + "d")
