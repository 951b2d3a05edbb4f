"""Linear assignment: against brute force and scipy, and the laws its duals and margins obey."""

import inspect
import itertools

import numpy as np
import pytest
import torch
from core_builders import pair_costs, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import Assignment, Certified, UsageError, solve, verify

SOLVERS = [
    pytest.param(None, id="default"),
    pytest.param(Certified(shortlist=1, precision="bfloat16"), id="coarse"),
    pytest.param(Certified(shortlist=3, scan="torch"), id="torch"),
]


def optimum(costs: np.ndarray) -> float:
    i, j = linear_sum_assignment(costs)
    return float(costs[i, j].sum())


def check_laws(rows: torch.Tensor, columns: torch.Tensor, found: Assignment) -> None:
    """What holds for every answer of every solver, optimal or not."""
    costs = pair_costs(rows, columns)
    n, m = costs.shape
    scale = float(costs.max())
    least = optimum(costs)
    total_scale = n * scale
    assert found.columns.dtype == np.int64
    assert len(set(found.columns.tolist())) == n
    assert found.primal == pytest.approx(costs[np.arange(n), found.columns].sum(), rel=1e-9)
    reduced = costs - found.row_duals[:, None] - found.column_duals
    assert reduced.min() >= -1e-9 * scale
    if n < m:
        assert found.column_duals.max() <= 0
    bound = found.row_duals.sum() + found.column_duals.sum()
    assert found.dual == pytest.approx(bound, rel=1e-9, abs=1e-9 * total_scale)
    assert found.dual <= least + 1e-9 * total_scale
    assert least <= found.primal + 1e-9 * total_scale
    assert (found.margins >= 0).all()


def check_forbidding(rows: torch.Tensor, columns: torch.Tensor, found: Assignment) -> None:
    """Without a pair, the best that is left costs more by at least the pair's margin − slack."""
    costs = pair_costs(rows, columns)
    n, m = costs.shape
    least = optimum(costs)
    tolerance = 1e-9 * n * float(costs.max())
    for i in range(n):
        if m == 1:
            assert found.margins[i] == np.inf
            continue
        j = found.columns[i]
        without = costs.copy()
        without[i, j] = 1e6 * (1 + float(costs.max())) * n
        assert optimum(without) - least >= found.margins[i] - found.slack - tolerance


sizes = st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(n, 6)))


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=40, deadline=None)
@given(size=sizes, d=st.integers(1, 3), high=st.integers(0, 3), seed=st.integers(0, 10**6))
def test_brute_force_on_integers(
    solver: Certified | None, size: tuple[int, int], d: int, high: int, seed: int
) -> None:
    """Ties, duplicates, zero rows and constant costs, where all arithmetic is exact."""
    n, m = size
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(-high, high + 1, (n, d), generator=g).float()
    columns = torch.randint(-high, high + 1, (m, d), generator=g).float()
    costs = pair_costs(rows, columns)
    choices = np.array(list(itertools.permutations(range(m), n)))
    totals = costs[np.arange(n), choices].sum(axis=1)
    found = solve(rows, columns, solver)
    assert found.primal == totals.min()
    check_laws(rows, columns, found)
    check_forbidding(rows, columns, found)
    optimal = choices[totals == totals.min()]
    for i in np.flatnonzero(found.certain):
        assert (optimal[:, i] == found.columns[i]).all()


@settings(max_examples=40, deadline=None)
@given(size=sizes, d=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_brute_force_on_reals(size: tuple[int, int], d: int, seed: int) -> None:
    rows, columns = random_factors(*size, d, seed)
    costs = pair_costs(rows, columns)
    choices = np.array(list(itertools.permutations(range(size[1]), size[0])))
    totals = costs[np.arange(size[0]), choices].sum(axis=1)
    found = solve(rows, columns)
    assert found.primal == pytest.approx(totals.min(), rel=1e-9)
    assert found.columns.tolist() == choices[totals.argmin()].tolist()
    assert found.optimal


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 40), more=st.integers(0, 15), d=st.integers(1, 8), seed=st.integers(0, 999))
def test_agrees_with_scipy(solver: Certified | None, n: int, more: int, d: int, seed: int) -> None:
    rows, columns = random_factors(n, n + more, d, seed)
    found = solve(rows, columns, solver)
    check_laws(rows, columns, found)
    assert found.gap <= 1e-12
    assert found.primal == pytest.approx(optimum(pair_costs(rows, columns)), rel=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("n", "m"), [(200, 200), (200, 230), (150, 200), (3, 200)])
def test_agrees_with_scipy_when_larger(solver: Certified | None, n: int, m: int) -> None:
    rows, columns = random_factors(n, m, 16, seed=n + m)
    found = solve(rows, columns, solver)
    check_laws(rows, columns, found)
    assert found.primal == pytest.approx(optimum(pair_costs(rows, columns)), rel=1e-12)
    assert found.gap <= 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 7), (12, 12), (2, 3), (9, 12), (1, 5)])
@pytest.mark.parametrize("seed", range(2))
def test_forbidding_a_pair_costs_its_margin(
    solver: Certified | None, n: int, m: int, seed: int
) -> None:
    rows, columns = random_factors(n, m, 3, seed)
    found = solve(rows, columns, solver)
    check_forbidding(rows, columns, found)
    assert found.certain.any()


@pytest.mark.parametrize("solver", SOLVERS)
def test_finds_a_planted_permutation_and_is_certain(solver: Certified | None) -> None:
    rows, _ = random_factors(60, 60, 32, seed=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(60, 32, generator=torch.Generator().manual_seed(3)) * 0.01
    found = solve(rows, (rows + noise)[order], solver)
    assert order[torch.from_numpy(found.columns)].tolist() == list(range(60))
    assert found.certain.all()


def test_a_copy_costs_nothing_and_is_optimal() -> None:
    """A total of zero is judged against the size of the factors."""
    rows, _ = random_factors(30, 30, 8, seed=4)
    found = solve(rows, rows.clone())
    assert found.columns.tolist() == list(range(30))
    assert found.primal == 0
    assert found.optimal
    nothing = solve(torch.zeros(3, 2), torch.zeros(4, 2))
    assert (nothing.gap, nothing.primal, nothing.optimal) == (0, 0, True)
    assert not nothing.certain.any()


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 22)])
@pytest.mark.parametrize("seed", range(4))
def test_relabelling_relabels_the_pairs(n: int, m: int, seed: int) -> None:
    rows, columns = random_factors(n, m, 5, seed)
    g = torch.Generator().manual_seed(seed + 50)
    p, q = torch.randperm(n, generator=g), torch.randperm(m, generator=g)
    one, two = solve(rows, columns), solve(rows[p], columns[q])
    assert two.primal == pytest.approx(one.primal, rel=1e-9)
    assert q[torch.from_numpy(two.columns)].tolist() == one.columns[p.numpy()].tolist()


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=25, deadline=None)
@given(
    k=st.integers(-20, 20),
    seed=st.integers(0, 999),
    n=st.integers(1, 12),
    more=st.sampled_from([0, 3]),
)
def test_powers_of_two_change_nothing(
    solver: Certified | None, k: int, seed: int, n: int, more: int
) -> None:
    rows, columns = random_factors(n, n + more, 4, seed)
    one, two = solve(rows, columns, solver), solve(rows * 2.0**k, columns * 2.0**k, solver)
    assert two.columns.tolist() == one.columns.tolist()
    assert two.gap == one.gap
    assert two.primal == one.primal * 4.0**k
    assert two.margins.tolist() == (one.margins * 4.0**k).tolist()


@pytest.mark.parametrize("size", [1e-15, 1e15])
def test_sizes_whose_squares_leave_float32(size: float) -> None:
    rows, columns = random_factors(10, 13, 4, seed=8)
    found = solve(rows * size, columns * size)
    assert found.columns.tolist() == solve(rows, columns).columns.tolist()
    assert found.optimal


def test_one_row() -> None:
    only = solve(torch.ones(1, 3), torch.zeros(1, 3))
    assert (only.columns.tolist(), only.primal) == ([0], 3)
    assert only.margins.tolist() == [np.inf]
    assert only.certain.all()
    nearest = solve(torch.tensor([[1.0]]), torch.tensor([[5.0], [2.0], [-1.0]]))
    assert nearest.columns.tolist() == [1]
    # The runner-up costs 4 instead of 1.
    assert nearest.margins.tolist() == pytest.approx([3])


def test_duplicates_are_never_certain() -> None:
    rows = torch.tensor([[0.0, 1], [0, 1], [9, 9]])
    found = solve(rows, rows.clone())
    assert found.certain.tolist() == [False, False, True]


@pytest.mark.parametrize("solver", SOLVERS)
def test_costs_that_vanish_in_float32_beside_the_norms_of_their_factors(
    solver: Certified | None,
) -> None:
    g = torch.Generator().manual_seed(0)
    sides = torch.tensor([1000.0, -1000.0]).repeat(15)[:, None]  # no offset that all share
    rows = sides + torch.randn(30, 4, generator=g) * 0.1
    columns = sides + torch.randn(30, 4, generator=g) * 0.1
    found = solve(rows, columns, solver)
    check_laws(rows, columns, found)
    check_forbidding(rows, columns, found)
    assert found.primal == pytest.approx(optimum(pair_costs(rows, columns)), rel=1e-12)
    assert found.gap <= 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    rows, columns = (factors.to(dtype) for factors in random_factors(9, 11, 4, seed=2))
    found = solve(rows, columns)
    same = solve(rows.float(), columns.float())
    assert found.columns.tolist() == same.columns.tolist()
    assert found.primal == same.primal


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_factors_must_be_finite(bad: float, side: int) -> None:
    factors = random_factors(3, 4, 2, seed=0)
    factors[side][1, 1] = bad
    with pytest.raises(UsageError, match="finite"):
        solve(*factors)


def test_shapes_that_are_no_problem() -> None:
    unchecked = inspect.unwrap(solve)  # what a user meets, without the tests' shape checks
    with pytest.raises(UsageError, match="one width"):
        unchecked(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(UsageError, match="one width"):
        unchecked(torch.ones(3), torch.ones(2, 3))
    with pytest.raises(UsageError, match="3 rows and 2 columns"):
        solve(torch.ones(3, 2), torch.ones(2, 2))
    for n, m in ((0, 0), (0, 3)):
        with pytest.raises(UsageError, match=f"{n} rows and {m} columns"):
            solve(torch.ones(n, 2), torch.ones(m, 2))


def test_the_factors_are_not_changed() -> None:
    rows, columns = random_factors(6, 6, 3, seed=1)
    before = rows.clone(), columns.clone()
    solve(rows, columns)
    assert torch.equal(rows, before[0])
    assert torch.equal(columns, before[1])


def test_numpy_arrays_are_factors_too() -> None:
    rows, columns = random_factors(12, 15, 4, seed=0)
    expected = solve(rows, columns)
    found = solve(rows.numpy(), columns.numpy())
    assert (found.columns == expected.columns).all()
    assert verify(rows.numpy(), columns.numpy(), found).ok


@pytest.mark.parametrize("solver", ["dense", Certified])
def test_solvers_that_are_none(solver: object) -> None:
    rows, columns = random_factors(4, 5, 3, seed=0)
    unchecked = inspect.unwrap(solve)
    with pytest.raises(UsageError, match=r"expected Certified\(\) or None"):
        unchecked(rows, columns, solver)
