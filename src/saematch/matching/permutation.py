"""Permutations of features as arrays: compose, invert, apply to activations.

`permutation[i] == j`: feature i of A is matched to feature j of B; -1: unmatched.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saematch.errors import UsageError

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
    """Turn activations of A's features into activations of B's: added into place, not gathered.

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
