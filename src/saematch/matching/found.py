"""What a matcher is given besides the two SAEs, and what it finds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from saematch.assignment import Assignment, Certified
from saematch.matching.correspondence import Correspondence
from saematch.matching.pricing import Unmatched
from saematch.types import Degenerate


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
