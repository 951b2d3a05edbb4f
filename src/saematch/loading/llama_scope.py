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
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "llama-scope"
CONFIGS = ("hyperparams.json",)


def recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.tensors.keys() >= {"encoder.weight", "decoder.weight"} and (
        checkpoint.weights.startswith("checkpoints/") or checkpoint.has("hyperparams.json")
    )


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a Llama Scope checkpoint."""
    config = checkpoint.config("hyperparams.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    _refuse(config, where)
    layer = checkpoint.layer_read()
    has_bias = bool(config.get("use_decoder_bias", True))
    encoder = take(tensors, "encoder.weight", where, dimensions=2)
    d_sae, d_model = encoder.shape
    b_enc = take(tensors, "encoder.bias", where, shape=(d_sae,))
    decoder = take(tensors, "decoder.weight", where, shape=(d_model, d_sae))
    b_dec = encoder.new_zeros(d_model)
    if has_bias:
        b_dec = take(tensors, "decoder.bias", where, shape=(d_model,))
    draft = draft_of(where, encoder.T, b_enc, decoder.T, b_dec)
    threshold = float(config.get("jump_relu_threshold") or 0.0)
    activation = str(config.get("act_fn", "relu")).lower()
    if _norm_activation(config) == "dataset-wise":
        norms = config.get("dataset_average_activation_norm")
        if not isinstance(norms, dict) or "in" not in norms:
            raise InputError(
                f"needed dataset_average_activation_norm.in in hyperparams.json of {where}, "
                f"found {norms!r}"
            )
        scale_in = _scale(norms["in"], d_model, where)
        scale_out = _scale(norms.get("out", norms["in"]), d_model, where)
        draft = fold_scale(
            draft, scale_in, scale_out, name="sqrt(d_model) / dataset_average_activation_norm"
        )
    if has_bias and config.get("apply_decoder_bias_to_pre_encoder", True):
        draft = fold_input_bias(draft)
    if threshold > 0 and activation in ("jumprelu", "topk"):
        draft = draft.saying(
            f"one threshold {threshold:.6g}, in raw residual units, for every feature",
            activation="jumprelu",
            threshold=draft.b_enc.new_full((d_sae,), threshold).float(),
        )
    elif activation == "topk":
        k = config.get("top_k")
        if not isinstance(k, int) or isinstance(k, bool):
            raise InputError(f"needed a whole 'top_k' in hyperparams.json of {where}, found {k!r}")
        draft = replace(draft, activation="topk", k=k)
    elif activation not in ("relu", "jumprelu") or threshold < 0:
        raise UnsupportedError(
            f"needed act_fn jumprelu, topk or relu and a threshold of 0 or more in {where}, found "
            f"'{activation}' and {threshold:g}"
        )
    if config.get("sparsity_include_decoder_norm", True):
        draft = fold_decoder_norms(draft)
    return finish(
        draft,
        layer=layer,
        name="",
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name="meta-llama/Llama-3.1-8B" if "Llama3_1-8B" in where else None,
        hook_name=config.get("hook_point_in"),
        metadata=config,
    )


def _refuse(config: dict[str, Any], where: str) -> None:
    if config.get("use_glu_encoder"):
        raise UnsupportedError(f"needed a linear encoder, found a gated (GLU) encoder in {where}")
    norm = _norm_activation(config)
    if norm in ("token-wise", "batch-wise"):
        raise UnsupportedError(
            f"needed one activation scale for all tokens, found '{norm}' rescaling in {where}: it "
            f"has no canonical form"
        )


def _norm_activation(config: dict[str, Any]) -> str:
    measured = config.get("dataset_average_activation_norm") is not None
    return str(config.get("norm_activation", "dataset-wise" if measured else "token-wise"))


def _scale(norm: object, d_model: int, where: str) -> float:
    if not isinstance(norm, int | float) or not 0 < norm < math.inf:
        raise InputError(
            f"needed a positive dataset_average_activation_norm in {where}, found {norm!r}"
        )
    return math.sqrt(d_model) / norm
