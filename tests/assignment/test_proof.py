"""The proof of optimality does not trust the solver, nor the rounded products."""

import dataclasses

import numpy as np
import pytest
import torch
from core_builders import pair_costs, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import Assignment, solve
from saematch.assignment import shortlists
from saematch.assignment.certificate import certify
from saematch.assignment.costs import SLICE, SquaredDistances
from saematch.assignment.problem import Problem
from saematch.assignment.products import Products


class AsWrongAsAllowed(Products):
    """Products whose every entry is off by almost the whole of the promised bound."""

    def block(self, rows: slice | torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        right = super().block(rows, out)
        signs = torch.randint(0, 2, right.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        sizes = np.sqrt(self.row_norms[rows][:, None] * self.column_norms)
        return (right + 0.9 * signs * self.error * torch.from_numpy(sizes)).to(right.dtype)


def prove(
    rows: torch.Tensor,
    columns: torch.Tensor,
    assigned: np.ndarray,
    v: np.ndarray,
    dtype: torch.dtype = torch.float32,
    kind: type[Products] = Products,
) -> Assignment:
    """What the certificate makes of pairs and column duals."""
    problem = Problem.of(SquaredDistances.of(rows, columns))
    made = Products.of(problem.costs, dtype)
    products = kind(*(getattr(made, field.name) for field in dataclasses.fields(made)))
    certificate = certify(problem, products, assigned, v)
    assert certificate is not None
    return Assignment.of(problem, assigned, certificate, "given", {}, {}, None)


def least_total(costs: np.ndarray) -> float:
    i, j = linear_sum_assignment(costs)
    return float(costs[i, j].sum())


def margins_by_definition(costs: np.ndarray, proof: Assignment) -> np.ndarray:
    """Least reduced cost elsewhere in the row plus the same in the column, or of staying free."""
    n, m = costs.shape
    reduced = costs - proof.row_duals[:, None] - proof.column_duals
    margins = np.empty(n)
    for i, j in enumerate(proof.columns):
        row, column = np.delete(reduced[i], j), np.delete(reduced[:, j], i)
        free = [-proof.column_duals[j]] if n < m else []
        in_row, in_column = min(row, default=np.inf), min([*column, *free], default=np.inf)
        margins[i] = max(0, in_row) + max(0, in_column)
    return margins


def check_proof(proof: Assignment, costs: np.ndarray) -> None:
    n, m = costs.shape
    tolerance = 1e-9 * float(costs.max() + np.abs(proof.column_duals).max())
    reduced = costs - proof.row_duals[:, None] - proof.column_duals
    assert reduced.min() >= -tolerance
    if n < m:
        assert proof.column_duals.max() <= 0
    assert proof.dual <= least_total(costs) + n * tolerance
    assert proof.primal == pytest.approx(costs[np.arange(n), proof.columns].sum(), rel=1e-9)
    assert (proof.margins <= margins_by_definition(costs, proof) + tolerance).all()


DTYPES = [torch.float32, torch.bfloat16]
SIZES = [(8, 8), (30, 30), (60, 60), (8, 11), (1, 4), (1, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("entries", [0, 1 << 25])
def test_blocks_of_any_height_prove_the_same(
    dtype: torch.dtype, n: int, m: int, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlists, "ENTRIES_PER_BLOCK", entries)
    rows, columns = random_factors(n, m, 5, n + m)
    found = solve(rows, columns)
    proof = prove(rows, columns, found.columns, found.column_duals, dtype)
    costs = pair_costs(rows, columns)
    check_proof(proof, costs)
    assert proof.dual == pytest.approx(least_total(costs), rel=1e-12)
    if dtype == torch.float32:
        # What is not evaluated is bounded by half at worst, and most of it by all.
        expected = margins_by_definition(costs, proof)
        assert (proof.margins >= 0.5 * expected - 1e-12 * costs.max()).all()
        assert (
            np.nan_to_num(proof.margins, posinf=0).sum()
            >= 0.9 * np.nan_to_num(expected, posinf=0).sum()
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(8, 8), (8, 11)])
def test_a_wrong_assignment_is_found_out(dtype: torch.dtype, n: int, m: int) -> None:
    rows, columns = random_factors(n, m, 5, 3)
    found = solve(rows, columns)
    right = prove(rows, columns, found.columns, found.column_duals, dtype)
    for i in range(1, n):
        swapped = found.columns.copy()
        swapped[[0, i]] = found.columns[[i, 0]]
        wrong = prove(rows, columns, swapped, found.column_duals, dtype)
        assert wrong.dual <= right.primal
        assert wrong.primal - wrong.dual > right.primal - right.dual + 1e-6
        check_proof(wrong, pair_costs(rows, columns))


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
    rows, columns = random_factors(n, n + more, 3, seed)
    found = solve(rows, columns)
    noise = np.random.default_rng(seed).normal(size=n + more)
    bad = prove(rows, columns, found.columns, found.column_duals + 10.0**log_size * noise, dtype)
    check_proof(bad, pair_costs(rows, columns))


def test_useless_duals_leave_a_gap() -> None:
    rows, columns = random_factors(20, 20, 3, 0)
    found = solve(rows, columns)
    good = prove(rows, columns, found.columns, found.column_duals)
    bad = prove(rows, columns, found.columns, found.column_duals[::-1] * 3)
    assert bad.dual < good.dual - 0.1
    assert bad.primal == good.primal


@pytest.mark.parametrize(("n", "m"), [(20, 20), (15, 20)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_products_as_wrong_as_allowed_prove_nothing_false(
    n: int, m: int, offset: float, seed: int
) -> None:
    """With an offset that not all share the norms, and so the errors, dwarf the costs."""
    rows, columns = random_factors(n, m, 6, seed)
    sides = offset * (1 - 2 * (torch.arange(m) % 2))[:, None]
    rows, columns = rows * 0.03 + sides[:n], columns * 0.03 + sides
    found = solve(rows, columns)
    proof = prove(rows, columns, found.columns, found.column_duals, kind=AsWrongAsAllowed)
    costs = pair_costs(rows, columns)
    check_proof(proof, costs)
    # Pairs that the products cannot decide are evaluated, so wrong ones do not loosen the bound either.
    assert proof.dual == pytest.approx(least_total(costs), rel=1e-9)


def block_of(costs: SquaredDistances) -> torch.Tensor:
    out = torch.empty((costs.n, costs.m), dtype=costs.rows.dtype)
    costs.fill(0, costs.n, out)
    return out


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
    error = (block_of(costs).double() - torch.from_numpy(pair_costs(rows, columns))).abs()
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
    error = np.abs(block_of(costs).numpy() - exact)
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
