"""Causal agreement: does ablating a feature and, apart, its partner move the logits the same way?

1. Draw features that all strategies compare (`same_features`), one from each of equal strata of the cost
   of their folded pairs.
2. Take documents in order; in the first where the feature is active, at all tokens where it is,
   (a) take its share f_i · W_dec_A[i] off the stream of the earlier layer, and
   (b) apart, its partner's share off the stream of the later layer, for every strategy's partner.
3. The agreement is the cosine of the two changes of the logits at those tokens, taken as one vector;
   each token's logits are centred first, since a constant changes no probability.  A partner that is
   not active there changes nothing, and its agreement is 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.evaluation.interventions import SparseActivations, encode_sparse
from saematch.matching.correspondence import UNMATCHED, Permutation
from saematch.matching.matched import Matching
from saematch.matching.matchers import MAIN
from saematch.models import Documents, LanguageModel
from saematch.sae import SAE
from saematch.stats import DRAWS, Values

ROWS_AT_A_TIME = 16
"""Ablations in one pass."""


@dataclass(frozen=True)
class Agreement:
    """One ablated pair."""

    feature: int
    partner: int
    strategy: str
    stratum: int
    """Stratum of the folded cost of the feature's pair, 0 the cheapest."""
    document: int
    tokens: int
    """On which the feature was active and was ablated."""
    agreement: float


def sample(matching: Matching, features: np.ndarray, strata: int, seed: int) -> np.ndarray:
    """[strata, 1 or more] of the features ([d_a] bool): all of each stratum of the matching's cost, in a
    seeded order."""
    chosen = np.flatnonzero(features)
    ordered = chosen[np.argsort(matching.cost[chosen], kind="stable")]
    generator = np.random.default_rng(seed)
    found = np.full((strata, -(-len(ordered) // max(1, strata))), -1)
    for number, stratum in enumerate(np.array_split(ordered, strata)):
        found[number, : len(stratum)] = generator.permutation(stratum)
    return found


@torch.no_grad()
def causal_agreement(
    model: LanguageModel,
    documents: Documents,
    a: SAE,
    b: SAE,
    partners: Mapping[str, Permutation],
    candidates: np.ndarray,
    tokens: int,
) -> list[Agreement]:
    """The agreement of one pair for each stratum of `candidates` ([strata, some], -1: none) and
    strategy; of every stratum the first candidate that is active in a document is taken.

    Documents are cut to `tokens` tokens.  A stratum none of whose candidates is active has no row.
    """
    left = {n: of.tolist() for n, of in enumerate(candidates) if of[0] >= 0}
    agreements: list[Agreement] = []
    for document, ids in enumerate(documents.token_ids):
        if not left:
            break
        token_ids = torch.tensor([ids[:tokens]])
        streams = model.capture(token_ids, sorted({a.layer, b.layer}))
        active = [encode_sparse(sae, streams[sae.layer][0, 1:].float()) for sae in (a, b)]
        here = set(active[0].feature.unique().tolist())
        for stratum, some in list(left.items()):
            feature = next((i for i in some if i in here), None)
            if feature is None:
                continue
            del left[stratum]
            at = active[0].token[active[0].feature == feature]
            wanted = {name: int(p[feature]) for name, p in partners.items()}
            others = sorted({j for j in wanted.values() if j != UNMATCHED})
            (own,) = _changes(model, token_ids, streams[a.layer], a, active[0], [feature], at)
            theirs = _changes(model, token_ids, streams[b.layer], b, active[1], others, at)
            agree = {j: cosine(own, change) for j, change in zip(others, theirs, strict=True)}
            agreements += [
                Agreement(feature, j, name, stratum, document, len(at), agree.get(j, 0.0))
                for name, j in wanted.items()
            ]
    return agreements


def _changes(
    model: LanguageModel,
    token_ids: Tensor,
    stream: Float[Tensor, "1 tokens d"],
    sae: SAE,
    active: SparseActivations,
    features: Sequence[int],
    at: Tensor,
) -> list[Tensor]:
    """Centred changes of the logits at some tokens, one for each feature ablated there."""
    changes: list[Tensor] = []
    for first in range(0, len(features), ROWS_AT_A_TIME):
        some = features[first : first + ROWS_AT_A_TIME]
        # The first row stays as it is: differences are then between rows of one batch.
        rows = stream.repeat(len(some) + 1, 1, 1)
        for row, feature in enumerate(some, start=1):
            value = torch.zeros(active.n_tokens, device=stream.device)
            mine = active.feature == feature
            value[active.token[mine]] = active.value[mine]
            share = value[at, None] * sae.W_dec[feature].float()
            rows[row, at + 1] -= share.to(rows.dtype)
        ids = token_ids.repeat(len(rows), 1)
        logits = model.predict_from(ids, sae.layer, rows)[:, at + 1].double()
        change = logits[1:] - logits[:1]
        change -= change.mean(dim=2, keepdim=True)
        # Rows that are equal may still differ in rounding, which has a direction too.
        untouched = (rows[1:] == rows[:1]).flatten(1).all(dim=1)
        change[untouched] = 0
        changes += list(change)
    return changes


def cosine(x: Float[Tensor, "tokens v"], y: Float[Tensor, "tokens v"]) -> float:
    """Cosine of two changes as vectors; 0 where either changes nothing."""
    size = float(x.norm() * y.norm())
    return float((x * y).sum()) / size if size > 0 else 0.0


def agreement_values(found: Sequence[Agreement], seed: int) -> dict[str, Values]:
    """By strategy the mean agreement, then that of every bootstrap draw of the pairs that were ablated;
    draws are the same for all strategies."""
    strategies = list(dict.fromkeys(one.strategy for one in found))
    features = sorted({(one.stratum, one.feature) for one in found})
    table = {(one.stratum, one.feature, one.strategy): one.agreement for one in found}
    values = np.array([[table[(*f, s)] for s in strategies] for f in features])
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(features), (DRAWS, len(features)))
    means = np.concatenate([values.mean(axis=0)[None], values[drawn].mean(axis=1)])
    return {strategy: means[:, n] for n, strategy in enumerate(strategies)}


def agreement_measures(found: Sequence[Agreement], seed: int) -> dict[str, dict[str, Values]]:
    """By strategy the mean agreement, and its difference from `folded`."""
    values = agreement_values(found, seed)
    result = {strategy: {"causal_agreement": value} for strategy, value in values.items()}
    for strategy, value in values.items():
        if strategy != MAIN and MAIN in values:
            result[strategy]["causal_agreement_minus_folded"] = value - values[MAIN]
    return result
