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
from saematch.loading.configs import (
    check_activation_tensors,
    check_expansion,
    check_stated,
    either,
    flag,
    number,
    obj,
    read_settings,
    text,
    whole,
)
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
    "architecture": text("standard"),
    "activation_fn": text(),
    "activation_fn_str": text(),
    "activation_fn_kwargs": obj(),
    "k": number(),
    "d_in": whole(1),
    "d_sae": whole(1),
    "expansion_factor": number(above=0),
    "apply_b_dec_to_input": flag(True),
    "normalize_activations": either("text", "true or false", default="none"),
    "norm_scaling_factor": number(above=0),
    "reshape_activations": text("none"),
    "rescale_acts_by_decoder_norm": flag(),
    "finetuning_scaling_factor": flag(),
    "hook_point": text(),
    "metadata": obj(),
}

METADATA = {
    "hook_name": text(),
    "hook_name_out": text(),
    "model_name": text(),
    "model_from_pretrained_kwargs": obj(),
}

ACTIVATION = {
    "jumprelu": ("threshold", "log_threshold"),
    "batchtopk": ("threshold", "topk_threshold"),
    "matryoshka_batchtopk": ("threshold", "topk_threshold"),
}
"""The tensors of its activation that an architecture has."""

METADATA_OF_OLDER = (
    "model_name",
    "hook_name",
    "hook_head_index",
    "model_class_name",
    "prepend_bos",
    "dataset_path",
    "context_size",
    "neuronpedia_id",
    "sae_lens_training_version",
    "model_from_pretrained_kwargs",
    "training_tokens",
)
"""What stood in the config itself before version 6 and in `metadata` since."""


def recognises(checkpoint: Checkpoint) -> bool:
    names = checkpoint.tensors.keys()
    return checkpoint.has("cfg.json") and {"W_dec", "b_dec"} <= names and "W_enc" in names


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a SAELens checkpoint, with its firing counts if they lie next to it."""
    config = {**checkpoint.config("cfg.json"), **checkpoint.overrides}
    if config.get("normalize_activations") in ("expected_average_only_in", True):
        scaler = read_settings(
            checkpoint.optional_config(SCALER), {"scaling_factor": number(above=0)}, SCALER
        )["scaling_factor"]
        stated = config.get("norm_scaling_factor")
        if None not in (scaler, stated) and scaler != stated:
            raise InputError(
                f"expected one activation scale for {checkpoint.location}, got 'norm_scaling_factor' "
                f"{stated!r} in the config and 'scaling_factor' {scaler!r} in {SCALER}"
            )
        config["norm_scaling_factor"] = scaler if stated is None else stated
    whitening: dict[str, Tensor] = {}
    if config.get("normalize_activations") == "covariance_whitening" and checkpoint.has(WHITENING):
        whitening = read_tensors(checkpoint.fetch(WHITENING))
    return convert(
        config,
        checkpoint.tensors,
        checkpoint,
        layer=checkpoint.layer_read(),
        firing=read_firing(checkpoint),
        whitening=whitening,
    )


def convert(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    *,
    layer: int,
    firing: Firing | None = None,
    whitening: Mapping[str, Tensor] | None = None,
    checkpoint_format: str = NAME,
) -> SAE:
    """The canonical SAE of a SAELens config and state dict, from a file or from SAELens itself."""
    where = checkpoint.location
    stored = config
    config = read_settings(config, SCHEMA, f"cfg.json of {where}") | {
        name: config[name] for name in METADATA_OF_OLDER if name in config
    }
    metadata = _metadata(config)
    metadata |= {n: v for n, v in checkpoint.overrides.items() if n in METADATA_OF_OLDER}
    metadata |= read_settings(metadata, METADATA, f"cfg.json of {where}")
    metadata = {name: value for name, value in metadata.items() if value is not None}
    architecture = _architecture(config, where)
    _refuse(config, metadata, architecture, tensors, where)
    hook_name = metadata.get("hook_name")
    if hook_name is not None:
        hook_name = metadata["hook_name"] = fill_layer(hook_name, stored)

    draft = draft_of(
        where,
        take(tensors, "W_enc", where, dimensions=2),
        take(tensors, "b_enc", where, dimensions=1),
        take(tensors, "W_dec", where, dimensions=2),
        take(tensors, "b_dec", where, dimensions=1),
    )
    d_sae, d_model = draft.W_dec.shape
    check_stated(config, {"d_in": (d_model, "W_enc"), "d_sae": (d_sae, "W_enc")}, where)
    check_expansion(config["expansion_factor"], d_model, d_sae, where)
    check_activation_tensors(tensors, ACTIVATION.get(architecture, ()), architecture, where)
    draft = _activated(draft, config, architecture, tensors, where)
    if config["rescale_acts_by_decoder_norm"] and architecture in ("topk", *BATCH_TOPK):
        draft = fold_decoder_norms(draft)
    draft = _with_gain(draft, config, tensors, where)
    if config["apply_b_dec_to_input"]:
        draft = fold_input_bias(draft)
    draft = _raw_units(draft, config, whitening or {}, where)
    return finish(
        draft,
        layer=layer,
        name="",
        reference=checkpoint.reference,
        checkpoint_format=checkpoint_format,
        model_name=metadata.get("model_name"),
        hook_name=hook_name,
        says_centred=_says_centred(metadata),
        firing=firing,
        metadata=metadata,
    )


def read_firing(checkpoint: Checkpoint) -> Firing | None:
    """The counts that lie next to a checkpoint (`firing_counts.safetensors`), or None."""
    if not checkpoint.has(FIRING):
        return None
    path = checkpoint.fetch(FIRING)
    tensors = read_tensors(path)
    counts = tensors.get("counts")
    if counts is None or counts.ndim != 1 or counts.dtype not in (torch.int32, torch.int64):
        raise InputError(
            f"expected integers 'counts' [d_sae] in {path}, got: "
            + (", ".join(f"{n} {t.dtype} {list(t.shape)}" for n, t in tensors.items()) or "nothing")
        )
    metadata = safetensors_metadata(path)
    try:
        tokens = int(metadata["tokens"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"expected the number of 'tokens' in the metadata of {path}, got {metadata}"
        ) from error
    if not len(counts):
        raise InputError(f"expected a count for each feature in {path}, got none")
    if tokens < 1 or bool((counts < 0).any()) or int(counts.max()) > tokens:
        raise InputError(
            f"expected counts between 0 and {tokens} tokens in {path}, got "
            f"{int(counts.min())} to {int(counts.max())}"
        )
    return Firing(counts=counts, tokens=tokens, corpus=metadata.get("corpus", "unnamed"))


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: config[name] for name in METADATA_OF_OLDER if name in config}
    if config["hook_point"] is not None:
        metadata.setdefault("hook_name", config["hook_point"])
    stored = config["metadata"] or {}
    return metadata | {name: value for name, value in stored.items() if value is not None}


def _architecture(config: Mapping[str, Any], where: str) -> str:
    architecture, activation = config["architecture"], _activation(config)
    # Older files call a TopK SAE "standard" with a topk activation.
    if architecture == "standard" and activation == "topk":
        return "topk"
    if architecture != "topk" and activation == "topk":
        raise InputError(
            f"expected one activation in cfg.json of {where}, got architecture '{architecture}' and "
            f"activation 'topk'"
        )
    return architecture


def _activation(config: Mapping[str, Any]) -> str:
    stated = (config["activation_fn_str"], config["activation_fn"])
    return next((name for name in stated if name is not None), "relu")


def _refuse(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    architecture: str,
    tensors: Mapping[str, Tensor],
    where: str,
) -> None:
    known = ("standard", "jumprelu", "topk", *BATCH_TOPK)
    if "W_skip" in tensors:
        raise UnsupportedError(f"expected a residual SAE, got a transcoder in {where}")
    if architecture not in known:
        raise UnsupportedError(
            f"expected an SAE that has a canonical form ({', '.join(known)}), got architecture "
            f"'{architecture}' in {where}"
        )
    activation = _activation(config)
    if activation not in ("relu", "topk"):
        raise UnsupportedError(f"expected activation 'relu', got '{activation}' in {where}")
    scaling = config["normalize_activations"]
    if scaling in ("layer_norm", "constant_norm_rescale"):
        raise UnsupportedError(
            f"expected one activation scale for all tokens, got '{scaling}' in {where}: rescaling "
            f"each token has no canonical form"
        )
    if config["reshape_activations"] != "none":
        raise UnsupportedError(
            f"expected an SAE of the residual stream, got activations reshaped by "
            f"'{config['reshape_activations']}' in {where}"
        )


def _activated(
    draft: Draft,
    config: Mapping[str, Any],
    architecture: str,
    tensors: Mapping[str, Tensor],
    where: str,
) -> Draft:
    """The draft with its activation, before any rescaling."""
    d_sae = draft.W_dec.shape[0]
    if architecture == "topk":
        return replace(draft, activation="topk", k=_k(config, where))
    if architecture == "jumprelu":
        if "log_threshold" in tensors:
            log_threshold = take(tensors, "log_threshold", where, shape=(d_sae,))
            threshold = log_threshold.double().exp().float()
            if "threshold" in tensors:
                stored = take(tensors, "threshold", where, shape=(d_sae,)).float()
                if not torch.allclose(stored, threshold, rtol=1e-2):
                    raise InputError(
                        f"expected one threshold per feature in {where}, got tensor 'threshold' that is "
                        f"not exp of tensor 'log_threshold'"
                    )
                threshold = tensors["threshold"]
            return draft.saying(
                "threshold = exp(log_threshold)", activation="jumprelu", threshold=threshold
            )
        threshold = take(tensors, "threshold", where, shape=(d_sae,))
        return replace(draft, activation="jumprelu", threshold=threshold)
    if architecture in BATCH_TOPK:
        name = "threshold" if "threshold" in tensors else "topk_threshold"
        threshold = take(tensors, name, where, shape=() if name != "threshold" else (d_sae,))
        return draft.saying(
            f"{architecture} does at inference what jumprelu does at its running threshold",
            activation="jumprelu",
            threshold=threshold.float().expand(d_sae).contiguous(),
        )
    return draft


def _k(config: Mapping[str, Any], where: str) -> int:
    """k of a TopK SAE, which older configs keep among the arguments of the activation."""
    whole_k = {"k": whole(1)}
    cfg = f"cfg.json of {where}"
    new = read_settings(config, whole_k, cfg)["k"]
    old = read_settings(
        config["activation_fn_kwargs"] or {}, whole_k, f"activation_fn_kwargs in {cfg}"
    )
    if None not in (new, old["k"]) and new != old["k"]:
        raise InputError(
            f"expected one 'k' in {cfg}, got {new} and, in activation_fn_kwargs, {old['k']}"
        )
    k = old["k"] if new is None else new
    if k is None:
        raise InputError(f"expected a whole number 'k' in {cfg}, got none")
    return k


def _with_gain(
    draft: Draft, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> Draft:
    name = next((n for n in ("finetuning_scaling_factor", "scaling_factor") if n in tensors), None)
    if name is None:
        return draft
    gain = take(tensors, name, where, shape=(draft.W_dec.shape[0],))
    # Ones were saved for a while whether or not anything had been fine-tuned.
    if torch.allclose(gain.float(), torch.ones(len(gain))):
        return draft
    if name == "scaling_factor" and not config["finetuning_scaling_factor"]:
        raise InputError(
            f"expected finetuning_scaling_factor true in cfg.json of {where} for its '{name}' that "
            f"is not all ones, got false"
        )
    return fold_feature_gain(draft, gain)


def _raw_units(
    draft: Draft, config: Mapping[str, Any], whitening: Mapping[str, Tensor], where: str
) -> Draft:
    scaling = config["normalize_activations"]
    if scaling in ("none", False):
        return draft
    if scaling == "covariance_whitening":
        if not whitening:
            raise UnsupportedError(
                f"expected {WHITENING} next to {where} to undo covariance_whitening, got none"
            )
        d_model = draft.W_dec.shape[1]
        square = (d_model, d_model)
        mean = take(whitening, "mean", WHITENING, shape=(d_model,))
        matrix = take(whitening, "matrix", WHITENING, shape=square)
        inverse = take(whitening, "inverse_matrix", WHITENING, shape=square)
        return fold_whitening(draft, mean, matrix, inverse)
    if scaling in ("expected_average_only_in", True):
        factor = config["norm_scaling_factor"]
        if factor is None:
            raise InputError(
                f"expected the scale of expected_average_only_in ('norm_scaling_factor' in cfg.json "
                f"or {SCALER}) next to {where}, got none; load it by release:sae_id"
            )
        return fold_scale(draft, factor, name="expected_average_only_in scale")
    raise UnsupportedError(f"expected a known normalize_activations in {where}, got '{scaling}'")


def _says_centred(metadata: Mapping[str, Any]) -> bool:
    options = metadata.get("model_from_pretrained_kwargs")
    return isinstance(options, Mapping) and bool(options.get("center_writing_weights"))
