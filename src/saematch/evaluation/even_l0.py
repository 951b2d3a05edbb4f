"""One SAE per layer out of several, so that mean L0 is even along the depth (SAE Match, appendix A).

Criterion: least Σ_t (ln L0_{t+1} − ln L0_t)², and, with a target, plus Σ_t (ln L0_t − ln target)².
Each layer's term depends on the layer before alone, so the least sum is a shortest path through the
layers, found exactly.  Of equal sums the one that takes earlier candidates at the last layers wins.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

from saematch.errors import UsageError


def choose_suite(
    l0: Mapping[int, Mapping[str, float]], target: float | None = None
) -> dict[int, str]:
    """Choose one SAE per layer, with L0 as even as can be: its key, by layer.

    `l0`: by layer and key, the SAE's mean L0 (measure `l0` of `saematch evaluate`, or what its name says).
    Raises UsageError for layers without candidates and L0s that are not positive.
    """
    if not l0:
        raise UsageError("expected at least one layer to choose SAEs for, got none")
    layers = sorted(l0)
    for layer in layers:
        if not l0[layer]:
            raise UsageError(f"expected at least one SAE at layer {layer}, got none")
        for key, value in l0[layer].items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"expected a positive mean L0 for {key}, got {value}")
    if target is not None and not (math.isfinite(target) and target > 0):
        raise UsageError(f"expected a positive target of L0, got {target}")

    def own(value: float) -> float:
        return 0.0 if target is None else math.log(value / target) ** 2

    best = {key: (own(value), [key]) for key, value in l0[layers[0]].items()}
    for before, layer in pairwise(layers):
        reached = {}
        for key, value in l0[layer].items():
            total, path = min(
                (
                    (total + math.log(value / l0[before][last]) ** 2 + own(value), path)
                    for last, (total, path) in best.items()
                ),
                key=lambda found: found[0],
            )
            reached[key] = (total, [*path, key])
        best = reached
    _, path = min(best.values(), key=lambda found: found[0])
    return dict(zip(layers, path, strict=True))
