"""The solver for any size: right on every kind of problem, and its shortcuts keep their promises."""

import dataclasses
import io
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from assignment_reference import BARRED, KINDS, Case, draw, draw_factors
from core_builders import pair_costs, random_factors
from scipy.optimize import linear_sum_assignment

from saematch import Certified, InputError, UsageError, solve, verify
from saematch.assignment import certified, shortlists
from saematch.assignment.costs import SquaredDistances
from saematch.assignment.problem import Forbidden
from saematch.assignment.products import Products, fastest_dtype, slope
from saematch.assignment.shortlists import Shortlists, lowest_in_double, lowest_of_block

PRECISIONS = ("float32", "bfloat16")
SCANS = ("compiled", "torch")


def check(case: Case, solver: Certified) -> None:
    """The total is scipy's, the proof holds when made again, and the gap is closed."""
    least = case.optimum()
    if least >= BARRED / 2:
        with pytest.raises(UsageError, match="forbidden"):
            solve(case.rows, case.columns, solver, **case.options)
        return
    found = solve(case.rows, case.columns, solver, **case.options)
    # A total of nearly zero is judged by the size of the factors.
    tolerance = 1e-6 * max(abs(least), 1e-6 * case.energy) + 1e-18
    assert found.primal == pytest.approx(least, abs=tolerance)
    assert found.dual <= least + 1e-12 * max(abs(least), case.energy)
    assert found.primal - found.dual <= tolerance
    assert found.stopped is None
    assert (found.row_duals <= case.row_prices).all()
    assert (found.column_duals <= case.column_prices).all()
    checked = verify(case.rows, case.columns, found, **case.options)
    assert checked.ok, checked.faults


def solver_of(generator: np.random.Generator, most: int) -> Certified:
    return Certified(
        shortlist=int(generator.integers(1, most)),
        precision=str(generator.choice(PRECISIONS)),
        scan=str(generator.choice(SCANS)),
    )


@pytest.mark.parametrize("seed", range(8))
def test_small_problems_of_every_kind(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for _ in range(60):
        check(draw(generator, 30), solver_of(generator, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_columns_left_over(kind: str) -> None:
    """Stand-ins take them: ties, forbidden pairs, a budget that ends, and going on from there."""
    generator = np.random.default_rng(100 + KINDS.index(kind))
    for _ in range(25):
        m = int(generator.integers(9, 70))
        n = m - int(generator.integers(1, 1 + m // 8))
        rows, columns = draw_factors(generator, kind, n, m, int(generator.integers(1, 9)))
        barred = np.column_stack([np.arange(n), generator.integers(0, m, n)])[:: n // 3]
        options = {"forbidden": barred} if generator.random() < 0.5 else {}
        case = Case(torch.from_numpy(rows), torch.from_numpy(columns), options)
        solver = solver_of(generator, 6)
        check(case, solver)
        cut_off = solve(rows, columns, dataclasses.replace(solver, seconds=0.0), **options)
        assert len(np.unique(cut_off.columns)) == n
        assert cut_off.dual <= case.optimum() + 1e-9 * (1 + case.energy)
        again = solve(rows, columns, solver, column_duals=cut_off.column_duals, **options)
        assert again.primal == pytest.approx(case.optimum(), rel=1e-6, abs=1e-6 * case.energy)


@pytest.mark.parametrize("longer", ["rows", "columns", "both"])
def test_a_few_columns_left_over_and_a_few_far_longer(longer: str) -> None:
    """Stand-ins take the longest columns, whose duals would leave the others' no digits."""
    generator = np.random.default_rng(7)
    for _ in range(60):
        m = int(generator.integers(9, 60))
        n = m - int(generator.integers(1, 1 + m // 8))
        rows, columns = draw_factors(generator, "reals", n, m, int(generator.integers(1, 9)))
        sides = {"rows": [rows], "columns": [columns], "both": [rows, columns]}
        for side in sides[longer]:
            side[generator.integers(0, n, 2)] *= 10.0 ** generator.integers(1, 9)
        found = solve(rows, columns, Certified(shortlist=3))
        costs = Case(torch.from_numpy(rows), torch.from_numpy(columns)).costs
        lowered = costs - costs.min(axis=1, keepdims=True)  # so that long rows leave scipy digits
        best = costs[linear_sum_assignment(lowered)].sum()
        assert found.optimal
        assert found.primal == pytest.approx(best, rel=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_small_problems() -> None:
    generator = np.random.default_rng(10_000)
    for _ in range(10_000):
        check(draw(generator, 25), solver_of(generator, 6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held", [True, False])
def test_larger_problems_of_every_kind(
    kind: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where products are made again each time they are needed, as at sizes beyond memory."""
    if not held:
        monkeypatch.setattr(certified, "HELD_BYTES", 0)
    monkeypatch.setattr(shortlists, "ENTRIES_PER_BLOCK", 0)  # as few rows a block as there can be
    generator = np.random.default_rng(KINDS.index(kind))
    for _ in range(5):
        check(draw(generator, 300, kind), solver_of(generator, 20))


@pytest.mark.parametrize("kind", ["persisting", "dead", "clusters"])
def test_agrees_with_scipy_where_many_blocks_are_needed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortlists, "ENTRIES_PER_BLOCK", 1500 * 64)
    assert shortlists.block_rows(products_of("reals", torch.float32, 1500, 1500)[0]) == 64
    rows, columns = (
        torch.from_numpy(f) for f in draw_factors(np.random.default_rng(3), kind, 1500, 1500, 24)
    )
    found = solve(rows, columns, Certified())
    costs = pair_costs(rows, columns)
    i, j = linear_sum_assignment(costs)
    assert found.primal == pytest.approx(costs[i, j].sum(), rel=1e-12)
    assert found.optimal
    assert found.certain.mean() > 0.5
    assert (found.columns == j)[found.certain].all()


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_and_scan_change_no_pair(precision: str, scan: str) -> None:
    rows, columns = random_factors(400, 430, 12, seed=5)
    two = solve(rows, columns, Certified(precision=precision, scan=scan))
    assert two.columns.tolist() == linear_sum_assignment(pair_costs(rows, columns))[1].tolist()
    assert two.details["precision"] == precision


@pytest.mark.parametrize(("n", "m"), [(40, 40), (150, 150), (150, 160)])
def test_margins_are_close_to_what_forbidding_a_pair_costs(n: int, m: int) -> None:
    """Pairs whose alternatives are all far away: of these only a bound is known, not each one's cost."""
    rows, noise = random_factors(n, m, 24, seed=n)
    columns = noise.clone()
    columns[:n] = rows + 0.5 * noise[:n]
    found = solve(rows, columns, Certified())
    costs = pair_costs(rows, columns)
    least = costs[linear_sum_assignment(costs)].sum()
    shares = []
    for i in range(0, n, n // 20):
        without = costs.copy()
        without[i, found.columns[i]] = 1e6
        shares.append(found.margins[i] / (without[linear_sum_assignment(without)].sum() - least))
    assert max(shares) <= 1 + 1e-9
    assert np.median(shares) > 0.7


def test_wide_problems_start_with_wanted_columns_priced_down() -> None:
    """Columns left free below their price are searched from with the sides changed."""
    generator = np.random.default_rng(0)
    rows, columns = draw_factors(generator, "dead", 200, 260, 10)
    case = Case(torch.from_numpy(rows), torch.from_numpy(columns))
    for shortlist in (1, 4, 300):
        check(case, Certified(shortlist=shortlist))
    check(dataclasses.replace(case, options={"row_prices": 3.0}), Certified(shortlist=2))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("m", [2, 3, 700])
def test_few_rows(n: int, m: int) -> None:
    rows, columns = random_factors(n, m, 3, seed=m)
    check(Case(rows, columns), Certified())


# ---------------------------------------------------------------- budgets and checkpoints


@pytest.mark.parametrize("options", [{}, {"row_prices": 5.0}, {"forbidden": np.array([[0, 0]])}])
def test_a_time_budget_of_nothing_still_gives_a_matching_and_a_true_gap(options: dict) -> None:
    rows, columns = random_factors(900, 900, 8, seed=1)
    found = solve(rows, columns, Certified(seconds=0.0), **options)
    assert found.stopped == "time budget"
    assert not found.optimal
    checked = verify(rows, columns, found, **options)
    assert checked.ok, checked.faults
    assert found.dual <= solve(rows, columns, Certified(), **options).primal <= found.primal


def test_a_search_cut_short_keeps_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock runs out between two rounds: nearly all rows are matched as in the optimum."""
    rows, columns = random_factors(800, 800, 12, seed=2)
    best = solve(rows, columns, Certified())
    left = iter([True] * 9)
    monkeypatch.setattr(certified._Run, "allows", lambda self, seconds=0.0: next(left, False))
    found = solve(rows, columns, Certified(shortlist=4))
    assert found.stopped == "time budget"
    assert (found.columns == best.columns).mean() > 0.5
    assert 0 < found.gap < 0.5
    assert verify(rows, columns, found).ok
    monkeypatch.undo()
    for duals, rounds in ((found.column_duals, np.inf), (best.column_duals, 1)):
        again = solve(rows, columns, Certified(), column_duals=duals)
        assert again.columns.tolist() == best.columns.tolist()
        assert again.details["rounds"] <= rounds


def test_a_memory_budget_is_kept() -> None:
    rows, columns = random_factors(600, 600, 6, seed=3)
    found = solve(rows, columns, Certified(shortlist=2, memory=60_000))
    assert found.stopped == "memory budget"
    assert not found.details["held"]
    assert verify(rows, columns, found).ok
    assert found.gap > 1e-6


def test_a_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    rows, columns = random_factors(700, 700, 10, seed=4)
    kept = tmp_path / "duals.npz"
    found = solve(rows, columns, Certified(shortlist=4, checkpoint=kept))
    assert found.details["rounds"] > 1
    again = solve(rows, columns, Certified(checkpoint=kept))
    assert again.columns.tolist() == found.columns.tolist()
    assert again.details["rounds"] < found.details["rounds"]
    assert [path.name for path in tmp_path.iterdir()] == ["duals.npz"]
    with pytest.raises(InputError, match="another"):
        solve(rows * 2, columns, Certified(checkpoint=kept))
    whole = kept.read_bytes()
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for other in (b"", b"no archive", whole[: len(whole) // 2], array.getvalue()):
        kept.write_bytes(other)
        with pytest.raises(InputError, match="delete it"):
            solve(rows, columns, Certified(checkpoint=kept))


@pytest.mark.parametrize("budget", [{"seconds": -1.0}, {"memory": 0}, {"seconds": float("nan")}])
def test_budgets_that_are_none(budget: dict) -> None:
    with pytest.raises(UsageError, match="budget"):
        Certified(**budget)


# ---------------------------------------------------------------- bounds of products and lists


def products_of(
    kind: str, dtype: torch.dtype, n: int = 60, m: int = 90, d: int = 33
) -> tuple[Products, np.ndarray]:
    rows, columns = draw_factors(np.random.default_rng(1), kind, n, m, d)
    if kind == "dead":
        rows[0], columns[1] = 1e-30 * rows[0], 0
    costs = SquaredDistances.of(torch.from_numpy(rows), torch.from_numpy(columns))
    return Products.of(costs, dtype), pair_costs(costs.rows, costs.columns)


DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_keys_bound_costs_from_below_and_not_by_much(kind: str, dtype: torch.dtype) -> None:
    products, exact = products_of(kind, dtype)
    v = np.random.default_rng(2).normal(size=products.m)
    block = products.block(slice(0, products.n))
    dots = block.double().numpy()
    keys = products.offsets(v) - 2 * dots - 2 * slope(block) * np.abs(dots)
    bound = keys + products.row_terms(slice(0, products.n))[:, None]
    # What float32 keys are rounded by is part of the promise; here they are in float64.
    assert (bound <= exact - v + 1e-12 * np.abs(exact).max()).all()
    size = products.row_norms[:, None] + products.column_norms + np.abs(v)
    loss = {torch.float32: 1e-4, torch.bfloat16: 0.03}[dtype]
    assert (exact - v - bound <= loss * size + 1e-30).all()


def test_far_from_zero_factors_are_centred() -> None:
    products, _ = products_of("offset", torch.float32)
    assert products.costs.centre is not None
    assert products.row_norms.max() < 100
    plain, _ = products_of("reals", torch.float32)
    assert plain.costs.centre is None
    assert plain.rows is plain.costs.rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("count", [1, 5, 90])
def test_what_a_shortlist_leaves_out_costs_at_least_its_bound(
    kind: str, dtype: torch.dtype, compiled: bool, count: int
) -> None:
    products, exact = products_of(kind, dtype)
    products = dataclasses.replace(products, compiled=compiled)
    v = np.random.default_rng(3).normal(size=products.m)
    rows = np.arange(7, 31)
    tolerance = 1e-12 * (np.abs(exact).max() + np.abs(v).max())
    for found in (
        lowest_of_block(
            products, products.block(torch.from_numpy(rows)), rows, products.offsets(v), count
        ),
        lowest_in_double(products, rows, v, count),
    ):
        for row, i in enumerate(rows):
            kept = found.columns[row, : found.kept[row]]
            assert len(set(kept.tolist())) == len(kept) >= count
            others = np.delete(exact[i] - v, kept)
            assert found.rest[row] <= others.min(initial=np.inf) + tolerance
            if count == 90:
                assert len(kept) == 90
                assert found.rest[row] == np.inf


def test_lists_hold_exact_costs_and_matched_columns() -> None:
    products, exact = products_of("reals", torch.bfloat16)
    forbidden = Forbidden.of(np.array([[3, 4], [3, 5], [8, 0]]), products.n, products.m)
    lists = Shortlists(products, forbidden, 4)
    v = np.zeros(products.m)
    assert lists.make_all(v, lambda: True) == products.n
    column_of = np.full(products.n, -1)
    column_of[[3, 9]] = [80, 81]
    for asked in (4, 16, 90):
        lists.asked[:] = asked
        lists.make(np.array([3, 8, 9, 20]), v, column_of)
        for i in range(products.n):
            part = slice(lists.start[i], lists.start[i] + lists.length[i])
            columns, costs = lists.columns[part], lists.costs[part]
            barred = forbidden.contains(np.full(len(columns), i), columns)
            np.testing.assert_allclose(costs[~barred], exact[i, columns[~barred]], rtol=1e-12)
            assert np.isinf(costs[barred]).all()
            assert column_of[i] < 0 or column_of[i] in columns
    assert lists.size == lists.length.sum()


@pytest.mark.parametrize(
    ("known", "dtype"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_the_fastest_precision_is_asked_of_the_processor(
    known: dict, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert fastest_dtype(torch.device("cpu")) == dtype
    assert fastest_dtype(torch.device("cuda")) == torch.bfloat16


# ---------------------------------------------------------------- input


def test_prices_and_pairs_that_make_no_problem() -> None:
    rows, columns = random_factors(4, 5, 2, seed=0)
    for options, message in (
        ({"row_prices": np.ones(3)}, "row_prices or 4"),
        ({"row_prices": float("nan")}, "NaN"),
        ({"column_prices": -np.inf}, "-inf"),
        ({"column_prices": np.inf}, "finite column_prices"),
        ({"forbidden": np.array([[0, 5]])}, "columns below 5"),
        ({"forbidden": np.array([[0.0, 1.0]])}, "integers"),
        ({"forbidden": np.array([[0, j] for j in range(5)])}, "row 0"),
    ):
        with pytest.raises(UsageError, match=message):
            solve(rows, columns, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    rows, columns = (factors.to(dtype) for factors in random_factors(50, 60, 4, seed=2))
    found = solve(rows, columns, Certified())
    expected = linear_sum_assignment(pair_costs(rows, columns))[1]
    assert found.columns.tolist() == expected.tolist()
    assert verify(rows, columns, found).ok


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_dead_features_with_columns_left_over_are_proven(precision: Any, seed: int) -> None:
    """Columns' own searches made new lists whose coarse bounds lay below what was known already."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(300, 16, generator=generator)
    columns = torch.randn(500, 16, generator=generator)
    rows[torch.rand(300, generator=generator) < 0.3] *= 1e-5
    columns[torch.rand(500, generator=generator) < 0.3] *= 1e-5
    found = solve(rows, columns, Certified(precision=precision))
    assert found.gap <= 1e-12
    assert verify(rows, columns, found).ok


@pytest.mark.parametrize("price", [1e3, 1e12, 1e20])
def test_prices_far_above_every_cost_lose_nothing(price: float) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(60, 8, generator=generator) for _ in range(2))
    without = solve(rows, columns, Certified())
    found = solve(rows, columns, Certified(), column_prices=price)
    assert (found.columns == without.columns).all()
    assert found.gap <= 1e-12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shortlist": 0}, "shortlist from 1"),
        ({"memory_share": -1.0}, "memory_share above 0"),
        ({"precision": "float16"}, "expected a precision of auto, float32, bfloat16"),
        ({"scan": "x"}, "expected a scan of auto, compiled, torch"),
    ],
)
def test_settings_that_there_are_not(settings: dict[str, Any], said: str) -> None:
    # The constructor's own types are checked in tests, before it can say so itself.
    with pytest.raises(UsageError, match=said):
        Certified.__post_init__(types.SimpleNamespace(**{**vars(Certified()), **settings}))


@pytest.mark.parametrize("duals", [np.full(60, np.nan), np.zeros(59), np.zeros(())])
def test_column_duals_that_are_none(duals: np.ndarray) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(60, 8, generator=generator) for _ in range(2))
    with pytest.raises(UsageError, match="60 finite column_duals"):
        solve(rows, columns, Certified(), column_duals=duals)
