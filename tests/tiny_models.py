"""Random-weight models of every architecture that is claimed, and a tokenizer of bytes."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
)
from transformers.utils import logging

from saematch.models import LanguageModel

logging.disable_progress_bar()
VOCABULARY, WIDTH, BLOCKS = 260, 16, 4
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**COMMON),
    "gemma2": lambda: Gemma2Config(**COMMON, head_dim=8, sliding_window=8),
    "gemma3": lambda: Gemma3TextConfig(**COMMON, head_dim=8, sliding_window=8),
    "qwen2": lambda: Qwen2Config(**COMMON),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=BLOCKS, n_head=2, n_positions=128
    ),
}


class Bytes:
    """A tokenizer whose tokens are bytes; BOS is 256, or there is none."""

    def __init__(self, bos_token_id: int | None = 256) -> None:
        self.bos_token_id = bos_token_id
        self.eos_token_id = self.pad_token_id = self.unk_token_id = self.unk_token = None
        self.all_special_ids = [] if bos_token_id is None else [bos_token_id]
        self.all_special_tokens = ["<256>" for _ in self.all_special_ids]

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    def __call__(
        self, text: str, add_special_tokens: bool = False, **_: bool
    ) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": list(text.encode())}

    def convert_ids_to_tokens(self, token_id: int) -> str | None:
        return f"<{token_id}>" if token_id < 257 else None

    def decode(self, token_ids: list[int]) -> str:
        return bytes(t for t in token_ids if t < 256).decode(errors="replace")


def tiny_model(
    kind: str = "llama",
    bos: int | None = 256,
    dtype: str = "float32",
    width: int = WIDTH,
    blocks: int = BLOCKS,
) -> LanguageModel:
    torch.manual_seed(0)
    config = CONFIGS[kind]()
    if kind == "llama":
        config = LlamaConfig(**{**COMMON, "hidden_size": width, "num_hidden_layers": blocks})
    # Larger than usual, so that blocks do something.
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config).eval().to(getattr(torch, dtype))
    return LanguageModel(model, Bytes(bos), "tiny", "ab" * 32)
