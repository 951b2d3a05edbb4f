"""The figures of the model card, from the SAEs as shipped.

Explained variance is 1 − Σ_d Var(x̂ − x)_d / Σ_d Var(x)_d over tokens, in float64; BOS and tokens of
massive norm are left out, and counted.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from activations import load_model, read_activations
from jobs import Job
from saematch import SAE, load_sae
from saematch.matching.strategies import unit_rows
from saematch.models import capture_residual_stream
from settings import Settings

ROWS = 8192


class Moments:
    """Sums over tokens from which a variance per dimension follows."""

    def __init__(self, d_model: int) -> None:
        self.tokens = 0
        self.sum = torch.zeros(d_model, dtype=torch.float64)
        self.square = torch.zeros(d_model, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        self.tokens += len(rows)
        self.sum += rows.double().sum(dim=0)
        self.square += rows.double().square().sum(dim=0)

    def variance(self) -> float:
        return float((self.square / self.tokens - (self.sum / self.tokens).square()).sum())


class Quality:
    """Explained variance and mean L0 of one SAE on a stream of residual vectors."""

    def __init__(self, sae: SAE) -> None:
        self.sae = sae
        self.stream, self.error = Moments(sae.d_model), Moments(sae.d_model)
        self.active = 0

    def add(self, rows: Tensor) -> None:
        for part in rows.split(ROWS):
            f = self.sae.encode(part)
            self.active += int((f > 0).sum())
            self.stream.add(part)
            self.error.add(self.sae.decode(f) - part.float())

    def result(self) -> dict[str, float]:
        return {
            "explained_variance": 1 - self.error.variance() / self.stream.variance(),
            "l0": self.active / self.stream.tokens,
            "tokens": self.stream.tokens,
        }


def evaluation_documents(path: Path, tokenizer: Any, settings: Settings) -> Iterator[Tensor]:
    """Token ids of a corpus's first `evaluation_documents` documents, [1, tokens], BOS first."""
    with path.open(encoding="utf-8") as stream:
        for _, line in zip(range(settings.evaluation_documents), stream, strict=False):
            text = json.loads(line)["text"]
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][: settings.context - 1]
            yield torch.tensor([[tokenizer.bos_token_id, *ids]])


def measure_corpora(settings: Settings, saes: dict[str, SAE]) -> dict[str, Any]:
    """Quality of every SAE on every corpus in `settings.evaluation`."""
    model, tokenizer = load_model(settings)
    blocks = sorted({sae.layer for sae in saes.values()})
    limits = {block: outlier_limit(settings, block) for block in blocks}
    found: dict[str, Any] = {}
    for path in sorted(Path(settings.evaluation).glob("*.jsonl")):
        quality = {name: Quality(sae) for name, sae in saes.items()}
        left_out = dict.fromkeys(blocks, 0)
        for ids in tqdm(evaluation_documents(path, tokenizer, settings), desc=path.stem):
            streams = capture_residual_stream(model, ids.to(settings.device), blocks)
            for block in blocks:
                rows = streams[block][0, 1:].cpu()
                keep = rows.norm(dim=1) <= limits[block]
                left_out[block] += int((~keep).sum())
                for name, sae in saes.items():
                    if sae.layer == block:
                        quality[name].add(rows[keep])
        found[path.stem] = {
            name: {**quality[name].result(), "left_out": left_out[saes[name].layer]}
            for name in saes
        }
    return found


def outlier_limit(settings: Settings, block: int) -> float:
    """The norm above which a token after `block` is left out."""
    rows = read_activations(settings, "held_out", block).rows
    return settings.outlier_ratio * float(rows.float().norm(dim=1).median())


def best_cosines(a: SAE, b: SAE) -> list[float]:
    """Quantiles 0.1, 0.25, 0.5, 0.75, 0.9 of each live feature's greatest cosine to a row of b."""
    live = torch.tensor([status == "live" for status in a.status])
    best = (unit_rows(a.W_dec)[live] @ unit_rows(b.W_dec).T).amax(dim=1)
    return best.quantile(torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])).tolist()


def measure(settings: Settings, exported: dict[Job, Path]) -> dict[str, Any]:
    """Everything that the model card says, by SAE."""
    saes = {job.name: load_sae(str(folder)) for job, folder in exported.items()}
    records: dict[str, Any] = {}
    for job in exported:
        sae = saes[job.name]
        held_out = read_activations(settings, "held_out", job.block)
        quality = Quality(sae)
        quality.add(held_out.rows)
        records[job.name] = {
            "held_out": {**quality.result(), "left_out": held_out.left_out},
            "never_fired": int((sae.firing.counts == 0).sum()) if sae.firing else None,
            "status": {kind: sae.status.count(kind) for kind in ("live", "dead", "degenerate")},
            "training": json.loads(
                (Path(settings.work) / "saes" / job.name / "training.json").read_text()
            ),
        }
    for job in exported:
        others = {
            "next_layer": str(job.block + 1),
            "second_seed": f"{job.block}-second-seed",
            "untrained": f"{job.block}-untrained",
        }
        if job.name == str(job.block):
            records[job.name]["best_cosine"] = {
                kind: best_cosines(saes[job.name], saes[name])
                for kind, name in others.items()
                if name in saes
            }
    for corpus, by_name in measure_corpora(settings, saes).items():
        for name, values in by_name.items():
            records[name].setdefault("corpora", {})[corpus] = values
    return records
