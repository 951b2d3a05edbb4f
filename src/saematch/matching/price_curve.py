"""How many features are matched at each unmatched cost (pricing.py)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from saematch.matching.match import match
from saematch.matching.matched import same_features
from saematch.matching.measuring import folded
from saematch.matching.pricing import random_pair_costs
from saematch.sae import SAE, FoldedSAE
from saematch.types import PARTS, part_weights

if TYPE_CHECKING:
    import pandas as pd

CURVE_QUANTILES = (0.0001, 0.001, 0.01, 0.05, 0.25, 0.5)


@torch.no_grad()
def price_curve(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    prices: Sequence[float] | None = None,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
) -> "pd.DataFrame":
    """Share of features matched against their unmatched cost.

    One row per price: `price`, `quantile` (share of random live pairs that cost less), `matched` (features
    of A with a partner), `share` (of A's), `live_share` (of A's live features, those with a partner),
    `compared` (live features of A with a partner at every price), `cost` (mean over these), `gap`.
    `prices`: ascending; None: quantiles of random pairs' costs from 0.0001 to 0.5.
    """
    import pandas as pd

    weights = part_weights(parts)
    sides = folded(a, None), folded(b, None)
    random = random_pair_costs(*sides, weights)
    chosen = np.quantile(random, CURVE_QUANTILES).tolist() if prices is None else prices
    rows = []
    matchings = [match(*sides, parts=weights, unmatched_cost=price) for price in chosen]
    same = same_features(matchings)
    for price, found in zip(chosen, matchings, strict=True):
        live = found.status == "live"
        rows.append(
            {
                "price": price,
                "quantile": float(np.searchsorted(random, price) / len(random)),
                "matched": int(found.matched.sum()),
                "share": float(found.matched.mean()),
                "live_share": float((live & found.matched).sum() / max(1, live.sum())),
                "compared": int(same.sum()),
                "cost": float(found.cost[same].mean()) if same.any() else float("nan"),
                "gap": found.gap,
            }
        )
    return pd.DataFrame(rows)
