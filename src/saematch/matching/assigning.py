"""What `folded`, `unfolded` and `correlation` compute: the assignment problem of a pair, solved, and what
to say of the solution; for every feature of A the feature of B whose activations correlate most with its
own.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from saematch.assignment import Assignment
from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.matched import Found, Settings, describe_gap
from saematch.matching.strategies import assign, prices, solved_sides
from saematch.sae import FoldedSAE
from saematch.types import Degenerate


def find_assignment(a: FoldedSAE, b: FoldedSAE, settings: Settings, raw: bool) -> Found:
    """The pairs of least total cost; `raw`: on raw weights."""
    sides = solved_sides(a, b, raw)
    weights, degenerate = settings.weights, settings.degenerate
    price = prices(settings.unmatched_cost, *sides, weights)
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


BLOCK_ENTRIES = 1 << 24
"""Correlations looked at at once, in float64."""


class CorrelationSums:
    """Sums for the correlation of every feature of A with every feature of B."""

    def __init__(self, d_a: int, d_b: int, device: torch.device) -> None:
        self.tokens = 0
        self.a, self.a_square = (torch.zeros(d_a, device=device).double() for _ in range(2))
        self.b, self.b_square = (torch.zeros(d_b, device=device).double() for _ in range(2))
        self.ab = torch.zeros(d_a, d_b, device=device)

    def add(self, f_a: Tensor, f_b: Tensor) -> None:
        self.tokens += len(f_a)
        for f, total, square in ((f_a, self.a, self.a_square), (f_b, self.b, self.b_square)):
            total += f.sum(dim=0).double()
            square += f.double().square().sum(dim=0)
        self.ab.addmm_(f_a.T, f_b)

    def correspondence(self) -> Correspondence:
        """Row-wise argmax, the lowest index of equal ones; no partner for a feature that never varied."""
        n = self.tokens
        std_a = (self.a_square / n - (self.a / n).square()).clamp(min=0).sqrt()
        std_b = (self.b_square / n - (self.b / n).square()).clamp(min=0).sqrt()
        columns = (std_b > 0).nonzero()[:, 0]
        mean_b, std_b = self.b[columns] / n, std_b[columns]
        found = np.full(len(std_a), UNMATCHED, dtype=np.int64)
        step = max(1, BLOCK_ENTRIES // max(1, len(std_b)))
        for first in range(0, len(std_a) if len(columns) else 0, step):
            rows = slice(first, first + step)
            products = self.ab[rows][:, columns].double() / n
            score = (products - torch.outer(self.a[rows] / n, mean_b)) / std_b
            found[rows] = columns[score.argmax(dim=1)].cpu().numpy()
        found[(std_a == 0).cpu().numpy()] = UNMATCHED
        return Correspondence.of_permutation(found, self.ab.shape[1])
