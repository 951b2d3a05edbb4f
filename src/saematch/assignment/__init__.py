"""Linear assignment between the rows of two factor matrices, with a proof of optimality.

Pure optimisation: knows nothing of SAEs.  `solve(rows, columns)` finds the pairs of least total squared
distance and returns an `Assignment` that carries its own dual bound; `Dense` and `Certified` solve, and
`verify` checks from scratch.
"""

from saematch.assignment.certified import Certified
from saematch.assignment.dense import Dense
from saematch.assignment.result import OPTIMAL_GAP, Assignment
from saematch.assignment.solve import solve
from saematch.assignment.verify import Verification, verify

__all__ = ["OPTIMAL_GAP", "Assignment", "Certified", "Dense", "Verification", "solve", "verify"]
