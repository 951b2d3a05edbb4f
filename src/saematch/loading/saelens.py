"""SAELens: `cfg.json`, `sae_weights.safetensors`, version 6 and older.

Definition (sae_lens/saes/): z = s · x (activation scaling) - b_dec where `apply_b_dec_to_input`;
pre = z W_enc + b_enc; f by architecture; x̂ = (f W_dec + b_dec) / s.

    standard    relu (older: topk where `activation_fn_str` says so)
    jumprelu    relu(pre) where pre > threshold; older files hold log_threshold
    topk        k largest, then ReLU; `rescale_acts_by_decoder_norm` ranks pre · ‖W_dec_i‖
    batchtopk, matryoshka_batchtopk (training checkpoints): jumprelu at the running `topk_threshold`

Before version 6 a missing `apply_b_dec_to_input` means true; names were `hook_point`,
`activation_fn_str`, and the model's and hook's names stood in the config itself.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import (
    Draft,
    draft_of,
    finish,
    fold_decoder_norms,
    fold_feature_gain,
    fold_input_bias,
    fold_scale,
    fold_whitening,
)
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import Field, check_activation_tensors, check_sizes, read_settings
from saematch.loading.site import fill_layer
from saematch.loading.tensors import read_tensors, safetensors_metadata, take
from saematch.sae import SAE, Firing

NAME = "saelens"
FIRING = "firing_counts.safetensors"
SCALER = "activation_scaler.json"
WHITENING = "activation_whitening.safetensors"
CONFIGS = ("cfg.json", FIRING, SCALER, WHITENING)

BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")

SCHEMA = {
    "architecture": Field(str, "standard"),
    **dict.fromkeys(("activation_fn", "activation_fn_str", "hook_point"), Field(str)),
    **dict.fromkeys(("activation_fn_kwargs", "metadata"), Field(dict)),
    "k": Field(float),
    **dict.fromkeys(("d_in", "d_sae"), Field(int, low=1)),
    **dict.fromkeys(("expansion_factor", "norm_scaling_factor"), Field(float, above=0)),
    "apply_b_dec_to_input": Field(bool, True),
    "normalize_activations": Field(str | bool, "none"),
    "reshape_activations": Field(str, "none"),
    "rescale_acts_by_decoder_norm": Field(bool, False),
    "finetuning_scaling_factor": Field(bool, False),
}

METADATA = {
    **dict.fromkeys(("hook_name", "hook_name_out", "model_name"), Field(str)),
    "model_from_pretrained_kwargs": Field(dict),
}

ACTIVATION = {
    "jumprelu": ("threshold", "log_threshold"),
    "batchtopk": ("threshold", "topk_threshold"),
    "matryoshka_batchtopk": ("threshold", "topk_threshold"),
}
"""The tensors of its activation that an architecture has."""

METADATA_OF_OLDER = (
    "model_name", "hook_name", "hook_head_index", "model_class_name", "prepend_bos", "dataset_path",
    "context_size", "neuronpedia_id", "sae_lens_training_version", "model_from_pretrained_kwargs",
    "training_tokens",
)  # fmt: skip
"""What stood in the config itself before version 6 and in `metadata` since."""


def recognises(checkpoint: Checkpoint) -> bool:
    names = checkpoint.tensors.keys()
    return checkpoint.has("cfg.json") and {"W_dec", "b_dec"} <= names and "W_enc" in names


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a SAELens checkpoint, with its firing counts if they lie next to it."""
    config = {**checkpoint.config("cfg.json"), **checkpoint.overrides}
    layer, firing = checkpoint.layer_read(), read_firing(checkpoint)
    return convert(config, checkpoint.tensors, checkpoint, layer=layer, firing=firing)


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    *,
    layer: int,
    firing: Firing | None = None,
    checkpoint_format: str = NAME,
) -> SAE:
    """The canonical SAE of a SAELens config and state dict, from a file or from SAELens itself."""
    where = checkpoint.location
    settings = read_settings(config, SCHEMA, f"cfg.json of {where}")
    metadata = _metadata(config, settings, checkpoint)
    architecture = _architecture(settings, tensors, where)
    draft = draft_of(tensors, where)
    check_sizes(settings, draft.W_dec, "W_enc", where)
    check_activation_tensors(tensors, ACTIVATION.get(architecture, ()), architecture, where)
    draft = _activated(draft, settings, architecture)
    if settings["rescale_acts_by_decoder_norm"] and architecture in ("topk", *BATCH_TOPK):
        draft = fold_decoder_norms(draft)
    draft = _with_gain(draft, settings)
    if settings["apply_b_dec_to_input"]:
        draft = fold_input_bias(draft)
    draft = _raw_units(draft, settings, checkpoint)
    loading = metadata.get("model_from_pretrained_kwargs") or {}
    known = {name: metadata.get(name) for name in ("model_name", "hook_name")}
    known |= {"firing": firing, "metadata": metadata}
    centred = bool(loading.get("center_writing_weights"))
    return finish(draft, checkpoint, checkpoint_format, layer, says_centred=centred, **known)


def read_firing(checkpoint: Checkpoint) -> Firing | None:
    """The counts that lie next to a checkpoint (`firing_counts.safetensors`), or None."""
    if not checkpoint.has(FIRING):
        return None
    path = checkpoint.fetch(FIRING)
    tensors = read_tensors(path)
    counts = tensors.get("counts")
    whole = counts is not None and counts.dtype in (torch.int32, torch.int64)
    if counts is None or not whole or counts.ndim != 1 or not len(counts):
        stored = [f"{name} {one.dtype} {list(one.shape)}" for name, one in tensors.items()]
        raise InputError(
            f"expected integers 'counts' [d_sae] in {path}, got: {', '.join(stored) or 'nothing'}"
        )
    metadata = safetensors_metadata(path)
    try:
        tokens = int(metadata["tokens"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"expected the number of 'tokens' in the metadata of {path}, got {metadata}"
        ) from error
    if tokens < 1 or bool((counts < 0).any()) or int(counts.max()) > tokens:
        raise InputError(
            f"expected counts between 0 and {tokens} tokens in {path}, got "
            f"{int(counts.min())} to {int(counts.max())}"
        )
    return Firing(counts=counts, tokens=tokens, corpus=metadata.get("corpus", "unnamed"))


def _metadata(
    config: Mapping[str, Any], settings: Mapping[str, Any], checkpoint: Checkpoint
) -> dict[str, Any]:
    """What is known besides the settings: older fields, then `metadata`, then what the registry says."""
    metadata = {name: config[name] for name in METADATA_OF_OLDER if name in config}
    if settings["hook_point"] is not None:
        metadata.setdefault("hook_name", settings["hook_point"])
    metadata |= {n: v for n, v in (settings["metadata"] or {}).items() if v is not None}
    metadata |= {n: v for n, v in checkpoint.overrides.items() if n in METADATA_OF_OLDER}
    metadata |= read_settings(metadata, METADATA, f"cfg.json of {checkpoint.location}")
    if metadata["hook_name"] is not None:
        metadata["hook_name"] = fill_layer(metadata["hook_name"], config)
    return {name: value for name, value in metadata.items() if value is not None}


def _architecture(settings: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> str:
    """The architecture; UnsupportedError for an SAE without a canonical form."""
    architecture, scaling = settings["architecture"], settings["normalize_activations"]
    stated = (settings["activation_fn_str"], settings["activation_fn"], "relu")
    activation = next(name for name in stated if name is not None)
    # Older files call a TopK SAE "standard" with a topk activation.
    if architecture == "standard" and activation == "topk":
        architecture = "topk"
    if architecture != "topk" and activation == "topk":
        raise InputError(
            f"expected one activation in cfg.json of {where}, got architecture '{architecture}' and "
            f"activation 'topk'"
        )
    known = ("standard", "jumprelu", "topk", *BATCH_TOPK)
    if "W_skip" in tensors:
        raise UnsupportedError(f"expected a residual SAE, got a transcoder in {where}")
    if architecture not in known:
        raise UnsupportedError(
            f"expected an SAE that has a canonical form ({', '.join(known)}), got architecture "
            f"'{architecture}' in {where}"
        )
    if activation not in ("relu", "topk"):
        raise UnsupportedError(f"expected activation 'relu', got '{activation}' in {where}")
    if scaling in ("layer_norm", "constant_norm_rescale"):
        raise UnsupportedError(
            f"expected one activation scale for all tokens, got '{scaling}' in {where}: rescaling "
            f"each token has no canonical form"
        )
    if settings["reshape_activations"] != "none":
        raise UnsupportedError(
            f"expected an SAE of the residual stream, got activations reshaped by "
            f"'{settings['reshape_activations']}' in {where}"
        )
    return architecture


def _activated(draft: Draft, settings: Mapping[str, Any], architecture: str) -> Draft:
    """The draft with its activation, before any rescaling."""
    if architecture == "topk":
        return replace(draft, activation="topk", k=_k(settings, draft.where))
    if architecture == "jumprelu":
        if "log_threshold" not in draft.tensors:
            return draft.jumping(draft.stored("threshold"))
        threshold = draft.stored("log_threshold").double().exp().float()
        if "threshold" in draft.tensors:
            stored = draft.stored("threshold")
            if not torch.allclose(stored.float(), threshold, rtol=1e-2):
                raise InputError(
                    f"expected one threshold per feature in {draft.where}, got tensor 'threshold' that "
                    f"is not exp of tensor 'log_threshold'"
                )
            threshold = stored
        return draft.saying("threshold = exp(log_threshold)").jumping(threshold)
    if architecture in BATCH_TOPK:
        # Training keeps one running threshold; inference weights, which SAELens converts, one a feature.
        if "threshold" in draft.tensors:
            threshold = draft.stored("threshold").float()
        else:
            threshold = take(draft.tensors, "topk_threshold", draft.where, shape=())
        return draft.saying(
            f"{architecture} does at inference what jumprelu does at its running threshold"
        ).jumping(threshold)
    return draft


def _k(settings: Mapping[str, Any], where: str) -> int:
    """k of a TopK SAE, which older configs keep among the arguments of the activation."""
    whole_k = {"k": Field(int, low=1)}
    cfg = f"cfg.json of {where}"
    arguments = settings["activation_fn_kwargs"] or {}
    new = read_settings(settings, whole_k, cfg)["k"]
    old = read_settings(arguments, whole_k, f"activation_fn_kwargs in {cfg}")["k"]
    if None not in (new, old) and new != old:
        raise InputError(
            f"expected one 'k' in {cfg}, got {new} and, in activation_fn_kwargs, {old}"
        )
    k = old if new is None else new
    if k is None:
        raise InputError(f"expected a whole number 'k' in {cfg}, got none")
    return k


def _with_gain(draft: Draft, settings: Mapping[str, Any]) -> Draft:
    names = ("finetuning_scaling_factor", "scaling_factor")
    name = next((name for name in names if name in draft.tensors), None)
    if name is None:
        return draft
    gain = draft.stored(name)
    # Ones were saved for a while whether or not anything had been fine-tuned.
    if torch.allclose(gain.float(), torch.ones(len(gain))):
        return draft
    if name == "scaling_factor" and not settings["finetuning_scaling_factor"]:
        raise InputError(
            f"expected finetuning_scaling_factor true in cfg.json of {draft.where} for its '{name}' "
            f"that is not all ones, got false"
        )
    return fold_feature_gain(draft, gain)


def _raw_units(draft: Draft, settings: Mapping[str, Any], checkpoint: Checkpoint) -> Draft:
    scaling, where = settings["normalize_activations"], checkpoint.location
    if scaling in ("none", False):
        return draft
    if scaling == "covariance_whitening":
        if not checkpoint.has(WHITENING):
            raise UnsupportedError(
                f"expected {WHITENING} next to {where} to undo covariance_whitening, got none"
            )
        stored = read_tensors(checkpoint.fetch(WHITENING))
        d_model = draft.W_dec.shape[1]
        square = (d_model, d_model)
        mean = take(stored, "mean", WHITENING, shape=(d_model,))
        matrix = take(stored, "matrix", WHITENING, shape=square)
        inverse = take(stored, "inverse_matrix", WHITENING, shape=square)
        return fold_whitening(draft, mean, matrix, inverse)
    if scaling not in ("expected_average_only_in", True):
        raise UnsupportedError(
            f"expected a known normalize_activations in {where}, got '{scaling}'"
        )
    schema = {"scaling_factor": Field(float, above=0)}
    beside = read_settings(checkpoint.optional_config(SCALER), schema, SCALER)["scaling_factor"]
    stated = settings["norm_scaling_factor"]
    if None not in (beside, stated) and beside != stated:
        raise InputError(
            f"expected one activation scale for {where}, got 'norm_scaling_factor' {stated} in the "
            f"config and 'scaling_factor' {beside} in {SCALER}"
        )
    factor = beside if stated is None else stated
    if factor is None:
        raise InputError(
            f"expected the scale of expected_average_only_in ('norm_scaling_factor' in cfg.json "
            f"or {SCALER}) next to {where}, got none; load it by release:sae_id"
        )
    return fold_scale(draft, factor, name="expected_average_only_in scale")
