"""References, suites, presets, bundled data and inspection."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import loading_checkpoints as build
import pytest
import torch

from saematch.errors import InputError, SaematchError, UnsupportedError, UsageError
from saematch.loading import (
    PRESETS,
    inspect_sae,
    load_sae,
    load_suite,
    references,
    registry,
    source_files,
)
from saematch.loading import suite as suites


@pytest.mark.parametrize(
    "reference",
    ["s3://bucket/x", "https://huggingface.co/a/b", "C:\\saes\\layer_3", "", "hf://one"],
)
def test_other_kinds_of_reference(reference: str) -> None:
    with pytest.raises(UsageError, match=r"hf://owner/repo"):
        load_sae(reference)


def test_a_path_with_a_tilde_or_a_colon_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    build.saelens(tmp_path, folder="a:b")
    assert load_sae("~/a:b").layer == 12
    monkeypatch.chdir(tmp_path)
    assert load_sae("a:b").reference == "a:b"


def test_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "bundled_folder", lambda: tmp_path)
    for layer in (12, 13):
        folder = build.saelens(tmp_path / "smollm2-135m", layer)
        build.firing_counts(folder, torch.ones(build.D_SAE))
    sae = load_sae("bundled:smollm2-135m/12")
    assert (sae.layer, sae.name, sae.key) == (12, "", "12")
    assert sae.firing is not None
    suite = load_suite("bundled:smollm2-135m")
    assert suite.keys == ("12", "13")
    assert torch.equal(suite.load("13").W_dec, load_sae("bundled:smollm2-135m/13").W_dec)
    names = [path.name for path in source_files("bundled:smollm2-135m/12")]
    assert names == ["sae_weights.safetensors", "cfg.json", "firing_counts.safetensors"]
    for wrong in ("bundled:smollm2-135m/99", "bundled:", "bundled:../smollm2-135m/12"):
        with pytest.raises(UsageError, match="smollm2-135m/12"):
            load_sae(wrong)


def test_a_folder_of_saes(tmp_path: Path) -> None:
    for layer in (10, 2, 7):
        build.saelens(tmp_path, layer)
    suite = load_suite(str(tmp_path))
    assert suite.layers == (2, 7, 10)
    assert [sae.key for sae in suite] == list(suite.keys) == ["2", "7", "10"]
    assert suite.load(7).layer == 7
    assert pickle.loads(pickle.dumps(suite)) == suite
    assert load_suite(str(tmp_path), layers=[10, 2]).layers == (2, 10)
    for entry in suite.entries:
        assert load_sae(entry.reference).layer == entry.layer
    with pytest.raises(UsageError, match="there are: 2, 7, 10"):
        load_suite(str(tmp_path), layers=[3])
    with pytest.raises(UsageError, match="twice"):
        load_suite(str(tmp_path), layers=[2, 2])
    with pytest.raises(UsageError, match="there are"):
        load_suite(str(tmp_path), layers=[])
    with pytest.raises(UsageError, match="got '5'"):
        suite.load(5)
    with pytest.raises(UsageError, match="folder of 3"):
        load_sae(str(tmp_path))


def test_listing_reads_no_weights(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, 3)
    (folder / "sae_weights.safetensors").write_bytes(b"")
    suite = load_suite(str(tmp_path))
    assert suite.keys == ("3",)
    with pytest.raises(InputError, match="empty"):
        next(iter(suite))


def test_several_saes_a_layer_are_told_apart_by_name(tmp_path: Path) -> None:
    for l0 in (22, 82):
        build.gemma_scope(tmp_path, 12, l0)
    build.gemma_scope(tmp_path, 13, 43)
    suite = load_suite(str(tmp_path))
    assert suite.keys == (
        "12.width_16k_average_l0_22", "12.width_16k_average_l0_82", "13.width_16k_average_l0_43",
    )  # fmt: skip
    assert [sae.key for sae in suite] == list(suite.keys)
    assert suite.entries[0].name == "width_16k/average_l0_22"
    with pytest.raises(UsageError, match="12"):
        suite.load(12)
    one = load_suite(str(tmp_path / "layer_13"))
    assert one.keys == ("13",)
    assert one.load(13).name == ""


def test_a_layer_given_twice(tmp_path: Path) -> None:
    for folder in ("layer_3", "L3"):
        build.saelens(tmp_path, 3, folder=folder)
    with pytest.raises(InputError, match="layer 3 twice"):
        load_suite(str(tmp_path))


def test_saes_of_other_places_are_left_out_and_said(tmp_path: Path) -> None:
    build.sparsify(tmp_path, "layers.3")
    build.sparsify(tmp_path, "layers.3.mlp")
    build.sparsify(tmp_path, "layers.4")
    suite = load_suite(str(tmp_path))
    assert suite.keys == ("3", "4")
    assert suite.notes == ("left out 1 that cannot be loaded: the MLP's output (1)",)
    shutil.rmtree(tmp_path / "layers.3")
    shutil.rmtree(tmp_path / "layers.4")
    with pytest.raises(UnsupportedError, match=r"the MLP's output \(1\)"):
        load_suite(str(tmp_path))


def test_links_to_folders_count_as_folders(tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    for layer in (3, 4):
        kept = build.saelens(tmp_path / "kept", layer)
        (suite / str(layer)).symlink_to(kept, target_is_directory=True)
    (suite / "up").symlink_to(tmp_path, target_is_directory=True)
    (suite / "round").symlink_to(suite, target_is_directory=True)
    assert load_suite(str(suite)).layers == (3, 4)


def test_dictionary_learning_and_llama_scope_suites(tmp_path: Path) -> None:
    build.dictionary_learning(tmp_path / "a", "AutoEncoder", 3)
    build.dictionary_learning(tmp_path / "a", "AutoEncoderTopK", 5)
    assert [sae.activation for sae in load_suite(str(tmp_path / "a"))] == ["relu", "topk"]
    build.llama_scope(tmp_path / "b", 4)
    build.llama_scope(tmp_path / "b", 5)
    assert load_suite(str(tmp_path / "b")).layers == (4, 5)
    assert load_sae(str(tmp_path / "b/Llama3_1-8B-Base-L4R-8x/checkpoints/final.safetensors"))


def test_what_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean the preset gemma-scope-2b/table1"):
        load_suite("gemma-scope-2b/table2")
    with pytest.raises(InputError, match="no files"):
        load_suite(str(tmp_path))
    built = build.gemma_scope(tmp_path)
    with pytest.raises(UsageError, match="single SAE"):
        load_suite(str(built.path))


def test_presets() -> None:
    suite = load_suite("gemma-scope-2b/table1")
    assert suite.layers == tuple(range(26))
    assert suite.keys == tuple(map(str, range(26)))
    assert suite.entries[0].reference == (
        "hf://google/gemma-scope-2b-pt-res/layer_0/width_16k/average_l0_102/params.npz"
    )
    assert suites.table1_departures() == (0, 1, 4, 13, 14)
    assert len(suite.notes) == 5
    assert load_suite("gemma-scope-2b/table1", layers=[4, 5]).notes == (suite.notes[2],)
    assert load_suite("gemma-scope-2b/canonical").notes == ()
    llama = load_suite("llama-scope-8b/8x")
    assert llama.layers == tuple(range(32))
    assert llama.entries[31].reference == (
        "hf://fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L31R-8x"
    )
    assert set(PRESETS) == {
        "gemma-scope-2b/table1",
        "gemma-scope-2b/canonical",
        "llama-scope-8b/8x",
    }


def test_canonical_preset_is_the_installed_registrys() -> None:
    pytest.importorskip("yaml")
    for layer, l0 in enumerate(suites.CANONICAL_L0):
        line = registry.find(
            "gemma-scope-2b-pt-res-canonical", f"layer_{layer}/width_16k/canonical"
        )
        assert line.path == f"layer_{layer}/width_16k/average_l0_{l0}"
        assert line.repository == "google/gemma-scope-2b-pt-res"
    ids = {entry["id"] for entry in registry.read_registry()["gemma-scope-2b-pt-res"]["saes"]}
    missing = tuple(
        layer
        for layer, l0 in enumerate(suites.TABLE_1_L0)
        if f"layer_{layer}/width_16k/average_l0_{l0}" not in ids
    )
    assert missing == suites.NOT_IN_REGISTRY
    for layer in range(suites.LLAMA_LAYERS):
        line = registry.find("llama_scope_lxr_8x", f"l{layer}r_8x")
        assert (line.repository, line.path) == (
            "fnlp/Llama3_1-8B-Base-LXR-8x", f"Llama3_1-8B-Base-L{layer}R-8x",
        )  # fmt: skip


def test_source_files_are_what_is_read(tmp_path: Path) -> None:
    built = build.llama_scope(tmp_path)
    assert [p.name for p in source_files(str(built.path))] == [
        "final.safetensors", "hyperparams.json",
    ]  # fmt: skip
    assert all(p.is_file() for p in source_files(str(built.path)))
    built = build.gemma_scope(tmp_path)
    assert source_files(str(built.path)) == (built.path,)


def test_inspection(tmp_path: Path) -> None:
    t = build.weights()
    t["threshold"][:2] = 1e-6
    folder = build.saelens(tmp_path, tensors=dict(t), config={"apply_b_dec_to_input": True})
    counts = torch.ones(build.D_SAE)
    counts[1:4] = 0
    build.firing_counts(folder, counts)
    seen = inspect_sae(str(folder))
    assert (seen.degenerate, seen.dead, seen.live) == (2, 2, build.D_SAE - 4)
    assert (seen.d_model, seen.d_sae, seen.layer, seen.format) == (12, 40, 12, "saelens")
    assert {row.name: row.shape for row in seen.tensors}["W_dec"] == (40, 12)
    assert seen.bytes == sum(path.stat().st_size for path in source_files(str(folder)))
    assert seen.threshold is not None
    assert dict(seen.threshold)[1.0] == pytest.approx(float(t["threshold"].max()))
    assert dict(seen.decoder_norm)[0.0] == pytest.approx(float(t["W_dec"].norm(dim=1).min()))
    assert dict(seen.encoder_norm)[1.0] == pytest.approx(float(t["W_enc"].norm(dim=0).max()))
    assert any("b_enc - b_dec W_enc" in words for words in seen.conversions)
    assert json.loads(json.dumps(seen.to_dict(), allow_nan=False))["layer"] == 12


def test_inspection_without_thresholds_or_counts(tmp_path: Path) -> None:
    seen = inspect_sae(str(build.sparsify(tmp_path).path))
    assert (seen.threshold, seen.dead, seen.k) == (None, None, 6)


def test_importing_is_cheap() -> None:
    code = (
        "import sys, saematch.loading; "
        "print([m for m in ('sae_lens', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_bundled_suites_name_their_saes_by_reference() -> None:
    """Not by a path of this machine, which would end up in manifests."""
    suite = load_suite("bundled:smollm2-135m")
    assert [entry.reference for entry in suite.entries] == [
        f"bundled:smollm2-135m/{layer}" for layer in range(12, 20)
    ]
    sae = suite.load(12)
    assert (sae.d_model, sae.d_sae, sae.activation) == (576, 2304, "jumprelu")
    assert sae.firing is not None
    assert sae.firing.tokens > 100_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("gemma-scope-2b/tabel1", "gemma-scope-2b/table1"),
        ("Gemma-Scope-2B/Canonical", "gemma-scope-2b/canonical"),
        ("llama-scope-8b:8x", "llama-scope-8b/8x"),
    ],
)
def test_a_misspelt_preset_names_the_nearest(written: str, meant: str) -> None:
    with pytest.raises(SaematchError) as caught:
        load_suite(written)
    assert str(caught.value).endswith(f"did you mean the preset {meant}?")
