"""Relabel, round and write trained SAEs the way they ship.

1. Permute the features at random: with training's order, an accident of initialisation could make
   the identity look like an answer.
2. Matrices in bfloat16, vectors in float32, in SAELens's folder format.
3. Count, with the weights as shipped, how often each feature is active on the held-out tokens:
   `firing_counts.safetensors`, from which saematch tells dead features.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from activations import read_activations
from jobs import Job
from saematch import load_sae
from saematch.models import SMOLLM2_NAME, smollm2_weights_sha256
from settings import Settings

ROWS = 8192
CORPUS = "held-out part of the training mixture"


def export(settings: Settings, job: Job, folder: Path) -> None:
    """Write `folder` from the trained SAE of the job."""
    source = Path(settings.work) / "saes" / job.name
    weights = load_file(source / "sae_weights.safetensors")
    config: dict[str, Any] = json.loads((source / "cfg.json").read_text())
    training: dict[str, Any] = json.loads((source / "training.json").read_text())

    order = torch.randperm(settings.d_sae, generator=torch.Generator().manual_seed(job.seed + 2))
    # Training clamps thresholds at zero, where a feature cannot be folded.  Such features are dead
    # or activate at any pre-activation above it: a threshold this small changes neither.
    threshold = weights["threshold"]
    floor = 1e-6 * threshold.median()
    shipped = {
        "W_enc": weights["W_enc"][:, order].bfloat16().contiguous(),
        "b_enc": weights["b_enc"][order].contiguous(),
        "W_dec": weights["W_dec"][order].bfloat16().contiguous(),
        "b_dec": weights["b_dec"],
        "threshold": threshold.clamp(min=float(floor))[order].contiguous(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(shipped, folder / "sae_weights.safetensors")

    collected = json.loads((Path(settings.work) / "activations/complete.json").read_text())
    bundled_model = settings.model == "smollm2"
    config["metadata"] = {
        **{
            key: config["metadata"][key]
            for key in ("sae_lens_version", "sae_lens_training_version")
        },
        "model_name": SMOLLM2_NAME if bundled_model else settings.model,
        "model_weights_sha256": smollm2_weights_sha256() if bundled_model else None,
        "hook_name": f"blocks.{job.block}.hook_resid_post",
        "bos_token_id": collected["bos_token_id"],
        "context_size": settings.context,
        "training_samples": training["steps"] * settings.batch,
        "unique_training_tokens": training["unique_tokens"],
        "seed": job.seed,
        "target_l0": job.target_l0,
        "thresholds_raised": int((threshold < floor).sum()),
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")

    rows = read_activations(settings, "held_out", job.block).rows
    sae = load_sae(str(folder))
    counts = torch.zeros(settings.d_sae, dtype=torch.int32)
    for part in rows.split(ROWS):
        counts += (sae.encode(part) > 0).sum(dim=0, dtype=torch.int32)
    save_file(
        {"counts": counts},
        folder / "firing_counts.safetensors",
        metadata={"tokens": str(len(rows)), "corpus": CORPUS},
    )
