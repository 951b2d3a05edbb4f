"""Linear assignment between the rows of two factor matrices, with a proof of optimality.

Pure optimisation: knows nothing of SAEs.  `solve(rows, columns)` finds the pairs of least total squared
distance and returns an `Assignment` that carries its own dual bound; `Certified` holds the solver's settings,
and `verify` checks from scratch.
"""

from saematch.assignment.certified import Certified
from saematch.assignment.result import OPTIMAL_GAP, Assignment
from saematch.assignment.solve import solve
from saematch.assignment.verify import Verification, verify

__all__ = ["OPTIMAL_GAP", "Assignment", "Certified", "Verification", "solve", "verify"]
