"""Gemma Scope: `layer_L/width_W/average_l0_N/params.npz` (arXiv 2408.05147).

Definition: pre = x W_enc + b_enc; f = pre where pre > threshold, else 0; x̂ = f W_dec + b_dec.
There is no config: layer, width and L0 stand only in the path.  Canonical already, but for the
embedding SAEs, which read embeddings before Gemma multiplies them by sqrt(d_model).
"""

import math
import re

from saematch.loading.canonical import draft_of, finish, fold_scale
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import check_activation_tensors
from saematch.loading.site import EMBEDDING
from saematch.sae import SAE

NAME = "gemma-scope"
CONFIGS: tuple[str, ...] = ()

_MODEL = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)")


def recognises(checkpoint: Checkpoint) -> bool:
    """An npz: no other format here is one."""
    return checkpoint.container == "npz"


def load(checkpoint: Checkpoint) -> SAE:
    layer, tensors, where = checkpoint.layer_read(), checkpoint.tensors, checkpoint.location
    draft = draft_of(tensors, where)
    check_activation_tensors(tensors, ("threshold",), "jumprelu", where)
    draft = draft.jumping(draft.stored("threshold"))
    if layer == EMBEDDING:
        scale = 1 / math.sqrt(len(draft.b_dec))
        draft = fold_scale(draft, scale, name="embedding scale 1/sqrt(d_model)")
    said = _MODEL.search(where)
    model = f"gemma-2-{said[1]}{'-it' if said[2] == 'it' else ''}" if said else None
    hook = "hook_embed" if layer == EMBEDDING else f"blocks.{layer}.hook_resid_post"
    name = checkpoint.name_in_layer()
    return finish(draft, checkpoint, NAME, layer, name=name, model_name=model, hook_name=hook)
