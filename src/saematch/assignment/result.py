"""What a solver returns."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

OPTIMAL_GAP = 1e-6
"""A relative gap at most this large is called 'optimal to 1e-6'."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Pairs of least total cost, with duals that prove how far from the optimum they can be."""

    columns: Int64[np.ndarray, " n"]
    """The column assigned to each row; one-to-one."""
    primal: float
    """Total cost of the pairs, float64, in the units of the factors squared."""
    dual: float
    """A lower bound on the total cost of any assignment, from the duals."""
    factor_energy: float
    """S = Σ‖row‖² + Σ‖column‖²: the scale against which a total of about zero is judged."""
    row_duals: Float64[np.ndarray, " n"]
    column_duals: Float64[np.ndarray, " m"]
    """At most zero where n < m.  `c_ij − row_duals[i] − column_duals[j] ≥ 0` for every pair."""
    margins: Float64[np.ndarray, " n"]
    """For each pair, a proven lower bound on how much the dual bound rises if it is forbidden: the
    least reduced cost elsewhere in its row plus the same in its column; inf where no other pairs
    are left."""
    solver: str
    """What solved it, e.g. `lapjv float32`."""
    seconds: Mapping[str, float]
    """Wall-clock time of each part."""

    @property
    def slack(self) -> float:
        """`primal − dual`, never below zero: no assignment is cheaper than `primal − slack`."""
        return max(0.0, self.primal - self.dual)

    @property
    def gap(self) -> float:
        """`slack / max(primal, 2⁻⁴⁰ · S)`."""
        scale = max(self.primal, 2.0**-40 * self.factor_energy)
        return self.slack / scale if scale > 0 else 0.0

    @property
    def optimal(self) -> bool:
        """Whether the gap proves the pairs optimal to 1e-6."""
        return self.gap <= OPTIMAL_GAP

    @property
    def certain(self) -> np.ndarray:
        """[n] bool: pairs that every optimal assignment contains (margin above the slack)."""
        return self.margins > self.slack
