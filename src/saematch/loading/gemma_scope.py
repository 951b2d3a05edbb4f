"""Gemma Scope: `layer_L/width_W/average_l0_N/params.npz` (arXiv 2408.05147).

Definition: pre = x W_enc + b_enc; f = pre where pre > threshold, else 0; x̂ = f W_dec + b_dec.
There is no config: layer, width and L0 stand only in the path.  Canonical already, but for the
embedding SAEs, which read embeddings before Gemma multiplies them by sqrt(d_model).
"""

import math
import re
from dataclasses import replace

from saematch.loading.canonical import draft_of, finish, fold_scale
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import check_activation_tensors
from saematch.loading.site import EMBEDDING
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "gemma-scope"
CONFIGS: tuple[str, ...] = ()

_MODEL = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)")


def recognises(checkpoint: Checkpoint) -> bool:
    """An npz: no other format here is one."""
    return checkpoint.container == "npz"


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a Gemma Scope checkpoint."""
    layer = checkpoint.layer_read()
    where = checkpoint.location
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    W_enc = take(checkpoint.tensors, names[0], where, dimensions=2)
    b_enc = take(checkpoint.tensors, names[1], where, dimensions=1)
    W_dec = take(checkpoint.tensors, names[2], where, dimensions=2)
    b_dec = take(checkpoint.tensors, names[3], where, dimensions=1)
    draft = draft_of(where, W_enc, b_enc, W_dec, b_dec, names)
    check_activation_tensors(checkpoint.tensors, ("threshold",), "jumprelu", where)
    threshold = take(checkpoint.tensors, "threshold", where, shape=b_enc.shape)
    draft = replace(draft, activation="jumprelu", threshold=threshold)
    if layer == EMBEDDING:
        draft = fold_scale(
            draft, 1 / math.sqrt(W_dec.shape[1]), name="embedding scale 1/sqrt(d_model)"
        )
    model = _MODEL.search(where)
    return finish(
        draft,
        layer=layer,
        name=checkpoint.name_in_layer(),
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name=f"gemma-2-{model[1]}{'-it' if model[2] == 'it' else ''}" if model else None,
        hook_name="hook_embed" if layer == EMBEDDING else f"blocks.{layer}.hook_resid_post",
    )
