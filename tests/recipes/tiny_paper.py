"""Tiny stand-ins for the paper's models and SAEs, in the exact files of the real ones."""

import dataclasses
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

RECIPES = Path(__file__).parents[2] / "recipes"
BLOCKS, WIDTH, FEATURES = 6, 16, 48
STREAM_NORM, THRESHOLD = 24.0, 12.0
MODEL: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def recipe_of(name: str) -> ModuleType:
    """A recipe's module, which is not in a package."""
    sys.path.insert(0, str(RECIPES))
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", RECIPES / name / "reproduce.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny(recipe: Any) -> Any:
    """The recipe with the facts of these stand-ins."""
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, parameters=50_000, vocabulary=500),
        saes=dataclasses.replace(recipe.saes, d_model=WIDTH, d_sae=FEATURES),
    )


def write_model(folder: Path, kind: str) -> Path:
    """A random model and a tokenizer of words, as `from_pretrained` finds them."""
    counted = Counter(word for line in _corpus_lines() for word in line.split())
    words = [word for word, _ in counted.most_common(400)]
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<bos>", "<eos>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = len(vocabulary)
    if kind == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**MODEL, vocab_size=size, sliding_window=8))
    else:
        model = LlamaForCausalLM(LlamaConfig(**MODEL, vocab_size=size))
    # Streams that tell of their token, whatever the random blocks add.
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings *= STREAM_NORM / embeddings.norm(dim=1).mean()
        if kind == "gemma2":
            embeddings /= WIDTH**0.5  # it multiplies them again
    model.save_pretrained(folder)
    return folder


def directions_of(folder: Path) -> torch.Tensor:
    """Unit vectors of the commonest words: what the SAEs' features activate on."""
    (weights,) = folder.glob("*.safetensors")
    rows = load_file(weights)["model.embed_tokens.weight"][3 : 3 + FEATURES].float()
    return rows / rows.norm(dim=1, keepdim=True)


def write_gemma_scope(root: Path, directions: torch.Tensor, layer: int, l0: int) -> None:
    """`layer_L/width_16k/average_l0_N/params.npz`; the fewer are active, the higher the thresholds."""
    w = _weights(directions, layer, THRESHOLD * 5 / np.log(l0))
    path = root / f"layer_{layer}/width_16k/average_l0_{l0}/params.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path, W_enc=w["W_enc"].numpy(), W_dec=w["W_dec"].numpy(), b_enc=w["b_enc"].numpy(),
        b_dec=w["b_dec"].numpy(), threshold=w["threshold"].numpy(),
    )  # fmt: skip


def write_llama_scope(root: Path, directions: torch.Tensor, layer: int) -> None:
    """`Llama3_1-8B-Base-L{n}R-8x` with `hyperparams.json` and `checkpoints/final.safetensors`."""
    w = _weights(directions, layer, THRESHOLD)
    folder = root / f"Llama3_1-8B-Base-L{layer}R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    hook = f"blocks.{layer}.hook_resid_post"
    hyperparams = {
        "hook_point_in": hook, "hook_point_out": hook, "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False, "act_fn": "jumprelu",
        "jump_relu_threshold": THRESHOLD, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": STREAM_NORM, "out": STREAM_NORM},
        "sparsity_include_decoder_norm": True, "top_k": 50, "d_model": WIDTH, "d_sae": FEATURES,
    }  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(hyperparams))
    stored = {
        "encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"],
    }  # fmt: skip
    tensors = {name: tensor.contiguous() for name, tensor in stored.items()}
    save_file(tensors, folder / "checkpoints" / "final.safetensors")


def _weights(directions: torch.Tensor, layer: int, threshold: float) -> dict[str, torch.Tensor]:
    """The same features at every layer, in another order and a little apart."""
    generator = torch.Generator().manual_seed(7)
    scale = threshold * (0.9 + 0.2 * torch.rand(FEATURES, generator=generator))
    own = torch.Generator().manual_seed(layer)
    order = torch.randperm(FEATURES, generator=own)
    rows = directions[order] + 0.02 * torch.randn(FEATURES, WIDTH, generator=own)
    rows /= rows.norm(dim=1, keepdim=True)
    return {
        "W_enc": rows.T.contiguous(),
        "b_enc": torch.zeros(FEATURES),
        "W_dec": rows,
        "b_dec": torch.zeros(WIDTH),
        "threshold": scale[order],
    }


def _corpus_lines() -> list[str]:
    folder = Path(__file__).parents[2] / "src" / "saematch" / "bundled" / "corpora"
    lines = []
    for name in ("web", "wiki", "code"):
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as stream:
            lines += [json.loads(next(stream))["text"] for _ in range(20)]
    return lines
