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
from saematch.loading.tensors import read_tensors, safetensors_metadata, take
from saematch.sae import SAE, Firing

NAME = "saelens"
FIRING = "firing_counts.safetensors"
SCALER = "activation_scaler.json"
WHITENING = "activation_whitening.safetensors"
CONFIGS = ("cfg.json", FIRING, SCALER, WHITENING)

BATCH_TOPK = ("batchtopk", "matryoshka_batchtopk")

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
    """The canonical SAE of a SAELens checkpoint, with its firing counts where they lie beside."""
    config = {**checkpoint.config("cfg.json"), **checkpoint.overrides}
    if config.get("normalize_activations") == "expected_average_only_in":
        scaler = checkpoint.optional_config(SCALER)
        config.setdefault("norm_scaling_factor", scaler.get("scaling_factor"))
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
    metadata = _metadata(config)
    metadata |= {n: v for n, v in checkpoint.overrides.items() if n in METADATA_OF_OLDER}
    architecture = _architecture(config)
    _refuse(config, metadata, architecture, tensors, where)
    hook_name = metadata.get("hook_name")

    draft = draft_of(
        where,
        take(tensors, "W_enc", where, dimensions=2),
        take(tensors, "b_enc", where, dimensions=1),
        take(tensors, "W_dec", where, dimensions=2),
        take(tensors, "b_dec", where, dimensions=1),
    )
    draft = _activated(draft, config, architecture, tensors, where)
    if config.get("rescale_acts_by_decoder_norm") and architecture in ("topk", *BATCH_TOPK):
        draft = fold_decoder_norms(draft)
    draft = _with_gain(draft, config, tensors, where)
    if config.get("apply_b_dec_to_input", True):
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
    """The counts that lie beside a checkpoint (`firing_counts.safetensors`), or None."""
    if not checkpoint.has(FIRING):
        return None
    path = checkpoint.fetch(FIRING)
    tensors = read_tensors(path)
    counts = tensors.get("counts")
    if counts is None or counts.ndim != 1 or counts.dtype not in (torch.int32, torch.int64):
        raise InputError(
            f"needed integers 'counts' [d_sae] in {path}, found: "
            + (", ".join(f"{n} {t.dtype} {list(t.shape)}" for n, t in tensors.items()) or "nothing")
        )
    metadata = safetensors_metadata(path)
    try:
        tokens = int(metadata["tokens"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"needed the number of 'tokens' in the metadata of {path}, found {metadata}"
        ) from error
    if tokens < 1 or bool((counts < 0).any()) or int(counts.max()) > tokens:
        raise InputError(
            f"needed counts between 0 and {tokens} tokens in {path}, found "
            f"{int(counts.min())} to {int(counts.max())}"
        )
    return Firing(counts=counts, tokens=tokens, corpus=metadata.get("corpus", "unnamed"))


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: config[name] for name in METADATA_OF_OLDER if name in config}
    if "hook_point" in config:
        metadata.setdefault("hook_name", config["hook_point"])
    stored = config.get("metadata")
    if isinstance(stored, Mapping):
        metadata |= {name: value for name, value in stored.items() if value is not None}
    return metadata


def _architecture(config: Mapping[str, Any]) -> str:
    architecture = str(config.get("architecture", "standard"))
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    # Older files call a TopK SAE "standard" with a topk activation.
    return "topk" if architecture == "standard" and activation == "topk" else architecture


def _refuse(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    architecture: str,
    tensors: Mapping[str, Tensor],
    where: str,
) -> None:
    known = ("standard", "jumprelu", "topk", *BATCH_TOPK)
    if "W_skip" in tensors:
        raise UnsupportedError(f"needed a residual SAE, found a transcoder in {where}")
    if architecture not in known:
        raise UnsupportedError(
            f"needed an SAE that has a canonical form ({', '.join(known)}), found architecture "
            f"'{architecture}' in {where}"
        )
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if architecture == "standard" and activation not in ("relu", None):
        raise UnsupportedError(f"needed activation 'relu', found '{activation}' in {where}")
    scaling = config.get("normalize_activations")
    if scaling in ("layer_norm", "constant_norm_rescale"):
        raise UnsupportedError(
            f"needed one activation scale for all tokens, found '{scaling}' in {where}: rescaling "
            f"each token has no canonical form"
        )
    if config.get("reshape_activations", "none") not in ("none", None):
        raise UnsupportedError(
            f"needed an SAE of the residual stream, found activations reshaped by "
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
        k = config.get("k", (config.get("activation_fn_kwargs") or {}).get("k"))
        if not isinstance(k, int) or isinstance(k, bool):
            raise InputError(f"needed a whole number 'k' in cfg.json of {where}, found {k!r}")
        return replace(draft, activation="topk", k=k)
    if architecture == "jumprelu":
        if "threshold" not in tensors and "log_threshold" in tensors:
            log_threshold = take(tensors, "log_threshold", where, shape=(d_sae,))
            return draft.saying(
                "threshold = exp(log_threshold)",
                activation="jumprelu",
                threshold=log_threshold.double().exp().float(),
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
    if name == "scaling_factor" and not config.get("finetuning_scaling_factor"):
        raise InputError(
            f"needed finetuning_scaling_factor true in cfg.json of {where} for its '{name}' that "
            f"is not all ones, found {config.get('finetuning_scaling_factor')!r}"
        )
    return fold_feature_gain(draft, gain)


def _raw_units(
    draft: Draft, config: Mapping[str, Any], whitening: Mapping[str, Tensor], where: str
) -> Draft:
    scaling = config.get("normalize_activations")
    if scaling in (None, "none", False):
        return draft
    if scaling == "covariance_whitening":
        if not whitening:
            raise UnsupportedError(
                f"needed {WHITENING} beside {where} to undo covariance_whitening, found none"
            )
        d_model = draft.W_dec.shape[1]
        square = (d_model, d_model)
        mean = take(whitening, "mean", WHITENING, shape=(d_model,))
        matrix = take(whitening, "matrix", WHITENING, shape=square)
        inverse = take(whitening, "inverse_matrix", WHITENING, shape=square)
        return fold_whitening(draft, mean, matrix, inverse)
    if scaling in ("expected_average_only_in", True):
        factor = config.get("norm_scaling_factor")
        if not isinstance(factor, int | float) or isinstance(factor, bool):
            raise InputError(
                f"needed the scale of expected_average_only_in ('norm_scaling_factor' in cfg.json "
                f"or {SCALER}) beside {where}, found none; load it by release:sae_id"
            )
        return fold_scale(draft, float(factor), name="expected_average_only_in scale")
    raise UnsupportedError(f"needed a known normalize_activations in {where}, found '{scaling}'")


def _says_centred(metadata: Mapping[str, Any]) -> bool:
    options = metadata.get("model_from_pretrained_kwargs")
    return isinstance(options, Mapping) and bool(options.get("center_writing_weights"))
