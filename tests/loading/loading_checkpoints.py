"""Small checkpoints in the exact on-disk form of each format, and each format's own definition.

A definition is a straight computation in float64 from the *stored* tensors; it shares nothing with
the loaders.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D_MODEL, D_SAE = 12, 40

Definition = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Built:
    """A checkpoint on disk and what it must reconstruct."""

    path: Path
    reconstruct: Definition


def weights(seed: int = 0, *, d_model: int = D_MODEL, d_sae: int = D_SAE) -> dict[str, Tensor]:
    """W_enc, b_enc, W_dec, b_dec, threshold, all far from zero and rows of uneven norm."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    gain = 0.4 + 2 * torch.rand(d_sae, 1, generator=generator)
    return {
        "W_enc": normal(d_model, d_sae),
        "b_enc": normal(d_sae),
        "W_dec": normal(d_sae, d_model) * gain,
        "b_dec": normal(d_model) + 0.7,
        "threshold": 0.3 + torch.rand(d_sae, generator=generator),
    }


def inputs(scale: float = 1.0, *, d_model: int = D_MODEL, tokens: int = 64) -> Tensor:
    """Residual-stream vectors in float64 with a mean."""
    generator = torch.Generator().manual_seed(99)
    x = torch.randn(tokens, d_model, generator=generator, dtype=torch.float64)
    return scale * (x + 0.5)


def jump(pre: Tensor, threshold: Tensor | float) -> Tensor:
    return torch.where(pre > threshold, pre, 0.0)


def largest(values: Tensor, k: int) -> Tensor:
    """Only the k largest of each row."""
    kept = torch.zeros_like(values)
    top = values.topk(k, dim=-1)
    return kept.scatter(-1, top.indices, top.values)


def doubles(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in tensors.items()}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_safetensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)


def gemma_scope(
    root: Path, layer: int = 12, l0: int = 82, *, compressed: bool = False, seed: int = 0
) -> Built:
    t = weights(seed)
    path = root / f"layer_{layer}" / "width_16k" / f"average_l0_{l0}" / "params.npz"
    path.parent.mkdir(parents=True)
    save = np.savez_compressed if compressed else np.savez
    save(path, **{name: tensor.numpy() for name, tensor in t.items()})
    d = doubles(t)
    return Built(
        path,
        lambda x: jump(x @ d["W_enc"] + d["b_enc"], d["threshold"]) @ d["W_dec"] + d["b_dec"],
    )


def gemma_scope_2(root: Path, layer: int = 5, **config: Any) -> Built:
    t = weights(1)
    folder = root / "resid_post" / f"layer_{layer}_width_16k_l0_small"
    write_safetensors(
        folder / "params.safetensors",
        {name.replace("W_", "w_"): tensor for name, tensor in t.items()},
    )
    write_json(
        folder / "config.json",
        {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-1b-pt",
            "hf_hook_point_in": f"model.layers.{layer}.output",
            "hf_hook_point_out": f"model.layers.{layer}.output",
            **config,
        },
    )
    d = doubles(t)
    return Built(
        folder,
        lambda x: jump(x @ d["W_enc"] + d["b_enc"], d["threshold"]) @ d["W_dec"] + d["b_dec"],
    )


def llama_scope(root: Path, layer: int = 15, **hyperparams: Any) -> Built:
    """OpenMOSS lm_saes: `SparseAutoEncoder.from_config`, then `encode` and `decode`."""
    t = weights(2)
    folder = root / f"Llama3_1-8B-Base-L{layer}R-8x"
    h = {
        "hook_point_in": f"blocks.{layer}.hook_resid_post",
        "hook_point_out": f"blocks.{layer}.hook_resid_post",
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.9,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 1.7, "out": 1.7},
        "sparsity_include_decoder_norm": True,
        "top_k": 50,
        "d_model": D_MODEL,
        "d_sae": D_SAE,
        **hyperparams,
    }
    write_json(folder / "hyperparams.json", h)
    stored = {
        "encoder.weight": t["W_enc"].T,
        "encoder.bias": t["b_enc"],
        "decoder.weight": t["W_dec"].T,
        "decoder.bias": t["b_dec"],
    }
    write_safetensors(folder / "checkpoints" / "final.safetensors", stored)

    def reconstruct(x: Tensor) -> Tensor:
        s = {name: tensor.double() for name, tensor in stored.items()}
        if h["norm_activation"] == "dataset-wise":
            norms = h["dataset_average_activation_norm"]
            scale_in, scale_out = D_MODEL**0.5 / norms["in"], D_MODEL**0.5 / norms["out"]
            s["encoder.bias"] = s["encoder.bias"] / scale_in
            s["decoder.bias"] = s["decoder.bias"] / scale_out
            s["decoder.weight"] = s["decoder.weight"] * scale_in / scale_out
        if h["sparsity_include_decoder_norm"]:
            norm = s["decoder.weight"].norm(dim=0)
            s["decoder.weight"] = s["decoder.weight"] / norm
            s["encoder.weight"] = s["encoder.weight"] * norm[:, None]
            s["encoder.bias"] = s["encoder.bias"] * norm
        if h["apply_decoder_bias_to_pre_encoder"]:
            x = x - s["decoder.bias"]
        pre = x @ s["encoder.weight"].T + s["encoder.bias"]
        if h["act_fn"] == "relu":
            f = pre.relu()
        elif h["jump_relu_threshold"] > 0:
            f = jump(pre, h["jump_relu_threshold"])
        else:
            f = largest(pre.relu(), h["top_k"])
        return f @ s["decoder.weight"].T + s["decoder.bias"]

    return Built(folder, reconstruct)


def sparsify(root: Path, hookpoint: str = "layers.3", **config: Any) -> Built:
    """sparsify/sparse_coder.py: `encode` and `decode`."""
    t = weights(3)
    folder = root / hookpoint
    cfg = {
        "activation": "topk", "expansion_factor": D_SAE // D_MODEL, "normalize_decoder": True,
        "num_latents": D_SAE, "k": 6, "multi_topk": False, "skip_connection": False,
        "transcode": False, "d_in": D_MODEL, **config,
    }  # fmt: skip
    write_json(folder / "cfg.json", cfg)
    write_safetensors(
        folder / "sae.safetensors",
        {
            "encoder.weight": t["W_enc"].T,
            "encoder.bias": t["b_enc"],
            "W_dec": t["W_dec"],
            "b_dec": t["b_dec"],
        },
    )
    write_json(root / "config.json", {"model": "EleutherAI/pythia-160m"})
    d = doubles(t)

    def reconstruct(x: Tensor) -> Tensor:
        pre = ((x - d["b_dec"]) @ d["W_enc"] + d["b_enc"]).relu()
        return largest(pre, cfg["k"]) @ d["W_dec"] + d["b_dec"]

    return Built(folder, reconstruct)


def dictionary_learning(root: Path, dict_class: str, layer: int = 8, **changes: Any) -> Built:
    """dictionary_learning/dictionary.py and trainers/: `encode` and `decode` of each class."""
    t = weights(4)
    d = doubles(t)
    folder = root / f"resid_post_layer_{layer}" / "trainer_0"
    linear = {
        "encoder.weight": t["W_enc"].T.contiguous(),
        "encoder.bias": t["b_enc"],
        "decoder.weight": t["W_dec"].T.contiguous(),
    }
    k = 5
    whole_k, scalar = torch.tensor(k, dtype=torch.int), torch.tensor(0.8)
    free = {"W_enc": t["W_enc"], "b_enc": t["b_enc"], "W_dec": t["W_dec"], "b_dec": t["b_dec"]}
    stored = {
        "AutoEncoder": {**linear, "bias": t["b_dec"]},
        "AutoEncoderNew": {**linear, "decoder.bias": t["b_dec"]},
        "AutoEncoderTopK": {
            **linear, "b_dec": t["b_dec"], "k": whole_k, "threshold": scalar,
        },
        "BatchTopKSAE": {
            **linear, "b_dec": t["b_dec"], "k": whole_k, "threshold": scalar,
        },
        "MatryoshkaBatchTopKSAE": {
            **free, "k": whole_k, "threshold": scalar,
            "group_sizes": torch.tensor([10, 30]),
        },
        "JumpReluAutoEncoder": {**free, "threshold": t["threshold"]},
        "GatedAutoEncoder": {
            "encoder.weight": linear["encoder.weight"], "decoder.weight": linear["decoder.weight"],
            "decoder_bias": t["b_dec"], "r_mag": t["b_enc"], "gate_bias": t["b_enc"],
            "mag_bias": t["b_enc"],
        },
    }[dict_class]  # fmt: skip
    stored = {**stored, **{name: v for name, v in changes.items() if isinstance(v, Tensor)}}
    folder.mkdir(parents=True)
    torch.save(stored, folder / "ae.pt")
    trainer = {
        "dict_class": dict_class, "layer": layer, "lm_name": "EleutherAI/pythia-70m", "k": k,
        "activation_dim": D_MODEL, "dict_size": D_SAE,
        "submodule_name": f"resid_post_layer_{layer}",
    }  # fmt: skip
    write_json(folder / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})

    def reconstruct(x: Tensor) -> Tensor:
        z = x if dict_class in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - d["b_dec"]
        pre = z @ d["W_enc"] + d["b_enc"]
        if dict_class == "JumpReluAutoEncoder":
            f = (pre * (pre > d["threshold"])).relu()
        elif dict_class == "AutoEncoderTopK":
            f = largest(pre.relu(), k)
        elif "BatchTopK" in dict_class:
            f = pre.relu() * (pre.relu() > float(stored["threshold"]))
        else:
            f = pre.relu()
        return f @ d["W_dec"] + d["b_dec"]

    return Built(folder, reconstruct)


def saelens(
    root: Path,
    layer: int = 12,
    *,
    folder: str | None = None,
    tensors: dict[str, Tensor | None] | None = None,
    config: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    seed: int = 5,
) -> Path:
    """A version 6 JumpReLU checkpoint with changes; the definition is SAELens itself."""
    stored: dict[str, Tensor | None] = {**weights(seed), **(tensors or {})}
    path = root / (folder if folder is not None else str(layer))
    write_safetensors(
        path / "sae_weights.safetensors", {n: t for n, t in stored.items() if t is not None}
    )
    cfg = {
        "d_in": D_MODEL, "d_sae": D_SAE, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": False, "normalize_activations": "none",
        "reshape_activations": "none", "architecture": "jumprelu",
        "metadata": {
            "sae_lens_version": "6.54.12", "model_name": "HuggingFaceTB/SmolLM2-135M",
            "hook_name": f"blocks.{layer}.hook_resid_post", "model_weights_sha256": "ab" * 32,
            "bos_token_id": 0, **(metadata or {}),
        },
        **(config or {}),
    }  # fmt: skip
    write_json(path / "cfg.json", {name: v for name, v in cfg.items() if v is not ...})
    return path


def firing_counts(folder: Path, counts: Tensor, tokens: int = 1000, corpus: str = "web") -> None:
    write_safetensors(
        folder / "firing_counts.safetensors",
        {"counts": counts.int()},
        {"tokens": str(tokens), "corpus": corpus},
    )
