"""Train one SAE with SAELens's own trainer; a finished SAE is never trained again.

1. Scale the rows of one block to norm sqrt(d_model) on average.
2. Train a JumpReLU SAE with the quadratic loss around a target L0.
3. Fold the scale back, bring decoder rows to unit norm: the SAE then reads the raw residual
   stream, and its thresholds carry the stream's scale (the convention of Gemma Scope).
4. Write it in SAELens's folder format, float32, unpermuted.
"""

import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from activations import read_activations
from jobs import Job, jobs
from settings import Settings


def batches(rows: Tensor, scale: float, seed: int, size: int) -> Iterator[Tensor]:
    """Endless float32 batches, every pass in another order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            yield rows[order[start : start + size]].float() * scale


def train(settings: Settings, job: Job) -> None:
    """Train, rescale and save one SAE under `work/saes/<name>` unless it is there."""
    folder = Path(settings.work) / "saes" / job.name
    if (folder / "training.json").is_file():
        return
    from sae_lens import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    started = time.monotonic()
    activations = read_activations(settings, "train", job.block)
    rows = activations.rows
    sample = rows[:: max(1, len(rows) // 100_000)].float()
    d_model = rows.shape[1]
    scale = d_model**0.5 / float(sample.norm(dim=1).mean())

    torch.manual_seed(job.seed)
    steps = max(1, job.samples // settings.batch)
    sae = JumpReLUTrainingSAE(
        JumpReLUTrainingSAEConfig(
            d_in=d_model,
            d_sae=settings.d_sae,
            device=settings.device,
            apply_b_dec_to_input=False,
            decoder_init_norm=settings.decoder_init_norm,
            jumprelu_init_threshold=settings.init_threshold,
            jumprelu_bandwidth=settings.bandwidth,
            jumprelu_sparsity_loss_mode="quadratic",
            jumprelu_ste_to_input=True,
            target_l0=job.target_l0,
            l0_coefficient=settings.l0_coefficient,
            l0_warm_up_steps=int(steps * settings.l0_warm_up),
            pre_act_loss_coefficient=settings.pre_act_loss_coefficient,
        )
    )
    sae.b_dec.data = sample.mean(0).to(settings.device) * scale
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=steps * settings.batch,
            train_batch_size_samples=settings.batch,
            lr=settings.learning_rate,
            lr_end=settings.learning_rate,
            lr_warm_up_steps=min(100, steps // 20),
            lr_decay_steps=steps // 2,
            device=settings.device,
            autocast=settings.autocast,
            dead_feature_window=settings.dead_window,
            feature_sampling_window=steps + 1,
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        data_provider=batches(rows, scale, job.seed, settings.batch),
    )
    if job.samples:
        trainer.fit()
    with torch.no_grad():
        sae.fold_W_dec_norm()
        # x̂·s = f·W_dec + b_dec for the input x·s.  Dividing the features by s as well leaves the
        # decoder at unit norm and moves the scale into the encoder's bias and the thresholds.
        sae.b_enc /= scale
        sae.threshold /= scale
        sae.b_dec /= scale
    sae.save_inference_model(folder)
    record = {
        **dataclasses.asdict(job),
        "scale": scale,
        "steps": trainer.n_training_steps,
        "unique_tokens": len(rows),
        "outliers_left_out": activations.left_out,
        "seconds": round(time.monotonic() - started, 1),
    }
    # Written last: its presence means that the SAE is complete.
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def train_all(settings: Settings) -> None:
    """Train every job, `workers` at a time, in the order of `jobs`."""
    threads = max(1, (os.cpu_count() or 1) // settings.workers)
    with ProcessPoolExecutor(
        settings.workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(threads,),
    ) as pool:
        for finished in [pool.submit(train, settings, job) for job in jobs(settings)]:
            finished.result()
