"""The top logits of a direction of the residual stream: the logit lens, from the weights alone.

The final norm rescales a whole stream by a number that no single direction decides; what it does to a
direction but for that number, its weights and centring, is in the result.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saematch.errors import UnsupportedError
from saematch.models.capture import blocks_path

LOGITS = 1 << 26
"""Held at a time: 256 MiB."""
FINAL_NORMS = (
    "norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
    "norm_f",
    "layer_norm",
    "final_norm",
)
"""Names of the norm after the last block, next to the list of blocks."""


@torch.no_grad()
def top_logit_tokens(
    model: Any, directions: Float[Tensor, "n d_model"], count: int
) -> Int64[Tensor, "n count"]:
    """Ids of the tokens whose logits each direction raises most, the most raised first.

    Raises UnsupportedError for a model without an unembedding that we find.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedError(
            f"expected a model with an unembedding, got none in {type(model).__name__}"
        )
    norm = _final_norm(model)
    directions = directions.to(head.weight.device, head.weight.dtype)
    at_zero = norm(torch.zeros_like(directions[:1]))  # a LayerNorm's bias
    step = max(1, LOGITS // head.weight.shape[0])
    found = [
        ((norm(rows) - at_zero) @ head.weight.T).topk(count, dim=1).indices
        for rows in directions.split(step)
    ]
    return torch.cat(found).cpu()


def _final_norm(model: Any) -> Any:
    parent = model.get_submodule(blocks_path(model).rpartition(".")[0])
    for name in FINAL_NORMS:
        found = getattr(parent, name, None)
        if found is not None:
            return found
    raise UnsupportedError(
        f"expected a model with a final norm called {', '.join(FINAL_NORMS)}, got none in "
        f"{type(model).__name__}"
    )
