"""Mutants of checkpoints: each loads as the SAE that its bytes say, or is one of our errors.

Law.  For every mutant of a valid checkpoint, `load_sae` either returns the SAE that an independent reader
of the same bytes gives, or raises a SaematchError; in bounded time and memory.

The oracle shares nothing with the loaders: it reads safetensors with numpy from the header, npz with
`numpy.load` (which checks CRCs), torch files with `torch.load` into memory (which checks sizes), each only
where the container's own checks pass, and computes the reconstruction from the format's definition in
float64.  A mutant that the oracle cannot read must be an error of ours.
"""

import io
import json
import random
import shutil
import struct
import time
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loading_checkpoints as build
import numpy as np
import pytest
import torch
from torch import Tensor

from saematch.errors import SaematchError
from saematch.loading import load_sae

SECONDS = 2.0
BYTES = 256 << 20

Rng = random.Random
Oracle = Callable[[dict[str, Tensor], dict[str, Any], Tensor], Tensor]


def d64(t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.double() for n, v in t.items()}


def sized(t: dict[str, Tensor], config: dict[str, Any], d_in: str, d_sae: str, W: Tensor) -> None:
    """What config and tensors both state agrees."""
    assert config.get(d_in) in (None, W.shape[0])
    assert config.get(d_sae) in (None, W.shape[1])


def whole(value: Any, low: int = 1) -> int:
    assert not isinstance(value, bool)
    assert isinstance(value, int | float)
    assert value == int(value) >= low
    return int(value)


def jumprelu(t: dict[str, Tensor], _: dict[str, Any], x: Tensor) -> Tensor:
    d = d64({n.replace("w_", "W_"): v for n, v in t.items()})
    assert d["threshold"].shape == d["b_enc"].shape
    f = build.jump(x @ d["W_enc"] + d["b_enc"], d["threshold"]).relu()
    return f @ d["W_dec"] + d["b_dec"]


def of_saelens(t: dict[str, Tensor], c: dict[str, Any], x: Tensor) -> Tensor:
    assert c.get("architecture") == "jumprelu"
    assert c.get("normalize_activations", "none") in ("none", None, False)
    sized(t, c, "d_in", "d_sae", t["W_enc"])
    subtracts = c.get("apply_b_dec_to_input", True)
    assert subtracts in (True, False, None)
    assert not isinstance(subtracts, int) or isinstance(subtracts, bool)
    z = x if subtracts is False else x - t["b_dec"].double()
    assert t["b_dec"].shape == x.shape[1:]
    d = d64(t)
    f = build.jump(z @ d["W_enc"] + d["b_enc"], d["threshold"]).relu()
    return f @ d["W_dec"] + d["b_dec"]


def of_sparsify(t: dict[str, Tensor], c: dict[str, Any], x: Tensor) -> Tensor:
    assert c.get("activation", "topk") in ("topk", None)
    assert not c.get("signed")
    W = t["encoder.weight"].T
    sized(t, {**c, "num_latents": c.get("num_latents") or None}, "d_in", "num_latents", W)
    d = d64(t)
    k = whole(c["k"])
    pre = ((x - d["b_dec"]) @ d["encoder.weight"].T + d["encoder.bias"]).relu()
    return build.largest(pre, k) @ d["W_dec"] + d["b_dec"]


def of_llama(t: dict[str, Tensor], c: dict[str, Any], x: Tensor) -> Tensor:
    sized(t, c, "d_model", "d_sae", t["encoder.weight"].T)
    d, n = d64(t), c["dataset_average_activation_norm"]
    assert c.get("norm_activation") in (None, "dataset-wise")
    root = x.shape[1] ** 0.5
    s_in, s_out = root / n["in"], root / (n.get("out") or n["in"])
    W_dec = d["decoder.weight"].T * s_in / s_out
    b_enc, b_dec = d["encoder.bias"] / s_in, d["decoder.bias"] / s_out
    z = x - b_dec if c.get("apply_decoder_bias_to_pre_encoder", True) is not False else x
    pre = z @ d["encoder.weight"].T + b_enc
    norm = W_dec.norm(dim=1)
    if c.get("sparsity_include_decoder_norm", True) is False:
        norm = torch.ones_like(norm)
    threshold = c["jump_relu_threshold"]
    if c.get("act_fn") in (None, "relu"):
        assert threshold in (0, None)
    threshold = threshold or 0.0
    return (pre * (pre * norm > threshold)) @ W_dec + b_dec


def of_dictionary_learning(t: dict[str, Tensor], c: dict[str, Any], x: Tensor) -> Tensor:
    trainer = c.get("trainer") or {}
    W = t["encoder.weight"].T if "encoder.weight" in t else t["W_enc"]
    sized(t, trainer, "activation_dim", "dict_size", W)
    d = d64(t)
    dict_class = trainer.get("dict_class") or ("JumpReluAutoEncoder" if "W_enc" in t else "")
    if dict_class == "JumpReluAutoEncoder":
        assert "k" not in t
        return jumprelu(t, c, x)
    assert dict_class == "BatchTopKSAE"
    assert "k" not in t or trainer.get("k") in (None, int(t["k"]))
    assert d["threshold"] >= 0
    pre = ((x - d["b_dec"]) @ d["encoder.weight"].T + d["encoder.bias"]).relu()
    return (pre * (pre > d["threshold"])) @ d["decoder.weight"].T + d["b_dec"]


# Format: how to build it, weights, config, definition.
FORMATS: dict[str, tuple[Callable[[Path], Path], str, str | None, Oracle]] = {
    "npz": (lambda r: build.gemma_scope(r).path.parent, "params.npz", None, jumprelu),
    "npz-compressed": (
        lambda r: build.gemma_scope(r, compressed=True).path.parent, "params.npz", None, jumprelu,
    ),
    "gemma-scope-2": (
        lambda r: build.gemma_scope_2(r).path, "params.safetensors", "config.json", jumprelu,
    ),
    "saelens": (lambda r: build.saelens(r), "sae_weights.safetensors", "cfg.json", of_saelens),
    "sparsify": (lambda r: build.sparsify(r).path, "sae.safetensors", "cfg.json", of_sparsify),
    "llama": (
        lambda r: build.llama_scope(r).path, "checkpoints/final.safetensors", "hyperparams.json",
        of_llama,
    ),
    "batchtopk": (
        lambda r: build.dictionary_learning(r, "BatchTopKSAE").path, "ae.pt", "config.json",
        of_dictionary_learning,
    ),
    "jumprelu.pt": (
        lambda r: build.dictionary_learning(r, "JumpReluAutoEncoder").path, "ae.pt", "config.json",
        of_dictionary_learning,
    ),
}  # fmt: skip


def stored(path: Path) -> dict[str, Tensor]:
    """The tensors in a file by readers of others, with every check that the container allows."""
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        (size,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        body = data[8 + size :]
        kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I32": np.int32}
        tensors = {}
        for name, entry in header.items():
            a, b = entry["data_offsets"]
            array = np.frombuffer(body[a:b], kinds[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
        return tensors
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {
                name: torch.from_numpy(np.array(a, dtype=a.dtype.newbyteorder("=")))
                for name, a in arrays.items()
            }
    return {str(n): v for n, v in torch.load(path, weights_only=True).items()}


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    if path.suffix == ".npz":
        np.savez(path, **{n: t.float().numpy() for n, t in tensors.items()})
    elif path.suffix == ".pt":
        torch.save(tensors, path)
    else:
        build.write_safetensors(path, tensors)


def expected(folder: Path, weights: str, config: str | None, oracle: Oracle) -> Tensor | None:
    """What the mutant reconstructs by its own bytes; None where they say nothing."""
    try:
        c = json.loads((folder / config).read_text()) if config else {}
        t = stored(folder / weights)
        result = oracle(t, c, build.inputs())
    except Exception:
        return None
    return result if bool(torch.isfinite(result).all()) else None


# Mutations: each changes the folder in place.
def flip_bits(path: Path, _: Path | None, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    for _i in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def flip_head(path: Path, _: Path | None, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(min(600, len(data)))] = rng.randrange(256)
    path.write_bytes(data)


def flip_tail(path: Path, _: Path | None, rng: Rng) -> None:
    data = bytearray(path.read_bytes())
    data[-rng.randrange(1, min(700, len(data)))] = rng.randrange(256)
    path.write_bytes(data)


def truncate(path: Path, _: Path | None, rng: Rng) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def extend(path: Path, _: Path | None, rng: Rng) -> None:
    extra = rng.randbytes(rng.randrange(1, 300))
    data = path.read_bytes()
    at = rng.choice((0, len(data), rng.randrange(len(data))))
    path.write_bytes(data[:at] + extra + data[at:])


def change_tensor(path: Path, _: Path | None, rng: Rng) -> None:
    t = {n: v.clone() for n, v in stored(path).items()}
    name = rng.choice(sorted(t))
    kind = rng.choice(("number", "remove", "shape", "cast", "swap", "extra", "scale"))
    if kind == "number":
        value = rng.choice((float("nan"), float("inf"), -float("inf"), 0.0, 1e38, -1e38, 1e-40))
        v = t[name].float()
        v.view(-1)[rng.randrange(v.numel())] = value
        t[name] = v
    elif kind == "remove":
        del t[name]
    elif kind == "shape":
        v = t[name]
        t[name] = rng.choice((v[None], v.reshape(-1), torch.cat([v.reshape(-1)] * 2), v.T))
    elif kind == "cast":
        kinds = (torch.int32, torch.float16, torch.float64, torch.bool, torch.complex64)
        t[name] = t[name].to(rng.choice(kinds))
    elif kind == "swap":
        other = rng.choice(sorted(t))
        t[name], t[other] = t[other], t[name]
    elif kind == "extra":
        extra = ("threshold", "log_threshold", "k", "r_mag", "b_gate", "W_skip", "other")
        t.setdefault(rng.choice(extra), torch.ones(build.D_SAE))
    else:
        t[name] = t[name].float() * rng.choice((1e-30, 1e-10, 1e10, 1e30, 3e38))
    write(path, t)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 3.7, 12, 40, 1e300, -77, 10**30, float("nan"), float("inf"),
    "false", "true", "12", "", [], [12], {}, {"in": 3}, "standard", "jumprelu", "topk", "gated",
    "AutoEncoder", "JumpReluAutoEncoder", "BatchTopKSAE", "\ud800", "x" * 5000, "\x1b[31m",
)  # fmt: skip


def change_config(_: Path, config: Path | None, rng: Rng) -> None:
    assert config is not None
    c = json.loads(config.read_text())
    inner = [v for v in c.values() if isinstance(v, dict) and v]
    where = rng.choice([c, *inner])
    if rng.random() < 0.15:
        where.pop(rng.choice(sorted(where)))
    else:
        where[rng.choice(sorted(where))] = rng.choice(VALUES)
    config.write_text(json.dumps(c))


def break_json(_: Path, config: Path | None, rng: Rng) -> None:
    assert config is not None
    data = bytearray(config.read_bytes())
    if rng.random() < 0.2:
        data = bytearray(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
    elif rng.random() < 0.2:
        data = bytearray(b'{"k": 1' + b"0" * 6000 + b"}")
    else:
        data[rng.randrange(len(data))] = rng.randrange(256)
    config.write_bytes(data)


def zip_again(path: Path, _: Path | None, rng: Rng) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [(m.filename, archive.read(m)) for m in archive.infolist()]
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    kind = rng.choice(("shorten", "twice", "method", "bomb", "name", "encrypt", "pickle", "drop"))
    index = rng.randrange(len(members))
    name, content = members[index]
    method = rng.choice(methods) if kind == "method" else zipfile.ZIP_STORED
    if kind == "shorten":
        members[index] = (name, content[: rng.randrange(len(content) + 1)])
    elif kind == "twice":
        members.append((name, content if rng.random() < 0.5 else content[::-1]))
    elif kind == "bomb":
        members.append(("bomb.npy" if path.suffix == ".npz" else "archive/x", b"\0" * (64 << 20)))
        method = zipfile.ZIP_DEFLATED
    elif kind == "name":
        members[index] = (rng.choice(("é/\u202e.npy", "../" + name, "data.pkl", "x")), content)
    elif kind == "pickle":
        members[index] = (
            name,
            bytes(rng.randrange(256) if rng.random() < 0.02 else b for b in content),
        )
    elif kind == "drop":
        members.pop(index)
    with zipfile.ZipFile(path, "w", method) as archive:
        for member, data in members:
            archive.writestr(member, data)
    if kind == "encrypt":
        data = path.read_bytes()
        at = data.rindex(b"PK\x01\x02") + 8
        path.write_bytes(data[:at] + b"\x01" + data[at + 1 :])


def odd_torch(path: Path, _: Path | None, rng: Rng) -> None:
    t = {n: v.clone() for n, v in stored(path).items()}
    name = rng.choice(sorted(t))
    v = t[name].float()
    kind = rng.choice(("sparse", "meta", "float8", "expand", "legacy", "nested", "slice", "param"))
    value: Any = v
    if kind == "sparse":
        value = v.to_sparse()
    elif kind == "meta":
        value = v.to("meta")
    elif kind == "float8":
        value = v.to(torch.float8_e4m3fn)
    elif kind == "expand":
        value = torch.tensor(1.0).expand(v.shape)
    elif kind == "nested":
        value = {"a": v}
    elif kind == "slice":
        value = torch.cat([v.reshape(-1), v.reshape(-1)])[: v.numel()].reshape(v.shape)
    elif kind == "param":
        value = torch.nn.Parameter(v)
    if kind == "legacy":
        value = t[name]
    torch.save({**t, name: value}, path)
    if kind == "legacy":
        torch.save(t, path, _use_new_zipfile_serialization=False)
        if rng.random() < 0.7:
            flip_bits(path, None, rng)
            raise NoOracleError


class NoOracleError(Exception):
    """A legacy file with a flipped bit has no checksum; that nothing of another kind is raised is all."""


def same(found: Tensor, right: Tensor) -> bool:
    # Numbers near float32's end overflow in one order of computing and not in another.
    if float(right.abs().max()) > 1e30 or not bool(torch.isfinite(found).all()):
        return True
    # A feature whose pre-activation meets its threshold to rounding may go either way.
    close = (found - right).abs() <= 1e-3 * right.abs().max() + 1e-6
    return float(close.float().mean()) > 0.9


ANY = (flip_bits, flip_head, flip_tail, truncate, extend, change_tensor)
BYTES_ONLY = (flip_bits, flip_head, flip_tail, truncate, extend, zip_again)
Mutation = Callable[[Path, Path | None, Rng], None]


def mutations_of(weights: str, config: str | None) -> tuple[Mutation, ...]:
    chosen: tuple[Mutation, ...] = ANY
    if config:
        chosen = (*chosen, change_config, change_config, change_config, break_json)
    if weights.endswith((".npz", ".pt")):
        chosen = (*chosen, zip_again, zip_again)
    if weights.endswith(".pt"):
        chosen = (*chosen, odd_torch, odd_torch)
    return chosen


def try_mutants(root: Path, seeds: range) -> Counter[tuple[str, str]]:
    """(mutation, outcome) counts; AssertionError that names the seed where the law is broken."""
    originals: dict[str, Path] = {}
    for name, (make, *_) in FORMATS.items():
        originals[name] = make(root / "original" / name)
    counts: Counter[tuple[str, str]] = Counter()
    for seed in seeds:
        rng = Rng(seed)
        name = rng.choice(sorted(FORMATS))
        _, weights, config, oracle = FORMATS[name]
        folder = root / "mutant" / originals[name].relative_to(root / "original" / name)
        shutil.rmtree(root / "mutant", ignore_errors=True)
        shutil.copytree(originals[name], folder)
        mutate = rng.choice(mutations_of(weights, config))
        what = f"seed {seed}: {mutate.__name__} of {name}"
        certain = True
        try:
            mutate(folder / weights, folder / config if config else None, rng)
        except NoOracleError:
            certain = False
        tracemalloc.start()
        started = time.process_time()  # other processes must not count
        try:
            sae = load_sae(str(folder))
        except SaematchError:
            sae = None
        except BaseException as error:
            raise AssertionError(f"{what}: raised {type(error).__name__}: {error}") from error
        finally:
            seconds = time.process_time() - started
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert seconds < SECONDS, f"{what}: {seconds:.1f} s"
        assert peak < BYTES, f"{what}: {peak >> 20} MB"
        if sae is None:
            counts[mutate.__name__, "error"] += 1
            continue
        counts[mutate.__name__, "loaded"] += 1
        if not certain:
            continue
        rights = [expected(folder, weights, config, oracle)]
        if mutate in BYTES_ONLY:
            # Other readers are stricter about what surrounds the numbers, or take a stored file for a
            # folder because of an attribute; the numbers are those of before.
            rights.append(expected(originals[name], weights, config, oracle))
        known = [right for right in rights if right is not None]
        assert known, f"{what}: loaded what nobody else can read"
        found = sae.reconstruct(build.inputs().float()).double()
        assert any(same(found, right) for right in known), f"{what}: another SAE"
    return counts


def test_mutants_are_right_or_an_error(tmp_path: Path) -> None:
    counts = try_mutants(tmp_path, range(500))
    assert counts.total() == 500
    outcomes = Counter(outcome for _, outcome in counts.elements())
    assert outcomes["loaded"] > 25
    assert outcomes["error"] > 250


@pytest.mark.slow
def test_many_mutants_are_right_or_an_error(tmp_path: Path) -> None:
    counts = try_mutants(tmp_path, range(1000, 21_000))
    for (mutation, outcome), count in sorted(counts.items()):
        print(f"{mutation:15} {outcome:7} {count}")
    assert counts.total() == 20_000
