"""Typed reading of configs, and holding them against the tensors.

A format declares the fields that it reads, once, as a schema; a field that is there with another type or
out of range is an error that names it, never a guess.  Fields that no schema names are left alone, and
`null` is the same as absent.  What config and tensors both state must agree.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from saematch.errors import InputError

_LARGEST_WHOLE = 1 << 31
"""A number beyond every size of a tensor would only make arithmetic slow."""
_LARGEST = torch.finfo(torch.float32).max
_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", dict: "object"}


@dataclass(frozen=True)
class Field:
    """What a field of a config may hold."""

    kind: Any
    """`int` (3.0 is one, 3.7 and true are not), `float` (what float32 holds), `bool` (the text "false" is
    none), `str`, `dict` (read its fields with a schema of its own), or several: `str | bool`."""
    default: Any = None
    low: int | float = -math.inf
    """For numbers: the least that makes sense."""
    above: int | float = -math.inf
    """For numbers: what they must be above."""

    @property
    def kinds(self) -> tuple[type, ...]:
        return get_args(self.kind) or (self.kind,)

    @property
    def expected(self) -> str:
        words = " or ".join(_WORDS[kind] for kind in self.kinds)
        if self.low > -math.inf:
            words += f" of {self.low:g} or more"
        if self.above > -math.inf:
            words += f" above {self.above:g}"
        return f"{words} within float32" if float in self.kinds else words

    def read(self, value: Any) -> Any:
        """The value as the first kind that it is; None for one that may not stand here."""
        for kind in self.kinds:
            if kind not in (int, float):
                if isinstance(value, kind):
                    return value
            elif isinstance(value, int | float) and not isinstance(value, bool):
                largest = _LARGEST_WHOLE if kind is int else _LARGEST
                if max(self.low, -largest) <= value <= largest and value > self.above:
                    return kind(value) if kind is float or value == int(value) else None
        return None


Schema = Mapping[str, Field]


def read_settings(config: Mapping[str, Any], schema: Schema, where: str) -> dict[str, Any]:
    """Every field of the schema by name: its value with the declared type, or its default.

    `where` is the file, and the object in it, for messages.
    """
    settings: dict[str, Any] = {}
    for name, field in schema.items():
        value = config.get(name)
        settings[name] = field.default if value is None else field.read(value)
        if value is not None and settings[name] is None:
            shown = type(value).__name__ if isinstance(value, list | dict) else repr(value)[:80]
            raise InputError(f"expected {field.expected} as '{name}' in {where}, got {shown}")
    return settings


_D_MODEL = ("d_in", "d_model", "activation_dim")
_D_SAE = ("d_sae", "width", "dict_size", "num_latents")


def check_sizes(settings: Mapping[str, Any], W_dec: Tensor, tensor: str, where: str) -> None:
    """InputError naming both where a config states another size than W_dec [d_sae, d_model] has.

    `tensor` names the one in the file that gives the sizes.
    """
    d_sae, d_model = W_dec.shape
    for name, found in {**dict.fromkeys(_D_MODEL, d_model), **dict.fromkeys(_D_SAE, d_sae)}.items():
        stated = settings.get(name)
        if stated and stated != found:
            raise InputError(
                f"expected config and tensors to agree in {where}, got '{name}' {stated} in the config and "
                f"{found} in tensor '{tensor}'"
            )
    factor = settings.get("expansion_factor")
    # sparsify's num_latents counts where both stand; a factor that is no whole number is rounded down.
    if factor and not settings.get("num_latents") and abs(factor * d_model - d_sae) >= 1:
        raise InputError(
            f"expected config and tensors to agree in {where}, got 'expansion_factor' {factor:g} in the "
            f"config and {d_sae} features of {d_model} numbers in the tensors"
        )


ACTIVATION_TENSORS = frozenset(
    {
        *("threshold", "log_threshold", "topk_threshold", "k", "group_sizes"),
        *("r_mag", "b_mag", "b_gate", "gate_bias", "mag_bias", "W_gate"),
        *("encoder_glu.weight", "encoder_glu.bias", "activation_function.log_jumprelu_threshold"),
    }
)
"""Names by which trainers store what decides whether a feature is active."""


def check_activation_tensors(
    tensors: Mapping[str, Tensor], used: Iterable[str], activation: str, where: str
) -> None:
    """InputError where a file holds tensors of another activation than its config names."""
    others = sorted(ACTIVATION_TENSORS & tensors.keys() - set(used))
    if others:
        raise InputError(
            f"expected the tensors of {activation} in {where}, got tensor '{others[0]}', which it does not "
            f"have; config and weights contradict each other"
        )
