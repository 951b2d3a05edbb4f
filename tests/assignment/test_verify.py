"""A checker that is handed a wrong answer says so."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from core_builders import random_factors
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import Assignment, Certified, Dense, solve, verify
from saematch.assignment.certificate import certify
from saematch.assignment.costs import SquaredDistances
from saematch.assignment.problem import Problem
from saematch.assignment.products import Products

ROWS, COLUMNS = random_factors(40, 46, 5, seed=0)
RIGHT = solve(ROWS, COLUMNS, Certified())


def changed(**values: Any) -> Assignment:
    return dataclasses.replace(RIGHT, **values)


def swapped(found: Assignment) -> np.ndarray:
    columns = found.columns.copy()
    columns[[0, 1]] = columns[[1, 0]]
    return columns


@pytest.mark.parametrize("solver", [Certified(), Dense()])
def test_right_answers_pass(solver: Certified | Dense) -> None:
    checked = verify(ROWS, COLUMNS, solve(ROWS, COLUMNS, solver))
    assert checked.ok
    assert checked.primal == pytest.approx(checked.dual, rel=1e-9)
    assert checked.worst == pytest.approx(0, abs=1e-9)


def test_other_pairs_cost_something_else() -> None:
    checked = verify(ROWS, COLUMNS, changed(columns=swapped(RIGHT)))
    assert any("the pairs cost" in fault for fault in checked.faults)


def test_other_pairs_with_their_own_total_are_no_fault_but_leave_a_gap() -> None:
    columns = swapped(RIGHT)
    difference = ROWS.double() - COLUMNS[columns].double()
    total = float(difference.square().sum())
    checked = verify(ROWS, COLUMNS, changed(columns=columns, primal=total))
    assert checked.ok
    assert checked.primal - checked.dual > 1e-3


def test_a_column_given_twice() -> None:
    columns = RIGHT.columns.copy()
    columns[3] = columns[2]
    checked = verify(ROWS, COLUMNS, changed(columns=columns))
    assert any("two rows" in fault for fault in checked.faults)


@pytest.mark.parametrize("column", [-2, 46])
def test_a_column_that_is_none(column: int) -> None:
    columns = RIGHT.columns.copy()
    columns[5] = column
    assert not verify(ROWS, COLUMNS, changed(columns=columns)).ok


def test_a_row_left_out_without_a_price() -> None:
    columns = RIGHT.columns.copy()
    columns[5] = -1
    checked = verify(ROWS, COLUMNS, changed(columns=columns))
    assert any("without a price" in fault for fault in checked.faults)


def test_a_forbidden_pair() -> None:
    barred = np.array([[7, RIGHT.columns[7]]])
    checked = verify(ROWS, COLUMNS, RIGHT, forbidden=barred)
    assert any("forbidden" in fault for fault in checked.faults)
    avoiding = solve(ROWS, COLUMNS, forbidden=barred)
    assert verify(ROWS, COLUMNS, avoiding, forbidden=barred).ok
    assert avoiding.primal - RIGHT.primal >= RIGHT.margins[7] - RIGHT.slack


@pytest.mark.parametrize("side", ["row_duals", "column_duals"])
@pytest.mark.parametrize("i", [0, 17])
def test_duals_that_are_too_high(side: str, i: int) -> None:
    duals = getattr(RIGHT, side).copy()
    duals[i] += 1.0
    # The bound that such duals would prove if nobody looked.
    checked = verify(ROWS, COLUMNS, changed(**{side: duals, "dual": RIGHT.dual + 1.0}))
    assert not checked.ok
    assert checked.worst < 0 or any("price" in fault for fault in checked.faults)


def test_a_bound_that_its_duals_do_not_prove() -> None:
    checked = verify(ROWS, COLUMNS, changed(dual=RIGHT.primal * 1.001))
    assert any("the duals prove" in fault for fault in checked.faults)


def test_a_dual_above_its_price() -> None:
    found = solve(ROWS, COLUMNS, row_prices=2.0)
    assert verify(ROWS, COLUMNS, found, row_prices=2.0).ok
    checked = verify(ROWS, COLUMNS, found, row_prices=1.0)
    assert any("price" in fault for fault in checked.faults)


def test_an_infinite_price_is_none() -> None:
    rows, columns = random_factors(9, 9, 3, seed=5)
    found = solve(rows, columns, Certified())
    assert verify(rows, columns, found, row_prices=np.inf).ok


def test_every_wrong_pair_is_found_out_by_the_gap_of_the_certificate() -> None:
    """The certificate pass trusts neither pairs nor duals that it is given."""
    generator = np.random.default_rng(1)
    for noise in (0.0, 0.01, 1.0, 100.0):
        v = RIGHT.column_duals + noise * generator.normal(size=46)
        for columns in (RIGHT.columns, swapped(RIGHT), generator.permutation(46)[:40]):
            found = certified_from(ROWS, COLUMNS, columns, v, torch.float32)
            assert found.dual <= RIGHT.primal
            if (columns != RIGHT.columns).any() or noise >= 1:
                assert not found.optimal


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 50),
    more=st.sampled_from([0, 0, 9]),
    d=st.integers(2, 8),
    seed=st.integers(0, 10**6),
    noise=st.sampled_from([0.0, 0.1, 1.0]),
    right=st.booleans(),
)
def test_certificates_of_any_pairs_and_duals_claim_no_more_than_is_so(
    dtype: torch.dtype, n: int, more: int, d: int, seed: int, noise: float, right: bool
) -> None:
    rows, columns = random_factors(n, n + more, d, seed)
    best = solve(rows, columns, Certified())
    generator = np.random.default_rng(seed)
    pairs = best.columns if right else generator.permutation(n + more)[:n]
    duals = best.column_duals + noise * generator.normal(size=n + more)
    certified_from(rows, columns, pairs, duals, dtype)


def certified_from(
    rows: torch.Tensor,
    columns: torch.Tensor,
    pairs: np.ndarray,
    duals: np.ndarray,
    dtype: torch.dtype,
) -> Assignment:
    """What the certificate pass makes of pairs and column duals, all its claims checked."""
    problem = Problem.of(SquaredDistances.of(rows, columns))
    made = certify(problem, Products.of(problem.costs, dtype), pairs, duals)
    assert made is not None
    found = Assignment.of(problem, pairs, made, "given", {}, {}, None)
    checked = verify(rows, columns, found)
    assert checked.ok, checked.faults
    difference = rows.double()[:, None] - columns.double()[None]
    reduced = difference.square().sum(dim=2).numpy() - found.row_duals[:, None]
    reduced -= found.column_duals
    for i, j in enumerate(pairs):
        in_row = np.delete(reduced[i], j).min(initial=np.inf)
        free = problem.column_prices[j] - found.column_duals[j]
        in_column = min(np.delete(reduced[:, j], i).min(initial=np.inf), free)
        assert found.margins[i] <= max(in_row, 0) + max(in_column, 0) + 1e-9
    return found
