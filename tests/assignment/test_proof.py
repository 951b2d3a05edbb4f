"""The proof of optimality does not trust the solver, nor the rounded costs."""

import numpy as np
import pytest
import torch
from core_builders import pair_costs, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import solve
from saematch.assignment.costs import SLICE, SquaredDistances
from saematch.assignment.proof import BlockSource, Proof, prove


def blocks_of(costs: SquaredDistances) -> BlockSource:
    def blocks(start: int, stop: int) -> torch.Tensor:
        out = torch.empty((stop - start, costs.m), dtype=costs.rows.dtype)
        costs.fill(start, stop, out)
        return out

    return blocks


def as_wrong_as_allowed(costs: SquaredDistances, seed: int) -> BlockSource:
    """Blocks whose every entry is off by almost the whole of the promised bound."""
    exact = torch.from_numpy(pair_costs(costs.rows, costs.columns))
    bound = costs.relative_error * (costs.row_norms[:, None] + costs.column_norms)
    signs = torch.randint(0, 2, exact.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    wrong = (exact + 0.9 * signs * bound).to(costs.rows.dtype)
    return lambda start, stop: wrong[start:stop]


def least_total(costs: np.ndarray) -> float:
    i, j = linear_sum_assignment(costs)
    return float(costs[i, j].sum())


def margins_by_definition(costs: np.ndarray, proof: Proof, assigned: np.ndarray) -> np.ndarray:
    """Least reduced cost elsewhere in the row plus the same in the column, or of staying free."""
    n, m = costs.shape
    u, v = proof.row_duals.numpy(), proof.column_duals.numpy()
    reduced = costs - u[:, None] - v
    margins = np.empty(n)
    for i, j in enumerate(assigned):
        row, column = np.delete(reduced[i], j), np.delete(reduced[:, j], i)
        free = [-v[j]] if n < m else []
        in_row, in_column = min(row, default=np.inf), min([*column, *free], default=np.inf)
        margins[i] = max(0, in_row) + max(0, in_column)
    return margins


def check_proof(proof: Proof, costs: np.ndarray, assigned: np.ndarray) -> None:
    n, m = costs.shape
    tolerance = 1e-9 * float(costs.max() + proof.column_duals.abs().max())
    reduced = costs - proof.row_duals.numpy()[:, None] - proof.column_duals.numpy()
    assert reduced.min() >= -tolerance
    if n < m:
        assert proof.column_duals.max() <= 0
    assert proof.dual <= least_total(costs) + n * tolerance
    assert proof.primal == pytest.approx(costs[np.arange(n), assigned].sum(), rel=1e-9)
    assert (
        proof.margins.numpy() <= margins_by_definition(costs, proof, assigned) + tolerance
    ).all()


def solved(
    n: int, m: int, d: int, seed: int, dtype: torch.dtype
) -> tuple[SquaredDistances, torch.Tensor, torch.Tensor]:
    rows, columns = random_factors(n, m, d, seed)
    found = solve(rows, columns)
    costs = SquaredDistances.of(rows.to(dtype), columns.to(dtype))
    return costs, torch.from_numpy(found.columns), torch.from_numpy(found.column_duals)


DTYPES = [torch.float32, torch.float64]
SIZES = [(8, 8), (30, 30), (8, 11), (1, 4), (1, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("rows_per_block", [1, 7, 100])
def test_blocks_of_any_height_prove_the_same(
    dtype: torch.dtype, n: int, m: int, rows_per_block: int
) -> None:
    costs, assigned, v = solved(n, m, 5, n + m, dtype)
    proof = prove(costs, blocks_of(costs), assigned, v, rows_per_block)
    exact = pair_costs(costs.rows, costs.columns)
    check_proof(proof, exact, assigned.numpy())
    assert proof.dual == pytest.approx(least_total(exact), rel=1e-9)
    expected = margins_by_definition(exact, proof, assigned.numpy())
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-11}[dtype] * exact.max()
    np.testing.assert_allclose(proof.margins.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(8, 8), (8, 11)])
def test_a_wrong_assignment_is_found_out(dtype: torch.dtype, n: int, m: int) -> None:
    costs, assigned, v = solved(n, m, 5, 3, dtype)
    right = prove(costs, blocks_of(costs), assigned, v, 4)
    for i in range(1, n):
        swapped = assigned.clone()
        swapped[[0, i]] = assigned[[i, 0]]
        wrong = prove(costs, blocks_of(costs), swapped, v, 4)
        assert wrong.dual == right.dual
        assert wrong.primal - wrong.dual > right.primal - right.dual + 1e-6
        check_proof(wrong, pair_costs(costs.rows, costs.columns), swapped.numpy())


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 12),
    more=st.integers(0, 3),
    seed=st.integers(0, 999),
    log_size=st.integers(-6, 3),
)
def test_no_duals_prove_more_than_is_true(
    dtype: torch.dtype, n: int, more: int, seed: int, log_size: int
) -> None:
    costs, assigned, v = solved(n, n + more, 3, seed, dtype)
    noise = torch.randn(n + more, generator=torch.Generator().manual_seed(seed)).double()
    good = prove(costs, blocks_of(costs), assigned, v, 5)
    bad = prove(costs, blocks_of(costs), assigned, v + 10.0**log_size * noise, 5)
    exact = pair_costs(costs.rows, costs.columns)
    check_proof(bad, exact, assigned.numpy())
    assert bad.dual <= good.dual + 1e-9 * n * float(exact.max() + bad.column_duals.abs().max())


def test_useless_duals_leave_a_gap() -> None:
    costs, assigned, v = solved(20, 20, 3, 0, torch.float64)
    good = prove(costs, blocks_of(costs), assigned, v, 5)
    bad = prove(costs, blocks_of(costs), assigned, v.flip(0) * 3, 5)
    assert bad.dual < good.dual - 0.1
    assert bad.primal == good.primal


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 20)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_costs_as_wrong_as_allowed_prove_nothing_false(
    dtype: torch.dtype, n: int, m: int, offset: float, seed: int
) -> None:
    """With an offset the norms, and so the errors, dwarf the costs."""
    rows, columns = random_factors(n, m, 6, seed)
    rows, columns = rows * 0.03 + offset, columns * 0.03 + offset
    found = solve(rows, columns)
    assigned, v = torch.from_numpy(found.columns), torch.from_numpy(found.column_duals)
    costs = SquaredDistances.of(rows.to(dtype), columns.to(dtype))
    proof = prove(costs, as_wrong_as_allowed(costs, seed), assigned, v, 7)
    exact = pair_costs(rows, columns)
    check_proof(proof, exact, found.columns)
    # u is evaluated exactly, so wrong blocks do not loosen the bound either.
    assert proof.dual == pytest.approx(least_total(exact), rel=1e-9)


def data_of(kind: str, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = random_factors(40, 50, d, seed=d)
    if kind == "huge":
        return rows * 1e15, columns * 1e15
    if kind == "uneven":
        g = torch.Generator().manual_seed(1)
        return rows * 10 ** (6 * torch.rand(40, 1, generator=g)), columns
    if kind == "cancelling":
        return rows + 50, torch.cat([rows, rows[:10]]) + 50 + columns * 1e-4
    return rows, columns


@pytest.mark.parametrize("kind", ["random", "huge", "uneven", "cancelling"])
@pytest.mark.parametrize("d", [1, 7, SLICE, SLICE + 1, 2 * SLICE + 300])
def test_blocks_keep_their_error_bound(kind: str, d: int) -> None:
    rows, columns = data_of(kind, d)
    costs = SquaredDistances.of(rows, columns)
    error = (blocks_of(costs)(0, 40).double() - torch.from_numpy(pair_costs(rows, columns))).abs()
    allowed = costs.relative_error * (costs.row_norms[:, None] + costs.column_norms)
    assert (error <= allowed).all()
    # A bound of the order of one would hold and say nothing.
    assert costs.relative_error < 1e-4


@pytest.mark.parametrize("kind", ["random", "cancelling"])
@pytest.mark.parametrize("d", [7, SLICE + 1])
def test_float64_blocks_keep_their_error_bound(kind: str, d: int) -> None:
    rows, columns = (factors.double() for factors in data_of(kind, d))
    costs = SquaredDistances.of(rows, columns)
    wide_rows, wide_columns = (f.numpy().astype(np.longdouble) for f in (rows, columns))
    exact = ((wide_rows[:, None] - wide_columns[None]) ** 2).sum(axis=2)
    error = np.abs(blocks_of(costs)(0, 40).numpy() - exact)
    allowed = costs.relative_error * (costs.row_norms[:, None] + costs.column_norms).numpy()
    assert (error <= allowed).all()


def test_exact_pairs_are_differences_in_float64() -> None:
    rows, columns = data_of("cancelling", 9)
    costs = SquaredDistances.of(rows, columns)
    i = torch.arange(40)
    j = torch.arange(40).flip(0)
    np.testing.assert_allclose(
        costs.exact(i, j).numpy(), pair_costs(rows, columns)[i, j], rtol=1e-14
    )
