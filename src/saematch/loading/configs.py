"""Typed reading of configs, and holding them against the tensors.

A format declares the fields that it reads, once, as a schema; a field that is there with another type or
out of range is an error that names it, never a guess.  Fields that no schema names are left alone, and
`null` is the same as absent.  What config and tensors both state must agree.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from saematch.errors import InputError

Kind = Literal["whole number", "number", "true or false", "text", "object"]

_LARGEST_WHOLE = 1 << 31
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Field:
    """What a field of a config may hold."""

    kinds: tuple[Kind, ...]
    default: Any = None
    low: int | float = -math.inf
    """For numbers: the least that makes sense."""
    above: int | float = -math.inf
    """For numbers: what they must be above."""

    @property
    def expected(self) -> str:
        words = " or ".join(self.kinds)
        if self.low > -math.inf:
            words += f" of {self.low:g} or more"
        if self.above > -math.inf:
            words += f" above {self.above:g}"
        return f"{words} within float32" if "number" in self.kinds else words


def whole(low: int, default: int | None = None) -> Field:
    """A whole number; 3.0 is one, 3.7 and true are not."""
    return Field(("whole number",), default, low=low)


def number(
    default: int | float | None = None,
    *,
    low: int | float = -math.inf,
    above: int | float = -math.inf,
) -> Field:
    """A number that float32 holds."""
    return Field(("number",), default, low, above)


def flag(default: bool = False) -> Field:
    """JSON's true or false; the text "false" is neither."""
    return Field(("true or false",), default)


def text(default: str | None = None) -> Field:
    return Field(("text",), default)


def obj() -> Field:
    """An object; read its fields with a schema of its own."""
    return Field(("object",))


def either(*kinds: Kind, default: Any = None) -> Field:
    return Field(kinds, default)


Schema = Mapping[str, Field]


def read_settings(config: Mapping[str, Any], schema: Schema, where: str) -> dict[str, Any]:
    """Every field of the schema by name: its value with the declared type, or its default.

    `where` is the file, and the object in it, for messages.
    """
    return {name: _value(config.get(name), field, name, where) for name, field in schema.items()}


def _value(value: Any, field: Field, name: str, where: str) -> Any:
    if value is None:
        return field.default
    for kind in field.kinds:
        typed = _typed(value, kind)
        if typed is None:
            continue
        if isinstance(typed, bool) or not isinstance(typed, int | float):
            return typed
        if typed >= field.low and typed > field.above:
            return typed
    shown = type(value).__name__ if isinstance(value, list | dict) else repr(value)[:80]
    raise InputError(f"expected {field.expected} as '{name}' in {where}, got {shown}")


def _typed(value: Any, kind: Kind) -> Any:
    if kind == "true or false":
        return value if isinstance(value, bool) else None
    if kind == "text":
        return value if isinstance(value, str) else None
    if kind == "object":
        return value if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if kind == "whole number":
        # A number beyond every size of a tensor would only make arithmetic slow.
        fits = -_LARGEST_WHOLE <= value <= _LARGEST_WHOLE and value == int(value)
        return int(value) if fits else None
    try:
        return float(value) if abs(value) <= _LARGEST else None
    except OverflowError:
        return None


def check_stated(
    settings: Mapping[str, Any], tensors_say: Mapping[str, tuple[int, str]], where: str
) -> None:
    """InputError naming both where a config states another size than the tensors have.

    `tensors_say`: for a field of the config, the number that the tensors give and the tensor that gives it.
    """
    for name, (found, tensor) in tensors_say.items():
        stated = settings.get(name)
        if stated is not None and stated != found:
            raise InputError(
                f"expected config and tensors to agree in {where}, got '{name}' {stated} in the config and "
                f"{found} in tensor '{tensor}'"
            )


def check_expansion(factor: int | float | None, d_model: int, d_sae: int, where: str) -> None:
    """InputError where an expansion factor gives another number of features than there are."""
    # Widths are rounded down where a factor is no whole number.
    if factor is not None and abs(factor * d_model - d_sae) >= 1:
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
