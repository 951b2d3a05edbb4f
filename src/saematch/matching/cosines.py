"""Pairs by the cosine of two sets of rows: what `Cosine` matchers choose from it.

- `nearest`: for each feature of A its nearest in B.
- `backward`: for each feature of B its nearest in A, turned round, so that a feature of A may have several
  partners or none (the direction of Laptev et al., "Analyze feature flow to enhance interpretation and
  steering in language models", arXiv 2502.03032).
- `mutual`: pairs each of which is the other's nearest.
- `greedy`: one-to-one, pairs taken in the order of falling cosine (a baseline of the benchmark of
  correspondence across seeds, openreview 5cy6WtSC8f).

Equal cosines go by the lower feature.  Zero rows are nobody's partner by `backward`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saematch.matching.correspondence import UNMATCHED, Correspondence, Permutation
from saematch.matching.strategies import nearest_by_cosine


def nearest(a: Float[Tensor, "d_a d"], b: Float[Tensor, "d_b d"]) -> Correspondence:
    return Correspondence.of_permutation(nearest_by_cosine(a, b), len(b))


def backward(a: Float[Tensor, "d_a d"], b: Float[Tensor, "d_b d"]) -> Correspondence:
    from_b = nearest_by_cosine(b, a)
    from_b[~b.any(dim=1).numpy()] = UNMATCHED
    return Correspondence.of_permutation(from_b, len(a)).transposed()


def mutual(a: Float[Tensor, "d_a d"], b: Float[Tensor, "d_b d"]) -> Correspondence:
    return Correspondence.of_permutation(_mutual(a, b), len(b))


def _mutual(a: Float[Tensor, "d_a d"], b: Float[Tensor, "d_b d"]) -> Permutation:
    forward, back = nearest_by_cosine(a, b), nearest_by_cosine(b, a)
    return np.where(back[forward] == np.arange(len(a)), forward, UNMATCHED)


def greedy(a: Float[Tensor, "d_a d"], b: Float[Tensor, "d_b d"]) -> Correspondence:
    """A pair that is mutually nearest among what is left is taken before any other of its two features, so
    rounds of such pairs give what one pass over all sorted pairs does.  The pair of greatest cosine of
    all is one, so every round takes some."""
    found = np.full(len(a), UNMATCHED, dtype=np.int64)
    left_a, left_b = np.arange(len(a)), np.arange(len(b))
    while len(left_a) and len(left_b):
        partner = _mutual(a[torch.from_numpy(left_a)], b[torch.from_numpy(left_b)])
        taken = partner != UNMATCHED
        assert taken.any()
        found[left_a[taken]] = left_b[partner[taken]]
        left_a, left_b = left_a[~taken], np.delete(left_b, partner[taken])
    return Correspondence.of_permutation(found, len(b))


CHOICES: Mapping[str, Callable[[Tensor, Tensor], Correspondence]] = {
    "nearest": nearest,
    "backward": backward,
    "mutual": mutual,
    "greedy": greedy,
}
