"""What a matcher finds, and what a matching is: a map of features, what each pair is worth, and the proof."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from saematch.assignment import OPTIMAL_GAP, Assignment, Certified
from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Correspondence, Permutation
from saematch.matching.fates import Fates
from saematch.matching.strategies import Unmatched
from saematch.notebook import curve, number, page
from saematch.sae import SAE
from saematch.text import plural
from saematch.types import Degenerate, ScaleKind

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """The arguments of `match` that a matcher may heed."""

    weights: Mapping[str, float]
    """Weight of each part of the cost."""
    unmatched_cost: Unmatched | None = None
    """For matchers that solve an assignment problem, as the next three."""
    degenerate: Degenerate = "apart"
    solver: Certified | None = None
    column_duals: np.ndarray | None = None
    """Those of an earlier matching, for the solver to go on from."""
    seed: int = 0
    """Seed of a matcher that is drawn."""


@dataclass(frozen=True, eq=False)
class Found:
    """A map of features, and what is proven of it."""

    correspondence: Correspondence
    margin: Float64[np.ndarray, " d_a"] | None = None
    """As of `Matching`; None: nothing was solved."""
    proof: Assignment | None = None
    without_degenerate: Assignment | None = None
    """As of `Matching`."""
    unmatched_cost: float | np.ndarray | None = None
    """What the cost of staying unmatched came to."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""


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

    Per-feature arrays have one entry per feature of A; NaN where it is unmatched.
    """

    a: Side
    b: Side
    d_model: int
    strategy: str
    parts: Mapping[str, float]
    """Weight of each part of the cost."""
    scale: ScaleKind
    """What was folded in for the measurements below."""
    correspondence: Correspondence
    """The partners of each feature, with weights.  What follows is of the strongest of them."""
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
    pair_cosine: Float64[np.ndarray, " n"]
    """The same of every pair of `correspondence`, in its order."""
    unexplained: Float64[np.ndarray, " d_a"]
    """Share of each folded decoder row that no positive multiple of its mix of partners explains, from 0 to
    1: 1 − cos² of the two; 1 where it has no partner."""
    margin: Float64[np.ndarray, " d_a"]
    """Proven lower bound on the rise of the solved total if the pair were forbidden, or, of an unmatched
    feature that had a price, if it had to be matched (where A is the smaller side); NaN where nothing
    was solved, and of degenerate features, which no proof is about.  In the units of the solved problem
    (`unfolded`: raw weights)."""
    assignment: Assignment | None
    """The proof, for strategies that solve an assignment problem.  Its rows and columns are the features
    that are not degenerate (`degenerate="together"`: all), in ascending order; rows are of the side that
    has fewer."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""
    unmatched_cost: float | np.ndarray | None = None
    """The price of leaving a feature of A unmatched, or one for each; None: the smaller side is matched
    completely."""
    degenerate: Degenerate = "apart"
    """Whether degenerate features were matched after the others, or in one problem with them."""
    fates: Fates | None = None
    """What becomes of each feature, with probabilities; None: not asked for."""
    without_degenerate: Assignment | None = None
    """`together`: a proof of its own for the features that are not degenerate and have no degenerate
    partner."""

    @property
    def permutation(self) -> Permutation:
        """[d_a] `permutation[i] == j`: the partner of feature i, the strongest of several; -1: unmatched."""
        return self.correspondence.permutation

    @property
    def weights(self) -> "csr_array":
        """[d_a, d_b] weights of the partners, sparse; a permutation has one 1 a row."""
        return self.correspondence.matrix

    @property
    def fate(self) -> np.ndarray:
        """[d_a] of str: what becomes of each feature, persists, splits, merges, dies, not live or unknown.

        Raises UsageError where fates were not asked for.
        """
        return self._fates.fate

    @property
    def probability(self) -> Float64[np.ndarray, " d_a"]:
        """That any feature of B is the same; NaN: not known.  Raises UsageError as `fate` does."""
        return self._fates.probability

    @property
    def _fates(self) -> Fates:
        if self.fates is None:
            raise UsageError(
                f"expected a matching with fates, got one of {self.strategy} without; try "
                "match(..., fates=True) or saematch.fates(a, b)"
            )
        return self.fates

    def partners(self, feature: int) -> "pd.DataFrame":
        """The partners of a feature of A, the strongest first: feature of B, weight, decoder cosine,
        probability that the two are the same (NaN: not known), status."""
        import pandas as pd

        if not 0 <= feature < self.a.d_sae:
            raise UsageError(f"expected a feature from 0 to {self.a.d_sae - 1}, got {feature}")
        some = slice(*self.correspondence.starts[feature : feature + 2])
        of_b = self.correspondence.partners[some]
        return pd.DataFrame(
            {
                "feature": of_b,
                "weight": self.correspondence.weights[some],
                "cosine": self.pair_cosine[some],
                "probability": np.nan
                if self.fates is None
                else self.fates.partner_probability[some],
                "status": self.b.status[of_b],
            }
        )

    @property
    def gap(self) -> float | None:
        """Relative distance from the proven lower bound; None where nothing was solved.

        Of the features that are not degenerate; `together`: the greater of the gaps with and without
        the degenerate ones, whose costs can be so large that no error shows next to them.
        """
        proofs = [proof for proof in (self.assignment, self.without_degenerate) if proof]
        return max((proof.gap for proof in proofs), default=None)

    @property
    def optimal(self) -> bool:
        """Whether the gap proves the pairs optimal to 1e-6."""
        return self.gap is not None and self.gap <= OPTIMAL_GAP

    @property
    def slack(self) -> float | None:
        """Absolute distance from the proven lower bound, over what `assignment` is about."""
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
        """[d_a] bool: pairs both of whose features are live.

        For rankings within this matching alone.  Means use `compared`: which pairs are live depends on
        the partners, so that means over them are over other features under every strategy.
        """
        live = self.matched & (self.a.status == "live")
        live[live] = self.b.status[self.permutation[live]] == "live"
        return live

    @property
    def compared(self) -> np.ndarray:
        """[d_a] bool: live features of A with a partner, which counts as it is, live or not."""
        return same_features([self])

    @property
    def counted(self) -> np.ndarray:
        """[d_a] bool: pairs neither of whose features is degenerate: totals and shares are over these."""
        counted = self.matched & (self.a.status != "degenerate")
        counted[counted] = self.b.status[self.permutation[counted]] != "degenerate"
        return counted

    @property
    def certain(self) -> np.ndarray:
        """[d_a] bool: what every optimal matching contains (margin above the slack): the pair, or that
        the feature stays unmatched.  Never so of what is matched apart: degenerate features."""
        if self.assignment is None:
            return np.zeros(len(self.permutation), dtype=bool)
        return self.margin > self.assignment.slack

    @property
    def unmatched_b(self) -> np.ndarray:
        """Features of B that nothing is matched to, ascending: those that are born at b."""
        return np.setdiff1d(np.arange(self.b.d_sae), self.correspondence.partners)

    @property
    def shares(self) -> dict[str, float]:
        """Each part's share of the total cost, over pairs without a degenerate feature."""
        counted = self.counted
        totals = {
            "decoder": float(np.nansum(self.mse_decoder[counted])) * self.d_model,
            "encoder": float(np.nansum(self.mse_encoder[counted])) * self.d_model,
            "bias": float(np.nansum(self.mse_bias[counted])),
        }
        weighted = {part: weight * totals[part] for part, weight in self.parts.items()}
        whole = sum(weighted.values())
        return {part: value / whole if whole > 0 else 0.0 for part, value in weighted.items()}

    def summary(self, features: np.ndarray | None = None) -> dict[str, Any]:
        """The matching in one row: means over `compared`, and how many features of A they leave out.

        `features` ([d_a] bool): those that means are over instead, such as `same_features` of several
        matchings that are to be compared.
        """
        features = self.compared if features is None else features

        def mean(values: np.ndarray) -> float:
            return float(values[features].mean()) if features.any() else math.nan

        return {
            "a": self.a.key,
            "b": self.b.key,
            "strategy": self.strategy,
            "pairs": int(self.matched.sum()),
            "compared": int(features.sum()),
            "left_out": int((~features).sum()),
            "unmatched_a": int((~self.matched).sum()),
            "unmatched_b": len(self.unmatched_b),
            "total_cost": float(np.nansum(self.cost[self.counted])),
            "mean_cost": mean(self.cost),
            "mse_decoder": mean(self.mse_decoder),
            "mse_encoder": mean(self.mse_encoder),
            "mse_bias": mean(self.mse_bias),
            "cosine": mean(self.cosine),
            "gap": self.gap,
            "certain": mean(self.certain) if self.gap is not None and features.any() else None,
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
                "unexplained": self.unexplained,
                "margin": self.margin,
                "certain": self.certain,
            }
        )

    def _repr_html_(self) -> str:
        """Its summary, and the decoder MSE of the pairs that its means are over, in order."""
        row = self.summary()
        facts: dict[str, Any] = {
            "pairs": f"{row['pairs']:,}; means are over {row['compared']:,} of live features of A",
            "mean decoder MSE": number(row["mse_decoder"]),
            "mean encoder MSE": number(row["mse_encoder"]),
            "mean decoder cosine": number(row["cosine"]),
            "shares of the cost": ", ".join(f"{p} {s:.1%}" for p, s in self.shares.items()),
        }
        if self.gap is not None:
            facts["proof"] = describe_gap(self.gap)
        if row["certain"] is not None:
            facts["certain"] = f"{row['certain']:.0%} of these pairs are in every optimal matching"
        if row["unmatched_a"]:
            facts["unmatched"] = f"{plural(row['unmatched_a'], 'feature')} of {row['a']}"
        title = f"Matching {row['a']} → {row['b']}, {self.strategy}"
        ordered = np.sort(self.mse_decoder[self.compared])
        return page(title, facts, curve(ordered, "decoder MSE of these pairs, sorted"), self.notes)

    def __repr__(self) -> str:
        row = self.summary()
        proof = "" if self.gap is None else f", {describe_gap(self.gap)}"
        return (
            f"Matching({row['a']} → {row['b']}, {self.strategy}, {plural(row['pairs'], 'pair')}, "
            f"mean decoder MSE {row['mse_decoder']:.4g} over "
            f"{plural(row['compared'], 'live feature')} of A{proof})"
        )


def same_features(matchings: Iterable[Matching]) -> np.ndarray:
    """[d_a] bool: the features of A on which matchings of one pair of SAEs are compared.

    Those that are live in A and have a partner under every one of the matchings.  Whether a partner is
    live plays no part: a strategy that takes a dead one pays for it.  Where all are complete and A is
    not the larger side, these are all live features of A.
    """
    first, *others = matchings
    found = first.matched & (first.a.status == "live")
    for other in others:
        found = found & other.matched
    return found


def describe_gap(gap: float) -> str:
    """The words for a gap: 'optimal to 1e-6', or the gap as it is."""
    return "optimal to 1e-6" if gap <= OPTIMAL_GAP else f"gap {gap:.2g}"
