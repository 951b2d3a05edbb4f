"""Capture the residual stream after chosen blocks of a decoder-only model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.errors import UsageError


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
    Hooks are used because the last entry of `hidden_states` is taken after the final norm.
    """
    modules = decoder_blocks(model)
    for block in blocks:
        if not 0 <= block < len(modules):
            raise UsageError(f"needed blocks from 0 to {len(modules) - 1}, found block {block}")
    captured: dict[int, Tensor] = {}

    def keep(block: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            captured[block] = output[0] if isinstance(output, tuple) else output
            if block == max(blocks):
                raise _StopForwardError

        return hook

    handles = [modules[block].register_forward_hook(keep(block)) for block in blocks]
    try:
        model(token_ids, use_cache=False)
    except _StopForwardError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return captured
