"""The ways of matching that ship: SAE Match, and what it is compared with.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saematch.errors import UsageError
from saematch.matching.matcher import Matcher, Sums

if TYPE_CHECKING:
    import torch

    from saematch.matching.correspondence import Correspondence
    from saematch.matching.found import Found, Settings
    from saematch.sae import FoldedSAE

FOLDED, UNFOLDED, NAIVE, RANDOM = "folded", "unfolded", "naive", "random"
COSINE, CORRELATION = "cosine", "correlation"


@dataclass(frozen=True, kw_only=True)
class AssignmentMatcher(Matcher):
    """The one-to-one map of least total squared distance of weights, folded or raw (SAE Match)."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        from saematch.matching.assigning import find_assignment

        return find_assignment(a, b, settings, self.raw)


class Naive(Matcher):
    """Feature i is feature i."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        import numpy as np

        from saematch.matching.correspondence import Correspondence
        from saematch.matching.found import Found

        if a.d_sae != b.d_sae:
            raise UsageError(
                f"expected equal d_sae for the {self.name} strategy, got {a.d_sae} and {b.d_sae}"
            )
        return Found(Correspondence.of_permutation(np.arange(a.d_sae), b.d_sae))


class Random(Matcher):
    """One-to-one by chance: what a matching is worth that knows nothing of the features."""

    def draw(self, d_a: int, d_b: int, seed: int) -> "Correspondence":
        from saematch.matching.correspondence import Correspondence
        from saematch.matching.strategies import random_permutation

        return Correspondence.of_permutation(random_permutation(d_a, d_b, seed), d_b)


class Cosine(Matcher):
    """For each feature the one of greatest decoder cosine."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        from saematch.matching.correspondence import Correspondence
        from saematch.matching.found import Found
        from saematch.matching.strategies import nearest_by_cosine

        nearest = nearest_by_cosine(a.sae.W_dec, b.sae.W_dec)
        return Found(Correspondence.of_permutation(nearest, b.d_sae))


class Correlation(Matcher):
    """For each feature the one whose activations on text correlate most with its own."""

    def sums(self, d_a: int, d_b: int, device: "torch.device") -> Sums:
        from saematch.matching.correlation import CorrelationSums

        return CorrelationSums(d_a, d_b, device)

    def bytes_of_sums(self, d_a: int, d_b: int) -> int:
        return 4 * d_a * d_b


BUILT_IN: tuple[Matcher, ...] = (
    AssignmentMatcher(
        name=FOLDED, label="folded (SAE Match)", color="#0072B2", marker="o",
        one_to_one=True, assigns=True, needs_scale=True, composition="composition", judged=True,
    ),
    AssignmentMatcher(
        name=UNFOLDED, label="unfolded", color="#E69F00", marker="s", dashes="--",
        one_to_one=True, assigns=True, raw=True, judged=True,
    ),
    Naive(
        name=NAIVE, label="naive (identity)", color="#D55E00", marker="v", dashes=(0, (4, 1.5)),
        one_to_one=True, needs_equal_widths=True, control=True,
    ),
    Random(
        name=RANDOM, label="random", color="#7F7F7F", marker="x", dashes=":",
        one_to_one=True, seeded=True, control=True, judged=True,
    ),
    Cosine(
        name=COSINE, label="cosine argmax", color="#009E73", marker="^", dashes="-.",
        composition="cosine_composition", judged=True,
    ),
    Correlation(
        name=CORRELATION, label="correlation argmax", color="#56B4E9", marker="P",
        dashes=(0, (5, 1, 1, 1)), needs_data=True, in_runs=False,
    ),
)  # fmt: skip
"""In the order in which a run makes them and tables list them."""
