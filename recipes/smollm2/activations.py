"""Residual streams of a corpus, written in chunks: a killed run goes on at the next chunk.

1. Read the corpus in a seeded order, drawing groups by their weights.
2. Cut every document to `context` tokens, BOS first.
3. The first documents, up to `held_out_tokens`, are held out; the next are trained on.
4. Run the model over chunks of documents; write bfloat16 rows of all positions but BOS.
"""

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from jobs import jobs
from saematch.errors import InputError
from saematch.models import capture_residual_stream, load_smollm2
from settings import Settings

DOCUMENTS_PER_CHUNK = 64


def read_corpus(settings: Settings) -> Iterator[tuple[str, str]]:
    """(group, text) of every record, in the corpus's own order."""
    if settings.corpus.startswith("hub:"):
        from datasets import load_dataset

        stream = load_dataset(settings.corpus[4:], split="train", streaming=True)
        for record in stream.shuffle(seed=settings.seed, buffer_size=10_000):
            yield str(record.get("group", "")), record["text"]
        return
    path = Path(settings.corpus)
    if not path.is_file():
        raise InputError(f"expected a JSONL file or hub:NAME as --corpus, got '{settings.corpus}'")
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            yield str(record.get("group", "")), record["text"]


def draw_documents(settings: Settings) -> Iterator[str]:
    """Texts in a seeded order whose groups follow `group_weights`."""
    records = read_corpus(settings)
    if settings.corpus.startswith("hub:"):
        yield from (text for _, text in records)
        return
    generator = random.Random(settings.seed)
    groups: dict[str, list[str]] = {}
    for group, text in records:
        groups.setdefault(group, []).append(text)
    for texts in groups.values():
        generator.shuffle(texts)
    weights = dict(settings.group_weights)
    names = [name for name in groups if weights.get(name, 1.0) > 0]
    while names:
        name = generator.choices(names, [weights.get(n, 1.0) for n in names])[0]
        yield groups[name].pop()
        if not groups[name]:
            names.remove(name)


def load_model(settings: Settings) -> tuple[Any, Any]:
    if settings.model == "smollm2":
        return load_smollm2(settings.device)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(settings.model)
    return model.to(settings.device).eval(), AutoTokenizer.from_pretrained(settings.model)


def tokenise(settings: Settings, tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids of the documents of each split, BOS first."""
    splits: dict[str, list[list[int]]] = {"held_out": [], "train": []}
    wanted = {"held_out": settings.held_out_tokens, "train": settings.train_tokens}
    counted = {"held_out": 0, "train": 0}
    split = "held_out"
    for text in draw_documents(settings):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][: settings.context - 1]
        if len(ids) < 32:
            continue
        splits[split].append([tokenizer.bos_token_id, *ids])
        counted[split] += len(ids)
        if counted[split] >= wanted[split]:
            if split == "train":
                return splits
            split = "train"
    raise InputError(
        f"expected {wanted['train']} training tokens, got {counted['train']} in {settings.corpus}"
    )


def write_chunk(path: Path, model: Any, documents: list[list[int]], settings: Settings) -> None:
    """Run the model over the documents and write one safetensors file, complete or not at all."""
    blocks = sorted({job.block for job in jobs(settings)})
    kept: dict[int, list[torch.Tensor]] = {block: [] for block in blocks}
    token_ids: list[torch.Tensor] = []
    by_length = sorted(documents, key=len)
    while by_length:
        rows = max(1, settings.tokens_per_batch // len(by_length[-1]))
        batch, by_length = by_length[-rows:], by_length[:-rows]
        padded = torch.zeros(len(batch), len(batch[-1]), dtype=torch.long)
        for row, ids in enumerate(batch):
            padded[row, : len(ids)] = torch.tensor(ids)
        streams = capture_residual_stream(model, padded.to(settings.device), blocks)
        for row, ids in enumerate(batch):
            token_ids.append(padded[row, 1 : len(ids)])
            for block in blocks:
                kept[block].append(streams[block][row, 1 : len(ids)].to("cpu", torch.bfloat16))
    tensors = {f"block_{block}": torch.cat(rows) for block, rows in kept.items()}
    tensors["token"] = torch.cat(token_ids).to(torch.int32)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.rename(path)


def collect(settings: Settings) -> None:
    """Write every chunk that is not there yet."""
    folder = Path(settings.work) / "activations"
    done = folder / "complete.json"
    if done.is_file():
        return
    model, tokenizer = load_model(settings)
    splits = tokenise(settings, tokenizer)
    for split, documents in splits.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        starts = range(0, len(documents), DOCUMENTS_PER_CHUNK)
        for number, start in enumerate(tqdm(starts, desc=f"activations, {split}")):
            path = folder / split / f"{number:05d}.safetensors"
            if not path.is_file():
                chunk = documents[start : start + DOCUMENTS_PER_CHUNK]
                write_chunk(path, model, chunk, settings)
    counts = {
        split: {"documents": len(rows), "tokens": sum(len(ids) - 1 for ids in rows)}
        for split, rows in splits.items()
    }
    counts["bos_token_id"] = tokenizer.bos_token_id
    done.write_text(json.dumps(counts, indent=1) + "\n")


@dataclass(frozen=True)
class Activations:
    """The rows of one block and split that a statistic or a training run may use."""

    rows: torch.Tensor
    """[tokens, d_model] bfloat16, outliers left out."""
    left_out: int
    """Rows whose norm exceeds `outlier_ratio` medians."""


def read_activations(settings: Settings, split: str, block: int) -> Activations:
    """The residual stream after `block` over the split, without massive-activation tokens."""
    parts: list[torch.Tensor] = []
    for path in sorted((Path(settings.work) / "activations" / split).glob("*.safetensors")):
        with safe_open(path, "pt") as stream:
            parts.append(stream.get_tensor(f"block_{block}"))
    rows = torch.cat(parts)
    norms = torch.cat([part.float().norm(dim=1) for part in parts])
    keep = norms <= settings.outlier_ratio * norms.median()
    return Activations(rows[keep], int((~keep).sum()))
