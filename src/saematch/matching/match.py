"""Match the features of two SAEs from their weights alone (SAE Match).

1. Fold each SAE's thresholds into its weights (sae.py).
2. Lay each feature's parts side by side: decoder row, encoder column, encoder bias, each times the
   square root of its weight.  The cost of a pair is the squared distance of two such rows.
3. Find the pairs by the strategy; `folded` and `unfolded` solve the linear assignment problem of the
   features that are not degenerate, in which a feature may stay unmatched where that has a price, and
   then match what is left over.
4. Measure the pairs on folded weights, whatever found them.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
import torch

from saematch.assignment import Assignment, Certified, Verification, verify
from saematch.errors import UsageError
from saematch.matching.matched import Matching, describe_gap
from saematch.matching.measuring import check_pair, folded, measured
from saematch.matching.permutation import UNMATCHED
from saematch.matching.pricing import Unmatched, prices
from saematch.matching.strategies import (
    Problem,
    assign,
    nearest_by_cosine,
    proven_problem,
    random_permutation,
    rest_problem,
    solved_sides,
)
from saematch.sae import SAE, FoldedSAE
from saematch.types import (
    ASSIGNED,
    DEGENERATE,
    PARTS,
    STRATEGIES,
    Degenerate,
    ScaleKind,
    Strategy,
    part_weights,
)


@torch.no_grad()
def match(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: Strategy = "folded",
    scale: ScaleKind | None = None,
    unmatched_cost: Unmatched | None = None,
    degenerate: Degenerate = "apart",
    solver: Certified | None = None,
    start: Matching | None = None,
    seed: int = 0,
) -> Matching:
    """Match the features of `a` to those of `b`.

    `parts`: which parts enter the cost, or their weights.  `strategy`: `folded` (assignment on folded
    weights), `unfolded` (assignment on raw weights), `naive` (identity), `random` (one-to-one, by
    `seed`), `cosine` (row-wise argmax of decoder cosine; not one-to-one).  `scale`: what to fold (see
    `fold_thresholds`); a FoldedSAE is taken as it is.

    `unmatched_cost`: the price of leaving a feature of `a` without a partner, one number or [d_a], in
    the units of the cost that is solved; `auto`: the cost that one in a hundred random pairs of live
    features stays below.  None: the smaller side is matched completely.  With a price a pair is made
    only where it is worth it: features of `a` die, and features of `b` are born.

    `degenerate`: `apart`: features of status degenerate are matched after the others, to what these left
    over; they take no other feature's partner and have no part in total, gap, slack and margins (their
    own margin is NaN, and none is certain).  At a price they are matched with one another alone.
    `together`: the paper's literal problem, all features at once; its gap is the greater of those with
    and without the degenerate features' pairs.

    `solver`: see `saematch.solve`.  `start`: an earlier matching of the same pair, such as one that
    stopped at a time budget: the solver goes on from its column duals.

    Raises UsageError for SAEs of different d_model, for unknown parts or strategies, for `naive` where
    d_sae differ, for a price with a strategy that solves no assignment problem, and for another way with
    degenerate features than these two.
    """
    if degenerate not in DEGENERATE:
        raise UsageError(f"expected degenerate to be apart or together, got {degenerate!r}")
    weights = part_weights(parts)
    check_pair(a, b)
    if strategy != "folded" and scale is None and _lacks_thresholds(a, b):
        scale = "none"  # only the folded strategy needs a scale
    folded_a, folded_b = folded(a, scale), folded(b, scale)
    if unmatched_cost is not None and strategy not in ASSIGNED:
        raise UsageError(
            f"needed strategy {' or '.join(ASSIGNED)} with a price of staying unmatched, found "
            f"'{strategy}'"
        )
    assignment: Assignment | None = None
    without_degenerate = None
    margin = np.full(a.d_sae, np.nan)
    notes: list[str] = []
    price = None
    if strategy in ASSIGNED:
        solved_a, solved_b = solved_sides(folded_a, folded_b, strategy)
        price = prices(unmatched_cost, solved_a, solved_b, weights)
        duals = None if start is None else _starting_duals(start, a, b, weights, degenerate)
        found = assign(solved_a, solved_b, weights, solver, price, duals, degenerate)
        permutation, margin = found.permutation, found.margin
        assignment, without_degenerate = found.proof, found.without_degenerate
        notes += _notes(assignment, without_degenerate)
        complete = strategy == "folded" and price is None
        if complete and _folding_cannot_matter(folded_a, folded_b, weights, degenerate):
            notes.append(
                "one scalar threshold a SAE: folding cannot change a complete, square, decoder-only "
                "matching"
            )
    elif strategy == "naive":
        if a.d_sae != b.d_sae:
            raise UsageError(
                f"needed equal d_sae for the naive strategy, found {a.d_sae} and {b.d_sae}"
            )
        permutation = np.arange(a.d_sae)
    elif strategy == "random":
        permutation = random_permutation(a.d_sae, b.d_sae, seed)
    elif strategy == "cosine":
        permutation = nearest_by_cosine(folded_a.sae.W_dec, folded_b.sae.W_dec)
    else:
        raise UsageError(f"needed a strategy of {', '.join(STRATEGIES)}, found '{strategy}'")
    return measured(
        folded_a,
        folded_b,
        permutation,
        weights,
        strategy,
        margin,
        assignment,
        tuple(notes),
        price,
        degenerate,
        without_degenerate,
    )


def match_pairs(
    saes: Sequence[SAE | FoldedSAE],
    pairs: Literal["adjacent", "all"] | Iterable[tuple[int, int]] = "adjacent",
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    scale: ScaleKind | None = None,
    unmatched_cost: Unmatched | None = None,
    degenerate: Degenerate = "apart",
    solver: Certified | None = None,
) -> Iterator[Matching]:
    """Match many pairs of one suite by `folded`, each SAE folded and laid out once.

    `pairs`: positions in `saes`.  Matchings come one at a time, in the order of the pairs.
    """
    sides = [folded(sae, scale) for sae in saes]
    if pairs == "adjacent":
        pairs = pairwise(range(len(sides)))
    elif pairs == "all":
        pairs = combinations(range(len(sides)), 2)
    elif isinstance(pairs, str):
        raise UsageError(f"needed pairs of positions, adjacent or all, found '{pairs}'")
    for first, second in pairs:
        if not all(0 <= one < len(sides) for one in (first, second)):
            raise UsageError(
                f"needed positions from 0 to {len(sides) - 1}, found {first}, {second} (not layers)"
            )
        yield match(
            sides[first],
            sides[second],
            parts=parts,
            unmatched_cost=unmatched_cost,
            degenerate=degenerate,
            solver=solver,
        )


def verify_matching(a: SAE | FoldedSAE, b: SAE | FoldedSAE, matching: Matching) -> Verification:
    """Check a matching's proof from scratch, over all pairs in float64 of the folded float32 weights
    that it was made of (assignment/verify.py), and that its pairs are those of the proof.

    Raises UsageError for a matching that solved no assignment problem.
    """
    if matching.assignment is None:
        raise UsageError(
            f"needed a matching with a proof to verify, found strategy '{matching.strategy}'"
        )
    pair = folded(a, matching.scale), folded(b, matching.scale)
    solved = solved_sides(*pair, matching.strategy)
    problem = proven_problem(*solved, matching.parts, matching.unmatched_cost, matching.degenerate)
    proofs: list[tuple[Problem | None, Assignment | None]] = [(problem, matching.assignment)]
    if matching.degenerate == "together":
        rest = rest_problem(*solved, matching.permutation, matching.parts, matching.unmatched_cost)
        proofs.append((rest, matching.without_degenerate))
    checked: list[Verification] = []
    for problem, proof in proofs:
        if problem is None and proof is None:
            continue
        if problem is None or proof is None:
            raise UsageError(
                "expected the SAEs of this matching, got SAEs with other features degenerate"
            )
        found = verify(problem.rows, problem.columns, proof, **problem.prices)
        columns = problem.rows_of(matching.permutation)
        if found.ok and (columns != proof.columns)[proof.columns != UNMATCHED].any():
            fault = "the pairs of the matching are not those of its proof"
            found = dataclasses.replace(found, faults=(fault,))
        checked.append(found)
    whole = checked[0]
    faults = tuple(fault for found in checked for fault in found.faults)
    return dataclasses.replace(whole, faults=faults, seconds=sum(one.seconds for one in checked))


def _notes(assignment: Assignment | None, without_degenerate: Assignment | None) -> list[str]:
    if assignment is None:
        return ["one side has only degenerate features: they are matched, and nothing is proven"]
    notes = []
    if assignment.stopped is not None:
        notes.append(
            f"stopped at the {assignment.stopped}: pairs may be arbitrary, and features unmatched, only "
            "because the search was cut off; the gap says how far from the optimum this can be"
        )
    if not assignment.optimal:
        notes.append(f"not proven optimal: {describe_gap(assignment.gap)}")
    if without_degenerate is not None and not without_degenerate.optimal:
        notes.append(
            "not proven optimal over the pairs without degenerate features, whose costs vanish in the "
            f"total: {describe_gap(without_degenerate.gap)}"
        )
    return notes


def _starting_duals(
    start: Matching,
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    weights: Mapping[str, float],
    degenerate: Degenerate,
) -> np.ndarray:
    same = (start.a.d_sae, start.b.d_sae, start.parts) == (a.d_sae, b.d_sae, weights)
    if not same or start.assignment is None or start.degenerate != degenerate:
        raise UsageError(
            f"needed a start of the same pair, parts and way with degenerate features, with a proof, "
            f"found {start!r}"
        )
    return start.assignment.column_duals


def _lacks_thresholds(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> bool:
    return any(isinstance(sae, SAE) and not sae.has_thresholds for sae in (a, b))


def _folding_cannot_matter(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], degenerate: Degenerate
) -> bool:
    uniform = all(sae.uniform and sae.scale_kind == "threshold" for sae in (a, b))
    square = a.d_sae == b.d_sae and (
        degenerate == "together" or int(a.sae.degenerate.sum()) == int(b.sae.degenerate.sum())
    )
    return uniform and square and set(weights) == {"decoder"}
