"""Feature activations of many tokens, as the few that are not zero, and what is put in place of the residual
stream after the later layer of a pair.

All interventions are written in terms of raw activations.  With scales s folded in, activations of A are
f / s_A and decoder rows of B are s_B · W_dec, so that partners j of features i with weights w decode to

    x̂ = Σ_i Σ_j w_ij · f_i · (s_B[j] / s_A[i]) · W_dec_B[j] + b_dec_B        (folded)
    x̂ = Σ_i Σ_j w_ij · f_i · W_dec_B[j] + b_dec_B                            (raw: s = 1)

A permutation p has one partner p(i) of weight 1 a feature.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from saematch.matching.correspondence import UNMATCHED, Correspondence, Permutation
from saematch.matching.matched import Matching
from saematch.sae import SAE, FoldedSAE

ENTRIES = 1 << 25
"""Activations held densely at a time: 128 MiB."""
MASSIVE = 10.0
"""A token whose residual norm exceeds so many times the median of its document has massive activations.
A few such tokens can hold most of a stream's variance, so that a measure over all tokens is theirs."""


@dataclass(frozen=True, eq=False)
class SparseActivations:
    """Active features, ordered by token and then by feature."""

    token: Int64[Tensor, " active"]
    feature: Int64[Tensor, " active"]
    value: Float[Tensor, " active"]
    """float32, positive."""
    n_tokens: int
    d_sae: int

    def of_tokens(self, kept: Bool[Tensor, " n_tokens"]) -> "SparseActivations":
        """As if nothing were active on the other tokens."""
        here = kept.to(self.token.device)[self.token]
        return replace(
            self, token=self.token[here], feature=self.feature[here], value=self.value[here]
        )

    def dense(self) -> Float[Tensor, "n_tokens d_sae"]:
        out = torch.zeros(self.n_tokens, self.d_sae, device=self.value.device)
        out[self.token, self.feature] = self.value
        return out


def encode_sparse(sae: SAE, rows: Float[Tensor, "n d_model"]) -> SparseActivations:
    """`sae.encode`, some tokens at a time, so that no [n, d_sae] is held for wide SAEs."""
    parts = rows.split(max(1, ENTRIES // sae.d_sae))
    active = torch.cat([sae.encode(part).to_sparse() for part in parts]).coalesce()
    token, feature = active.indices()
    return SparseActivations(token, feature, active.values(), len(rows), sae.d_sae)


def typical_rows(x: Float[Tensor, "n d"], document: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Rows whose norm is at most `MASSIVE` times the median of their document."""
    norms = x.norm(dim=1)
    limit = torch.stack([norms[document == n].median() for n in range(int(document.max()) + 1)])
    return norms <= MASSIVE * limit[document]


@dataclass(frozen=True, eq=False)
class PairRows:
    """What an intervention may read: the tokens of a batch, BOS and padding left out."""

    x_a: Float[Tensor, "n d_model"]
    x_b: Float[Tensor, "n d_model"]
    f_a: SparseActivations
    f_b: SparseActivations


Intervention = Callable[[PairRows], Float[Tensor, "n d_model"]]
"""The rows that take the place of `x_b`."""


@dataclass(frozen=True, eq=False)
class Term:
    """Σ_i f_i · factor_i · weight[index_i] over the features whose index is not -1."""

    weight: Float[Tensor, "d_b d_model"]
    index: Int64[Tensor, " d_a"]
    factor: Float[Tensor, " d_a"]

    def activations(self, f: SparseActivations) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, rows of `weight` and what they are multiplied by, ordered by token."""
        target = self.index[f.feature]
        taken = target != UNMATCHED
        return f.token[taken], target[taken], f.value[taken] * self.factor[f.feature[taken]]

    def __call__(self, f: SparseActivations) -> Float[Tensor, "n d_model"]:
        token, target, values = self.activations(f)
        starts = torch.searchsorted(token, torch.arange(f.n_tokens, device=token.device))
        return torch.nn.functional.embedding_bag(
            target, self.weight, starts, mode="sum", per_sample_weights=values
        )


@dataclass(frozen=True, eq=False)
class Decoding:
    """Activations of the earlier SAE, through decoder rows to a residual stream."""

    terms: tuple[Term, ...]
    bias: Float[Tensor, " d_model"]

    def __call__(self, rows: PairRows) -> Float[Tensor, "n d_model"]:
        out = self.bias.expand(rows.f_a.n_tokens, -1).clone()
        for term in self.terms:
            out += term(rows.f_a)
        return out

    def active(
        self, f: SparseActivations, b: SAE
    ) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"]]:
        """Tokens and features of B that are decoded at more than B's threshold, and than 0."""
        parts = [term.activations(f) for term in self.terms]
        nothing = f.token[:0], f.token[:0], f.value[:0]
        token, feature, value = (torch.cat(some) for some in zip(nothing, *parts, strict=True))
        pairs, place = torch.unique(token * b.d_sae + feature, return_inverse=True)
        decoded = value.new_zeros(len(pairs)).index_add_(0, place, value)
        token, feature = pairs // b.d_sae, pairs % b.d_sae
        least = 0.0 if b.threshold is None else b.threshold.float().clamp(min=0)[feature]
        active = decoded > least
        return token[active], feature[active]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """x_a @ weight + bias."""

    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]

    def __call__(self, rows: PairRows) -> Float[Tensor, "n d_model"]:
        return rows.x_a @ self.weight + self.bias


def layer_drop(rows: PairRows) -> Float[Tensor, "n d_model"]:
    """The blocks between are skipped: what the earlier layer hands on."""
    return rows.x_a


def reconstruct_current(b: SAE) -> Intervention:
    """x̂ of the later layer in place of x."""
    own = _own(b)
    return lambda rows: own(rows.f_b) + b.b_dec.float()


def reconstruct_previous(a: SAE) -> Intervention:
    """x̂ of the earlier layer in place of x of the later one; the blocks between are skipped."""
    return Decoding((_own(a),), a.b_dec.float())


def encode_permute_decode(
    a: FoldedSAE, b: FoldedSAE, correspondence: Correspondence, *, folded: bool = True
) -> Decoding:
    """Features of A as their partners, through the decoder of B and its bias; `folded=False`: raw weights."""
    return Decoding(_terms(a, b, correspondence, folded), b.b_dec.float())


def quantile(a: FoldedSAE, b: FoldedSAE, matching: Matching, q: float) -> Decoding:
    """SAE Match, eq. 6: the ⌈q·n⌉ pairs of least folded decoder MSE (ties by index) through the
    matched decoder, all other features through their own; always with the bias of B."""
    order = np.argsort(np.where(matching.matched, matching.mse_decoder, np.inf), kind="stable")
    chosen = torch.zeros(a.d_sae, dtype=torch.bool, device=a.sae.W_dec.device)
    chosen[torch.from_numpy(order[: math.ceil(q * int(matching.matched.sum()))])] = True
    terms = [
        replace(term, index=term.index.where(chosen, UNMATCHED))
        for term in _terms(a, b, matching.correspondence, folded=True)
    ]
    own = _own(a.sae)
    terms.append(replace(own, index=own.index.where(~chosen, UNMATCHED)))
    return Decoding(tuple(terms), b.b_dec.float())


def _own(sae: SAE) -> Term:
    every = torch.arange(sae.d_sae, device=sae.W_dec.device)
    return Term(sae.W_dec.float(), every, torch.ones(sae.d_sae, device=sae.W_dec.device))


def _terms(
    a: FoldedSAE, b: FoldedSAE, correspondence: Correspondence, folded: bool
) -> tuple[Term, ...]:
    """One term for the strongest partners, one for the second ones, and so on."""
    rows = b.sae.W_dec.float()
    return tuple(_term(a, b, rows, *ranked, folded) for ranked in correspondence.ranked())


def strongest(
    a: FoldedSAE, b: FoldedSAE, correspondence: Correspondence, *, folded: bool = True
) -> Term:
    """Features of A as their strongest partners alone."""
    nobody = correspondence.permutation, np.zeros(a.d_sae)
    ranked = next(correspondence.ranked(), nobody)
    return _term(a, b, b.sae.W_dec.float(), *ranked, folded)


def _term(
    a: FoldedSAE,
    b: FoldedSAE,
    rows: Tensor,
    partner: Permutation,
    weight: Float64[np.ndarray, " d_a"],
    folded: bool,
) -> Term:
    index = torch.tensor(partner, device=rows.device)
    factor = torch.tensor(weight, dtype=torch.float32, device=rows.device)
    if folded:
        ratio = b.scale.to(rows.device)[index.clamp(min=0)] / a.scale.to(rows.device)
        factor = torch.where(index == UNMATCHED, 0.0, factor * ratio)
    return Term(rows, index, factor)
