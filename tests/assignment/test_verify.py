"""A checker that is handed a wrong answer says so."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from core_builders import random_factors
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch import Assignment, Certified, solve, verify
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


@pytest.mark.parametrize("solver", [Certified(), Certified(scan="torch")])
def test_right_answers_pass(solver: Certified) -> None:
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
    no_margins = np.zeros(len(columns))
    checked = verify(ROWS, COLUMNS, changed(columns=columns, primal=total, margins=no_margins))
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


def with_one(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[0] = value
    return values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["row_duals", "column_duals", "primal", "dual"])
def test_what_is_no_number_proves_nothing(name: str, value: float) -> None:
    given = getattr(RIGHT, name)
    wrong = value if isinstance(given, float) else with_one(given, value)
    checked = verify(ROWS, COLUMNS, changed(**{name: wrong}))
    assert any("NaN or infinity" in fault for fault in checked.faults)


def test_the_stated_energy_is_not_believed() -> None:
    columns = swapped(RIGHT)
    difference = ROWS.double() - COLUMNS[columns].double()
    total = float(difference.square().sum())
    lie = changed(
        columns=columns, primal=total, dual=total, factor_energy=1e30, margins=np.zeros(40)
    )
    assert lie.gap == 0
    checked = verify(ROWS, COLUMNS, lie)
    assert any("the duals prove" in fault for fault in checked.faults)


@pytest.mark.parametrize("factor", [1.01, np.inf])
def test_margins_are_checked(factor: float) -> None:
    row = int(RIGHT.margins.argmax())
    margins = RIGHT.margins.copy()
    margins[row] *= factor
    checked = verify(ROWS, COLUMNS, changed(margins=margins))
    assert any(f"the margin of row {row}" in fault for fault in checked.faults)


@pytest.mark.parametrize("name", ["columns", "row_duals", "column_duals", "margins"])
def test_wrong_sizes_are_faults(name: str) -> None:
    values = getattr(RIGHT, name)
    for wrong in (values[:-1], np.append(values, values[:1])):
        damaged = changed()
        object.__setattr__(damaged, name, wrong)  # the constructor's types are checked in tests
        checked = verify(ROWS, COLUMNS, damaged)
        assert any(f"{name}, got" in fault for fault in checked.faults)


@pytest.mark.parametrize("solver", [Certified(), Certified(scan="torch")])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-5, 1e-3])
def test_copies_and_near_copies_are_proven(solver: Certified, noise: float) -> None:
    """Nearly all of every cost cancels, and so does nearly all of every dual."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(300, 20, generator=generator)
    order = torch.randperm(300, generator=generator)
    columns = rows[order] + noise * torch.randn(300, 20, generator=generator)
    found = solve(rows, columns, solver)
    assert (order[found.columns].numpy() == np.arange(300)).all()
    assert found.gap <= 1e-12
    assert verify(rows, columns, found).ok


@pytest.mark.parametrize("scale", [2.0**-500, 1e-42, 1e40, 2.0**500])
def test_beyond_the_range_of_float32(scale: float) -> None:
    rows, columns = ROWS.double() * scale, COLUMNS.double() * scale
    found = solve(rows, columns, Certified())
    assert (found.columns == RIGHT.columns).all()
    checked = verify(rows, columns, found)
    assert checked.faults == ()


def test_rows_of_very_different_norms() -> None:
    for seed in range(30):
        rows, columns = random_factors(3, 20, 4, seed=seed)
        rows *= 1e-2
        columns[7] *= 1e5
        assert verify(rows, columns, solve(rows, columns, Certified())).ok


def test_what_it_would_cost_to_match_an_unmatched_row() -> None:
    rows, columns = random_factors(12, 15, 4, seed=3)
    rows[:3] += 10  # far from everything
    found = solve(rows, columns, Certified(), row_prices=3.0)
    assert (found.columns[:3] == -1).all()
    prices = np.full(12, 3.0)
    for row in range(12):
        if found.columns[row] >= 0:
            continue
        prices[row] = np.inf
        forced = solve(rows, columns, Certified(), row_prices=prices)
        prices[row] = 3.0
        assert found.margins[row] <= (forced.primal - found.primal) * (1 + 1e-9)
    assert found.margins[:3].min() > 100
    assert verify(rows, columns, found, row_prices=3.0).ok
