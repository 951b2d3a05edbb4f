"""What a solver returns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

if TYPE_CHECKING:
    from saematch.assignment.certificate import Certificate
    from saematch.assignment.problem import Problem

OPTIMAL_GAP = 1e-6
"""A relative gap at most this large is called 'optimal to 1e-6'."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Pairs of least total cost, with duals that prove how far from the optimum they can be."""

    columns: Int64[np.ndarray, " n"]
    """The column assigned to each row, one-to-one; -1: the row is left unmatched at its price."""
    primal: float
    """Total cost of the pairs and of what is left unmatched, in the units of the factors squared."""
    dual: float
    """A lower bound on the total cost of any assignment, from the duals."""
    factor_energy: float
    """S = (n + m) × the median squared norm of rows and columns, an offset that they share taken off: the
    scale against which a total of about zero is judged.  A sum would let one long factor hide all."""
    row_duals: Float64[np.ndarray, " n"]
    """At most the row's price."""
    column_duals: Float64[np.ndarray, " m"]
    """At most the column's price: zero where n < m and none is named.
    `c_ij − row_duals[i] − column_duals[j] ≥ 0` for every pair."""
    margins: Float64[np.ndarray, " n"]
    """For each pair, a proven lower bound on how much the dual bound rises if it is forbidden: the
    least reduced cost elsewhere in its row plus the same in its column; inf where no other pairs
    are left.  For an unmatched row, on how much it rises if the row must be matched."""
    solver: str
    """What solved it: `certified`."""
    seconds: Mapping[str, float]
    """Wall-clock time of each part."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What was done: the precision of the products, rounds, pairs evaluated exactly and the like."""
    stopped: str | None = None
    """Why the solver stopped before its end: `time budget` or `memory budget`; None: it did not."""

    @classmethod
    def of(
        cls,
        problem: "Problem",
        columns: Int64[np.ndarray, " n"],
        certificate: "Certificate",
        solver: str,
        seconds: Mapping[str, float],
        details: Mapping[str, Any],
        stopped: str | None,
    ) -> "Assignment":
        """Add up what a matching costs and what its certificate proves."""
        costs = problem.costs
        matched = np.flatnonzero(columns >= 0)
        pairs = costs.exact(torch.from_numpy(matched), torch.from_numpy(columns[matched]))
        free = np.ones(costs.m, dtype=bool)
        free[columns[matched]] = False
        paid = [*problem.row_prices[columns < 0].tolist()]
        if np.isfinite(problem.column_prices).all():
            paid += problem.column_prices[free].tolist()
        row_duals, left = certificate.row_duals, certificate.row_remainders
        terms = [*row_duals.tolist(), *certificate.column_duals.tolist()]
        if left is not None:
            terms += left.tolist()
            # As a float64 a row's dual must not lie above the exact one: a lower dual is feasible too.
            row_duals = np.where(left < 0, np.nextafter(row_duals, -np.inf), row_duals)
        dual = math.fsum(terms)
        # fsum adds without rounding; what is left is the error of the costs themselves, in the primal and in
        # its difference from this.  It is taken off the dual, so that no gap is smaller than what is known.
        dual -= (2 * costs.exact_error + 4 * float(np.finfo(np.float64).eps)) * abs(dual)
        return cls(
            columns=columns,
            primal=math.fsum([*pairs.tolist(), *paid]),
            dual=dual,
            factor_energy=costs.energy,
            row_duals=row_duals,
            column_duals=certificate.column_duals,
            margins=certificate.margins,
            solver=solver,
            seconds=dict(seconds),
            details=dict(details),
            stopped=stopped,
        )

    @property
    def slack(self) -> float:
        """`primal − dual`, never below zero: no assignment is cheaper than `primal − slack`."""
        return max(0.0, self.primal - self.dual)

    @property
    def gap(self) -> float:
        """`slack / max(|primal|, 2⁻⁴⁰ · S)`."""
        scale = max(abs(self.primal), 2.0**-40 * self.factor_energy)
        if scale > 0:
            return self.slack / scale
        return math.inf if self.slack > 0 else 0.0

    @property
    def optimal(self) -> bool:
        """Whether the gap proves the pairs optimal to 1e-6."""
        return self.gap <= OPTIMAL_GAP

    @property
    def certain(self) -> np.ndarray:
        """[n] bool: what every optimal assignment contains (margin above the slack)."""
        return self.margins > self.slack
