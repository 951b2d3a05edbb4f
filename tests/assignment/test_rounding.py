"""What rounding may and may not do to a proof, and problems that are hard for the solver beneath."""

import itertools

import numpy as np
import pytest
import torch
from core_builders import pair_costs, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import Certified, UsageError, solve
from saematch.assignment.costs import SquaredDistances, full_precision

SOLVERS = {"default": Certified(), "coarse": Certified(shortlist=1, precision="bfloat16")}


def optimum(costs: np.ndarray) -> float:
    return float(costs[linear_sum_assignment(costs)].sum())


def clusters(size: float, n: int = 240, d: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups of nearly equal rows near groups of nearly equal columns, more of the one or the other."""
    g = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(n, d, generator=g) / d**0.5 for _ in range(2))
    for group in range(n // 30):
        centre, shift = (torch.randn(1, d, generator=g) / d**0.5 for _ in range(2))
        many, few = slice(group * 12, group * 12 + 12), slice(group * 12, group * 12 + 9)
        here, there = (many, few) if group % 2 else (few, many)
        rows[here] = centre + size * rows[here]
        columns[there] = centre + 0.3 * shift + size * columns[there]
    return rows, columns


@pytest.mark.timeout(120)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-6, 1e-4, 1e-2])
def test_nearly_equal_features_come_to_an_end(solver: str, size: float) -> None:
    """Bids of rows for nearly equal columns differ by rounding errors; there must not be 2^50 of them."""
    rows, columns = clusters(size)
    found = solve(rows, columns, SOLVERS[solver])
    least = optimum(pair_costs(rows, columns))
    assert found.optimal
    assert found.dual <= least <= found.primal * (1 + 1e-12)
    assert found.primal == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_costs(solver: str, constant: float) -> None:
    rows = torch.zeros(90, 5)
    columns = torch.zeros(100, 5)
    columns[:, 2] = constant
    found = solve(rows, columns, SOLVERS[solver])
    assert sorted(set(found.columns.tolist())) == sorted(found.columns.tolist())
    assert found.primal == 90 * constant
    assert found.gap < 1e-12
    assert not found.certain.any()


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 6), angles=st.integers(2, 7), seed=st.integers(0, 10**6), turn=st.floats(0, 3)
)
def test_ties_that_rounding_blurs_are_never_certain(
    n: int, angles: int, seed: int, turn: float
) -> None:
    """Corners of a polygon: equal distances whose float64 values differ in the last places."""
    g = torch.Generator().manual_seed(seed)
    corners = torch.arange(angles) * (2 * torch.pi / angles) + turn
    points = torch.stack([corners.cos(), corners.sin()], dim=1)
    rows = points[torch.randint(0, angles, (n,), generator=g)]
    columns = points[torch.randint(0, angles, (n,), generator=g)]
    found = solve(rows, columns)
    costs = pair_costs(rows, columns)
    choices = np.array(list(itertools.permutations(range(n))))
    totals = costs[np.arange(n), choices].sum(axis=1)
    optimal = choices[totals == totals.min()]
    assert found.primal >= totals.min() * (1 - 1e-14)
    for i in np.flatnonzero(found.certain):
        assert (optimal[:, i] == found.columns[i]).all()


@pytest.mark.parametrize("n", [30, 100])
def test_copies_leave_no_slack_at_all(n: int) -> None:
    """Centred duals: no other pair is tied with one of zero cost, so no rounding can come between."""
    rows, _ = random_factors(n, n, 8, seed=n)
    for solver in SOLVERS.values():
        found = solve(rows, rows.clone(), solver)
        assert found.primal == found.dual == found.slack == 0
        assert found.certain.all()


def test_nearly_equal_copies_are_optimal() -> None:
    rows, noise = random_factors(60, 60, 32, seed=5)
    for size in (1e-2, 1e-4, 1e-6):
        for solver in SOLVERS.values():
            found = solve(rows, rows + size * noise, solver)
            assert found.columns.tolist() == list(range(60))
            assert found.optimal
            assert found.certain.all()


@pytest.mark.parametrize("precision", ["medium", "high"])
def test_a_caller_who_allows_rough_products_gets_a_proof_all_the_same(precision: str) -> None:
    rows, columns = random_factors(80, 90, 600, seed=3)
    costs = SquaredDistances.of(rows, columns)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            out = torch.empty(80, 90)
            costs.fill(0, 80, out)
            found = solve(rows, columns)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    error = (out.double() - torch.from_numpy(pair_costs(rows, columns))).abs()
    assert (error <= costs.relative_error * (costs.row_norms[:, None] + costs.column_norms)).all()
    assert found.optimal
    assert torch.get_float32_matmul_precision() == before


def test_products_are_made_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of torch, because not every processor has a rougher product to show the difference."""
    seen = []

    def precision() -> str:
        matmul = getattr(torch.backends.mkldnn, "matmul", None)
        if matmul is None:  # before torch 2.9
            return {"highest": "ieee"}.get(torch.get_float32_matmul_precision(), "rough")
        return matmul.fp32_precision

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if "addmm" in func.__name__:
                seen.append((precision(), torch.is_autocast_enabled("cpu")))
            return super().__torch_function__(func, types, args, kwargs or {})

    rows, columns = random_factors(4, 4, 3, seed=0)
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        before = precision()
        with torch.autocast("cpu", torch.bfloat16):
            SquaredDistances.of(rows, columns).fill(0, 4, torch.empty(4, 4).as_subclass(Watched))
        assert seen == [("ieee", False)]
        with pytest.raises(ZeroDivisionError), full_precision():
            _ = 1 / 0
        assert precision() == before
    finally:
        torch.set_float32_matmul_precision(allowed)


def test_factors_that_are_parameters() -> None:
    rows, columns = random_factors(5, 6, 3, seed=0)
    found = solve(rows.requires_grad_(), columns.requires_grad_())
    assert found.columns.tolist() == solve(rows.detach(), columns.detach()).columns.tolist()


@pytest.mark.parametrize("exponent", [-140, -126, 100, 125])
def test_sizes_at_the_ends_of_float32(exponent: int) -> None:
    rows, columns = (torch.randint(-4, 5, (9, 3)).float() for _ in range(2))
    found = solve(rows.double() * 2.0**exponent, columns.double() * 2.0**exponent)
    narrow = solve(
        (rows.double() * 2.0**exponent).float(), (columns.double() * 2.0**exponent).float()
    )
    same = solve(rows, columns)
    for one in (found, narrow):
        assert one.columns.tolist() == same.columns.tolist()
        assert one.primal == same.primal * 4.0**exponent
        assert one.gap == same.gap


@pytest.mark.parametrize("exponent", [-400, 400])
def test_float64_factors_beyond_float32(exponent: int) -> None:
    rows, columns = (factors.double() for factors in random_factors(7, 9, 3, seed=1))
    one, two = solve(rows, columns), solve(rows * 2.0**exponent, columns * 2.0**exponent)
    assert two.columns.tolist() == one.columns.tolist()
    assert two.gap == one.gap


def test_factors_of_no_width_are_an_error() -> None:
    with pytest.raises(UsageError, match="at least one dimension"):
        solve(torch.zeros(2, 0), torch.zeros(2, 0))
