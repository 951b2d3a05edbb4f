"""What `folded` and `unfolded` compute: the assignment problem of a pair, solved, and what to say of the
solution."""

from collections.abc import Mapping

from saematch.assignment import Assignment
from saematch.matching.correspondence import Correspondence
from saematch.matching.matched import Found, Settings, describe_gap
from saematch.matching.strategies import assign, prices, solved_sides
from saematch.sae import FoldedSAE
from saematch.types import Degenerate


def find_assignment(a: FoldedSAE, b: FoldedSAE, settings: Settings, raw: bool) -> Found:
    """The pairs of least total cost; `raw`: on raw weights."""
    sides = solved_sides(a, b, raw)
    weights, degenerate = settings.weights, settings.degenerate
    price = prices(settings.unmatched_cost, a)
    found = assign(*sides, weights, settings.solver, price, settings.column_duals, degenerate)
    notes = _notes(found.proof, found.without_degenerate)
    complete = not raw and price is None
    if complete and _folding_cannot_matter(a, b, weights, degenerate):
        notes.append(
            "one scalar threshold a SAE: folding cannot change a complete, square, decoder-only matching"
        )
    return Found(
        Correspondence.of_permutation(found.permutation, b.d_sae),
        found.margin,
        found.proof,
        found.without_degenerate,
        price,
        tuple(notes),
    )


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


def _folding_cannot_matter(
    a: FoldedSAE, b: FoldedSAE, weights: Mapping[str, float], degenerate: Degenerate
) -> bool:
    uniform = all(sae.uniform and sae.scale_kind == "threshold" for sae in (a, b))
    square = a.d_sae == b.d_sae and (
        degenerate == "together" or int(a.sae.degenerate.sum()) == int(b.sae.degenerate.sum())
    )
    return uniform and square and set(weights) == {"decoder"}
