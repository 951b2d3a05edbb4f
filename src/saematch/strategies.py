"""Ways to find a permutation from weights alone, and what they compare.

A feature's parts lie side by side in one row of a factor matrix: decoder row, encoder column, encoder
bias, each times the square root of its weight.  The cost of a pair is the squared distance of two
such rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment import Assignment, Dense, solve
from saematch.assignment.costs import full_precision
from saematch.errors import UsageError
from saematch.permutation import Permutation, inverse
from saematch.sae import FoldedSAE

PARTS = ("decoder", "encoder", "bias")
Strategy = Literal["folded", "unfolded", "naive", "random", "cosine"]
STRATEGIES: tuple[Strategy, ...] = ("folded", "unfolded", "naive", "random", "cosine")
"""The strategies that need no data."""
ROWS_PER_BLOCK = 128
ROWS_PER_PRODUCT = 1024


def part_weights(parts: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """Weights by part; raises UsageError for unknown, repeated or missing parts and bad weights."""
    if isinstance(parts, str):
        parts = parts.split(",")
    weights = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, 1.0)
    if not weights or len(weights) != len(parts) or not set(weights) <= set(PARTS):
        raise UsageError(f"needed parts among {', '.join(PARTS)}, found {list(parts)}")
    for part, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise UsageError(f"needed a positive weight for part '{part}', found {weight}")
    return {part: float(weights[part]) for part in PARTS if part in weights}


def factors(sae: FoldedSAE, weights: Mapping[str, float]) -> Float[Tensor, "d_sae width"]:
    """One row a feature, whose squared distances are the costs of pairs."""
    columns = {
        "decoder": lambda: sae.W_dec,
        "encoder": lambda: sae.W_enc.T,
        "bias": lambda: sae.b_enc[:, None],
    }
    widths = {"decoder": sae.d_model, "encoder": sae.d_model, "bias": 1}
    out = torch.empty(sae.d_sae, sum(widths[part] for part in weights))
    start = 0
    for part, weight in weights.items():
        torch.mul(columns[part](), math.sqrt(weight), out=out[:, start : start + widths[part]])
        start += widths[part]
    return out


def assign(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], solver: Dense
) -> tuple[Permutation, np.ndarray, Assignment]:
    if a.d_sae <= b.d_sae:
        found = solve(factors(a, weights), factors(b, weights), solver)
        return found.columns, found.margins, found
    found = solve(factors(b, weights), factors(a, weights), solver)
    permutation = inverse(found.columns, a.d_sae)
    margin = np.full(a.d_sae, np.nan)
    margin[found.columns] = found.margins
    return permutation, margin, found


def random_permutation(d_a: int, d_b: int, seed: int) -> Permutation:
    generator = np.random.default_rng(seed)
    if d_a <= d_b:
        return generator.permutation(d_b)[:d_a].astype(np.int64)
    return inverse(generator.permutation(d_a)[:d_b].astype(np.int64), d_a)


def unit_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows at unit norm; zero rows stay zero."""
    return torch.nn.functional.normalize(rows.float(), dim=1, eps=1e-30)


def nearest_by_cosine(
    a: Float[Tensor, "d_a d_model"], b: Float[Tensor, "d_b d_model"]
) -> Permutation:
    """Row-wise argmax of the cosine; equal cosines go by the lower feature, zero rows to the first.

    A float32 product can give equal rows unequal values, so whatever is within its rounding error of
    the greatest is evaluated again in float64.
    """
    unit_a, unit_b = unit_rows(a), unit_rows(b)
    tolerance = 1.01 * (a.shape[1] + 2) * torch.finfo(torch.float32).eps
    nearest = np.zeros(len(a), dtype=np.int64)
    for start in range(0, len(a), ROWS_PER_PRODUCT):
        rows = unit_a[start : start + ROWS_PER_PRODUCT]
        with full_precision():
            cosine = rows @ unit_b.T
        near = cosine >= cosine.amax(dim=1, keepdim=True) - tolerance
        i, j = (near & rows.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        exact = [
            (rows[some].double() * unit_b[others]).sum(dim=1)
            for some, others in zip(i.split(ROWS_PER_BLOCK), j.split(ROWS_PER_BLOCK), strict=True)
        ]
        if exact:
            order = np.lexsort((j.numpy(), -torch.cat(exact).numpy(), i.numpy()))
            row, first = np.unique(i.numpy()[order], return_index=True)
            nearest[start + row] = j.numpy()[order[first]]
    return nearest
