"""Factor matrices to assign, of known structure, and the product that times are compared with."""

import time

import torch
from torch import Tensor

STRUCTURES = {"persisting": 0.65, "half": 0.5, "new": 0.0}
"""Share of rows that have a noisy copy among the columns; the rest of the columns are new."""


def factors(n: int, d: int, structure: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """float32 rows and columns [n, d], of unit norm but for the noise, columns relabelled."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator) / d**0.5
    columns = torch.randn(n, d, generator=generator) / d**0.5
    persisting = int(STRUCTURES[structure] * n)
    columns[:persisting] *= 0.5
    columns[:persisting] += rows[:persisting]
    return rows, columns[torch.randperm(n, generator=generator)]


def product_seconds(rows: Tensor, columns: Tensor) -> float:
    """One float32 matrix product of the operands, by blocks that fit beside anything."""
    out = torch.empty(min(1024, len(rows)), len(columns))
    started = time.perf_counter()
    for block in rows.split(1024):
        torch.mm(block, columns.T, out=out[: len(block)])
    return time.perf_counter() - started
