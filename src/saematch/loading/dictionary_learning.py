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

import torch
from torch import Tensor

from saematch.errors import InputError, UnsupportedError
from saematch.loading.canonical import CANONICAL, LINEAR, Draft, draft_of, finish, fold_input_bias
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.configs import Field, check_activation_tensors, check_sizes, read_settings
from saematch.loading.tensors import take
from saematch.sae import SAE

NAME = "dictionary-learning"
CONFIGS = ("config.json",)

_WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)

SUBTRACTS_BIAS = ("AutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
CLASSES = (*SUBTRACTS_BIAS, "AutoEncoderNew", "JumpReluAutoEncoder")

SCHEMA = {
    **dict.fromkeys(("activation_dim", "dict_size", "k"), Field(int, low=1)),
    **dict.fromkeys(("dict_class", "lm_name", "submodule_name"), Field(str)),
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
    config = checkpoint.optional_config("config.json")
    layer, tensors, where = checkpoint.layer_read(), checkpoint.tensors, checkpoint.location
    place = f"config.json of {where}"
    stored = read_settings(config, {"trainer": Field(dict)}, place)["trainer"] or {}
    trainer = read_settings(stored, SCHEMA, f"'trainer' in {place}")
    dict_class = trainer["dict_class"] or _guess_class(tensors, where)
    if dict_class not in CLASSES:
        raise UnsupportedError(
            f"expected a dictionary that has a canonical form ({', '.join(CLASSES)}), got "
            f"'{dict_class}' in {where}"
        )
    check_activation_tensors(tensors, ACTIVATION.get(dict_class, ()), dict_class, where)
    W_enc, b_enc, W_dec, _ = LINEAR if "encoder.weight" in tensors else CANONICAL
    names = (W_enc, b_enc, W_dec, BIAS.get(dict_class, "b_dec"))
    draft = draft_of(tensors, where, names)
    check_sizes(trainer, draft.W_dec, W_enc, where)
    draft = _activated(draft, dict_class, trainer["k"])
    if dict_class in SUBTRACTS_BIAS:
        draft = fold_input_bias(draft)
    model, hook = trainer["lm_name"], trainer["submodule_name"] or None
    return finish(draft, checkpoint, NAME, layer, model_name=model, hook_name=hook, metadata=config)


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


def _activated(draft: Draft, dict_class: str, stated_k: int | None) -> Draft:
    tensors, where = draft.tensors, draft.where
    d_sae = len(draft.b_enc)
    stored_k = _whole(tensors, "k", where)
    if None not in (stored_k, stated_k) and stored_k != stated_k:
        raise InputError(
            f"expected config and tensors to agree in {where}, got 'k' {stated_k} in the config and "
            f"{stored_k} in tensor 'k'"
        )
    if "group_sizes" in tensors:
        groups = tensors["group_sizes"]
        if groups.dtype not in _WHOLE or int(groups.sum()) != d_sae:
            raise InputError(
                f"expected 'group_sizes' that add up to {d_sae} features in {where}, got "
                f"{groups.sum().item()}"
            )
    if dict_class == "JumpReluAutoEncoder":
        return draft.jumping(draft.stored("threshold"))
    if dict_class == "AutoEncoderTopK":
        k = stated_k if stored_k is None else stored_k
        if k is None:
            raise InputError(f"expected a whole number 'k' in {where}, got none")
        return replace(draft, activation="topk", k=k)
    if "BatchTopK" not in dict_class:
        return draft
    threshold = take(tensors, "threshold", where, shape=())
    if float(threshold) < 0:
        raise InputError(
            f"expected the threshold that BatchTopK training sets, got {float(threshold):g} in "
            f"{where}, which means unset: training stopped too early to say what is active"
        )
    return draft.saying(
        f"{dict_class} does at inference what jumprelu does at its one threshold {float(threshold):.6g}"
    ).jumping(threshold)
