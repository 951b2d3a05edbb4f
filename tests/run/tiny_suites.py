"""Tiny suites in SAELens's folder format, and a report that stands in for the real one."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

D_MODEL = 8


def write_sae(
    folder: Path, layer: int, d_sae: int = 16, seed: int = 0, dead: tuple[int, ...] = ()
) -> Path:
    """A JumpReLU SAE with random weights; `dead` features get thresholds near zero."""
    generator = torch.Generator().manual_seed(1000 * seed + layer)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    threshold = torch.rand(d_sae, generator=generator) + 0.5
    threshold[list(dead)] = 1e-4
    tensors = {
        "W_enc": normal(D_MODEL, d_sae),
        "b_enc": normal(d_sae),
        "W_dec": normal(d_sae, D_MODEL),
        "b_dec": normal(D_MODEL),
        "threshold": threshold,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {
        "architecture": "jumprelu",
        "d_in": D_MODEL,
        "d_sae": d_sae,
        "dtype": "float32",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "metadata": {
            "hook_name": f"blocks.{layer}.hook_resid_post",
            "model_name": "tiny",
            "model_weights_sha256": "ab" * 32,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def write_suite(folder: Path, widths: tuple[int, ...] = (16, 16, 24), seed: int = 0) -> Path:
    """SAEs of layers 3, 4, … in `folder`; feature 0 of each is degenerate."""
    for number, width in enumerate(widths):
        layer = 3 + number
        write_sae(folder / f"layer_{layer}", layer, width, seed, dead=(0,))
    return folder
