"""Degenerate features are matched apart: they take nothing from the others and say nothing of them.

The law: adding degenerate features to either side changes nothing at all about the pairs, margins and
proof of the others, bit for bit, as long as the others keep their status, which the median threshold of
all features decides.  `together` is the problem with all features, and its gap is true of the others too.
"""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from saematch import (
    SAE,
    Certified,
    UsageError,
    fold_thresholds,
    match,
    solve,
    verify,
    verify_matching,
)
from saematch.matching.correspondence import Correspondence
from saematch.matching.strategies import factors
from saematch.pipelines.matching.stages import nearest
from saematch.sae import Firing
from saematch.types import PARTS, part_weights

WEIGHTS = part_weights(PARTS)


def with_degenerate(sae: SAE, places: list[int], exponents: list[int], seed: int) -> SAE:
    """`sae` with features at some places of the new one whose thresholds are far below the median's.

    The exponent scales their weights, before folding multiplies and divides them by the threshold.
    """
    g = torch.Generator().manual_seed(seed)
    count = sae.d_sae + len(places)
    old = np.setdiff1d(np.arange(count), places)
    new = np.array(places, dtype=np.int64)
    size = 10.0 ** torch.tensor(exponents, dtype=torch.float32)

    def rows(values: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        out = torch.empty(count, *values.shape[1:])
        out[old], out[new] = values, drawn
        return out

    d = sae.d_model
    assert sae.threshold is not None
    wide = rows(sae.W_enc.T, size[:, None] * torch.randn(len(new), d, generator=g)).T
    return dataclasses.replace(
        sae,
        W_enc=wide.contiguous(),
        W_dec=rows(sae.W_dec, size[:, None] * torch.randn(len(new), d, generator=g)),
        b_enc=rows(sae.b_enc, size * torch.randn(len(new), generator=g)),
        threshold=rows(sae.threshold, 10.0 ** -(2 + 6 * torch.rand(len(new), generator=g))),
    )


@st.composite
def added(draw: st.DrawFn, size: int) -> tuple[list[int], list[int]]:
    """Fewer than half, so that the median keeps to the others."""
    count = draw(st.integers(0, max(0, size // 2 - 1)))
    places = draw(st.permutations(range(size + count)))[:count]
    exponents = draw(st.lists(st.integers(-12, 12), min_size=count, max_size=count))
    return sorted(places), exponents


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6), strategy=st.sampled_from(["folded", "unfolded"]))
def test_adding_degenerate_features_changes_nothing_about_the_others(
    data: st.DataObject, seed: int, strategy: str
) -> None:
    d_a, d_b = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 15))
    parts = data.draw(st.sampled_from([PARTS, ("decoder",), ("encoder", "bias")]))
    price = data.draw(st.sampled_from([None, None, 1.0, 3.0, "each"]))
    a, b = make_sae(d_a, 5, seed), make_sae(d_b, 5, seed + 1)
    (new_a, sizes_a), (new_b, sizes_b) = data.draw(added(d_a)), data.draw(added(d_b))
    wide_a = with_degenerate(a, new_a, sizes_a, seed)
    wide_b = with_degenerate(b, new_b, sizes_b, seed + 2)
    old_a = np.setdiff1d(np.arange(wide_a.d_sae), new_a)
    old_b = np.setdiff1d(np.arange(wide_b.d_sae), new_b)
    for wide, new in ((wide_a, new_a), (wide_b, new_b)):
        assert np.flatnonzero(wide.degenerate).tolist() == new
    prices = {"unmatched_cost": price}, {"unmatched_cost": price}
    if price == "each":
        each = np.linspace(1, 9, d_a)
        every = np.full(wide_a.d_sae, 2.5)
        every[old_a] = each
        prices = {"unmatched_cost": each}, {"unmatched_cost": every}
    options = {"parts": parts, "strategy": strategy}
    plain = match(a, b, **options, **prices[0])
    found = match(wide_a, wide_b, **options, **prices[1])
    partner = found.permutation[old_a]
    among = np.isin(partner, old_b)
    position = np.where(among, np.searchsorted(old_b, partner).clip(max=d_b - 1), -1)
    assert position.tolist() == plain.permutation.tolist()
    np.testing.assert_array_equal(found.margin[old_a], plain.margin)
    np.testing.assert_array_equal(found.certain[old_a], plain.certain)
    np.testing.assert_array_equal(found.cost[old_a][among], plain.cost[plain.matched])
    assert (found.gap, found.slack) == (plain.gap, plain.slack)
    assert found.assignment.primal == plain.assignment.primal
    np.testing.assert_array_equal(found.assignment.row_duals, plain.assignment.row_duals)
    assert found.shares == pytest.approx(plain.shares)
    assert np.isnan(found.margin[new_a]).all()
    assert not found.certain[new_a].any()
    matched = found.permutation[found.matched]
    assert len(set(matched.tolist())) == len(matched)
    if price is None:
        assert len(matched) == min(wide_a.d_sae, wide_b.d_sae)
    else:
        assert set(np.flatnonzero(found.matched & ~np.isin(np.arange(wide_a.d_sae), old_a))) <= set(
            new_a
        )
        assert np.isin(found.permutation[new_a], [-1, *new_b]).all()
    assert verify_matching(wide_a, wide_b, found).ok


def tiny_threshold(d_sae: int, theta: float, seed: int, d_model: int = 16) -> SAE:
    sae = make_sae(d_sae, d_model, seed)
    assert sae.threshold is not None
    threshold = sae.threshold.clone()
    threshold[d_sae // 3] = theta
    return dataclasses.replace(sae, threshold=threshold)


def costs_of(a: SAE, b: SAE) -> np.ndarray:
    one, two = (factors(fold_thresholds(sae), WEIGHTS).double().numpy() for sae in (a, b))
    return np.stack([np.square(row - two).sum(axis=1) for row in one])


@pytest.mark.parametrize(("d_sae", "theta"), [(200, 1e-8), (900, 1e-12)])
@pytest.mark.parametrize("way", ["apart", "together"])
@pytest.mark.parametrize("both", [False, True])
def test_one_tiny_threshold_hides_no_error(d_sae: int, theta: float, way: str, both: bool) -> None:
    a = tiny_threshold(d_sae, theta, 0)
    b = tiny_threshold(d_sae, theta, 1) if both else make_sae(d_sae, 16, 1)
    costs = costs_of(a, b)
    found = match(a, b, degenerate=way)
    assert found.optimal
    assert found.gap < 1e-6
    assert verify_matching(a, b, found).ok
    assert sorted(found.permutation.tolist()) == list(range(d_sae))
    live_a, live_b = (np.array(sae.status) == "live" for sae in (a, b))
    if way == "together":
        # The optimum of the pairs that the joint matching has between the others.
        rows = np.flatnonzero(found.counted)
        live_costs = costs[rows][:, found.permutation[rows]]
    else:
        rows, live_costs = np.flatnonzero(live_a), costs[live_a][:, live_b]
    best = live_costs[linear_sum_assignment(live_costs)].sum()
    rows = np.flatnonzero(found.counted)
    assert costs[rows, found.permutation[rows]].sum() == pytest.approx(best, rel=1e-6)
    if way == "apart":
        assert found.assignment.primal == pytest.approx(best, rel=1e-6)


def test_a_swap_of_two_other_pairs_does_not_pass_beside_a_cost_of_1e16() -> None:
    """The proof of the whole alone would still call it optimal to 1e-6."""
    a, b = tiny_threshold(40, 1e-8, 0), make_sae(40, 16, 1)
    found = match(a, b, degenerate="together")
    rest = found.without_degenerate
    others = np.flatnonzero(found.counted)[:2]
    permutation = found.permutation.copy()
    permutation[others] = permutation[others[::-1]]
    costs = costs_of(a, b)
    whole = dataclasses.replace(
        found.assignment,
        columns=permutation,
        primal=float(costs[np.arange(40), permutation].sum()),
        margins=np.zeros(40),
    )
    assert whole.optimal
    wrong = dataclasses.replace(
        found, correspondence=Correspondence.of_permutation(permutation, 40), assignment=whole
    )
    assert verify_matching(a, b, wrong).faults == (
        "the pairs of the matching are not those of its proof",
    )
    more = float(
        costs[others, permutation[others]].sum() - costs[others, found.permutation[others]].sum()
    )
    columns = rest.columns.copy()
    columns[[0, 1]] = columns[[1, 0]]
    owned = dataclasses.replace(
        rest, columns=columns, primal=rest.primal + more, margins=np.zeros(len(columns))
    )
    wrong = dataclasses.replace(wrong, without_degenerate=owned)
    assert verify_matching(a, b, wrong).ok
    assert wrong.gap == owned.gap > 1e-3
    assert not wrong.optimal


def test_an_unknown_way_is_an_error() -> None:
    a = make_sae()
    with pytest.raises(UsageError, match="apart or together"):
        inspect.unwrap(match)(a, a, degenerate="never")


def test_a_side_of_zeros_is_matched_without_a_proof() -> None:
    a, b = make_sae(4, 5, 0), make_sae(6, 5, 1)
    a.W_dec[:] = 0
    found = match(a, b)
    assert found.matched.all()
    assert found.assignment is None
    assert "nothing is proven" in found.notes[0]
    with pytest.raises(UsageError, match="proof"):
        verify_matching(a, b, found)


def test_going_on_from_an_earlier_matching_and_a_budget() -> None:
    a = tiny_threshold(60, 1e-8, 0)
    b = with_degenerate(make_sae(60, 16, 1), [3, 9], [0, 4], 5)
    first = match(a, b, solver=Certified(seconds=0.0))
    assert len(set(first.permutation.tolist())) == 60
    again = match(a, b, start=first, solver=Certified())
    assert again.optimal
    with pytest.raises(UsageError, match="degenerate"):
        match(a, b, start=first, degenerate="together", solver=Certified())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), d_a=st.integers(1, 8), d_b=st.integers(2, 12))
def test_candidates_are_the_nearest_live_features(seed: int, d_a: int, d_b: int) -> None:
    g = np.random.default_rng(seed)
    counts = torch.from_numpy((g.random(d_b) < 0.6).astype(np.int64))
    b = make_sae(d_b, 5, seed + 1, firing=Firing(counts, 100, "made up"))
    b.W_dec[0] = 0
    a = tiny_threshold(d_a, 1e-15, seed, 5) if d_a > 3 else make_sae(d_a, 5, seed)
    found = nearest(fold_thresholds(a), fold_thresholds(b), WEIGHTS, 5)
    live = np.flatnonzero(np.array(b.status) == "live")
    costs = costs_of(a, b)
    count = min(5, len(live))
    for i in range(d_a):
        mine = found["candidate"][found["feature"] == i]
        assert len(set(mine.tolist())) == count
        assert np.isin(mine, live).all()
        np.testing.assert_allclose(costs[i, mine], np.sort(costs[i, live])[:count], rtol=1e-12)
        assert found["rank"][found["feature"] == i].tolist() == list(range(1, count + 1))


def campaign_case(seed: int) -> str | None:
    """One random problem against scipy; what is wrong, or None."""
    g = np.random.default_rng(seed)
    d_a, d_b, d = int(g.integers(1, 13)), int(g.integers(1, 16)), int(g.integers(1, 7))
    if g.random() < 0.5:
        d_a, d_b = d_b, d_a
    sides = []
    for layer, count in enumerate((d_a, d_b)):
        sae = make_sae(count, d, 2 * seed + layer, layer=layer)
        few = int(g.integers(0, 1 + count // 4))
        chosen = g.choice(count, few, replace=False)
        size = torch.from_numpy(10.0 ** g.integers(-12, 13, few)).float()
        sae.W_dec[chosen] *= size[:, None]
        sae.W_enc[:, chosen] *= size
        more = int(g.integers(0, 1 + max(0, count // 2 - 1)))
        places = sorted(g.choice(count + more, more, replace=False).tolist())
        wide = with_degenerate(sae, places, g.integers(-12, 13, more).tolist(), seed)
        sides.append(wide)
    a, b = sides
    parts = part_weights(
        [("decoder",), ("encoder",), PARTS, ("decoder", "bias")][int(g.integers(4))]
    )
    strategy = ("folded", "unfolded")[int(g.integers(2))]
    scale = None if strategy == "folded" else "none"
    one, two = (fold_thresholds(sae, scale) for sae in (a, b))
    kept = [np.flatnonzero(~sae.degenerate.numpy()) for sae in (a, b)]
    left, right = (
        factors(side, parts)[of].double().numpy() for side, of in zip((one, two), kept, strict=True)
    )
    costs = np.square(left[:, None] - right[None]).sum(axis=2)
    price = None
    if g.random() < 0.4:
        price = float(np.quantile(costs, g.random()))

    def least(forbidden: tuple[int, int] | None = None) -> float:
        n, m = costs.shape
        priced = costs.copy()
        bar = 4 * (costs.max() + (price or 0)) + 1
        if forbidden is not None:
            priced[forbidden] = bar * (n + m)
        if price is None:
            return float(priced[linear_sum_assignment(priced)].sum())
        padded = np.hstack([priced, np.where(np.eye(n), price, bar * (n + m))])
        return float(padded[linear_sum_assignment(padded)].sum())

    found = match(a, b, parts=parts, strategy=strategy, unmatched_cost=price)
    best, proof = least(), found.assignment
    close = 1e-6 * abs(best) + 1e-12 * float(np.median(costs))
    if abs(proof.primal - best) > close:
        return f"total {proof.primal}, scipy {best}"
    if proof.dual > best + close or not found.optimal:
        return f"bound {proof.dual} of {best}, gap {found.gap}"
    if price is None and found.matched.sum() != min(a.d_sae, b.d_sae):
        return "not complete"
    if not verify_matching(a, b, found).ok:
        return "not verified"
    position = np.full(b.d_sae, -1)
    position[kept[1]] = np.arange(len(kept[1]))
    for row, i in enumerate(kept[0][:4]):
        partner, margin = found.permutation[i], found.margin[i]
        if partner < 0 or position[partner] < 0 or not np.isfinite(margin):
            continue
        without = least((row, int(position[partner])))
        if without < best + margin * (1 - 1e-6) - found.slack - close:
            return f"margin {margin} of {i}: scipy {without - best}"
    return None


def run_campaign(seeds: range) -> None:
    wrong = {seed: fault for seed in seeds if (fault := campaign_case(seed))}
    print(f"{len(seeds)} problems, {len(wrong)} wrong")
    assert not wrong, dict(list(wrong.items())[:5])


def test_a_few_hundred_random_problems_against_scipy() -> None:
    run_campaign(range(300))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_random_problems_against_scipy() -> None:
    run_campaign(range(10_000))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.integers(0, 9), spread=st.integers(-9, 9))
def test_float64_factors_are_solved_as_given(seed: int, shift: int, spread: int) -> None:
    g = np.random.default_rng(seed)
    n, d = int(g.integers(1, 10)), int(g.integers(1, 5))
    m = n + int(g.integers(0, 4))
    offset = 10.0**shift * g.normal(size=d)
    rows, columns = g.normal(size=(n, d)), g.normal(size=(m, d))
    rows[g.integers(n)] *= 10.0**spread
    rows, columns = rows + offset, columns + offset
    costs = np.square(rows[:, None] - columns[None]).sum(axis=2)
    least = costs[linear_sum_assignment(costs)].sum()
    for solver in (None, Certified()):
        found = solve(rows, columns, solver)
        assert found.primal == pytest.approx(least, rel=1e-9)
        assert found.optimal
        assert verify(rows, columns, found).ok
    rounded = solve(rows.astype(np.float32), columns.astype(np.float32))
    checked = verify(rows, columns, rounded)
    pairs = costs[np.arange(n), rounded.columns].sum()
    if pairs > least * (1 + 1e-6):
        assert not checked.ok or checked.primal - checked.dual > 0


def test_the_offset_of_1e8() -> None:
    rows = 1e8 + np.array([[0.0], [1], [2]])
    columns = 1e8 + np.array([[2.5], [0.5], [1.5]])
    for given_rows, given_columns in (
        (rows, columns),
        (torch.from_numpy(rows), torch.from_numpy(columns)),
    ):
        for solver in (None, Certified()):
            found = solve(given_rows, given_columns, solver)
            assert found.primal == 0.75
            assert verify(given_rows, given_columns, found).ok
    lied = dataclasses.replace(found, columns=np.array([0, 1, 2]), primal=6.75)
    assert not verify(rows, columns, dataclasses.replace(lied, dual=6.75)).ok


def plain() -> tuple[np.ndarray, np.ndarray]:
    g = np.random.default_rng(3)
    return g.normal(size=(6, 3)), g.normal(size=(8, 3))


@pytest.mark.parametrize(
    "kind", ["big-endian", "negative strides", "fortran", "read-only", "float8"]
)
def test_arrays_of_other_kinds_give_the_same(kind: str) -> None:
    rows, columns = plain()
    expected = solve(rows, columns)
    other = {
        "big-endian": lambda x: x.astype(">f8"),
        "negative strides": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        "fortran": np.asfortranarray,
        "read-only": lambda x: np.broadcast_to(x[None], (1, *x.shape))[0],
        "float8": lambda x: torch.from_numpy(x).to(torch.float8_e4m3fn),
    }[kind]
    if kind == "float8":
        expected = solve(other(rows).float(), other(columns).float())
    found = solve(other(rows), other(columns))
    assert found.columns.tolist() == expected.columns.tolist()
    assert found.primal == expected.primal


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda x: torch.from_numpy(x).to_sparse(), "sparse_coo tensor"),
        (lambda x: torch.from_numpy(x).to_sparse_csr(), "sparse_csr tensor"),
        (lambda x: x.astype(np.longdouble), "wider than float64"),
        (lambda x: np.ma.masked_less(x, 0), "masked array"),
        (lambda x: torch.from_numpy(x).to("meta"), "meta"),
        (lambda x: x.astype(object), "object"),
        (lambda x: x.astype(complex), "complex128"),
        (lambda x: torch.nested.nested_tensor([torch.from_numpy(x)]), "nested"),
        (lambda x: x.tolist(), "list"),
    ],
)
def test_what_is_no_dense_matrix_of_floats_is_refused_in_words(make, words) -> None:
    rows, columns = plain()
    found = solve(rows, columns)
    unchecked, checking = inspect.unwrap(solve), inspect.unwrap(verify)
    for one, two in ((make(rows), columns), (rows, make(columns))):
        with pytest.raises(UsageError, match=words):
            unchecked(one, two)
        with pytest.raises(UsageError, match=words):
            checking(one, two, found)
