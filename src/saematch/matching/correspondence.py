"""What becomes of each feature of A in B: a permutation, or a sparse map with weights.

`permutation[i] == j`: feature i of A is matched to feature j of B; -1: unmatched.  It is the
correspondence of one partner of weight 1.  Whoever composes, decodes, chains or stores maps of features
takes a Correspondence, and so needs no word about how many partners a feature has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from saematch.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


UNMATCHED = -1

Permutation = Int64[np.ndarray, " _"]


def check_permutation(permutation: np.ndarray, d_b: int, name: str = "permutation") -> None:
    """Raise UsageError unless every entry is -1 or a feature of B (0 to d_b − 1)."""
    if permutation.ndim != 1 or permutation.dtype.kind not in "iu":
        raise UsageError(
            f"expected a one-dimensional array of integers as {name}, got shape "
            f"{list(permutation.shape)} of {permutation.dtype}"
        )
    outside = (permutation < UNMATCHED) | (permutation >= d_b)
    if outside.any():
        first = int(outside.argmax())
        raise UsageError(
            f"expected entries from -1 to {d_b - 1} in {name}, got {permutation[first]} at {first}"
        )


def compose(first: Permutation, second: Permutation) -> Permutation:
    """Compose A→B and B→C into A→C: `second[first]`, where -1 absorbs."""
    check_permutation(first, len(second), "the first permutation")
    composed = np.full(len(first), UNMATCHED, dtype=np.int64)
    matched = first != UNMATCHED
    composed[matched] = second[first[matched]]
    return composed


def inverse(permutation: Permutation, d_b: int) -> Permutation:
    """B→A from A→B; features of B that nothing is matched to are -1.

    Raises UsageError if two features of A share a partner: such a map has no inverse.
    """
    check_permutation(permutation, d_b)
    inverted = np.full(d_b, UNMATCHED, dtype=np.int64)
    matched = np.flatnonzero(permutation != UNMATCHED)
    inverted[permutation[matched]] = matched
    twice = matched[inverted[permutation[matched]] != matched]
    if len(twice):
        j = int(permutation[twice[0]])
        raise UsageError(
            f"expected a one-to-one map to invert, got features {int(twice[0])} and "
            f"{int(inverted[j])} both matched to {j}; a row-wise argmax has no inverse"
        )
    return inverted


def permute_features(
    f: Float[Tensor, "*batch d_a"], permutation: Permutation, d_b: int
) -> Float[Tensor, "*batch d_b"]:
    """Activations of A's features as activations of B's: added into place, not gathered.

    `f_B[..., permutation[i]] += f_A[..., i]` over matched i; unmatched features contribute nothing.
    """
    check_permutation(permutation, d_b)
    if f.shape[-1] != len(permutation):
        raise UsageError(f"expected activations of {len(permutation)} features, got {f.shape[-1]}")
    indices = np.flatnonzero(permutation != UNMATCHED)
    matched = torch.from_numpy(indices)
    target = torch.from_numpy(permutation[indices].astype(np.int64))
    out = f.new_zeros(*f.shape[:-1], d_b)
    return out.index_add_(-1, target.to(f.device), f[..., matched.to(f.device)])


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Row i holds the partners in B of feature i of A, the strongest first (ties by feature).

    `of_pairs` and `of_permutation` make one; a row may be empty: the feature has no partner.
    """

    starts: Int64[np.ndarray, " d_a_plus_1"]
    """Row i is `partners[starts[i]:starts[i + 1]]`, and likewise its weights."""
    partners: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"]
    """An activation f of feature i adds `weight · f` to the activation of each partner.  On the scale of
    the folded weights; never 0."""
    d_b: int

    @classmethod
    def of_permutation(cls, permutation: Permutation, d_b: int) -> "Correspondence":
        """`permutation[i] == j`: the one partner of feature i is j; -1: none."""
        check_permutation(permutation, d_b)
        matched = permutation != UNMATCHED
        starts = np.concatenate([[0], np.cumsum(matched)]).astype(np.int64)
        partners = permutation[matched].astype(np.int64)
        return cls(starts, partners, np.ones(len(partners)), d_b)

    @classmethod
    def of_pairs(
        cls,
        features: Int64[np.ndarray, " n"],
        partners: Int64[np.ndarray, " n"],
        weights: Float[np.ndarray, " n"],
        d_a: int,
        d_b: int,
    ) -> "Correspondence":
        """From pairs in any order; a weight of 0 is no pair.

        Raises UsageError for features outside the two SAEs, for a pair that is named twice and for
        weights that are not finite.
        """
        for values, width, side in ((features, d_a, "A"), (partners, d_b, "B")):
            outside = (values < 0) | (values >= width)
            if outside.any():
                raise UsageError(
                    f"expected features of {side} from 0 to {width - 1}, got {values[outside][0]}"
                )
        if not np.isfinite(weights).all():
            raise UsageError("expected finite weights, got NaN or infinity")
        if len(np.unique(features * d_b + partners)) != len(features):
            raise UsageError("expected every pair once, got one twice; add their weights up")
        kept = weights != 0
        features, partners, weights = features[kept], partners[kept], weights[kept]
        order = np.lexsort((partners, -np.abs(weights), features))
        starts = np.concatenate([[0], np.cumsum(np.bincount(features, minlength=d_a))])
        return cls(
            starts.astype(np.int64),
            partners[order].astype(np.int64),
            weights[order].astype(np.float64),
            d_b,
        )

    @property
    def d_a(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Int64[np.ndarray, " d_a"]:
        """How many partners each feature has."""
        return np.diff(self.starts)

    @cached_property
    def features(self) -> Int64[np.ndarray, " n"]:
        """The feature of A of each pair."""
        return np.repeat(np.arange(self.d_a), self.counts)

    @cached_property
    def permutation(self) -> Permutation:
        """[d_a] the strongest partner of each feature; -1: none."""
        strongest = np.full(self.d_a, UNMATCHED, dtype=np.int64)
        some = self.counts > 0
        strongest[some] = self.partners[self.starts[:-1][some]]
        return strongest

    @cached_property
    def single(self) -> bool:
        """Whether it is a plain map: no feature has a second partner, and every weight is 1."""
        return bool((self.counts <= 1).all() and (self.weights == 1).all())

    @cached_property
    def one_to_one(self) -> bool:
        """Whether it is a plain map, and no two features share a partner."""
        return self.single and len(np.unique(self.partners)) == len(self.partners)

    def ranked(self) -> Iterator[tuple[Permutation, Float64[np.ndarray, " d_a"]]]:
        """The strongest partners and their weights, then the second ones, and so on; -1 and 0: none."""
        for rank in range(int(self.counts.max(initial=0))):
            has = self.counts > rank
            partner = np.full(self.d_a, UNMATCHED, dtype=np.int64)
            weight = np.zeros(self.d_a)
            at = self.starts[:-1][has] + rank
            partner[has], weight[has] = self.partners[at], self.weights[at]
            yield partner, weight

    def compose(self, following: "Correspondence") -> "Correspondence":
        """A→B and B→C as A→C: weights multiply along a way and add up over ways.

        Raises UsageError where `following` does not start where this one ends.
        """
        if following.d_a != self.d_b:
            raise UsageError(
                f"expected a map from {self.d_b} features, got one from {following.d_a}"
            )
        product = coo_array(self.matrix @ following.matrix)
        return Correspondence.of_pairs(
            product.row.astype(np.int64),
            product.col.astype(np.int64),
            product.data,
            self.d_a,
            following.d_b,
        )

    def transposed(self) -> "Correspondence":
        """B→A with the same pairs and weights: of a permutation, its inverse."""
        return Correspondence.of_pairs(
            self.partners, self.features, self.weights, self.d_b, self.d_a
        )

    def apply(self, f: Float[Tensor, "*batch d_a"]) -> Float[Tensor, "*batch d_b"]:
        """Activations of A's features as activations of B's: added into place."""
        if f.shape[-1] != self.d_a:
            raise UsageError(f"expected activations of {self.d_a} features, got {f.shape[-1]}")
        source = torch.from_numpy(self.features).to(f.device)
        target = torch.from_numpy(self.partners).to(f.device)
        values = f[..., source]
        if not self.single:
            values = values * torch.from_numpy(self.weights).to(f)
        return f.new_zeros(*f.shape[:-1], self.d_b).index_add_(-1, target, values)

    def to_frame(self) -> "pd.DataFrame":
        """One row a pair: feature, partner, rank (0: the strongest), weight."""
        import pandas as pd

        rank = np.arange(len(self.partners)) - np.repeat(self.starts[:-1], self.counts)
        return pd.DataFrame(
            {
                "feature": self.features,
                "partner": self.partners,
                "rank": rank,
                "weight": self.weights,
            }
        )

    @property
    def matrix(self) -> csr_array:
        """The weights as a sparse matrix [d_a, d_b]."""
        return csr_array((self.weights, self.partners, self.starts), shape=(self.d_a, self.d_b))
