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

from collections.abc import Callable, Mapping, Sequence
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
    go_on: Callable[[], None] = lambda: None,
) -> list[Agreement]:
    """The agreement of one pair for each stratum of `candidates` ([strata, some], -1: none) and
    strategy; of every stratum the first candidate that is active in a document is taken.

    Documents are cut to `tokens` tokens.  A stratum none of whose candidates is active has no row.
    """
    open_strata = [n for n in range(len(candidates)) if candidates[n, 0] >= 0]
    found: list[Agreement] = []
    for number, ids in enumerate(documents.token_ids):
        if not open_strata:
            break
        token_ids = torch.tensor([ids[:tokens]])
        streams = model.capture(token_ids, sorted({a.layer, b.layer}))
        x_a, x_b = streams[a.layer][0, 1:].float(), streams[b.layer][0, 1:].float()
        f_a, f_b = encode_sparse(a, x_a), encode_sparse(b, x_b)
        active = set(f_a.feature.unique().tolist())
        chosen = {}
        for stratum in open_strata:
            here = next((i for i in candidates[stratum].tolist() if i in active), None)
            if here is not None:
                chosen[stratum] = here
        open_strata = [n for n in open_strata if n not in chosen]
        ablations = _Ablations(model, token_ids, a, b, streams, f_a, f_b)
        for stratum, feature in chosen.items():
            found += ablations.agreements(feature, partners, stratum, number)
            go_on()
    return found


class _Ablations:
    """Changes of the logits of one document."""

    def __init__(
        self,
        model: LanguageModel,
        token_ids: Tensor,
        a: SAE,
        b: SAE,
        streams: dict[int, Tensor],
        f_a: SparseActivations,
        f_b: SparseActivations,
    ) -> None:
        self.model, self.token_ids = model, token_ids
        self.saes, self.streams, self.active = (a, b), streams, (f_a, f_b)

    def agreements(
        self, feature: int, partners: Mapping[str, Permutation], stratum: int, document: int
    ) -> list[Agreement]:
        f_a = self.active[0]
        at = f_a.token[f_a.feature == feature]
        wanted = {name: int(p[feature]) for name, p in partners.items()}
        others = sorted({j for j in wanted.values() if j != UNMATCHED})
        (own,) = self._changes(0, [feature], at)
        of_partner = dict(zip(others, self._changes(1, others, at), strict=True))
        return [
            Agreement(
                feature,
                j,
                name,
                stratum,
                document,
                len(at),
                0.0 if j == UNMATCHED else cosine(own, of_partner[j]),
            )
            for name, j in wanted.items()
        ]

    def _changes(self, side: int, features: Sequence[int], at: Tensor) -> list[Tensor]:
        """Centred changes of the logits at some tokens, one for each feature ablated there."""
        sae, active = self.saes[side], self.active[side]
        stream = self.streams[sae.layer]
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
            ids = self.token_ids.repeat(len(rows), 1)
            logits = self.model.predict_from(ids, sae.layer, rows)[:, at + 1].double()
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
