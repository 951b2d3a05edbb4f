"""What it costs to leave a feature without a partner.

A complete matching pairs every feature, however far its partner.  With an unmatched cost p
a pair is made only where the total is lower with it; alone, a pair that costs more than p is not.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64

from saematch.assignment.costs import SquaredDistances
from saematch.errors import UsageError
from saematch.matching.strategies import factors, features_of
from saematch.sae import FoldedSAE

Unmatched = float | Sequence[float] | np.ndarray | Literal["auto"]
"""A price for all features of A, one for each, or `auto`."""
AUTO_QUANTILE = 0.01
"""`auto`: the cost that this share of random pairs of live features stays below."""
RANDOM_PAIRS = 1 << 16


def random_pair_costs(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], seed: int = 0
) -> Float64[np.ndarray, " pairs"]:
    """Costs of random pairs of live features, ascending: what a pair costs by chance."""
    generator = np.random.default_rng(seed)
    live = [np.flatnonzero(np.array(side.sae.status, dtype=object) == "live") for side in (a, b)]
    if not all(len(features) for features in live):
        raise UsageError("expected live features on both sides to draw random pairs from, got none")
    i, j = (generator.choice(features, RANDOM_PAIRS) for features in live)
    taken = features_of(a), features_of(b)
    i, j = (np.searchsorted(of, drawn) for of, drawn in zip(taken, (i, j), strict=True))
    costs = SquaredDistances.of(factors(a, weights, taken[0]), factors(b, weights, taken[1]))
    return np.sort(costs.exact(torch.from_numpy(i), torch.from_numpy(j)).numpy())


def prices(
    unmatched_cost: Unmatched | None, a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float]
) -> float | np.ndarray | None:
    """The price or prices [d_a] that `unmatched_cost` stands for, in the units of the cost.

    Raises UsageError for a negative price, NaN, or another number of them than d_a.
    """
    if unmatched_cost is None:
        return None
    if isinstance(unmatched_cost, str):
        if unmatched_cost != "auto":
            raise UsageError(
                f"expected a number or 'auto' as unmatched cost, got '{unmatched_cost}'"
            )
        return float(np.quantile(random_pair_costs(a, b, weights), AUTO_QUANTILE))
    given = np.asarray(unmatched_cost, dtype=np.float64)
    if given.shape not in ((), (a.d_sae,)):
        raise UsageError(f"expected one unmatched cost or {a.d_sae}, got shape {list(given.shape)}")
    if not (given >= 0).all() or not np.isfinite(given).all():
        raise UsageError(
            "expected finite unmatched costs from 0 on, got negative or non-finite ones"
        )
    return float(given) if given.ndim == 0 else given
