"""Dead features: many rows near zero, fewer columns near zero.

Where such rows outbid each other by rounding errors a solver does not come to an end; these problems
then run into pytest's time limit.
"""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from saematch import Certified, solve

SOLVERS = {"default": Certified(), "coarse": Certified(shortlist=1, precision="bfloat16")}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize(("rows", "columns"), [(100, 60), (60, 100), (100, 0), (100, 100)])
def test_comes_to_an_end_and_is_right(rows: int, columns: int, size: float, solver: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(300, 48, generator=generator)
    b = a + torch.randn(300, 48, generator=generator)
    a[:rows] *= size
    b[:columns] *= size
    found = solve(a, b, SOLVERS[solver])
    costs = cdist(a.double().numpy(), b.double().numpy(), "sqeuclidean")
    best = costs[linear_sum_assignment(costs)].sum()
    assert found.optimal
    assert best * (1 - 1e-6) <= found.dual <= best * (1 + 1e-12)
    assert best * (1 - 1e-12) <= found.primal <= best * (1 + 1e-6)
