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

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import (
    draft_of,
    finish,
    fold_decoder_norms,
    fold_input_bias,
    fold_scale,
)
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import (
    check_activation_tensors,
    check_expansion,
    check_stated,
    flag,
    number,
    obj,
    read_settings,
    text,
    whole,
)
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "llama-scope"
CONFIGS = ("hyperparams.json",)

SCHEMA = {
    "hook_point_in": text(),
    "hook_point_out": text(),
    "use_decoder_bias": flag(True),
    "apply_decoder_bias_to_pre_encoder": flag(True),
    "use_glu_encoder": flag(),
    "sparsity_include_decoder_norm": flag(True),
    "act_fn": text("relu"),
    "jump_relu_threshold": number(low=0),
    "norm_activation": text(),
    "dataset_average_activation_norm": obj(),
    "top_k": whole(1),
    "d_model": whole(1),
    "d_sae": whole(1),
    "expansion_factor": number(above=0),
}

NORMS = {"in": number(above=0), "out": number(above=0)}


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.tensors.keys() >= {"encoder.weight", "decoder.weight"} and (
        checkpoint.weights.startswith("checkpoints/") or checkpoint.has("hyperparams.json")
    )


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a Llama Scope checkpoint."""
    stored = checkpoint.config("hyperparams.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    config = read_settings(stored, SCHEMA, f"hyperparams.json of {where}")
    _refuse(config, where)
    layer = checkpoint.layer_read()
    has_bias = config["use_decoder_bias"]
    encoder = take(tensors, "encoder.weight", where, dimensions=2)
    d_sae, d_model = encoder.shape
    b_enc = take(tensors, "encoder.bias", where, shape=(d_sae,))
    decoder = take(tensors, "decoder.weight", where, shape=(d_model, d_sae))
    sizes = {"d_model": (d_model, "encoder.weight"), "d_sae": (d_sae, "encoder.weight")}
    check_stated(config, sizes, where)
    check_expansion(config["expansion_factor"], d_model, d_sae, where)
    check_activation_tensors(tensors, (), config["act_fn"], where)
    if not has_bias and "decoder.bias" in tensors and bool(tensors["decoder.bias"].any()):
        raise InputError(
            f"expected config and tensors to agree in {where}, got 'use_decoder_bias' false in the config "
            f"and a tensor 'decoder.bias' that is not zero"
        )
    b_dec = encoder.new_zeros(d_model)
    if has_bias:
        b_dec = take(tensors, "decoder.bias", where, shape=(d_model,))
    draft = draft_of(where, encoder.T, b_enc, decoder.T, b_dec)
    activation = config["act_fn"].lower()
    if activation == "jumprelu" and config["jump_relu_threshold"] is None:
        raise InputError(f"expected 'jump_relu_threshold' in hyperparams.json of {where}, got none")
    threshold = config["jump_relu_threshold"] or 0.0
    if _norm_activation(config) == "dataset-wise":
        stated = config["dataset_average_activation_norm"] or {}
        norms = read_settings(stated, NORMS, f"dataset_average_activation_norm of {where}")
        if norms["in"] is None:
            raise InputError(
                f"expected dataset_average_activation_norm.in in hyperparams.json of {where}, got none"
            )
        scale_in = math.sqrt(d_model) / norms["in"]
        scale_out = math.sqrt(d_model) / (norms["out"] or norms["in"])
        draft = fold_scale(
            draft, scale_in, scale_out, name="sqrt(d_model) / dataset_average_activation_norm"
        )
    if has_bias and config["apply_decoder_bias_to_pre_encoder"]:
        draft = fold_input_bias(draft)
    if threshold > 0 and activation in ("jumprelu", "topk"):
        draft = draft.saying(
            f"one threshold {threshold:.6g}, in raw residual units, for every feature",
            activation="jumprelu",
            threshold=draft.b_enc.new_full((d_sae,), threshold).float(),
        )
    elif activation == "topk":
        k = config["top_k"]
        if k is None:
            raise InputError(f"expected a whole 'top_k' in hyperparams.json of {where}, got none")
        draft = replace(draft, activation="topk", k=k)
    elif activation not in ("relu", "jumprelu"):
        raise UnsupportedError(
            f"expected act_fn jumprelu, topk or relu in {where}, got '{activation}'"
        )
    elif threshold > 0:
        raise InputError(
            f"expected no jump_relu_threshold with act_fn '{activation}' in {where}, got {threshold:g}"
        )
    if config["sparsity_include_decoder_norm"]:
        draft = fold_decoder_norms(draft)
    return finish(
        draft,
        layer=layer,
        name="",
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name="meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in where else None,
        hook_name=config.get("hook_point_in"),
        metadata=stored,
    )


def _refuse(config: dict[str, Any], where: str) -> None:
    if config.get("use_glu_encoder"):
        raise UnsupportedError(f"expected a linear encoder, got a gated (GLU) encoder in {where}")
    norm = _norm_activation(config)
    if norm in ("token-wise", "batch-wise"):
        raise UnsupportedError(
            f"expected one activation scale for all tokens, got '{norm}' rescaling in {where}: it "
            f"has no canonical form"
        )
    if norm not in ("dataset-wise", "inference"):
        raise UnsupportedError(f"expected a known norm_activation in {where}, got '{norm}'")


def _norm_activation(config: dict[str, Any]) -> str:
    measured = config["dataset_average_activation_norm"] is not None
    if config["norm_activation"] is not None:
        return config["norm_activation"]
    return "dataset-wise" if measured else "token-wise"
