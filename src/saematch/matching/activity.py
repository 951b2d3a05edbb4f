"""Matchers that are fitted to text: what each adds up over tokens, and the map that it amounts to.

f are activations and x the stream of the later layer at the same tokens; [f] is 1 where a feature is active.
The partner of feature i of A is, by

- correlation: the one of greatest correlation of f;
- phi, jaccard, implication: the one of greatest φ, Jaccard index or P(j active, given i active) of [f]
  (Balcells et al., "Evolution of SAE features across layers in LLMs", arXiv 2410.08869);
- sinkhorn_activity: where entropic transport of activity takes it (the benchmark of correspondence across
  seeds, openreview 5cy6WtSC8f);
- centroid: the one of nearest mean of whitened x, weighed by f: the first moment of what semantic optimal
  transport (arXiv 2605.28567) compares, and not that method;
- regression: each j whose f is fitted with that of i.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.entropic import strongest
from saematch.matching.strategies import nearest_by_cosine, unit_rows
from saematch.matching.transport import nonnegative_pursuit
from saematch.sae import FoldedSAE

BLOCK_ENTRIES = 1 << 24
"""Scores looked at at once, in float64."""
SHRINKAGE = 1e-2
"""Added to every variance before whitening, of their mean."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What two SAEs see at some tokens, on one device."""

    f_a: Float[Tensor, "tokens d_a"]
    """Activations, not folded."""
    f_b: Float[Tensor, "tokens d_b"]
    x_b: Float[Tensor, "tokens d_model"]
    """The stream that B reads."""
    typical: Bool[Tensor, " tokens"]
    """Tokens without massive activations in it."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over n tokens for some features i of A and all j of B, in float64; of [f], a square is itself."""

    n: int
    a: Float64[Tensor, "rows 1"]
    a_square: Float64[Tensor, "rows 1"]
    b: Float64[Tensor, " d_b"]
    b_square: Float64[Tensor, " d_b"]
    ab: Float64[Tensor, "rows d_b"]


Score = Callable[[Moments], Float64[Tensor, "rows d_b"]]
"""Of every pair; NaN where it has none."""


def correlation(s: Moments) -> Tensor:
    """Pearson's; of [f] it is φ."""
    std_a = (s.a_square / s.n - (s.a / s.n).square()).clamp(min=0).sqrt()
    std_b = (s.b_square / s.n - (s.b / s.n).square()).clamp(min=0).sqrt()
    covariance = s.ab / s.n - (s.a / s.n) * (s.b / s.n)
    varies = (std_a > 0) & (std_b > 0)
    return torch.where(varies, covariance / std_b / std_a, torch.nan)


def jaccard(s: Moments) -> Tensor:
    return torch.where(s.ab > 0, s.ab / (s.a + s.b - s.ab), torch.nan)


def implication(s: Moments) -> Tensor:
    return torch.where(s.ab > 0, s.ab / s.a, torch.nan)


class JointSums:
    """Row-wise argmax of a score, the lowest feature of equal ones; no partner for a feature without any.

    `binary`: of [f], not of f.
    """

    def __init__(self, a: FoldedSAE, b: FoldedSAE, score: Score, binary: bool) -> None:
        self.score, self.binary = score, binary
        device = a.sae.W_dec.device
        self.tokens = 0
        self.a, self.a_square = (torch.zeros(a.d_sae, device=device).double() for _ in range(2))
        self.b, self.b_square = (torch.zeros(b.d_sae, device=device).double() for _ in range(2))
        self.ab = torch.zeros(a.d_sae, b.d_sae, device=device)

    def add(self, observed: Observed) -> None:
        f_a, f_b = observed.f_a, observed.f_b
        if self.binary:
            f_a, f_b = (f_a > 0).float(), (f_b > 0).float()
        self.tokens += len(f_a)
        for f, total, square in ((f_a, self.a, self.a_square), (f_b, self.b, self.b_square)):
            total += f.sum(dim=0).double()
            square += f.double().square().sum(dim=0)
        self.ab.addmm_(f_a.T, f_b)

    def scores(self, rows: slice) -> Float64[Tensor, "rows d_b"]:
        """Of these features of A with all of B."""
        a, a_square = self.a[rows, None], self.a_square[rows, None]
        joint = self.ab[rows].double()
        return self.score(Moments(self.tokens, a, a_square, self.b, self.b_square, joint))

    def correspondence(self) -> Correspondence:
        d_a, d_b = self.ab.shape
        found = np.full(d_a, UNMATCHED, dtype=np.int64)
        step = max(1, BLOCK_ENTRIES // d_b)
        for first in range(0, d_a, step):
            rows = slice(first, first + step)
            score = self.scores(rows).nan_to_num(nan=-torch.inf)
            best, partner = score.max(dim=1)
            found[rows] = torch.where(best > -torch.inf, partner, UNMATCHED).cpu().numpy()
        return Correspondence.of_permutation(found, d_b)


class MassSums:
    """Entropic transport of decoder rows; the mass of a feature is the mean length of what it adds to the
    stream, f · ‖w‖, so that it counts by how often and how strongly it is active."""

    def __init__(self, a: FoldedSAE, b: FoldedSAE, epsilon: float) -> None:
        self.saes, self.epsilon = (a.sae, b.sae), epsilon
        self.masses = [torch.zeros(s.d_sae, device=s.W_dec.device).double() for s in self.saes]

    def add(self, observed: Observed) -> None:
        for mass, f in zip(self.masses, (observed.f_a, observed.f_b), strict=True):
            mass += f.sum(dim=0).double()

    def correspondence(self) -> Correspondence:
        rows_a, rows_b = (sae.W_dec.float().cpu() for sae in self.saes)
        mass_a, mass_b = (
            mass.cpu() * rows.double().norm(dim=1)
            for mass, rows in zip(self.masses, (rows_a, rows_b), strict=True)
        )
        return strongest(rows_a, rows_b, mass_a, mass_b, self.epsilon).correspondence


class CentroidSums:
    """Nearest centroids by cosine; a centroid is the mean of x over tokens, weighed by a feature's
    activations, with the mean of all taken off and whitened by their covariance.

    `decoder`: by the sum of that cosine and the decoder cosine.  Massive-activation tokens are left out.
    """

    def __init__(self, a: FoldedSAE, b: FoldedSAE, decoder: bool) -> None:
        self.saes, self.decoder = (a.sae, b.sae), decoder
        device, d = a.sae.W_dec.device, a.d_model
        self.tokens = 0
        self.x = torch.zeros(d, dtype=torch.float64, device=device)
        self.xx = torch.zeros(d, d, dtype=torch.float64, device=device)
        self.weights = [torch.zeros(s.d_sae, dtype=torch.float64, device=device) for s in self.saes]
        self.fx = [torch.zeros(s.d_sae, d, device=device) for s in self.saes]

    def add(self, observed: Observed) -> None:
        x = observed.x_b[observed.typical]
        self.tokens += len(x)
        self.x += x.double().sum(dim=0)
        self.xx += x.double().T @ x.double()
        sides = zip(self.weights, self.fx, (observed.f_a, observed.f_b), strict=True)
        for weights, fx, f in sides:
            f = f[observed.typical]
            weights += f.double().sum(dim=0)
            fx.addmm_(f.T, x)

    def correspondence(self) -> Correspondence:
        mean = self.x / max(1, self.tokens)
        covariance = self.xx / max(1, self.tokens) - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=0)
        spread = values + SHRINKAGE * values.mean()
        whitening = vectors * torch.where(spread > 0, spread, 1.0).rsqrt()
        some, rows = [], []
        for sae, weights, fx in zip(self.saes, self.weights, self.fx, strict=True):
            active = (weights > 0).nonzero()[:, 0]
            centroids = fx[active].double() / weights[active, None] - mean
            row = unit_rows(centroids @ whitening).cpu()
            if self.decoder:
                row = torch.cat([row, unit_rows(sae.W_dec[active]).cpu()], dim=1)
            some.append(active.cpu().numpy())
            rows.append(row)
        found = np.full(self.saes[0].d_sae, UNMATCHED, dtype=np.int64)
        if all(map(len, some)):
            found[some[0]] = some[1][nearest_by_cosine(rows[0], rows[1])]
        return Correspondence.of_permutation(found, self.saes[1].d_sae)


class RegressionSums:
    """The activation of each feature of B as a non-negative sum of those of at most `partners` features
    of A, by orthogonal matching pursuit (transport.py) on their Gram matrix."""

    def __init__(self, a: FoldedSAE, b: FoldedSAE, partners: int) -> None:
        self.a, self.b, self.partners = a, b, partners
        device = a.sae.W_dec.device
        self.aa = torch.zeros(a.d_sae, a.d_sae, device=device)
        self.ab = torch.zeros(a.d_sae, b.d_sae, device=device)

    def add(self, observed: Observed) -> None:
        self.aa.addmm_(observed.f_a.T, observed.f_a)
        self.ab.addmm_(observed.f_a.T, observed.f_b)

    def correspondence(self) -> Correspondence:
        gram, norms = self.aa.cpu(), self.aa.diagonal().cpu().sqrt()
        unit = torch.where(norms > 0, 1 / norms, 0.0)
        gram = gram * unit * unit[:, None]
        products = (self.ab.cpu() * unit[:, None]).T.contiguous()
        partners = min(self.partners, len(gram))
        step = max(1, BLOCK_ENTRIES // len(gram))
        parts = [_regressed(part, gram, partners) for part in products.split(step)]
        chosen, coefficients = (torch.cat(columns) for columns in zip(*parts, strict=True))
        of_b = torch.arange(len(chosen))[:, None].expand_as(chosen)
        scale_a, scale_b = self.a.scale.double().cpu(), self.b.scale.double().cpu()
        # Of activations as folded: those of A are f / scale.
        weights = coefficients * (unit.double() * scale_a)[chosen] / scale_b[:, None]
        some = coefficients > 0
        return Correspondence.of_pairs(
            chosen[some].numpy(),
            of_b[some].numpy(),
            weights[some].numpy(),
            self.a.d_sae,
            self.b.d_sae,
        )


def _regressed(
    products: Float[Tensor, "b d_a"], gram: Float[Tensor, "d_a d_a"], partners: int
) -> tuple[Tensor, Tensor]:
    def scores(chosen: Tensor, t: Tensor) -> Tensor:
        if not chosen.shape[1]:
            return products
        fitted = torch.nn.functional.embedding_bag(
            chosen, gram, per_sample_weights=t.float(), mode="sum"
        )
        return products - fitted

    def equations(chosen: Tensor) -> tuple[Tensor, Tensor]:
        joint = gram[chosen[:, :, None], chosen[:, None]].double()
        return joint, products.gather(1, chosen).double()

    return nonnegative_pursuit(scores, equations, len(products), partners)
