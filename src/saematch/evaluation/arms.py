"""The arms of a pair: every intervention and every strategy that is measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from saematch.evaluation.collecting import Arm
from saematch.evaluation.interventions import (
    LinearMap,
    encode_permute_decode,
    layer_drop,
    quantile,
    reconstruct_current,
    reconstruct_previous,
)
from saematch.matching.matched import Matching
from saematch.matching.strategies import random_permutation
from saematch.sae import SAE, FoldedSAE

INTERVENTIONS = ("layer_drop", "reconstruct_current", "reconstruct_previous")
"""Those that need no map of features."""
UNFOLDED_REFOLDED = "unfolded_refolded"
"""The permutation of `unfolded`, decoded on folded weights: permutation and scale apart."""
RIDGE, CORRELATION, RANDOM = "ridge", "correlation", "random"


@dataclass(frozen=True, eq=False)
class PairInputs:
    """What the arms of a pair are made from; SAEs and maps lie on the model's device."""

    a: FoldedSAE
    b: FoldedSAE
    slug: str
    """Parts and weights that the matchings were found with."""
    matchings: Mapping[str, Matching]
    """By strategy; `random` is drawn here."""
    other_parts: Mapping[str, Matching] = field(default_factory=dict)
    """`folded` by slug of other parts; no losses are taken of them."""
    ridge: LinearMap | None = None


def on_device(folded: FoldedSAE, device: torch.device) -> FoldedSAE:
    """The SAE in float32 on a device, its scale with it."""
    sae = folded.sae
    moved = {
        name: getattr(sae, name).float().to(device)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        if getattr(sae, name) is not None
    }
    on: SAE = dataclasses.replace(sae, **moved)
    return FoldedSAE(on, folded.scale.to(device), folded.scale_kind, folded.uniform)


def arms_of(
    pair: PairInputs, *, draws: int, seed: int, quantiles: Sequence[float] = (), loss: bool = True
) -> list[Arm]:
    """Interventions first, then strategies as `encode_permute_decode`, then what they are compared with.

    Losses of `random` are taken of its first draw alone.
    """
    a, b, slug = pair.a, pair.b, pair.slug
    adjacent = a.sae.layer < b.sae.layer
    arms = []
    if adjacent:
        arms.append(Arm("layer_drop", intervene=layer_drop, loss=loss))
        previous = reconstruct_previous(a.sae)
        arms.append(Arm("reconstruct_previous", intervene=previous, loss=loss))
    current = reconstruct_current(b.sae)
    arms.append(Arm("reconstruct_current", intervene=current, loss=loss))
    for strategy, matching in pair.matchings.items():
        p = matching.permutation
        decoding = encode_permute_decode(a, b, p, folded=strategy != "unfolded")
        arms.append(Arm(strategy, slug, 0, decoding, p, loss))
        if strategy == "unfolded":
            refolded = encode_permute_decode(a, b, p)
            arms.append(Arm(UNFOLDED_REFOLDED, slug, 0, refolded, None, loss))
    for draw in range(draws):
        p = random_permutation(a.d_sae, b.d_sae, seed + draw)
        decoding = encode_permute_decode(a, b, p)
        arms.append(Arm(RANDOM, slug, draw, decoding, p, loss and draw == 0))
    if pair.ridge is not None:
        arms.append(Arm(RIDGE, "", 0, pair.ridge, None, loss))
    for other, matching in pair.other_parts.items():
        decoding = encode_permute_decode(a, b, matching.permutation)
        arms.append(Arm("folded", other, 0, decoding, matching.permutation))
    for q in quantiles:
        decoding = quantile(a, b, pair.matchings["folded"], q)
        arms.append(Arm(f"quantile({q:g})", slug, 0, decoding, None, loss))
    return arms
