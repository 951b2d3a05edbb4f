"""Gemma Scope 2: `…/layer_N_width_W_l0_S/params.safetensors`, mostly with a `config.json`.

Definition: pre = x w_enc + b_enc; f = pre where pre > threshold, else 0; x̂ = f w_dec + b_dec.
The same repository holds transcoders and cross-layer transcoders, which are refused.
"""

import re
from dataclasses import replace

from saematch.errors import UnsupportedError
from saematch.loading.canonical import draft_of, finish
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import (
    check_activation_tensors,
    check_stated,
    flag,
    read_settings,
    text,
    whole,
)
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "gemma-scope-2"
CONFIGS = ("config.json",)

SCHEMA = {
    "architecture": text("jump_relu"),
    "model_name": text(),
    "hf_hook_point_in": text(),
    "hf_hook_point_out": text(),
    "type": text(),
    "affine_connection": flag(),
    "d_in": whole(1),
    "d_sae": whole(1),
    "width": whole(1),
}

_MODEL = re.compile(r"gemma-scope-2-(\w+)-(pt|it)")


def recognises(checkpoint: Checkpoint) -> bool:
    return "w_enc" in checkpoint.tensors and "w_dec" in checkpoint.tensors


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a Gemma Scope 2 checkpoint."""
    config = checkpoint.optional_config("config.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    layer = checkpoint.layer_read()
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
    names = ("w_enc", "b_enc", "w_dec", "b_dec")
    W_enc = take(tensors, names[0], where, dimensions=2)
    b_enc = take(tensors, names[1], where, dimensions=1)
    W_dec = take(tensors, names[2], where, dimensions=2)
    b_dec = take(tensors, names[3], where, dimensions=1)
    draft = draft_of(where, W_enc, b_enc, W_dec, b_dec, names)
    d_model, d_sae = W_enc.shape
    sizes = {"d_in": (d_model, "w_enc"), "d_sae": (d_sae, "w_enc"), "width": (d_sae, "w_enc")}
    check_stated(settings, sizes, where)
    check_activation_tensors(tensors, ("threshold",), "jump_relu", where)
    threshold = take(tensors, "threshold", where, shape=b_enc.shape)
    draft = replace(draft, activation="jumprelu", threshold=threshold)
    model = _MODEL.search(where)
    return finish(
        draft,
        layer=layer,
        name=checkpoint.name_in_layer(),
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name=settings["model_name"] or (f"gemma-3-{model[1]}-{model[2]}" if model else None),
        hook_name=config.get("hf_hook_point_in") or f"blocks.{layer}.hook_resid_post",
        metadata=config,
    )
