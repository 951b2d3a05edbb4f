"""Capture the residual stream after chosen blocks of a decoder-only model, and replace it there.

Hooks are used because the last entry of `hidden_states` is taken after the final norm.  A stream is
replaced by letting the blocks before it hand their input on untouched: embeddings, masks, positions,
the blocks after it and the head then run by the model's own code, whatever its architecture.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.errors import UsageError

EMBEDDING = -1
"""The "block" whose output is what the first block reads."""


class _StopForwardError(Exception):
    """Raised by the hook on the last block that is asked for: later blocks need not run."""


def decoder_blocks(model: Any) -> Any:
    """The list of a model's blocks, where transformers keeps it (`model.layers`, `transformer.h`)."""
    for path in ("model.layers", "transformer.h", "model.language_model.layers", "gpt_neox.layers"):
        found = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    raise UsageError(
        f"needed a decoder-only model with a list of blocks, found {type(model).__name__}; "
        "try a model of the Llama, Gemma, Qwen, GPT-2 or GPT-NeoX family"
    )


@torch.no_grad()
def capture_residual_stream(
    model: Any, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
) -> dict[int, Float[Tensor, "batch sequence d_model"]]:
    """The outputs of the blocks in `blocks`, by block; blocks after the last of them do not run.

    `token_ids` are padded on the right: a causal model's earlier positions never see the padding.
    Block -1 is the embedding.  Raises UsageError for blocks that the model lacks.
    """
    with _capturing(model, blocks, stop=True) as captured, suppress(_StopForwardError):
        model(token_ids, use_cache=False)
    return captured


@torch.no_grad()
def capture_and_predict(
    model: Any, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
) -> tuple[
    dict[int, Float[Tensor, "batch sequence d_model"]], Float[Tensor, "batch sequence vocabulary"]
]:
    """The same and the logits, from one pass through all blocks."""
    with _capturing(model, blocks, stop=False) as captured:
        logits = model(token_ids, use_cache=False).logits
    return captured, logits


@torch.no_grad()
def predict_from(
    model: Any,
    token_ids: Int[Tensor, "batch sequence"],
    block: int,
    stream: Float[Tensor, "batch sequence d_model"],
) -> Float[Tensor, "batch sequence vocabulary"]:
    """The logits with `stream` in place of the output of a block; only later blocks run.

    With the stream that the model has there the logits are those of the whole pass, bit for bit, at
    equal batch, padding, dtype and attention implementation.
    """
    modules = decoder_blocks(model)
    _check(modules, [block])
    before = modules[: block + 1]

    def hand_on(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return hidden_states

    def replace(*_: Any, **__: Any) -> Any:
        return stream

    if block == EMBEDDING:
        handle = modules[0].register_forward_pre_hook(
            lambda _module, args, keywords: (
                ((stream, *args[1:]), keywords)
                if args
                else (args, {**keywords, "hidden_states": stream})
            ),
            with_kwargs=True,
        )
        try:
            return model(token_ids, use_cache=False).logits
        finally:
            handle.remove()
    try:
        for module in before:
            module.forward = replace if module is before[-1] else hand_on
        return model(token_ids, use_cache=False).logits
    finally:
        for module in before:
            module.__dict__.pop("forward", None)


@contextmanager
def _capturing(
    model: Any, blocks: Sequence[int], stop: bool
) -> Iterator[dict[int, Float[Tensor, "batch sequence d_model"]]]:
    modules = decoder_blocks(model)
    _check(modules, blocks)
    captured: dict[int, Tensor] = {}

    def keep(block: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            captured[block] = output[0] if isinstance(output, tuple) else output
            if stop and block == max(blocks):
                raise _StopForwardError

        return hook

    def keep_embedding(_module: Any, args: Any, keywords: Any) -> None:
        captured[EMBEDDING] = args[0] if args else keywords["hidden_states"]
        if stop and max(blocks) == EMBEDDING:
            raise _StopForwardError

    handles = [
        modules[0].register_forward_pre_hook(keep_embedding, with_kwargs=True)
        if block == EMBEDDING
        else modules[block].register_forward_hook(keep(block))
        for block in blocks
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _check(modules: Any, blocks: Sequence[int]) -> None:
    for block in blocks:
        if not EMBEDDING <= block < len(modules):
            raise UsageError(f"needed blocks from 0 to {len(modules) - 1}, found block {block}")
