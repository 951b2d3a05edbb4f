"""The words of the method, in plain Python: parts of a feature, scales, SAEs and features by name, and what
a pair is measured under besides its matchings.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from operator import index
from typing import Any, Literal, NamedTuple

from saematch.errors import UsageError

PARTS = ("decoder", "encoder", "bias")
ScaleKind = Literal["threshold", "decoder_norm", "activation", "none"]
Degenerate = Literal["apart", "together"]
"""How features of status degenerate are matched: after the others, or in one problem with them."""
DEGENERATE: tuple[Degenerate, ...] = ("apart", "together")
RANDOM_DRAWS = 20
"""Draws of a matcher that is drawn by a seed, unless asked otherwise."""


class Interval(NamedTuple):
    """A value, and the ends of its 95% interval, or the least and the greatest of several draws; None: it has
    none."""

    value: float
    low: float | None = None
    high: float | None = None


def part_weights(parts: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Weights by part; raises UsageError for unknown, repeated or missing parts and bad weights."""
    if isinstance(parts, str):
        parts = parts.split(",")
    weights = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1.0)
    if not weights or len(weights) != len(parts) or not set(weights) <= set(PARTS):
        raise UsageError(f"expected parts among {', '.join(PARTS)}, got {list(parts)}")
    for part, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(f"expected a positive weight for part '{part}', got {weight}")
    return {part: float(weights[part]) for part in PARTS if part in weights}


def parts_slug(parts: Mapping[str, float]) -> str:
    """Parts and weights as a folder's name: a weight of 1 is left out."""
    return "+".join(
        part if weight == 1 else f"{part}@{int(weight) if weight == int(weight) else weight!r}"
        for part, weight in ((part, parts[part]) for part in PARTS if part in parts)
    )


def suite_key(layer: int, name: str) -> str:
    """`layer`, or `layer.name` with whatever a file's name should not hold as an underscore."""
    return f"{layer}.{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}" if name else str(layer)


def find_key(named: str | int, keys: Collection[str]) -> str:
    """The one of `keys` (of `suite_key`) that is `named` so or has that layer; raises UsageError."""
    wanted = str(named).strip()
    found = [key for key in keys if key == wanted] or [
        key for key in keys if key.split(".")[0] == wanted
    ]
    if len(found) != 1:
        raise UsageError(
            f"expected one of the layers {', '.join(keys)}, got '{wanted[:80]}'"
            + (", which names several" if found else "")
        )
    return found[0]


def find_feature(named: object, widths: Mapping[str, int]) -> tuple[str, int]:
    """Key and index of a feature named as `12/345` or (12, 345); raises UsageError for one that is not there.

    `widths`: the number of features by key.
    """
    text = re.fullmatch(r"(.*\S)\s*/\s*([0-9]{1,9})\s*", named) if isinstance(named, str) else None
    pair: Any = (text[1], int(text[2])) if text else named
    try:
        layer, number = pair
        number = index(number)
    except (TypeError, ValueError):
        raise UsageError(
            f"expected a feature as LAYER/INDEX, e.g. 12/345, got {named!r:.80}"
        ) from None
    key = find_key(layer, widths)
    if not 0 <= number < widths[key]:
        raise UsageError(
            f"expected a feature of layer {key} from 0 to {widths[key] - 1}, got {number}"
        )
    return key, number


INTERVENTIONS = ("layer_drop", "reconstruct_current", "reconstruct_previous")
"""What is measured besides matchings and needs no map of features."""
FOLLOW_WAYS = ("consensus", "exact")
"""How paths that agree with their start are chosen (matching/paths.py); the first is the usual one."""


class Fate(StrEnum):
    """What becomes of a feature."""

    PERSISTS = "persists"
    SPLITS = "splits"
    MERGES = "merges"
    DIES = "dies"
    NOT_LIVE = "not live"
    UNKNOWN = "unknown"


EVEN = 0.5
"""A partner counts from this probability on (matching/fates.py)."""
RIDGE = "ridge"
_REFOLDED = "_refolded"


def refolded(strategy: str) -> str:
    """The condition that decodes the map of a strategy on raw weights on folded ones: map and scale apart."""
    return f"{strategy}{_REFOLDED}"


def is_refolded(strategy: str) -> bool:
    return strategy.endswith(_REFOLDED)
