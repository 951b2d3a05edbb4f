"""One number for how alike two dictionaries are: PW-MCC, with what chance gives.

PW-MCC (pairwise dictionary mean correlation coefficient; Song et al., arXiv 2505.20254) is the mean
|cosine| of decoder rows over the one-to-one matching that makes it greatest.  Untrained SAEs can
score nearly as high as trained ones (Paulo and Belrose, arXiv 2501.16615), so the number never
stands alone: the baseline is a random dictionary whose rows have the mean and covariance of B's
unit rows, matched to A in the same way.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saematch.assignment.certified import Certified
from saematch.assignment.costs import SquaredDistances
from saematch.assignment.problem import Problem
from saematch.errors import UsageError
from saematch.matching.strategies import unit_rows
from saematch.sae import SAE


@dataclass(frozen=True)
class Consistency:
    """PW-MCC of two dictionaries and of the first against a random one."""

    value: float
    """Mean |cosine| under the best one-to-one matching, from 0 to 1; over the smaller side."""
    random: float
    """The same against a random dictionary with B's mean and covariance of unit decoder rows."""
    pairs: int
    """Features of the smaller side, zero rows left out."""


def pw_mcc(a: SAE, b: SAE, seed: int = 0) -> Consistency:
    """PW-MCC of the decoders of two SAEs of one d_model.  Zero rows have no direction and stay out."""
    if a.d_model != b.d_model:
        raise UsageError(f"expected two SAEs of one d_model, got {a.d_model} and {b.d_model}")
    rows_a, rows_b = _directions(a), _directions(b)
    if not len(rows_a) or not len(rows_b):
        raise UsageError("expected decoder rows that are not zero, got none")
    return Consistency(
        value=_mean_cosine(rows_a, rows_b),
        random=_mean_cosine(rows_a, _random_like(rows_b, seed)),
        pairs=min(len(rows_a), len(rows_b)),
    )


def _directions(sae: SAE) -> Float[Tensor, "n d_model"]:
    rows = unit_rows(sae.W_dec)
    return rows[rows.any(dim=1)]


def _random_like(rows: Float[Tensor, "n d_model"], seed: int) -> Float[Tensor, "n d_model"]:
    mean = rows.double().mean(dim=0)
    covariance = torch.cov(rows.double().T, correction=0)
    values, vectors = torch.linalg.eigh(covariance.reshape(rows.shape[1], rows.shape[1]))
    noise = torch.randn(
        rows.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return unit_rows(mean + (noise * values.clamp(min=0).sqrt()) @ vectors.T)


def _mean_cosine(a: Float[Tensor, "n d_model"], b: Float[Tensor, "m d_model"]) -> float:
    if len(a) > len(b):
        a, b = b, a
    # Of unit rows, ‖a ∓ b‖² = 2 − 2|cosine| at its least.
    found = Certified()(Problem.of(SquaredDistances.of(a, b, up_to_sign=True)))
    partners = b[torch.from_numpy(found.columns)]
    return float((a.double() * partners.double()).sum(dim=1).abs().mean())
