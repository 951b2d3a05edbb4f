"""The conditions of a pair: every intervention and every strategy that is measured."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from saematch.evaluation.collecting import Condition
from saematch.evaluation.interventions import (
    LinearMap,
    encode_permute_decode,
    layer_drop,
    quantile,
    reconstruct_current,
    reconstruct_previous,
)
from saematch.evaluation.names import RIDGE, refolded
from saematch.matching.matched import Matching
from saematch.matching.registry import MAIN, matcher
from saematch.sae import SAE, FoldedSAE


@dataclass(frozen=True, eq=False)
class PairInputs:
    """What the conditions of a pair are made from; SAEs and maps lie on the model's device."""

    a: FoldedSAE
    b: FoldedSAE
    slug: str
    """Parts and weights that the matchings were found with."""
    matchings: Mapping[str, Matching]
    """By strategy; those that are drawn by a seed are drawn here."""
    other_parts: Mapping[str, Matching] = field(default_factory=dict)
    """The main strategy by slug of other parts; no losses are taken of them."""
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


def conditions_of(
    pair: PairInputs,
    *,
    drawn: Sequence[str] = (),
    draws: int = 1,
    seed: int = 0,
    quantiles: Sequence[float] = (),
    loss: bool = True,
) -> list[Condition]:
    """Interventions first, then strategies as `encode_permute_decode`, then what they are compared with.

    `drawn`: the strategies that are drawn by a seed, each `draws` times from `seed` on; losses are taken of
    the first draw alone.
    """
    a, b, slug = pair.a, pair.b, pair.slug
    adjacent = a.sae.layer < b.sae.layer
    conditions = []
    if adjacent:
        conditions.append(Condition("layer_drop", intervene=layer_drop, loss=loss))
        previous = reconstruct_previous(a.sae)
        conditions.append(Condition("reconstruct_previous", intervene=previous, loss=loss))
    current = reconstruct_current(b.sae)
    conditions.append(Condition("reconstruct_current", intervene=current, loss=loss))
    for strategy, matching in pair.matchings.items():
        found, raw = matching.correspondence, matcher(strategy).raw
        decoding = encode_permute_decode(a, b, found, folded=not raw)
        conditions.append(Condition(strategy, slug, 0, decoding, found.permutation, loss))
        if raw:
            decoding = encode_permute_decode(a, b, found)
            conditions.append(Condition(refolded(strategy), slug, 0, decoding, None, loss))
    for strategy in drawn:
        for draw in range(draws):
            found = matcher(strategy).draw(a.d_sae, b.d_sae, seed + draw)
            decoding = encode_permute_decode(a, b, found)
            conditions.append(
                Condition(strategy, slug, draw, decoding, found.permutation, loss and draw == 0)
            )
    if pair.ridge is not None:
        conditions.append(Condition(RIDGE, "", 0, pair.ridge, None, loss))
    for other, matching in pair.other_parts.items():
        decoding = encode_permute_decode(a, b, matching.correspondence)
        conditions.append(Condition(MAIN, other, 0, decoding, matching.permutation))
    for q in quantiles:
        decoding = quantile(a, b, pair.matchings[MAIN], q)
        conditions.append(Condition(f"quantile({q:g})", slug, 0, decoding, None, loss))
    return conditions
