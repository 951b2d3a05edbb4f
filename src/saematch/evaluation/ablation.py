"""What ablating a feature and its partner says of the two: agreement, deactivation, substitution.

1. Draw features that all strategies compare (`same_features`), one from each of equal strata of the cost
   of their folded pairs.
2. Take documents in order; in the first where feature i of A is active, for every strategy's strongest
   partner j:
   (a) *agreement*: take i's share f_i · W_dec_A[i] off the stream of the earlier layer and, apart, j's share
       off that of the later layer, at all tokens where i is active.  The cosine of the two changes of the
       logits at those tokens, taken as one vector; each token's logits are centred first, since a constant
       changes no probability.
   (b) *deactivation*, after Feature Flow (arXiv 2502.03032), not its code: with i's share taken off, the
       blocks between run again.  The mean of 1 − f_j(ablated) / f_j over the tokens where both were active.
   (c) *substitution*, after the benchmark of correspondence across seeds (openreview 5cy6WtSC8f), of which
       we know the abstract: at all tokens where j is active its share is taken off and, apart, replaced by
       what the map makes of i alone, weight · f_i through j's decoder row.  1 − KL(replaced) / KL(taken off),
       each the divergence from the model's own predictions, summed over those tokens; not below -1.

A strategy that gives no partner scores 0, and so does a partner that is not active where it is looked at:
taking it off changes nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.evaluation.interventions import Term
from saematch.matching.correspondence import UNMATCHED
from saematch.matching.matched import Matching
from saematch.matching.matchers import MAIN
from saematch.models import Documents, LanguageModel
from saematch.sae import SAE
from saematch.stats import DRAWS, Values

ROWS_AT_A_TIME = 16
"""Changes of the stream in one pass."""


@dataclass(frozen=True)
class AblatedPair:
    """One feature, ablated, and the partner that a strategy gives it."""

    feature: int
    partner: int
    strategy: str
    stratum: int
    """Stratum of the folded cost of the feature's pair, 0 the cheapest."""
    document: int
    tokens: int
    """On which the feature was active and was ablated."""
    joint_tokens: int
    """Of those, on which the partner was active too."""
    partner_tokens: int
    """On which the partner was active and was replaced."""
    cosine: float | None
    """Of the decoder rows; None: no partner."""
    agreement: float
    deactivation: float
    substitution: float


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
def ablate_pairs(
    model: LanguageModel,
    documents: Documents,
    a: SAE,
    b: SAE,
    maps: Mapping[str, Term],
    candidates: np.ndarray,
    tokens: int,
) -> list[AblatedPair]:
    """One pair for each stratum of `candidates` ([strata, some], -1: none) and strategy; of every stratum
    the first candidate that is active in a document is taken.

    `maps`: by strategy the strongest partner of each feature of A and its weight, of raw activations.
    Documents are cut to `tokens` tokens.  A stratum none of whose candidates is active has no row.
    """
    left = {n: of.tolist() for n, of in enumerate(candidates) if of[0] >= 0}
    found: list[AblatedPair] = []
    for number, ids in enumerate(documents.token_ids):
        if not left:
            break
        document = _Document.read(model, torch.tensor([ids[:tokens]]), a, b)
        here = set(document.f_a.any(dim=0).nonzero().flatten().tolist())
        for stratum, some in list(left.items()):
            feature = next((i for i in some if i in here), None)
            if feature is None:
                continue
            del left[stratum]
            wanted = {
                name: (int(term.index[feature]), float(term.factor[feature]))
                for name, term in maps.items()
            }
            measured = document.measure(feature, set(wanted.values()))
            found += [
                AblatedPair(feature, pair[0], name, stratum, number, **measured[pair])
                for name, pair in wanted.items()
            ]
    return found


Change = tuple[int, Float[Tensor, " tokens"]]
"""A feature, and how much of its decoder row is added to the stream at each token."""


@dataclass(frozen=True, eq=False)
class _Document:
    """A document as the model reads it; tokens are those but BOS."""

    model: LanguageModel
    token_ids: Tensor
    a: SAE
    b: SAE
    x_a: Float[Tensor, "bos_and_tokens d"]
    x_b: Float[Tensor, "bos_and_tokens d"]
    f_a: Float[Tensor, "tokens d_a"]
    f_b: Float[Tensor, "tokens d_b"]

    @classmethod
    def read(cls, model: LanguageModel, token_ids: Tensor, a: SAE, b: SAE) -> "_Document":
        streams = model.capture(token_ids, sorted({a.layer, b.layer}))
        x_a, x_b = (streams[sae.layer][0] for sae in (a, b))
        f_a, f_b = (sae.encode(x[1:].float()) for sae, x in ((a, x_a), (b, x_b)))
        return cls(model, token_ids, a, b, x_a, x_b, f_a, f_b)

    def measure(
        self, feature: int, pairs: Collection[tuple[int, float]]
    ) -> dict[tuple[int, float], dict[str, Any]]:
        """What `AblatedPair` says last, from `tokens` on, of each partner and its weight."""
        f_i = self.f_a[:, feature]
        at = f_i > 0
        tokens = int(at.sum())
        matched = sorted(pair for pair in pairs if pair[0] != UNMATCHED)
        partners = sorted({j for j, _ in matched})
        own = (feature, -f_i)
        (moved,) = (_change(*both, at) for both in self._predictions(self.a, self.x_a, [own]))
        taken_off = [(j, -self.f_b[:, j] * at) for j in partners]
        predictions = self._predictions(self.b, self.x_b, taken_off)
        agreement = {
            j: cosine(moved, _change(*both, at))
            for j, both in zip(partners, predictions, strict=True)
        }
        after = self._activations_after(own)
        replaced = self._substitution(f_i, matched)
        row = self.a.W_dec[feature].double()
        nobody = {
            "tokens": tokens, "joint_tokens": 0, "partner_tokens": 0, "cosine": None,
            "agreement": 0.0, "deactivation": 0.0, "substitution": 0.0,
        }  # fmt: skip
        found: dict[tuple[int, float], dict[str, Any]] = dict.fromkeys(pairs, nobody)
        for j, weight in matched:
            f_j = self.f_b[:, j]
            both = at & (f_j > 0)
            drop = 1 - after[both, j].double() / f_j[both].double()
            found[j, weight] = {
                "tokens": tokens,
                "joint_tokens": int(both.sum()),
                "partner_tokens": int((f_j > 0).sum()),
                "cosine": float(torch.cosine_similarity(row, self.b.W_dec[j].double(), dim=0)),
                "agreement": agreement[j],
                "deactivation": float(drop.mean()) if len(drop) else 0.0,
                "substitution": replaced[j, weight],
            }
        return found

    def _activations_after(self, change: Change) -> Float[Tensor, "tokens d_b"]:
        """What B sees when the stream of A's layer is changed."""
        x = _changed(self.x_a, self.a, change)
        later = self.model.capture_from(self.token_ids, self.a.layer, x[None], self.b.layer)
        return self.b.encode(later[0, 1:].float())

    def _substitution(
        self, f_i: Float[Tensor, " tokens"], pairs: Sequence[tuple[int, float]]
    ) -> dict[tuple[int, float], float]:
        partners = sorted({j for j, _ in pairs})
        changes = [(j, -self.f_b[:, j]) for j in partners]
        for j, weight in pairs:
            f_j = self.f_b[:, j]
            changes.append((j, (weight * f_i - f_j) * (f_j > 0)))
        divergences = [
            _divergence(*both, self.f_b[:, j] > 0)
            for (j, _), both in zip(
                changes, self._predictions(self.b, self.x_b, changes), strict=True
            )
        ]
        without = dict(zip(partners, divergences))
        return {
            (j, weight): max(-1.0, 1 - left / without[j]) if without[j] > 0 else 0.0
            for (j, weight), left in zip(pairs, divergences[len(partners) :], strict=True)
        }

    def _predictions(
        self, sae: SAE, x: Tensor, changes: Sequence[Change]
    ) -> Iterator[tuple[Float[Tensor, "tokens v"], Float[Tensor, "tokens v"]]]:
        """The logits without and with each change of the stream of an SAE's layer."""
        for first in range(0, len(changes), ROWS_AT_A_TIME):
            some = [_changed(x, sae, change) for change in changes[first : first + ROWS_AT_A_TIME]]
            # The first row stays as it is: what is compared is of one batch.
            rows = torch.stack([x, *some])
            ids = self.token_ids.repeat(len(rows), 1)
            logits = self.model.predict_from(ids, sae.layer, rows)[:, 1:]
            for row, changed in zip(logits[1:], some, strict=True):
                # Rows that are equal may still differ in rounding, which has a direction too.
                yield logits[0], logits[0] if torch.equal(changed, x) else row


def _changed(x: Tensor, sae: SAE, change: Change) -> Tensor:
    feature, amount = change
    changed = x.clone()
    changed[1:] += (amount[:, None] * sae.W_dec[feature].float()).to(x.dtype)
    return changed


def _change(before: Tensor, after: Tensor, at: Tensor) -> Float[Tensor, "some v"]:
    """Centred change of the logits at some tokens."""
    change = after[at].double() - before[at].double()
    return change - change.mean(dim=1, keepdim=True)


def _divergence(before: Tensor, after: Tensor, at: Tensor) -> float:
    """KL(before ‖ after) in nats, summed over some tokens."""
    p, q = (logits[at].double().log_softmax(dim=1) for logits in (before, after))
    return float((p.exp() * (p - q)).sum())


def cosine(x: Float[Tensor, "tokens v"], y: Float[Tensor, "tokens v"]) -> float:
    """Cosine of two changes as vectors; 0 where either changes nothing."""
    size = float(x.norm() * y.norm())
    return float((x * y).sum()) / size if size > 0 else 0.0


CAUSAL_MEASURES = ("causal_agreement", "deactivation", "substitution", "ausqc")


def causal_values(found: Sequence[AblatedPair], seed: int) -> dict[str, dict[str, Values]]:
    """By strategy and measure the mean, then that of every bootstrap draw of the features that were
    ablated; draws are the same for all strategies.

    `ausqc`: the pairs in order of falling cosine, those without a partner last, the mean substitution of the
    first k, and the mean of that over every k: the area under quality by coverage.
    """
    features = sorted({(one.stratum, one.feature) for one in found})
    table = {(one.stratum, one.feature, one.strategy): one for one in found}
    count = len(features)
    drawn = np.random.default_rng(seed).integers(0, count, (DRAWS, count))
    drawn = np.concatenate([np.arange(count)[None], drawn])
    values: dict[str, dict[str, Values]] = {}
    for strategy in dict.fromkeys(one.strategy for one in found):
        pairs = [table[(*feature, strategy)] for feature in features]
        agreement, deactivation, substitution = (
            np.array([getattr(pair, name) for pair in pairs])
            for name in ("agreement", "deactivation", "substitution")
        )
        order = np.argsort(
            [np.inf if p.cosine is None else -p.cosine for p in pairs], kind="stable"
        )
        ranked = substitution[order][np.sort(np.argsort(order)[drawn], axis=1)]
        of_best = ranked.cumsum(axis=1) / np.arange(1, count + 1)
        means = [of[drawn].mean(axis=1) for of in (agreement, deactivation, substitution)]
        values[strategy] = dict(zip(CAUSAL_MEASURES, [*means, of_best.mean(axis=1)], strict=True))
    return values


def causal_measures(found: Sequence[AblatedPair], seed: int) -> dict[str, dict[str, Values]]:
    """The same, and the differences from `folded`."""
    values = causal_values(found, seed)
    main = values.get(MAIN, {})
    return {
        strategy: mine
        if strategy == MAIN
        else mine | {f"{name}_minus_folded": mine[name] - main[name] for name in main}
        for strategy, mine in values.items()
    }
