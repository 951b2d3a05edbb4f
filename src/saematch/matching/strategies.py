"""Ways to find a permutation from weights alone, what they compare, and what it costs to leave a feature
without a partner.

A feature's parts lie side by side in one row of a factor matrix: decoder row, encoder column, encoder
bias, each times the square root of its weight.  The cost of a pair is the squared distance of two
such rows.

A complete matching pairs every feature, however far its partner.  With an unmatched cost p
a pair is made only where the total is lower with it; alone, a pair that costs more than p is not.
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from saematch.assignment import Assignment, Certified, solve
from saematch.assignment.costs import SquaredDistances, full_precision
from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Permutation, inverse
from saematch.sae import FoldedSAE, fold_thresholds
from saematch.types import Degenerate

ROWS_PER_BLOCK = 128
ROWS_PER_PRODUCT = 1024
PAIRS_AT_A_TIME = 4096


def features_of(sae: FoldedSAE, degenerate: Degenerate = "apart") -> Int64[np.ndarray, " features"]:
    """The features that the problem with a proof is about: those not degenerate, or (`together`) all."""
    if degenerate == "together":
        return np.arange(sae.d_sae)
    return np.flatnonzero(~sae.sae.degenerate.numpy())


def factors(
    sae: FoldedSAE,
    weights: Mapping[str, float],
    features: np.ndarray | None = None,
    keep: bool = True,
) -> Float[Tensor, "features width"]:
    """One row a feature, whose squared distances are the costs of pairs; `features`: some, not all.

    `keep`: the last one of each SAE stays as long as the SAE does: every pair that it is part of needs it.
    """
    if features is not None and len(features) == sae.d_sae:
        features = None
    key = (tuple(weights.items()), None if features is None else features.tobytes())
    kept = _KEPT.get(sae)
    if kept is None or kept[0] != key:
        kept = key, _laid_out(sae, weights, features)
        if keep:
            _KEPT[sae] = kept
    return kept[1]


_KEPT: "WeakKeyDictionary[FoldedSAE, tuple[tuple, Tensor]]" = WeakKeyDictionary()


def _laid_out(
    sae: FoldedSAE, weights: Mapping[str, float], features: np.ndarray | None
) -> Float[Tensor, "features width"]:
    some = slice(None) if features is None else torch.from_numpy(features)
    columns = {
        "decoder": lambda: sae.W_dec[some],
        "encoder": lambda: sae.W_enc.T[some],
        "bias": lambda: sae.b_enc[some, None],
    }
    widths = {"decoder": sae.d_model, "encoder": sae.d_model, "bias": 1}
    count = sae.d_sae if features is None else len(features)
    out = torch.empty(count, sum(widths[part] for part in weights))
    start = 0
    for part, weight in weights.items():
        torch.mul(columns[part](), math.sqrt(weight), out=out[:, start : start + widths[part]])
        start += widths[part]
    return out


def solved_sides(a: FoldedSAE, b: FoldedSAE, raw: bool) -> tuple[FoldedSAE, FoldedSAE]:
    """The weights on which an assignment problem is solved: as folded, or raw."""
    if not raw:
        return a, b
    return fold_thresholds(a.sae, "none"), fold_thresholds(b.sae, "none")


@dataclass(frozen=True, eq=False)
class Problem:
    """The assignment problem between some features of A and some of B; the fewer make its rows.

    Where those are B's features they may stay free for nothing, and A's columns have the price.
    """

    of_a: Int64[np.ndarray, " n_a"]
    """Features of A, ascending."""
    of_b: Int64[np.ndarray, " n_b"]
    rows: Float[Tensor, "n width"]
    columns: Float[Tensor, "m width"]
    prices: dict[str, Any]

    @classmethod
    def of(
        cls,
        a: FoldedSAE,
        b: FoldedSAE,
        of_a: np.ndarray,
        of_b: np.ndarray,
        weights: Mapping[str, float],
        unmatched_cost: float | np.ndarray | None,
        keep: bool = True,
    ) -> "Problem":
        """`unmatched_cost`: the price of leaving a feature of A unmatched, or [d_a] of them."""
        if isinstance(unmatched_cost, np.ndarray):
            unmatched_cost = unmatched_cost[of_a]
        rows, columns = factors(a, weights, of_a, keep), factors(b, weights, of_b, keep)
        if len(of_a) <= len(of_b):
            return cls(of_a, of_b, rows, columns, {"row_prices": unmatched_cost})
        free = None if unmatched_cost is None else 0.0
        prices = {"row_prices": free, "column_prices": unmatched_cost}
        return cls(of_a, of_b, columns, rows, prices)

    @property
    def a_makes_rows(self) -> bool:
        return len(self.of_a) <= len(self.of_b)

    def partners(self, found: Assignment) -> tuple[np.ndarray, np.ndarray]:
        """Partner in B, or -1, and margin of each of `of_a`."""
        if self.a_makes_rows:
            partner, margin = found.columns, found.margins
        else:
            partner = inverse(found.columns, len(self.of_a))
            margin = np.full(len(self.of_a), np.nan)
            matched = found.columns != UNMATCHED
            margin[found.columns[matched]] = found.margins[matched]
        return np.where(partner == UNMATCHED, UNMATCHED, self.of_b[partner]), margin

    def rows_of(self, permutation: Permutation) -> Int64[np.ndarray, " n"]:
        """A permutation of A's features as the column of each row."""
        of_b = permutation[self.of_a]
        inside = np.isin(of_b, self.of_b)
        column = np.where(inside, np.searchsorted(self.of_b, of_b), UNMATCHED)
        column[column == len(self.of_b)] = UNMATCHED
        return column if self.a_makes_rows else inverse(column, len(self.of_b))


def proven_problem(
    a: FoldedSAE,
    b: FoldedSAE,
    weights: Mapping[str, float],
    unmatched_cost: float | np.ndarray | None,
    degenerate: Degenerate,
) -> Problem | None:
    """What `match` solves and proves; None where one side has no features for it.

    `apart`: the features that are not degenerate.  `together`: all features.
    """
    taken = features_of(a, degenerate), features_of(b, degenerate)
    if not all(len(features) for features in taken):
        return None
    return Problem.of(a, b, *taken, weights, unmatched_cost)


def rest_problem(
    a: FoldedSAE,
    b: FoldedSAE,
    permutation: Permutation,
    weights: Mapping[str, float],
    unmatched_cost: float | np.ndarray | None,
) -> Problem | None:
    """`together`: the features that are not degenerate and have no degenerate partner, as a problem of
    their own; None where one side has none."""
    out_a, out_b = (side.sae.degenerate.numpy().copy() for side in (a, b))
    matched = np.flatnonzero(permutation != UNMATCHED)
    partner = permutation[matched]
    out_a[matched[out_b[partner]]] = True
    out_b[permutation[matched[out_a[matched]]]] = True
    taken = np.flatnonzero(~out_a), np.flatnonzero(~out_b)
    if not all(len(features) for features in taken):
        return None
    return Problem.of(a, b, *taken, weights, unmatched_cost, keep=False)


@dataclass(frozen=True, eq=False)
class Assigned:
    """What was found, and its proofs."""

    permutation: Permutation
    margin: Float64[np.ndarray, " d_a"]
    proof: Assignment | None
    without_degenerate: Assignment | None = None
    """`together`: the proof of `rest_problem`."""


def assign(
    a: FoldedSAE,
    b: FoldedSAE,
    weights: Mapping[str, float],
    solver: Certified | None = None,
    unmatched_cost: float | np.ndarray | None = None,
    column_duals: np.ndarray | None = None,
    degenerate: Degenerate = "apart",
) -> Assigned:
    """The permutation of least total cost, each feature of A's margin, and the proof.

    `apart`: 1. The features that are not degenerate are matched, with a proof.  2. What is left over is
    matched likewise, without one: if there is no price, everything that is left on both sides, so that
    the smaller side is matched completely; at a price, degenerate features alone, since whether another
    one lives or dies was settled by 1.

    `together`: 1. All features are matched, with a proof.  2. The pairs without degenerate features are
    solved again on their own, with a proof: costs of 1e16 and more leave float64 no digits for theirs.
    """
    started = time.perf_counter()
    permutation = np.full(a.d_sae, UNMATCHED)
    margin = np.full(a.d_sae, np.nan)
    found = None
    problem = proven_problem(a, b, weights, unmatched_cost, degenerate)
    if problem is not None:
        found = solve(
            problem.rows, problem.columns, solver, **problem.prices, column_duals=column_duals
        )
        permutation[problem.of_a], margin[problem.of_a] = problem.partners(found)
    solver = _for_the_rest(solver, time.perf_counter() - started)
    if degenerate == "together":
        assert problem is not None
        assert found is not None
        rest = rest_problem(a, b, permutation, weights, unmatched_cost)
        if rest is None:
            return Assigned(permutation, margin, found)
        again = solve(rest.rows, rest.columns, solver, **rest.prices)
        permutation[rest.of_a] = rest.partners(again)[0]
        found = _moved(problem, found, permutation)
        margin[problem.of_a] = problem.partners(found)[1]
        return Assigned(permutation, margin, found, again)
    if unmatched_cost is None:
        left_a = np.flatnonzero(permutation == UNMATCHED)
        left_b = np.setdiff1d(np.arange(b.d_sae), permutation)
    else:
        left_a, left_b = (np.flatnonzero(side.sae.degenerate.numpy()) for side in (a, b))
    if len(left_a) and len(left_b):
        rest = Problem.of(a, b, left_a, left_b, weights, unmatched_cost, keep=False)
        again = solve(rest.rows, rest.columns, solver, **rest.prices)
        permutation[left_a] = rest.partners(again)[0]
    return Assigned(permutation, margin, found)


def _moved(problem: Problem, found: Assignment, permutation: Permutation) -> Assignment:
    """The same duals, for other pairs; of pairs that are new nothing is known of their margins."""
    columns = problem.rows_of(permutation)
    moved = columns != found.columns
    if not moved.any():
        return found
    matched = np.flatnonzero(columns != UNMATCHED)
    free = np.setdiff1d(np.arange(len(problem.columns)), columns)
    row_prices, column_prices = (
        np.broadcast_to(0.0 if price is None else price, len(side))
        for price, side in (
            (problem.prices.get("row_prices"), problem.rows),
            (problem.prices.get("column_prices"), problem.columns),
        )
    )
    costs = SquaredDistances.of(problem.rows, problem.columns)
    pairs = costs.exact(torch.from_numpy(matched), torch.from_numpy(columns[matched]))
    paid = [*row_prices[columns == UNMATCHED].tolist(), *column_prices[free].tolist()]
    primal = math.fsum([*pairs.tolist(), *paid])
    margins = np.where(moved, 0.0, found.margins)
    return dataclasses.replace(found, columns=columns, primal=primal, margins=margins)


def _for_the_rest(solver: Certified | None, spent: float) -> Certified | None:
    """The solver of what is left over: within what is left of the budget, and not at its checkpoint."""
    if solver is None:
        return None
    seconds = None if solver.seconds is None else max(0.0, solver.seconds - spent)
    return dataclasses.replace(solver, seconds=seconds, checkpoint=None)


def random_permutation(d_a: int, d_b: int, seed: int) -> Permutation:
    """One-to-one, by `seed`; where A is larger, the same features of A have a partner in every draw, so
    that draws can be compared."""
    generator = np.random.default_rng(seed)
    if d_a <= d_b:
        return generator.permutation(d_b)[:d_a].astype(np.int64)
    permutation = np.full(d_a, UNMATCHED, dtype=np.int64)
    permutation[np.random.default_rng(0).permutation(d_a)[:d_b]] = generator.permutation(d_b)
    return permutation


def unit_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows at unit norm; zero rows stay zero."""
    return torch.nn.functional.normalize(rows.float(), dim=1, eps=1e-30)


def pair_cosines(
    a: Float[Tensor, "d_a d"],
    b: Float[Tensor, "d_b d"],
    i: Int64[Tensor, " pairs"],
    j: Int64[Tensor, " pairs"],
) -> Float64[Tensor, " pairs"]:
    """Cosines of rows i of one with rows j of the other, in float64; 0 for a row of zeros."""
    found = []
    for some, others in zip(i.split(PAIRS_AT_A_TIME), j.split(PAIRS_AT_A_TIME), strict=True):
        one, other = a[some].double(), b[others].double()
        norms = one.norm(dim=1) * other.norm(dim=1)
        found.append((one * other).sum(dim=1) / torch.where(norms > 0, norms, 1.0))
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)


def nearest_by_cosine(
    a: Float[Tensor, "d_a d_model"], b: Float[Tensor, "d_b d_model"]
) -> Permutation:
    """Row-wise argmax of the cosine; equal cosines go by the lower feature, zero rows to the first.

    A float32 product can give equal rows unequal values, so whatever is within its rounding error of
    the greatest is evaluated again in float64.
    """
    unit_a, unit_b = unit_rows(a), unit_rows(b)
    tolerance = 1.01 * (a.shape[1] + 2) * torch.finfo(torch.float32).eps
    nearest = np.zeros(len(a), dtype=np.int64)
    for start in range(0, len(a), ROWS_PER_PRODUCT):
        rows = unit_a[start : start + ROWS_PER_PRODUCT]
        with full_precision():
            cosine = rows @ unit_b.T
        near = cosine >= cosine.amax(dim=1, keepdim=True) - tolerance
        i, j = (near & rows.any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        exact = [
            (rows[some].double() * unit_b[others]).sum(dim=1)
            for some, others in zip(i.split(ROWS_PER_BLOCK), j.split(ROWS_PER_BLOCK), strict=True)
        ]
        if exact:
            order = np.lexsort((j.numpy(), -torch.cat(exact).numpy(), i.numpy()))
            row, first = np.unique(i.numpy()[order], return_index=True)
            nearest[start + row] = j.numpy()[order[first]]
    return nearest


Unmatched = float | Sequence[float] | np.ndarray
"""A price for all features of A, or one for each."""
RANDOM_PAIRS = 1 << 16


def random_pair_costs(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], seed: int = 0
) -> Float64[np.ndarray, " pairs"]:
    """Costs of random pairs of live features, ascending: what a pair costs by chance."""
    generator = np.random.default_rng(seed)
    live = [np.flatnonzero(np.array(side.sae.status, dtype=object) == "live") for side in (a, b)]
    if not all(len(features) for features in live):
        raise UsageError("expected live features on both sides to draw random pairs from, got none")
    i, j = (generator.choice(features, RANDOM_PAIRS) for features in live)
    taken = features_of(a), features_of(b)
    i, j = (np.searchsorted(of, drawn) for of, drawn in zip(taken, (i, j), strict=True))
    costs = SquaredDistances.of(factors(a, weights, taken[0]), factors(b, weights, taken[1]))
    return np.sort(costs.exact(torch.from_numpy(i), torch.from_numpy(j)).numpy())


def prices(unmatched_cost: Unmatched | None, a: FoldedSAE) -> float | np.ndarray | None:
    """The price or prices [d_a] that `unmatched_cost` stands for, in the units of the cost.

    Raises UsageError for text, a negative price, NaN, or another number of them than d_a.
    """
    if unmatched_cost is None:
        return None
    if isinstance(unmatched_cost, str):
        raise UsageError(
            f"expected numbers as unmatched cost, got {unmatched_cost!r}; saematch.fates says which features "
            "have no partner, and price_curve what each price does"
        )
    given = np.asarray(unmatched_cost, dtype=np.float64)
    if given.shape not in ((), (a.d_sae,)):
        raise UsageError(f"expected one unmatched cost or {a.d_sae}, got shape {list(given.shape)}")
    if not (given >= 0).all() or not np.isfinite(given).all():
        raise UsageError(
            "expected finite unmatched costs from 0 on, got negative or non-finite ones"
        )
    return float(given) if given.ndim == 0 else given
