"""What the pairs of a permutation are worth, on folded weights, whatever found them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from saematch.errors import UsageError
from saematch.matching.correspondence import Correspondence
from saematch.matching.found import Found
from saematch.matching.matched import Matching, Side
from saematch.matching.permutation import UNMATCHED, Permutation
from saematch.sae import SAE, FoldedSAE, fold_thresholds
from saematch.types import PARTS, Degenerate, ScaleKind, part_weights

ROWS_PER_BLOCK = 128
"""Pairs measured at a time: few enough to stay in cache between the steps."""


@torch.no_grad()
def measure(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    permutation: Permutation | Correspondence,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: str = "given",
    scale: ScaleKind | None = None,
) -> Matching:
    """The Matching of a permutation, or a map of several partners, found elsewhere, e.g. by composing
    adjacent ones."""
    check_pair(a, b)
    if not isinstance(permutation, Correspondence):
        permutation = Correspondence.of_permutation(permutation, b.d_sae)
    if (permutation.d_a, permutation.d_b) != (a.d_sae, b.d_sae):
        raise UsageError(
            f"expected a map of {a.d_sae} features to {b.d_sae}, got one of {permutation.d_a} to "
            f"{permutation.d_b}"
        )
    sides = folded(a, scale), folded(b, scale)
    return measured(*sides, Found(permutation), part_weights(parts), strategy)


def check_pair(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> None:
    for one in (a, b):
        if not isinstance(one, SAE | FoldedSAE):
            raise UsageError(f"expected SAEs, got {one!r}; load_sae gives one from a reference")
    if a.d_model != b.d_model:
        raise UsageError(
            f"expected two SAEs of one d_model, got {a.d_model} and {b.d_model}; "
            "they read different models"
        )


def folded(sae: SAE | FoldedSAE, scale: ScaleKind | None) -> FoldedSAE:
    return sae if isinstance(sae, FoldedSAE) else fold_thresholds(sae, scale)


def measured(
    a: FoldedSAE,
    b: FoldedSAE,
    found: Found,
    weights: Mapping[str, float],
    strategy: str,
    degenerate: Degenerate = "apart",
) -> Matching:
    """The Matching of a map, the pairs of each feature and its strongest partner measured on folded
    weights."""
    permutation = found.correspondence.permutation
    indices = np.flatnonzero(permutation != UNMATCHED)
    matched = torch.from_numpy(indices)
    partner = torch.from_numpy(permutation[indices])
    decoder, encoder, bias, cosine = (torch.full((a.d_sae,), torch.nan).double() for _ in range(4))
    decoder_a, decoder_b = a.W_dec, b.W_dec
    encoder_a, encoder_b = a.W_enc.T.contiguous(), b.W_enc.T.contiguous()
    for i, j in zip(matched.split(ROWS_PER_BLOCK), partner.split(ROWS_PER_BLOCK), strict=True):
        row_a, row_b = decoder_a[i].double(), decoder_b[j].double()
        norms = row_a.norm(dim=1) * row_b.norm(dim=1)
        cosine[i] = (row_a * row_b).sum(dim=1) / torch.where(norms > 0, norms, 1.0)
        decoder[i] = row_a.sub_(row_b).square_().mean(dim=1)
        encoder[i] = encoder_a[i].double().sub_(encoder_b[j]).square_().mean(dim=1)
    bias[matched] = (a.b_enc[matched].double() - b.b_enc[partner].double()).square()
    totals = {"decoder": decoder * a.d_model, "encoder": encoder * a.d_model, "bias": bias}
    cost = sum(weight * totals[part] for part, weight in weights.items())
    assert isinstance(cost, Tensor)
    return Matching(
        a=Side.of(a.sae),
        b=Side.of(b.sae),
        d_model=a.d_model,
        strategy=strategy,
        parts=weights,
        scale=a.scale_kind,
        correspondence=found.correspondence,
        cost=cost.numpy(),
        mse_decoder=decoder.numpy(),
        mse_encoder=encoder.numpy(),
        mse_bias=bias.numpy(),
        cosine=cosine.numpy(),
        margin=np.full(a.d_sae, np.nan) if found.margin is None else found.margin,
        assignment=found.proof,
        notes=found.notes,
        unmatched_cost=found.unmatched_cost,
        degenerate=degenerate,
        without_degenerate=found.without_degenerate,
    )
