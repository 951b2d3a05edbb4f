"""Transport: each feature of A as a non-negative mix of a few features of B, from weights alone.

With u_j the unit decoder rows of B and w the folded decoder row of a feature of A,

    w ≈ Σ_j t_j u_j,   t ≥ 0,   at most k of them above zero.

1. The candidates of w are the rows of B of greatest cosine with it.
2. Orthogonal matching pursuit: the candidate that correlates most with what is left over joins, then the
   coefficients of all that have joined are fitted again, t = argmin ½ tᵀGt − cᵀt over t ≥ 0 with G their
   Gram matrix and c their products with w (Bruckstein, Elad and Zibulevsky, "On the uniqueness of
   nonnegative sparse solutions to underdetermined systems of equations", IEEE TIT 2008, section IV).
3. Least squares shrinks: ‖Σ t_j u_j‖ is ‖w‖ times the cosine between the two.  The coefficients are
   multiplied by γ = (‖w‖ / ‖Σ t_j u_j‖)^power: 0 leaves least squares, 1 keeps the norm, ½ is between them.

Folding changes none of this but the units: it multiplies w and rows of B by positive numbers, and
t_j u_j stays what it is.  The weight of a partner is t_j over the norm of its folded row.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import nnls
from torch import Tensor

from saematch.assignment.costs import full_precision
from saematch.errors import UsageError
from saematch.matching.correspondence import Correspondence
from saematch.matching.strategies import unit_rows
from saematch.sae import FoldedSAE

CANDIDATES = 64
"""Rows of B of greatest cosine among which partners are chosen."""
ENTRIES = 1 << 25
"""Float32 entries of candidates' rows, and of cosines, held at a time (128 MiB)."""
SWEEPS = 16
"""Of coordinate descent between two looks at whether its support is right."""
ROUNDS = 16
"""Looks at most; what has not settled by then, such as atoms that nearly coincide, is left to scipy."""
SINGULAR = 1e-15
"""Of the greatest eigenvalue of a Gram matrix: what is below is rounding."""
OPTIMAL = 1e-9
"""By how much a gradient may miss the conditions of an optimum, of the greatest product."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Rows as non-negative mixes of others."""

    partners: Int64[Tensor, "n k"]
    """Rows of B; those of coefficient 0 are none."""
    coefficients: Float64[Tensor, "n k"]
    """Of unit rows, least squares."""
    fitted: Float64[Tensor, " n"]
    """Norm of the mix."""


def transport(
    a: FoldedSAE,
    b: FoldedSAE,
    partners: int,
    power: float,
    candidates: int | None = None,
) -> Correspondence:
    """At most `partners` live features of B for each feature of A, with their weights.

    `power`: of the scale γ (3. above).  `candidates`: of `CANDIDATES`; d_sae of B makes it plain matching
    pursuit over all of B.
    """
    live = torch.from_numpy(np.array(b.sae.status) == "live") & (b.sae.W_dec != 0).any(dim=1)
    of_b = live.nonzero()[:, 0]
    if not len(of_b):
        raise UsageError(f"expected live features to be partners, got none in {b!r}")
    candidates = max(partners, CANDIDATES) if candidates is None else candidates
    found = mixtures(a.W_dec, unit_rows(b.W_dec[of_b]), partners, candidates)
    norms = b.W_dec[of_b].double().norm(dim=1)
    length = a.W_dec.double().norm(dim=1)
    scale = torch.where(found.fitted > 0, length / found.fitted.clamp(min=1e-300), 1.0) ** power
    weights = found.coefficients * scale[:, None] / norms[found.partners]
    features = torch.arange(a.d_sae)[:, None].expand_as(found.partners)
    some = found.coefficients > 0
    return Correspondence.of_pairs(
        features[some].numpy(),
        of_b[found.partners[some]].numpy(),
        weights[some].numpy(),
        a.d_sae,
        b.d_sae,
    )


@torch.no_grad()
def mixtures(
    rows: Float[Tensor, "n d"],
    unit: Float[Tensor, "m d"],
    partners: int,
    candidates: int = CANDIDATES,
) -> Mixture:
    """Each row as a mix of at most `partners` of the unit rows (1. and 2. above)."""
    d = rows.shape[1]
    candidates = min(candidates, len(unit))
    partners = min(partners, candidates)
    step = max(1, min(ENTRIES // (candidates * d), ENTRIES // len(unit)))
    parts = [_mixed(part, unit, partners, candidates) for part in rows.float().split(step)]
    if not parts:
        none = torch.zeros(0, partners)
        return Mixture(none.long(), none.double(), none[:, 0].double())
    return Mixture(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _mixed(
    rows: Float[Tensor, "b d"], unit: Float[Tensor, "m d"], partners: int, candidates: int
) -> tuple[Tensor, Tensor, Tensor]:
    with full_precision():
        nearest = (rows @ unit.T).topk(candidates, dim=1).indices.sort(dim=1).values
    theirs = unit[nearest]
    w = rows.double()

    def atoms(chosen: Tensor) -> Tensor:
        return theirs[torch.arange(len(rows))[:, None], chosen].double()

    def mix(chosen: Tensor, coefficients: Tensor) -> Tensor:
        return torch.bmm(coefficients[:, None], atoms(chosen))[:, 0]

    def scores(chosen: Tensor, coefficients: Tensor) -> Tensor:
        left = w - mix(chosen, coefficients)
        return torch.bmm(theirs, left.float()[:, :, None])[:, :, 0]

    def equations(chosen: Tensor) -> tuple[Tensor, Tensor]:
        of = atoms(chosen)
        return of @ of.mT, torch.bmm(of, w[:, :, None])[:, :, 0]

    chosen, coefficients = nonnegative_pursuit(scores, equations, len(rows), partners)
    return nearest.gather(1, chosen), coefficients, mix(chosen, coefficients).norm(dim=1)


def nonnegative_pursuit(
    scores: Callable[[Tensor, Tensor], Tensor],
    equations: Callable[[Tensor], tuple[Tensor, Tensor]],
    rows: int,
    partners: int,
) -> tuple[Int64[Tensor, "rows partners"], Float64[Tensor, "rows partners"]]:
    """Orthogonal matching pursuit (2. above) of many rows at once: what is chosen for each, and its
    coefficients, of which some may be 0.

    `scores`: how each candidate [rows, candidates] correlates with what those that are chosen, at their
    coefficients, leave over.  `equations`: Gram matrix and products with the row of those chosen.
    """
    chosen = torch.empty(rows, 0, dtype=torch.int64)
    coefficients = torch.zeros(rows, 0, dtype=torch.float64)
    for _ in range(partners):
        left = scores(chosen, coefficients).scatter(1, chosen, -torch.inf)
        chosen = torch.cat([chosen, left.argmax(dim=1, keepdim=True)], dim=1)
        start = torch.cat([coefficients, coefficients.new_zeros(rows, 1)], dim=1)
        coefficients = nonnegative_least_squares(*equations(chosen), start)
    return chosen, coefficients


def nonnegative_least_squares(
    gram: Float64[Tensor, "b k k"],
    products: Float64[Tensor, "b k"],
    start: Float64[Tensor, "b k"],
) -> Float64[Tensor, "b k"]:
    """argmin ½ tᵀGt − cᵀt over t ≥ 0 of many small problems, the atoms of unit norm.

    Coordinate descent finds which are above zero; on those the equations are solved, and where the
    conditions of an optimum hold (t ≥ 0, and no gradient below zero elsewhere) that is the answer.
    """
    t, done = start.clone(), torch.zeros(len(gram), dtype=torch.bool)
    tolerance = OPTIMAL * products.abs().amax(dim=1, keepdim=True)
    for _ in range(ROUNDS):
        some = (~done).nonzero()[:, 0]
        if not len(some):
            break
        G, c, x = gram[some], products[some], t[some]
        for _ in range(SWEEPS):
            for place in range(x.shape[1]):
                slope = (G[:, place] * x).sum(dim=1) - c[:, place]
                x[:, place] = (x[:, place] - slope).clamp(min=0)
        exact = _solved(G, c, x > 0)
        gradient = (G @ exact[:, :, None])[:, :, 0] - c
        bound = tolerance[some]
        right = ((exact >= 0) & torch.where(x > 0, gradient.abs(), -gradient).le(bound)).all(dim=1)
        t[some] = torch.where(right[:, None], exact, x)
        done[some[right]] = True
    for row in (~done).nonzero()[:, 0].tolist():
        # Atoms and a row with this Gram matrix and these products.
        values, vectors = torch.linalg.eigh(gram[row])
        root = values.clamp(min=SINGULAR * float(values[-1])).sqrt()
        atoms, w = root[:, None] * vectors.T, vectors.T @ products[row] / root
        t[row] = torch.from_numpy(nnls(atoms.numpy(), w.numpy())[0])
    return t


def _solved(
    gram: Float64[Tensor, "b k k"], products: Float64[Tensor, "b k"], free: Bool[Tensor, "b k"]
) -> Float64[Tensor, "b k"]:
    """The equations of those that are free; the others are 0."""
    both = free[:, :, None] & free[:, None]
    kept = torch.where(both, gram, torch.eye(gram.shape[1], dtype=gram.dtype))
    return torch.linalg.lstsq(kept, torch.where(free, products, 0.0)[:, :, None]).solution[:, :, 0]
