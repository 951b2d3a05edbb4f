"""saprmarks' dictionary_learning: `ae.pt` (a state dict; tensors only are read), `config.json`.

Definition by `trainer.dict_class` (dictionary_learning/dictionary.py, trainers/):

    AutoEncoder             relu((x - bias) encoder.weightᵀ + encoder.bias), x̂ = f decoderᵀ + bias
    AutoEncoderNew          relu(x encoder.weightᵀ + encoder.bias), decoder.bias
    AutoEncoderTopK         x - b_dec; ReLU, then the k largest (its threshold is not used)
    BatchTopKSAE            x - b_dec; relu(pre) where it is above one scalar threshold
    MatryoshkaBatchTopKSAE  the same with W_enc [d_model, d_sae] and W_dec [d_sae, d_model]
    JumpReluAutoEncoder     relu(pre) where pre > threshold; x is used as it is

`encoder.weight` is [d_sae, d_model] and `decoder.weight` [d_model, d_sae].  A BatchTopK threshold
of -1 was never set: training stopped first, and the file does not say what is active.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import Draft, draft_of, finish, fold_input_bias
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import (
    check_activation_tensors,
    check_stated,
    obj,
    read_settings,
    text,
    whole,
)
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "dictionary-learning"
CONFIGS = ("config.json",)

_WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)

SUBTRACTS_BIAS = (
    "AutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
CLASSES = (*SUBTRACTS_BIAS, "AutoEncoderNew", "JumpReluAutoEncoder")

SCHEMA = {
    "dict_class": text(),
    "activation_dim": whole(1),
    "dict_size": whole(1),
    "k": whole(1),
    "lm_name": text(),
    "submodule_name": text(),
}
"""Settings of the object `trainer`."""

BIAS = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}
"""The name of b_dec where it is another; whether it is subtracted from x depends on the class."""

ACTIVATION = {
    "AutoEncoderTopK": ("k", "threshold"),
    "BatchTopKSAE": ("k", "threshold"),
    "MatryoshkaBatchTopKSAE": ("k", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": ("threshold",),
}
"""The tensors of its activation that a class has."""


def recognises(checkpoint: Checkpoint) -> bool:
    """A torch state dict (no other format here is one) with an encoder and a decoder."""
    names = checkpoint.tensors.keys()
    return checkpoint.container == "torch" and (
        {"encoder.weight", "decoder.weight"} <= names or {"W_enc", "W_dec", "threshold"} <= names
    )


def load(checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a dictionary_learning checkpoint."""
    config = checkpoint.optional_config("config.json")
    tensors, where = checkpoint.tensors, checkpoint.location
    layer = checkpoint.layer_read()
    stored = read_settings(config, {"trainer": obj()}, f"config.json of {where}")["trainer"] or {}
    trainer = stored | read_settings(stored, SCHEMA, f"'trainer' in config.json of {where}")
    dict_class = trainer["dict_class"] or _guess_class(tensors, where)
    if dict_class not in CLASSES:
        raise UnsupportedError(
            f"expected a dictionary that has a canonical form ({', '.join(CLASSES)}), got "
            f"'{dict_class}' in {where}"
        )
    check_activation_tensors(tensors, ACTIVATION.get(dict_class, ()), dict_class, where)
    draft = _weights(tensors, BIAS.get(dict_class, "b_dec"), where)
    d_sae, d_model = draft.W_dec.shape
    weight = "encoder.weight" if "encoder.weight" in tensors else "W_enc"
    check_stated(
        trainer, {"activation_dim": (d_model, weight), "dict_size": (d_sae, weight)}, where
    )
    draft = _activated(draft, dict_class, tensors, trainer, where)
    if dict_class in SUBTRACTS_BIAS:
        draft = fold_input_bias(draft)
    return finish(
        draft,
        layer=layer,
        name="",
        reference=checkpoint.reference,
        checkpoint_format=NAME,
        model_name=trainer.get("lm_name"),
        hook_name=trainer.get("submodule_name") or None,
        metadata=config,
    )


def _guess_class(tensors: Mapping[str, Tensor], where: str) -> str:
    """The class that alone has these tensors; a file without its config is still readable."""
    names = tensors.keys()
    if {"r_mag", "gate_bias"} & names:
        return "GatedAutoEncoder"
    if "group_sizes" in names:
        return "MatryoshkaBatchTopKSAE"
    if "threshold" in names and "k" not in names:
        return "JumpReluAutoEncoder"
    if "decoder.bias" in names:
        return "AutoEncoderNew"
    if "bias" in names:
        return "AutoEncoder"
    raise InputError(
        f"expected config.json next to {where} to tell TopK from BatchTopK, got tensors: "
        f"{', '.join(sorted(names))}"
    )


def _weights(tensors: Mapping[str, Tensor], b_dec_name: str, where: str) -> Draft:
    if "encoder.weight" in tensors:
        W_enc_name, b_enc_name, W_dec_name = "encoder.weight", "encoder.bias", "decoder.weight"
        W_enc = take(tensors, W_enc_name, where, dimensions=2).T
        W_dec = take(tensors, W_dec_name, where, dimensions=2).T
    else:
        W_enc_name, b_enc_name, W_dec_name = "W_enc", "b_enc", "W_dec"
        W_enc = take(tensors, W_enc_name, where, dimensions=2)
        W_dec = take(tensors, W_dec_name, where, dimensions=2)
    d_model, d_sae = W_enc.shape
    if W_dec.shape != (d_sae, d_model):
        raise InputError(
            f"expected '{W_dec_name}' to fit '{W_enc_name}' {list(tensors[W_enc_name].shape)} in "
            f"{where}, got {list(tensors[W_dec_name].shape)}"
        )
    b_enc = take(tensors, b_enc_name, where, shape=(d_sae,))
    b_dec = take(tensors, b_dec_name, where, shape=(d_model,))
    return draft_of(where, W_enc, b_enc, W_dec, b_dec)


def _whole(tensors: Mapping[str, Tensor], name: str, where: str) -> int | None:
    """The whole number in a tensor of one; None if there is no such tensor."""
    if name not in tensors:
        return None
    tensor = tensors[name]
    if tensor.numel() != 1 or tensor.dtype not in _WHOLE:
        raise InputError(
            f"expected a whole number in tensor '{name}' of {where}, got {tensor.dtype} "
            f"{list(tensor.shape)}"
        )
    return int(tensor)


def _activated(
    draft: Draft,
    dict_class: str,
    tensors: Mapping[str, Tensor],
    trainer: Mapping[str, Any],
    where: str,
) -> Draft:
    d_sae = draft.W_dec.shape[0]
    stored_k = _whole(tensors, "k", where)
    if stored_k is not None:
        check_stated(trainer, {"k": (stored_k, "k")}, where)
    if "group_sizes" in tensors:
        groups = tensors["group_sizes"]
        if groups.dtype not in _WHOLE or int(groups.sum()) != d_sae:
            raise InputError(
                f"expected 'group_sizes' that add up to {d_sae} features in {where}, got "
                f"{groups.sum().item()}"
            )
    if dict_class == "JumpReluAutoEncoder":
        threshold = take(tensors, "threshold", where, shape=(d_sae,))
        return replace(draft, activation="jumprelu", threshold=threshold)
    if dict_class == "AutoEncoderTopK":
        k = trainer["k"] if stored_k is None else stored_k
        if k is None:
            raise InputError(f"expected a whole number 'k' in {where}, got none")
        return replace(draft, activation="topk", k=k)
    if "BatchTopK" in dict_class:
        threshold = take(tensors, "threshold", where, dimensions=0)
        if float(threshold) < 0:
            raise InputError(
                f"expected the threshold that BatchTopK training sets, got {float(threshold):g} in "
                f"{where}, which means unset: training stopped too early to say what is active"
            )
        return draft.saying(
            f"{dict_class} does at inference what jumprelu does at its one threshold "
            f"{float(threshold):.6g}",
            activation="jumprelu",
            threshold=threshold.float().expand(d_sae).contiguous(),
        )
    return draft
