"""A config is read with its types and held against the tensors; damaged containers are found out."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import loading_checkpoints as build
import numpy as np
import pytest
import torch

from saematch.errors import InputError, UnsupportedError
from saematch.loading import load_sae
from saematch.loading.tensors import read_json, read_tensors


def change(path: Path, inner: str | None = None, **fields: Any) -> None:
    config = json.loads(path.read_text())
    (config[inner] if inner else config).update(fields)
    path.write_text(json.dumps(config))


def made(tmp_path: Path, name: str) -> tuple[Path, Path, str | None]:
    """A folder, its config, and the object in it that holds the sizes."""
    if name == "saelens":
        folder = build.saelens(tmp_path)
        return folder, folder / "cfg.json", None
    if name == "sparsify":
        folder = build.sparsify(tmp_path).path
        return folder, folder / "cfg.json", None
    if name == "llama":
        folder = build.llama_scope(tmp_path).path
        return folder, folder / "hyperparams.json", None
    if name == "gemma-scope-2":
        folder = build.gemma_scope_2(tmp_path).path
        return folder, folder / "config.json", None
    folder = build.dictionary_learning(tmp_path, name).path
    return folder, folder / "config.json", "trainer"


SIZES = [
    ("saelens", "d_in"), ("saelens", "d_sae"), ("sparsify", "d_in"), ("sparsify", "num_latents"),
    ("llama", "d_model"), ("llama", "d_sae"), ("gemma-scope-2", "width"),
    ("BatchTopKSAE", "activation_dim"), ("BatchTopKSAE", "dict_size"), ("AutoEncoderTopK", "k"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field"), SIZES)
@pytest.mark.parametrize("value", [7, 999, 1152])
def test_a_size_that_contradicts_the_tensors_names_both(
    tmp_path: Path, name: str, field: str, value: int
) -> None:
    folder, config, inner = made(tmp_path, name)
    load_sae(str(folder))
    change(config, inner, **{field: value})
    with pytest.raises(InputError, match=rf"agree.*'{field}' {value}.* in tensor '"):
        load_sae(str(folder))


@pytest.mark.parametrize(("name", "field"), SIZES)
@pytest.mark.parametrize(
    "value", [-3, 3.7, True, "12", [12], {"a": 1}, 10**30, float("nan"), float("inf"), "x" * 10**5]
)
def test_a_size_of_another_type_is_an_error_that_names_the_field(
    tmp_path: Path, name: str, field: str, value: object
) -> None:
    folder, config, inner = made(tmp_path, name)
    change(config, inner, **{field: value})
    with pytest.raises(InputError, match=f"as '{field}' in") as caught:
        load_sae(str(folder))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("saelens", "apply_b_dec_to_input"), ("saelens", "finetuning_scaling_factor"),
        ("saelens", "rescale_acts_by_decoder_norm"), ("sparsify", "signed"),
        ("llama", "use_decoder_bias"), ("llama", "sparsity_include_decoder_norm"),
        ("llama", "apply_decoder_bias_to_pre_encoder"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["false", "true", 0, 1, [], {}])
def test_only_true_and_false_are_true_and_false(
    tmp_path: Path, name: str, field: str, value: object
) -> None:
    folder, config, inner = made(tmp_path, name)
    change(config, inner, **{field: value})
    with pytest.raises(InputError, match=f"true or false as '{field}'"):
        load_sae(str(folder))


def test_sizes_may_be_written_as_floats_or_left_out(tmp_path: Path) -> None:
    for name, field in SIZES:
        folder, config, inner = made(tmp_path / name / field, name)
        stated = json.loads(config.read_text())
        value = (stated[inner] if inner else stated).get(field)
        change(config, inner, **{field: None if value is None else float(value)})
        load_sae(str(folder))
        if field != "num_latents":
            change(config, inner, **{field: None})
            load_sae(str(folder))


def test_an_architecture_that_contradicts_the_tensors(tmp_path: Path) -> None:
    for number, (config, tensors, word) in enumerate(
        [
            ({"architecture": "standard"}, {}, "threshold"),
            ({"architecture": "topk", "k": 3}, {}, "threshold"),
            ({}, {"b_gate": torch.ones(build.D_SAE)}, "b_gate"),
            ({}, {"threshold": None}, "threshold"),
            ({"activation_fn": "topk"}, {}, "topk"),
            ({}, {"log_threshold": torch.full((build.D_SAE,), 3.0)}, "log_threshold"),
            ({"expansion_factor": 8}, {}, "expansion_factor"),
        ]
    ):
        folder = build.saelens(tmp_path, folder=f"{number}/3", config=config, tensors=tensors)
        with pytest.raises(InputError, match=word):
            load_sae(str(folder))
    for number, dict_class in enumerate(["AutoEncoder", "AutoEncoderNew"]):
        built = build.dictionary_learning(
            tmp_path / f"dl{number}", dict_class, threshold=torch.ones(build.D_SAE)
        )
        with pytest.raises(InputError, match=rf"{dict_class}.*'threshold'"):
            load_sae(str(built.path))
    built = build.dictionary_learning(tmp_path / "bias", "AutoEncoder")
    change(built.path / "config.json", "trainer", dict_class="AutoEncoderNew")
    with pytest.raises(InputError, match=r"decoder\.bias"):
        load_sae(str(built.path))


def test_real_trainers_redundancies_are_no_contradictions(tmp_path: Path) -> None:
    standard = build.saelens(
        tmp_path / "a",
        config={"architecture": "standard", "dtype": "bfloat16"},
        tensors={
            "threshold": None,
            "scaling_factor": torch.ones(build.D_SAE),
            "extra": torch.ones(3),
        },
    )
    load_sae(str(standard))
    # sparsify's default expansion factor stands next to an explicit number of latents.
    load_sae(str(build.sparsify(tmp_path / "b", expansion_factor=32).path))
    load_sae(str(build.dictionary_learning(tmp_path / "c", "AutoEncoderTopK").path))


@pytest.mark.parametrize("field", ["embed_skip", "gram_lookup"])
def test_coders_that_read_tokens_too_are_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(UnsupportedError, match=field):
        load_sae(str(build.sparsify(tmp_path, **{field: True}).path))


def test_what_rewriting_makes_is_finite(tmp_path: Path) -> None:
    huge = torch.full((build.D_SAE,), 1e38)
    gain = build.saelens(
        tmp_path / "a",
        tensors={"scaling_factor": huge},
        config={"finetuning_scaling_factor": True},
    )
    scale = build.saelens(
        tmp_path / "b",
        config={"normalize_activations": "expected_average_only_in", "norm_scaling_factor": 1e-39},
    )
    for norm in (1e-40, 1e300):
        norms = {"in": norm, "out": 1e5}
        built = build.llama_scope(tmp_path / str(norm), dataset_average_activation_norm=norms)
        with pytest.raises(InputError, match=r"finite numbers in tensor|within float32"):
            load_sae(str(built.path))
    for folder in (gain, scale):
        with pytest.raises(InputError, match="finite numbers in tensor"):
            load_sae(str(folder))


@pytest.mark.parametrize("text", ['{"k": 1, "k": 2}', '{"a": {"b": 1, "b": true}}'])
def test_json_that_says_two_things(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cfg.json"
    path.write_text(text)
    with pytest.raises(InputError, match="stands twice"):
        read_json(path)
    path.write_text('\ufeff{"k": 1, "k": 1}')
    assert read_json(path) == {"k": 1}


def rezipped(path: Path, change: Any, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("left", [0, 4, 100, -4])
def test_a_torch_storage_shorter_than_its_tensor(tmp_path: Path, left: int) -> None:
    path = build.dictionary_learning(tmp_path, "JumpReluAutoEncoder").path / "ae.pt"

    def shorten(members: dict[str, bytes]) -> None:
        name = max(members, key=lambda n: len(members[n]))
        members[name] = members[name][:left]

    rezipped(path, shorten)
    with pytest.raises(InputError, match="bytes of numbers for tensor"):
        load_sae(str(path))


@pytest.mark.parametrize("which", ["npz", "pt"])
def test_one_flipped_bit_of_a_mapped_number(tmp_path: Path, which: str) -> None:
    if which == "npz":
        path = build.gemma_scope(tmp_path).path
    else:
        path = build.dictionary_learning(tmp_path, "JumpReluAutoEncoder").path / "ae.pt"
    data = bytearray(path.read_bytes())
    data[data.index(read_tensors(path)["W_enc"].numpy().tobytes()) + 3] ^= 0x80
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC"):
        load_sae(str(path))


def test_a_zip_bomb_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "layer_3" / "params.npz"
    path.parent.mkdir()
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1 << 24,), np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W_enc.npy", buffer.getvalue())
    with pytest.raises(InputError, match="expand to"):
        load_sae(str(path))


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16]
)
@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_other_kinds_of_numbers_are_refused_by_name(
    tmp_path: Path, container: str, dtype: torch.dtype
) -> None:
    tensors = {"W_enc": torch.ones(3, 4).to(dtype)}
    path = tmp_path / "file"
    if container == "torch":
        torch.save(tensors, path)
    else:
        build.write_safetensors(path, tensors)
    with pytest.raises(UnsupportedError, match=f"(?i){str(dtype)[6:-2]}"):
        read_tensors(path)


@pytest.mark.parametrize("dtype", ["g", "c8", "U3", "S4", "M8[s]", [("a", "f4")]])
def test_other_kinds_of_arrays_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "params.npz"
    np.savez(path, W_enc=np.zeros(3, dtype))
    with pytest.raises(UnsupportedError, match="W_enc"):
        read_tensors(path)


def test_sparse_meta_and_expanded_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    for tensor in (
        torch.eye(3).to_sparse(),
        torch.empty(3, device="meta"),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        torch.ones(1).expand(10**9),
    ):
        torch.save({"W_enc": tensor}, path)
        with pytest.raises(InputError):
            read_tensors(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_and_parameters_of_a_state_dict_are_read_as_torch_reads_them(
    tmp_path: Path, legacy: bool
) -> None:
    base = torch.arange(60, dtype=torch.float32)
    module = torch.nn.Linear(3, 4).bfloat16()
    tensors = {
        **module.state_dict(), "t": base.reshape(6, 10).T, "slice": base[7:19].reshape(3, 4),
        "p": torch.nn.Parameter(base[:5].double()), "k": torch.tensor(5), "none": base[:0],
    }  # fmt: skip
    path = tmp_path / "ae.pt"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    theirs = torch.load(path, weights_only=True)
    ours = read_tensors(path)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].dtype == tensor.dtype


def test_torch_files_without_checksums_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ae.pt"
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"W_enc": torch.ones(3, 4)}, path)
    finally:
        torch.serialization.set_crc32_options(computed)
    with pytest.raises(InputError, match="CRC-32"):
        read_tensors(path)
