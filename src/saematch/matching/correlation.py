"""`correlation`: for every feature of A the feature of B whose activations correlate most with its own."""

import numpy as np
import torch
from torch import Tensor

from saematch.matching.correspondence import Correspondence
from saematch.matching.permutation import UNMATCHED

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
