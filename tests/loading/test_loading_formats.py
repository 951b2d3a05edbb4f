"""For each format: the canonical form reconstructs what the format's own definition says."""

from pathlib import Path

import loading_checkpoints as build
import numpy as np
import pytest
import torch
from torch import Tensor

from saematch.loading import load_sae
from saematch.sae import SAE


def assert_reconstructs(sae: SAE, definition: build.Definition, x: Tensor) -> None:
    """To 1e-5 of the largest reconstruction, with features firing and features silent."""
    expected = definition(x)
    found = sae.reconstruct(x.float()).double()
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    fired = sae.encode(x.float()) > 0
    assert fired.any()
    assert not fired.all()


@pytest.mark.parametrize("compressed", [False, True])
def test_gemma_scope(tmp_path: Path, compressed: bool) -> None:
    built = build.gemma_scope(tmp_path, compressed=compressed)
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs())
    assert (sae.layer, sae.name, sae.activation) == (12, "width_16k/average_l0_82", "jumprelu")
    assert sae.hook_name == "blocks.12.hook_resid_post"
    assert sae.conversions == ()
    assert sae.checkpoint_format == "gemma-scope"


def test_gemma_scope_names_its_model_by_the_repository(tmp_path: Path) -> None:
    built = build.gemma_scope(tmp_path / "gemma-scope-2b-pt-res")
    assert load_sae(str(built.path)).model_name == "gemma-2-2b"


def test_gemma_scope_embedding_reads_the_scaled_embedding(tmp_path: Path) -> None:
    """Trained before the multiplication by sqrt(d_model), which our layer -1 comes after."""
    t = build.doubles(build.weights())
    path = tmp_path / "embedding" / "width_4k" / "average_l0_6" / "params.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{name: tensor.float().numpy() for name, tensor in t.items()})
    root = build.D_MODEL**0.5

    def definition(x: Tensor) -> Tensor:
        f = build.jump(x / root @ t["W_enc"] + t["b_enc"], t["threshold"])
        return root * (f @ t["W_dec"] + t["b_dec"])

    sae = load_sae(str(path))
    assert sae.layer == -1
    assert sae.name == "width_4k/average_l0_6"
    assert_reconstructs(sae, definition, build.inputs(root))


def test_gemma_scope_2(tmp_path: Path) -> None:
    built = build.gemma_scope_2(tmp_path)
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs())
    assert (sae.layer, sae.name, sae.model_name) == (5, "width_16k_l0_small", "gemma-v3-1b-pt")


def test_gemma_scope_2_without_its_config(tmp_path: Path) -> None:
    built = build.gemma_scope_2(tmp_path)
    (built.path / "config.json").unlink()
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs())
    assert sae.layer == 5


@pytest.mark.parametrize(
    "hyperparams",
    [
        {},
        {"sparsity_include_decoder_norm": False},
        {"apply_decoder_bias_to_pre_encoder": True},
        {"dataset_average_activation_norm": {"in": 1.7, "out": 2.9}},
        {"dataset_average_activation_norm": {"in": 40.0, "out": 40.0}},
        {"norm_activation": "inference"},
        {"act_fn": "topk"},
        {"act_fn": "topk", "jump_relu_threshold": 0.0, "top_k": 7},
        {"act_fn": "relu", "jump_relu_threshold": 0.0},
    ],
    ids=str,
)
def test_llama_scope(tmp_path: Path, hyperparams: dict[str, object]) -> None:
    built = build.llama_scope(tmp_path, **hyperparams)
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs(2.0))
    assert (sae.layer, sae.name) == (15, "")


def test_llama_scope_threshold_is_not_rescaled_with_the_activations(tmp_path: Path) -> None:
    """It was measured on the SAE after its scale had been folded."""
    built = build.llama_scope(tmp_path, sparsity_include_decoder_norm=False)
    sae = load_sae(str(built.path))
    assert sae.threshold is not None
    assert torch.allclose(sae.threshold, torch.full((build.D_SAE,), 0.9))
    assert sae.W_enc.data_ptr() != 0
    assert torch.equal(sae.W_dec, build.weights(2)["W_dec"])


@pytest.mark.parametrize(
    "config", [{}, {"num_latents": 0, "expansion_factor": 4}, {"normalize_decoder": False}], ids=str
)
def test_sparsify(
    tmp_path: Path, config: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    if config.get("num_latents") == 0:
        monkeypatch.setattr(build, "D_SAE", 4 * build.D_MODEL)
        monkeypatch.setattr(
            build.weights, "__kwdefaults__", {"d_model": build.D_MODEL, "d_sae": 4 * build.D_MODEL}
        )
    built = build.sparsify(tmp_path, **config)
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs())
    assert (sae.layer, sae.activation, sae.k) == (3, "topk", 6)
    assert sae.model_name == "EleutherAI/pythia-160m"


@pytest.mark.parametrize(
    "dict_class",
    [
        "AutoEncoder",
        "AutoEncoderNew",
        "AutoEncoderTopK",
        "BatchTopKSAE",
        "MatryoshkaBatchTopKSAE",
        "JumpReluAutoEncoder",
    ],
)
def test_dictionary_learning(tmp_path: Path, dict_class: str) -> None:
    built = build.dictionary_learning(tmp_path, dict_class)
    sae = load_sae(str(built.path))
    assert_reconstructs(sae, built.reconstruct, build.inputs())
    expected = {"AutoEncoderTopK": "topk", "AutoEncoder": "relu", "AutoEncoderNew": "relu"}
    assert sae.activation == expected.get(dict_class, "jumprelu")
    assert (sae.layer, sae.model_name) == (8, "EleutherAI/pythia-70m")


@pytest.mark.parametrize(
    "dict_class", ["AutoEncoder", "AutoEncoderNew", "JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"]
)
def test_dictionary_learning_without_its_config(tmp_path: Path, dict_class: str) -> None:
    built = build.dictionary_learning(tmp_path, dict_class)
    (built.path / "config.json").unlink()
    assert_reconstructs(load_sae(str(built.path)), built.reconstruct, build.inputs())


def test_weights_without_rewriting_stay_mapped_in_the_files_dtype(tmp_path: Path) -> None:
    """A change to a mapped file shows through the tensor; a copy would not see it."""
    built = build.gemma_scope(tmp_path)
    sae = load_sae(str(built.path))
    before = float(sae.W_dec[0, 0])
    raw = built.path.read_bytes()
    at = raw.index(sae.W_dec.numpy().tobytes())
    with built.path.open("r+b") as file:
        file.seek(at)
        file.write(np.float32(before + 1).tobytes())
    assert float(sae.W_dec[0, 0]) == before + 1


def test_safetensors_are_mapped(tmp_path: Path) -> None:
    built = build.gemma_scope_2(tmp_path)
    sae = load_sae(str(built.path))
    before = float(sae.W_dec[0, 0])
    path = built.path / "params.safetensors"
    at = path.read_bytes().index(sae.W_dec.numpy().tobytes())
    with path.open("r+b") as file:
        file.seek(at)
        file.write(np.float32(before + 1).tobytes())
    assert float(sae.W_dec[0, 0]) == before + 1


def test_writing_into_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    for built, name in (
        (build.gemma_scope(tmp_path / "a"), ""),
        (build.gemma_scope_2(tmp_path / "b"), "params.safetensors"),
        (build.dictionary_learning(tmp_path / "c", "JumpReluAutoEncoder"), "ae.pt"),
    ):
        path = built.path / name if name else built.path
        before = path.read_bytes()
        load_sae(str(built.path)).W_dec.zero_()
        assert path.read_bytes() == before


def test_bfloat16_is_kept(tmp_path: Path) -> None:
    folder = build.saelens(tmp_path, tensors={n: t.bfloat16() for n, t in build.weights().items()})
    sae = load_sae(str(folder))
    assert sae.W_enc.dtype == sae.threshold.dtype == torch.bfloat16


def test_fortran_order_and_big_endian_arrays(tmp_path: Path) -> None:
    built = build.gemma_scope(tmp_path)
    with np.load(built.path) as data:
        arrays = dict(data)
    arrays["W_enc"] = np.asfortranarray(arrays["W_enc"])
    arrays["b_dec"] = arrays["b_dec"].astype(">f4")
    np.savez(built.path, **arrays)
    assert_reconstructs(load_sae(str(built.path)), built.reconstruct, build.inputs())
