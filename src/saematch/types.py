"""The words of the method as types: parts of a feature, scales; plain Python."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from saematch.errors import UsageError

PARTS = ("decoder", "encoder", "bias")
ScaleKind = Literal["threshold", "decoder_norm", "activation", "none"]
Degenerate = Literal["apart", "together"]
"""How features of status degenerate are matched: after the others, or in one problem with them."""
DEGENERATE: tuple[Degenerate, ...] = ("apart", "together")


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
