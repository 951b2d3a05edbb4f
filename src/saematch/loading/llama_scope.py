"""Llama Scope: `hyperparams.json`, `checkpoints/final.safetensors` (arXiv 2410.20526).

Definition, as OpenMOSS's lm_saes loads it (`SparseAutoEncoder.from_config`), with
s_in = sqrt(d_model) / dataset_average_activation_norm.in, s_out the same for out:

    b_enc ← b_enc / s_in,  b_dec ← b_dec / s_out,  W_dec ← W_dec · s_in / s_out     (dataset-wise)
    W_enc, b_enc ← n · W_enc, n · b_enc,  W_dec ← W_dec / n,  n = ‖W_dec_i‖         (if
                                                          sparsity_include_decoder_norm)
    f = pre where pre > jump_relu_threshold, else 0

The threshold was measured on the rewritten SAE, so it is *not* divided by s_in: it is already in
units of the raw residual stream (SAELens multiplies both sides by s_in and agrees).  `top_k` is
what the SAE was trained with, not what it does: a threshold above zero wins over it.
"""

import math
from dataclasses import replace
from typing import Any

import torch

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import (
    LINEAR,
    draft_of,
    finish,
    fold_decoder_norms,
    fold_input_bias,
    fold_scale,
)
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import Field, check_activation_tensors, check_sizes, read_settings
from saematch.sae import SAE

NAME = "llama-scope"
CONFIGS = ("hyperparams.json",)

SCHEMA = {
    **dict.fromkeys(("hook_point_in", "hook_point_out", "norm_activation"), Field(str)),
    "use_decoder_bias": Field(bool, True),
    "apply_decoder_bias_to_pre_encoder": Field(bool, True),
    "use_glu_encoder": Field(bool, False),
    "sparsity_include_decoder_norm": Field(bool, True),
    "act_fn": Field(str, "relu"),
    "jump_relu_threshold": Field(float, low=0),
    "dataset_average_activation_norm": Field(dict),
    **dict.fromkeys(("top_k", "d_model", "d_sae"), Field(int, low=1)),
    "expansion_factor": Field(float, above=0),
}

NORMS = {"in": Field(float, above=0), "out": Field(float, above=0)}


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.tensors.keys() >= {"encoder.weight", "decoder.weight"} and (
        checkpoint.weights.startswith("checkpoints/") or checkpoint.has("hyperparams.json")
    )


def load(checkpoint: Checkpoint) -> SAE:
    stored = checkpoint.config("hyperparams.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    config = read_settings(stored, SCHEMA, f"hyperparams.json of {where}")
    norms = _norms(config, where)
    layer = checkpoint.layer_read()
    has_bias = config["use_decoder_bias"]
    draft = draft_of(tensors, where, LINEAR if has_bias else (*LINEAR[:3], ""))
    check_sizes(config, draft.W_dec, "encoder.weight", where)
    check_activation_tensors(tensors, (), config["act_fn"], where)
    if not has_bias and "decoder.bias" in tensors and bool(tensors["decoder.bias"].any()):
        raise InputError(
            f"expected config and tensors to agree in {where}, got 'use_decoder_bias' false in the config "
            f"and a tensor 'decoder.bias' that is not zero"
        )
    activation, threshold = config["act_fn"].lower(), config["jump_relu_threshold"]
    if activation == "jumprelu" and threshold is None:
        raise InputError(f"expected 'jump_relu_threshold' in hyperparams.json of {where}, got none")
    if norms is not None:
        scale_in, scale_out = (math.sqrt(len(draft.b_dec)) / norm for norm in norms)
        draft = fold_scale(
            draft, scale_in, scale_out, name="sqrt(d_model) / dataset_average_activation_norm"
        )
    if has_bias and config["apply_decoder_bias_to_pre_encoder"]:
        draft = fold_input_bias(draft)
    if activation not in ("relu", "jumprelu", "topk"):
        raise UnsupportedError(
            f"expected act_fn jumprelu, topk or relu in {where}, got '{activation}'"
        )
    if threshold and activation == "relu":
        raise InputError(
            f"expected no jump_relu_threshold with act_fn 'relu' in {where}, got {threshold:g}"
        )
    if threshold:
        draft = draft.saying(
            f"one threshold {threshold:.6g}, in raw residual units, for every feature"
        ).jumping(torch.tensor(threshold))
    elif activation == "topk":
        if config["top_k"] is None:
            raise InputError(f"expected a whole 'top_k' in hyperparams.json of {where}, got none")
        draft = replace(draft, activation="topk", k=config["top_k"])
    if config["sparsity_include_decoder_norm"]:
        draft = fold_decoder_norms(draft)
    model = "meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in where else None
    known = {"model_name": model, "hook_name": config["hook_point_in"], "metadata": stored}
    return finish(draft, checkpoint, NAME, layer, **known)


def _norms(config: dict[str, Any], where: str) -> tuple[float, float] | None:
    """The mean norms of what is read and written, where activations were scaled by them; None: not scaled.

    Raises UnsupportedError for what has no canonical form.
    """
    if config["use_glu_encoder"]:
        raise UnsupportedError(f"expected a linear encoder, got a gated (GLU) encoder in {where}")
    measured, scaling = config["dataset_average_activation_norm"], config["norm_activation"]
    if scaling is None:
        scaling = "token-wise" if measured is None else "dataset-wise"
    if scaling in ("token-wise", "batch-wise"):
        raise UnsupportedError(
            f"expected one activation scale for all tokens, got '{scaling}' rescaling in {where}: it "
            f"has no canonical form"
        )
    if scaling == "inference":
        return None
    if scaling != "dataset-wise":
        raise UnsupportedError(f"expected a known norm_activation in {where}, got '{scaling}'")
    norms = read_settings(measured or {}, NORMS, f"dataset_average_activation_norm of {where}")
    if norms["in"] is None:
        raise InputError(
            f"expected dataset_average_activation_norm.in in hyperparams.json of {where}, got none"
        )
    return norms["in"], norms["out"] or norms["in"]
