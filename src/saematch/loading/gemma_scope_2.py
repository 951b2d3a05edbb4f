"""Gemma Scope 2: `…/layer_N_width_W_l0_S/params.safetensors`, mostly with a `config.json`.

Definition: pre = x w_enc + b_enc; f = pre where pre > threshold, else 0; x̂ = f w_dec + b_dec.
The same repository holds transcoders and cross-layer transcoders, which are refused.
"""

import re

from saematch.errors import UnsupportedError
from saematch.loading.canonical import draft_of, finish
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import Field, check_activation_tensors, check_sizes, read_settings
from saematch.sae import SAE

NAME = "gemma-scope-2"
CONFIGS = ("config.json",)

SCHEMA = {
    "architecture": Field(str, "jump_relu"),
    **dict.fromkeys(("model_name", "hf_hook_point_in", "hf_hook_point_out", "type"), Field(str)),
    "affine_connection": Field(bool, False),
    **dict.fromkeys(("d_in", "d_sae", "width"), Field(int, low=1)),
}

_MODEL = re.compile(r"gemma-scope-2-(\w+)-(pt|it)")


def recognises(checkpoint: Checkpoint) -> bool:
    return "w_enc" in checkpoint.tensors and "w_dec" in checkpoint.tensors


def load(checkpoint: Checkpoint) -> SAE:
    config = checkpoint.optional_config("config.json")
    layer, tensors, where = checkpoint.layer_read(), checkpoint.tensors, checkpoint.location
    settings = read_settings(config, SCHEMA, f"config.json of {where}")
    if "affine_skip_connection" in tensors or tensors["w_dec"].ndim != 2:
        raise UnsupportedError(
            f"expected a residual SAE, got a Gemma Scope 2 transcoder in {where}; "
            f"try the folders resid_post or resid_post_all"
        )
    architecture = settings["architecture"]
    if architecture.replace("_", "") != "jumprelu":
        raise UnsupportedError(
            f"expected architecture 'jump_relu' in {where}, got '{architecture}'"
        )
    draft = draft_of(tensors, where, ("w_enc", "b_enc", "w_dec", "b_dec"))
    check_sizes(settings, draft.W_dec, "w_enc", where)
    check_activation_tensors(tensors, ("threshold",), "jump_relu", where)
    draft = draft.jumping(draft.stored("threshold"))
    said = _MODEL.search(where)
    known = {
        "name": checkpoint.name_in_layer(),
        "model_name": settings["model_name"] or (f"gemma-3-{said[1]}-{said[2]}" if said else None),
        "hook_name": settings["hf_hook_point_in"] or f"blocks.{layer}.hook_resid_post",
    }
    return finish(draft, checkpoint, NAME, layer, metadata=config, **known)
