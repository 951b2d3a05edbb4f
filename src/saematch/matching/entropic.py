"""Entropic transport between decoder rows: Sinkhorn's algorithm, as the benchmark of correspondence across
seeds (openreview 5cy6WtSC8f) matches with.

With S the cosines and marginals μ, ν that each sum to 1, the plan

    P = argmax Σ_ij P_ij S_ij + ε H(P),   Σ_j P_ij = μ_i,   Σ_i P_ij = ν_j

is P_ij = exp(S_ij / ε + u_i + v_j) (Cuturi, "Sinkhorn distances", NeurIPS 2013).  Potentials are found in
the log domain, in float32.  All cosines are held: 4 · d_a · d_b bytes, 1 GiB for two SAEs of 16,384
features and 4 GiB for two of 32,768.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from saematch.assignment.costs import full_precision
from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.matched import Found
from saematch.matching.strategies import unit_rows

ITERATIONS = 500
TOLERANCE = 1e-3
"""By how much the sums of the plan's rows may be off, all together, of a mass of 1."""
ENTRIES = 1 << 22
"""Cosines worked on at a time."""


def potentials(
    scaled: Float[Tensor, "n m"], mu: Float64[Tensor, " n"], nu: Float64[Tensor, " m"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"], float]:
    """u and v for S / ε and positive marginals, and by how much rows are off; columns are exact."""
    n, m = scaled.shape
    log_mu, log_nu = mu.log().float(), nu.log().float()
    u, v, off = torch.zeros(n), torch.zeros(m), math.inf
    rows, columns = max(1, ENTRIES // m), max(1, ENTRIES // n)
    for iteration in range(ITERATIONS + 1):
        of_rows = torch.cat([(part + v).logsumexp(dim=1) for part in scaled.split(rows)])
        if iteration:
            off = float(((u + of_rows).double().exp() - mu).abs().sum())
        if off <= TOLERANCE or iteration == ITERATIONS:
            break
        u = log_mu - of_rows
        of_columns = [(part + u[:, None]).logsumexp(dim=0) for part in scaled.split(columns, dim=1)]
        v = log_nu - torch.cat(of_columns)
    return u, v, off


def strongest(
    a: Float[Tensor, "d_a d"],
    b: Float[Tensor, "d_b d"],
    mass_a: Float64[Tensor, " d_a"],
    mass_b: Float64[Tensor, " d_b"],
    epsilon: float,
) -> Found:
    """For each feature of A the one that most of its mass goes to; features without mass have no part in
    it."""
    if not epsilon > 0:
        raise UsageError(f"expected an epsilon above 0, got {epsilon}")
    of_a, of_b = (mass.nonzero()[:, 0] for mass in (mass_a, mass_b))
    found = np.full(len(a), UNMATCHED, dtype=np.int64)
    if not len(of_a) or not len(of_b):
        return Found(Correspondence.of_permutation(found, len(b)))
    with full_precision():
        scaled = unit_rows(a[of_a]) @ unit_rows(b[of_b]).T
    scaled /= epsilon
    mu, nu = (mass[of] / mass[of].sum() for mass, of in ((mass_a, of_a), (mass_b, of_b)))
    _, v, off = potentials(scaled, mu, nu)
    step = max(1, ENTRIES // len(of_b))
    best = torch.cat([(part + v).argmax(dim=1) for part in scaled.split(step)])
    found[of_a.numpy()] = of_b[best].numpy()
    stopped = f"stopped after {ITERATIONS} iterations: {off:.2g} of the mass is misplaced"
    notes = (stopped,) if off > TOLERANCE else ()
    return Found(Correspondence.of_permutation(found, len(b)), notes=notes)
