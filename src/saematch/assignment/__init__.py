"""Linear assignment between the rows of two factor matrices, with a proof of optimality.

Pure optimisation: knows nothing of SAEs.  `solve(rows, columns, solver=Dense())` finds the pairs of
least total squared distance and returns an `Assignment` that carries its own dual bound.
"""

from saematch.assignment.dense import Dense
from saematch.assignment.result import OPTIMAL_GAP, Assignment
from saematch.assignment.solve import solve

__all__ = ["OPTIMAL_GAP", "Assignment", "Dense", "solve"]
