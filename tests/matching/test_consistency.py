"""PW-MCC: bounds, invariances, and every matching tried as the oracle."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import SAE, Certified, UsageError, pw_mcc
from saematch.assignment.costs import SquaredDistances
from saematch.assignment.problem import Problem


def dictionary(d_sae: int, d_model: int, seed: int) -> SAE:
    W_dec = torch.randn(d_sae, d_model, generator=torch.Generator().manual_seed(seed))
    return SAE(W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_model), "relu")


def with_decoder(W_dec: torch.Tensor) -> SAE:
    return SAE(
        W_dec.T.contiguous(), torch.zeros(len(W_dec)), W_dec, torch.zeros(W_dec.shape[1]), "relu"
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_agrees_with_brute_force(d_a: int, d_b: int, d_model: int, seed: int) -> None:
    a, b = dictionary(d_a, d_model, seed), dictionary(d_b, d_model, seed + 1)
    unit_a = torch.nn.functional.normalize(a.W_dec.double())
    unit_b = torch.nn.functional.normalize(b.W_dec.double())
    cosine = (unit_a @ unit_b.T).abs().numpy()
    if d_a > d_b:
        cosine = cosine.T
    choices = np.array(list(permutations(range(cosine.shape[1]), len(cosine))))
    best = cosine[np.arange(len(cosine)), choices].mean(axis=1).max()
    assert pw_mcc(a, b).value == pytest.approx(best, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(0, 40), st.integers(1, 20), st.integers(0, 10**6),
    st.sampled_from(("float32", "bfloat16")), st.sampled_from(("compiled", "torch")),
)  # fmt: skip
def test_the_solver_up_to_sign_agrees_with_scipy_and_proves_it(
    n: int, more: int, d: int, seed: int, precision: Any, scan: Any
) -> None:
    """Copies, negatives and zero rows among them: many equal costs."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(n + more, d, generator=generator) + 2
    rows = columns[torch.randint(n + more, (n,), generator=generator)]
    rows = rows * torch.tensor([1.0, -1.0, 0.5, 0.0])[torch.randint(4, (n, 1), generator=generator)]
    rows[::3] += torch.randn(rows[::3].shape, generator=generator)
    a, b = rows.double(), columns.double()
    costs = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T).abs()
    best = float(costs.numpy()[linear_sum_assignment(costs.numpy())].sum())
    solver = Certified(precision=precision, scan=scan)
    found = solver(Problem.of(SquaredDistances.of(rows, columns, up_to_sign=True)))
    tiny = 1e-11 * found.factor_energy
    assert found.primal == pytest.approx(best, rel=1e-10, abs=tiny)
    assert found.slack <= 1e-9 * found.factor_energy
    reduced = costs.numpy() - found.row_duals[:, None] - found.column_duals
    assert reduced.min() >= -tiny
    assert float(costs.numpy()[np.arange(n), found.columns].sum()) == pytest.approx(best, abs=tiny)


def test_one_for_a_relabelled_rescaled_and_flipped_copy() -> None:
    a = dictionary(20, 8, 0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    sign = torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)
    b = with_decoder((a.W_dec * sign[:, None] * 3)[order])
    found = pw_mcc(a, b)
    assert found.value == pytest.approx(1, abs=1e-5)
    assert found.random < 0.95


def test_the_random_baseline_knows_of_anisotropy() -> None:
    """Rows that share one direction score high against random rows of the same covariance."""
    common = torch.zeros(16)
    common[0] = 5
    a, b = dictionary(30, 16, 0), dictionary(30, 16, 1)
    narrow = pw_mcc(with_decoder(a.W_dec + common), with_decoder(b.W_dec + common))
    assert narrow.random > pw_mcc(a, b).random + 0.2
    assert narrow.random == pytest.approx(narrow.value, abs=0.1)


def test_seeded() -> None:
    a, b = dictionary(10, 4, 0), dictionary(10, 4, 1)
    assert pw_mcc(a, b, seed=3) == pw_mcc(a, b, seed=3)
    assert pw_mcc(a, b, seed=3).random != pw_mcc(a, b, seed=4).random


def test_zero_rows_have_no_direction() -> None:
    a = dictionary(6, 4, 0)
    W_dec = a.W_dec.clone()
    W_dec[2] = 0
    assert pw_mcc(a, with_decoder(W_dec)).pairs == 5
    with pytest.raises(UsageError, match="not zero"):
        pw_mcc(a, with_decoder(torch.zeros(6, 4)))


def test_different_models_are_refused() -> None:
    with pytest.raises(UsageError, match="d_model"):
        pw_mcc(dictionary(4, 4, 0), dictionary(4, 5, 0))
