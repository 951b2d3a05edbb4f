"""Bad input gets a clear error: what was expected, what was got, what to try; nothing runs."""

import os
import pickle
import shutil
from pathlib import Path

import loading_checkpoints as build
import numpy as np
import pytest
import torch

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.loading import load_sae
from saematch.loading.tensors import read_tensors
from saematch.sae import check_finite

FORMATS = {
    "gemma-scope": (lambda root: build.gemma_scope(root).path.parent, "params.npz"),
    "gemma-scope-2": (lambda root: build.gemma_scope_2(root).path, "params.safetensors"),
    "llama-scope": (lambda root: build.llama_scope(root).path, "checkpoints/final.safetensors"),
    "saelens": (lambda root: build.saelens(root), "sae_weights.safetensors"),
    "sparsify": (lambda root: build.sparsify(root).path, "sae.safetensors"),
    "dictionary-learning": (
        lambda root: build.dictionary_learning(root, "BatchTopKSAE").path, "ae.pt",
    ),
}  # fmt: skip


def rewrite(path: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Store a checkpoint again with tensors changed or, where None, left out."""
    tensors = {name: tensor.clone() for name, tensor in read_tensors(path).items()}
    tensors = {n: t for n, t in {**tensors, **change}.items() if t is not None}
    if path.suffix == ".npz":
        np.savez(path, **{n: t.numpy() for n, t in tensors.items()})
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        build.write_safetensors(path, tensors)


@pytest.fixture(params=FORMATS)
def weights_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make, name = FORMATS[request.param]
    return make(tmp_path) / name


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated(weights_file: Path, share: float) -> None:
    data = weights_file.read_bytes()
    weights_file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=weights_file.name):
        load_sae(str(weights_file))


def test_not_a_weights_file_at_all(weights_file: Path) -> None:
    weights_file.write_bytes(b"<html>404 not found</html>")
    with pytest.raises(InputError, match="begins with"):
        load_sae(str(weights_file))


def test_every_tensor_is_needed_finite_and_of_its_shape(weights_file: Path) -> None:
    unused = {"k", "group_sizes"}
    names = sorted(read_tensors(weights_file).keys() - unused)
    original = weights_file.read_bytes()
    for name in names:
        tensor = read_tensors(weights_file)[name].clone()
        for value in (float("nan"), float("inf"), float("-inf")):
            bad = tensor.clone()
            bad.view(-1)[-1] = value
            rewrite(weights_file, {name: bad})
            with pytest.raises(InputError, match=f"'{name}'"):
                load_sae(str(weights_file))
        rewrite(weights_file, {name: torch.cat([tensor, tensor]) if tensor.ndim else tensor[None]})
        with pytest.raises(InputError):
            load_sae(str(weights_file))
        rewrite(weights_file, {name: None})
        with pytest.raises(InputError, match=r"expected (tensor|a checkpoint of a known format)"):
            load_sae(str(weights_file))
        weights_file.write_bytes(original)
    load_sae(str(weights_file))


def test_integers_are_no_weights(weights_file: Path) -> None:
    name = next(n for n in read_tensors(weights_file) if n.startswith("b_") or "bias" in n)
    rewrite(weights_file, {name: read_tensors(weights_file)[name].int()})
    with pytest.raises(InputError, match="floating-point"):
        load_sae(str(weights_file))


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_is_more_than_tensors_does_not_run(tmp_path: Path, legacy: bool) -> None:
    built = build.dictionary_learning(tmp_path, "AutoEncoder")
    mark = tmp_path / "it ran"
    torch.save(
        {"encoder.weight": Bomb(mark)},
        built.path / "ae.pt",
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(InputError, match="more"):
        load_sae(str(built.path))
    assert not mark.exists()


def test_a_plain_pickle_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    for name in ("ae.pt", "params.npz", "sae_weights.safetensors"):
        folder = tmp_path / "layer_3" / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(InputError):
            load_sae(str(folder))
    assert not mark.exists()


def test_object_arrays_in_an_npz_are_not_loaded(tmp_path: Path) -> None:
    built = build.gemma_scope(tmp_path)
    mark = tmp_path / "it ran"
    with np.load(built.path) as data:
        arrays = dict(data)
    arrays["b_dec"] = np.array([Bomb(mark)], dtype=object)
    np.savez(built.path, **arrays)
    with pytest.raises(InputError, match="never loaded"):
        load_sae(str(built.path))
    assert not mark.exists()


def test_values_that_are_not_tensors_are_named(tmp_path: Path) -> None:
    built = build.dictionary_learning(tmp_path, "AutoEncoder")
    torch.save({"encoder.weight": torch.ones(2), "note": "hello"}, built.path / "ae.pt")
    with pytest.raises(InputError, match="note: str"):
        load_sae(str(built.path))
    torch.save([torch.ones(2)], built.path / "ae.pt")
    with pytest.raises(InputError, match="dictionary of tensors"):
        load_sae(str(built.path))


def test_legacy_torch_files_of_tensors_are_read(tmp_path: Path) -> None:
    built = build.dictionary_learning(tmp_path, "JumpReluAutoEncoder")
    expected = load_sae(str(built.path)).W_dec.clone()
    tensors = {n: t.clone() for n, t in read_tensors(built.path / "ae.pt").items()}
    torch.save(tensors, built.path / "ae.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_sae(str(built.path)).W_dec, expected)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"a"', "\xff", "nan nan", "[" * 100_000])
def test_a_config_that_is_not_json(tmp_path: Path, text: str) -> None:
    folder = build.saelens(tmp_path)
    (folder / "cfg.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"cfg\.json"):
        load_sae(str(folder))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is at the path"):
        load_sae(str(tmp_path / "nothing"))
    folder = build.saelens(tmp_path)
    (folder / "cfg.json").unlink()
    with pytest.raises(InputError, match="known format"):
        load_sae(str(folder))
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(InputError, match="no files"):
        load_sae(str(folder))
    built = build.llama_scope(tmp_path)
    (built.path / "hyperparams.json").unlink()
    with pytest.raises(InputError, match=r"hyperparams\.json"):
        load_sae(str(built.path))


def test_unknown_format_lists_files_and_formats(tmp_path: Path) -> None:
    folder = tmp_path / "layer_3"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"1")
    with pytest.raises(InputError, match=r"known format.*gemma-scope.*weights.bin"):
        load_sae(str(folder))
    build.write_safetensors(folder / "sae.safetensors", {"strange": torch.ones(2, 2)})
    with pytest.raises(InputError, match=r"known format.*strange"):
        load_sae(str(folder))


def test_two_weights_in_one_folder(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path)
    shutil.copy(folder / "sae_weights.safetensors", folder / "params.safetensors")
    with pytest.raises(UsageError, match="name the file"):
        load_sae(str(folder))
    load_sae(str(folder / "sae_weights.safetensors"))


def test_paths_that_do_not_say_which_block(tmp_path: Path) -> None:
    built = build.gemma_scope(tmp_path)
    two = tmp_path / "layer_3" / "layer_4"
    none = tmp_path / "saes"
    for folder in (two, none):
        folder.mkdir(parents=True)
        shutil.copy(built.path, folder / "params.npz")
    with pytest.raises(UsageError, match="layer="):
        load_sae(str(two))
    with pytest.raises(InputError, match="layer="):
        load_sae(str(none / "params.npz"))
    assert load_sae(str(two), layer=4).layer == 4
    assert load_sae(str(none / "params.npz"), layer=0).layer == 0


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"transcode": True}, "transcoder"), ({"skip_connection": True}, "transcoder"),
        ({"activation": "groupmax"}, "groupmax"), ({"signed": True}, "signed"),
        ({"num_latents": 7}, "encoder.weight"), ({"d_in": 7}, "encoder.weight"),
        ({"k": None}, "'k'"), ({"k": 0}, "'k'"), ({"k": 3.7}, "'k'"), ({"k": 10**6}, "k between"),
        ({"k": True}, "'k'"),
    ],
)  # fmt: skip
def test_sparsify_refusals(tmp_path: Path, config: dict[str, object], word: str) -> None:
    built = build.sparsify(tmp_path, **config)
    with pytest.raises(InputError, match=word):
        load_sae(str(built.path))


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"use_glu_encoder": True}, "GLU"), ({"norm_activation": "token-wise"}, "token-wise"),
        ({"norm_activation": "batch-wise"}, "batch-wise"),
        ({"hook_point_out": "blocks.15.hook_mlp_out"}, "transcoder"),
        ({"hook_point_in": "blocks.1.hook_mlp_out", "hook_point_out": "blocks.1.hook_mlp_out"},
         "hook_mlp_out"),
        ({"dataset_average_activation_norm": {"out": 1}}, "dataset_average_activation_norm"),
        ({"dataset_average_activation_norm": {"in": 0}}, "dataset_average_activation_norm"),
        ({"jump_relu_threshold": -1.0}, "threshold"), ({"act_fn": "gelu"}, "gelu"),
    ],
)  # fmt: skip
def test_llama_scope_refusals(tmp_path: Path, config: dict[str, object], word: str) -> None:
    built = build.llama_scope(tmp_path)
    hyperparams = built.path / "hyperparams.json"
    import json

    build.write_json(hyperparams, {**json.loads(hyperparams.read_text()), **config})
    with pytest.raises(InputError, match=word):
        load_sae(str(built.path))


def test_gemma_scope_2_transcoders(tmp_path: Path) -> None:
    built = build.gemma_scope_2(tmp_path / "a", hf_hook_point_out="model.layers.5.mlp.output")
    with pytest.raises(UnsupportedError, match="transcoder"):
        load_sae(str(built.path))
    built = build.gemma_scope_2(tmp_path / "b")
    rewrite(built.path / "params.safetensors", {"affine_skip_connection": torch.eye(build.D_MODEL)})
    with pytest.raises(UnsupportedError, match="transcoder"):
        load_sae(str(built.path))
    built = build.gemma_scope_2(tmp_path / "c", architecture="topk")
    with pytest.raises(UnsupportedError, match="topk"):
        load_sae(str(built.path))
    built = build.gemma_scope_2(tmp_path / "d")
    moved = tmp_path / "transcoder" / "layer_5_width_16k"
    shutil.copytree(built.path, moved)
    (moved / "config.json").unlink()
    with pytest.raises(UnsupportedError, match="transcoder"):
        load_sae(str(moved))


def test_dictionary_learning_refusals(tmp_path: Path) -> None:
    gated = build.dictionary_learning(tmp_path / "a", "GatedAutoEncoder")
    with pytest.raises(UnsupportedError, match="GatedAutoEncoder"):
        load_sae(str(gated.path))
    unset = build.dictionary_learning(tmp_path / "b", "BatchTopKSAE", threshold=torch.tensor(-1.0))
    with pytest.raises(InputError, match="unset"):
        load_sae(str(unset.path))
    unclear = build.dictionary_learning(tmp_path / "c", "BatchTopKSAE")
    (unclear.path / "config.json").unlink()
    with pytest.raises(InputError, match="TopK"):
        load_sae(str(unclear.path))


def test_the_first_bad_index_is_named_beyond_the_first_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saematch.sae.BLOCK_ELEMENTS", 10)
    tensor = torch.zeros(9, 4)
    tensor[7, 2] = float("nan")
    with pytest.raises(InputError, match=r"'W_dec' of here, got nan at \[7, 2\]"):
        check_finite("W_dec", tensor, "here")


def test_errors_are_one_or_two_lines(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, config={"architecture": "gated"})
    with pytest.raises(UnsupportedError) as caught:
        load_sae(str(folder))
    assert len(str(caught.value).splitlines()) <= 2
    assert str(folder) in str(caught.value)
