"""Match the features of two SAEs from their weights alone (SAE Match).

1. Fold each SAE's thresholds into its weights (sae.py).
2. Lay each feature's parts side by side: decoder row, encoder column, encoder bias, each times the
   square root of its weight.  The cost of a pair is the squared distance of two such rows.
3. Find the pairs by the strategy; `folded` and `unfolded` solve the linear assignment problem.
4. Measure the pairs on folded weights, whatever found them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from saematch.assignment import OPTIMAL_GAP, Assignment, Dense
from saematch.errors import UsageError
from saematch.permutation import UNMATCHED, Permutation, check_permutation
from saematch.sae import SAE, FoldedSAE, ScaleKind, fold_thresholds
from saematch.strategies import (
    PARTS,
    STRATEGIES,
    Strategy,
    assign,
    nearest_by_cosine,
    part_weights,
    random_permutation,
)

if TYPE_CHECKING:
    import pandas as pd

ROWS_PER_BLOCK = 128
"""Pairs measured at a time: few enough to stay in cache between the steps."""


@dataclass(frozen=True, eq=False)
class Side:
    """What a Matching remembers of one of its two SAEs."""

    layer: int
    key: str
    """`layer`, or `layer.name`."""
    reference: str
    d_sae: int
    status: np.ndarray
    """[d_sae] of str: live, dead or degenerate."""

    @classmethod
    def of(cls, sae: SAE) -> "Side":
        return cls(sae.layer, sae.key, sae.reference, sae.d_sae, np.array(sae.status, dtype=object))


@dataclass(frozen=True, eq=False)
class Matching:
    """A map from the features of A to those of B, and what each pair is worth.

    Per-feature arrays have one entry a feature of A; NaN where it is unmatched.
    """

    a: Side
    b: Side
    d_model: int
    strategy: str
    parts: Mapping[str, float]
    """Weight of each part of the cost."""
    scale: ScaleKind
    """What was folded in for the measurements below."""
    permutation: Int64[np.ndarray, " d_a"]
    """`permutation[i] == j`; -1: unmatched."""
    cost: Float64[np.ndarray, " d_a"]
    """Σ over parts of weight × squared distance: a sum, on folded weights."""
    mse_decoder: Float64[np.ndarray, " d_a"]
    """Mean over d_model of the squared difference of folded decoder rows."""
    mse_encoder: Float64[np.ndarray, " d_a"]
    """The same of folded encoder columns."""
    mse_bias: Float64[np.ndarray, " d_a"]
    """Squared difference of folded encoder biases."""
    cosine: Float64[np.ndarray, " d_a"]
    """Cosine of decoder rows."""
    margin: Float64[np.ndarray, " d_a"]
    """Proven lower bound on the rise of the solved total if the pair were forbidden; NaN where the
    strategy solves no assignment problem.  In the units of the solved problem (`unfolded`: raw
    weights)."""
    assignment: Assignment | None
    """The proof, for strategies that solve an assignment problem."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""

    @property
    def gap(self) -> float | None:
        """Relative distance from the proven lower bound; None where nothing was solved."""
        return self.assignment.gap if self.assignment else None

    @property
    def slack(self) -> float | None:
        """Absolute distance from the proven lower bound."""
        return self.assignment.slack if self.assignment else None

    @property
    def status(self) -> np.ndarray:
        """[d_a] of str: the status of A's features."""
        return self.a.status

    @property
    def matched(self) -> np.ndarray:
        """[d_a] bool."""
        return self.permutation != UNMATCHED

    @cached_property
    def live(self) -> np.ndarray:
        """[d_a] bool: pairs both of whose features are live; means and rankings use these."""
        live = self.matched & (self.a.status == "live")
        live[live] = self.b.status[self.permutation[live]] == "live"
        return live

    @property
    def certain(self) -> np.ndarray:
        """[d_a] bool: pairs that every optimal matching contains (margin above the slack)."""
        if self.assignment is None:
            return np.zeros(len(self.permutation), dtype=bool)
        return self.margin > self.assignment.slack

    @property
    def unmatched_b(self) -> np.ndarray:
        """Features of B that nothing is matched to, ascending."""
        return np.setdiff1d(np.arange(self.b.d_sae), self.permutation[self.matched])

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the total cost."""
        totals = {
            "decoder": float(np.nansum(self.mse_decoder)) * self.d_model,
            "encoder": float(np.nansum(self.mse_encoder)) * self.d_model,
            "bias": float(np.nansum(self.mse_bias)),
        }
        weighted = {part: weight * totals[part] for part, weight in self.parts.items()}
        whole = sum(weighted.values())
        return {part: value / whole if whole > 0 else 0.0 for part, value in weighted.items()}

    def summary(self) -> dict[str, Any]:
        """The matching in one row: means over live pairs, and how many were left out."""
        live = self.live
        certain = self.certain[live]

        def mean(values: np.ndarray) -> float:
            return float(values[live].mean()) if live.any() else math.nan

        return {
            "a": self.a.key,
            "b": self.b.key,
            "strategy": self.strategy,
            "pairs": int(self.matched.sum()),
            "live_pairs": int(live.sum()),
            "left_out": int(self.matched.sum() - live.sum()),
            "total_cost": float(np.nansum(self.cost)),
            "mse_decoder": mean(self.mse_decoder),
            "mse_encoder": mean(self.mse_encoder),
            "mse_bias": mean(self.mse_bias),
            "cosine": mean(self.cosine),
            "gap": self.gap,
            "certain": float(certain.mean()) if self.assignment and live.any() else None,
        }

    def to_frame(self) -> "pd.DataFrame":
        """One row a feature of A."""
        import pandas as pd

        partner_status = np.full(len(self.permutation), None, dtype=object)
        partner_status[self.matched] = self.b.status[self.permutation[self.matched]]
        return pd.DataFrame(
            {
                "feature": np.arange(len(self.permutation)),
                "partner": self.permutation,
                "status": self.status,
                "partner_status": partner_status,
                "cost": self.cost,
                "mse_decoder": self.mse_decoder,
                "mse_encoder": self.mse_encoder,
                "cosine": self.cosine,
                "margin": self.margin,
                "certain": self.certain,
            }
        )

    def __repr__(self) -> str:
        row = self.summary()
        proof = "" if self.gap is None else f", {describe_gap(self.gap)}"
        return (
            f"Matching({row['a']} → {row['b']}, {self.strategy}, {row['pairs']} pairs, "
            f"mean decoder MSE {row['mse_decoder']:.4g} over {row['live_pairs']} live pairs{proof})"
        )


def describe_gap(gap: float) -> str:
    """The words for a gap: 'optimal to 1e-6', or the gap as it is."""
    return "optimal to 1e-6" if gap <= OPTIMAL_GAP else f"gap {gap:.2g}"


@torch.no_grad()
def match(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: Strategy = "folded",
    scale: ScaleKind | None = None,
    solver: Dense = Dense(),
    seed: int = 0,
) -> Matching:
    """Match the features of `a` to those of `b`.

    `parts`: which parts enter the cost, or their weights.  `strategy`: `folded` (assignment on folded
    weights), `unfolded` (assignment on raw weights), `naive` (identity), `random` (one-to-one, by
    `seed`), `cosine` (row-wise argmax of decoder cosine; not one-to-one).  `scale`: what to fold (see
    `fold_thresholds`); a FoldedSAE is taken as it is.

    Where d_sae differ the smaller side is matched completely and the rest is unmatched.
    Raises UsageError for SAEs of different d_model, for unknown parts or strategies and for `naive`
    where d_sae differ.
    """
    weights = part_weights(parts)
    _check_pair(a, b)
    if strategy != "folded" and scale is None and _lacks_thresholds(a, b):
        scale = "none"  # only the folded strategy needs a scale
    folded_a, folded_b = _fold(a, scale), _fold(b, scale)
    assignment: Assignment | None = None
    margin = np.full(a.d_sae, np.nan)
    notes: list[str] = []
    if strategy in ("folded", "unfolded"):
        if strategy == "folded":
            solved_a, solved_b = folded_a, folded_b
        else:
            solved_a = fold_thresholds(folded_a.sae, "none")
            solved_b = fold_thresholds(folded_b.sae, "none")
        permutation, margin, assignment = assign(solved_a, solved_b, weights, solver)
        if not assignment.optimal:
            notes.append(f"not proven optimal: {describe_gap(assignment.gap)}")
        if strategy == "folded" and _folding_cannot_matter(folded_a, folded_b, weights):
            notes.append(
                "one scalar threshold a SAE: folding cannot change a complete, square, decoder-only "
                "matching"
            )
    elif strategy == "naive":
        if a.d_sae != b.d_sae:
            raise UsageError(
                f"needed equal d_sae for the naive strategy, found {a.d_sae} and {b.d_sae}"
            )
        permutation = np.arange(a.d_sae)
    elif strategy == "random":
        permutation = random_permutation(a.d_sae, b.d_sae, seed)
    elif strategy == "cosine":
        permutation = nearest_by_cosine(folded_a.sae.W_dec, folded_b.sae.W_dec)
    else:
        raise UsageError(f"needed a strategy of {', '.join(STRATEGIES)}, found '{strategy}'")
    return _measured(
        folded_a, folded_b, permutation, weights, strategy, margin, assignment, tuple(notes)
    )


@torch.no_grad()
def measure(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    permutation: Permutation,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: str = "given",
    scale: ScaleKind | None = None,
) -> Matching:
    """The Matching of a permutation found elsewhere, e.g. by composing adjacent ones."""
    _check_pair(a, b)
    check_permutation(permutation, b.d_sae)
    if len(permutation) != a.d_sae:
        raise UsageError(f"needed a permutation of {a.d_sae} features, found {len(permutation)}")
    permutation = permutation.astype(np.int64)
    folded_a, folded_b = _fold(a, scale), _fold(b, scale)
    margin = np.full(a.d_sae, np.nan)
    return _measured(
        folded_a, folded_b, permutation, part_weights(parts), strategy, margin, None, ()
    )


def _check_pair(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> None:
    if a.d_model != b.d_model:
        raise UsageError(
            f"needed two SAEs of one d_model, found {a.d_model} and {b.d_model}; "
            "they read different models"
        )


def _fold(sae: SAE | FoldedSAE, scale: ScaleKind | None) -> FoldedSAE:
    return sae if isinstance(sae, FoldedSAE) else fold_thresholds(sae, scale)


def _lacks_thresholds(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> bool:
    return any(isinstance(sae, SAE) and sae.threshold is None for sae in (a, b))


def _folding_cannot_matter(a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float]) -> bool:
    uniform = all(sae.uniform and sae.scale_kind == "threshold" for sae in (a, b))
    return uniform and set(weights) == {"decoder"} and a.d_sae == b.d_sae


def _measured(
    a: FoldedSAE,
    b: FoldedSAE,
    permutation: Permutation,
    weights: Mapping[str, float],
    strategy: str,
    margin: np.ndarray,
    assignment: Assignment | None,
    notes: tuple[str, ...],
) -> Matching:
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
        permutation=permutation,
        cost=cost.numpy(),
        mse_decoder=decoder.numpy(),
        mse_encoder=encoder.numpy(),
        mse_bias=bias.numpy(),
        cosine=cosine.numpy(),
        margin=margin,
        assignment=assignment,
        notes=notes,
    )
