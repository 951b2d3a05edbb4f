"""Factor matrices to assign, of known structure, and the product that times are compared with."""

import time

import torch
from torch import Tensor

PERSISTING = {"persisting": 0.65, "half": 0.5, "new": 0.0, "dead": 0.5}
"""Share of rows that have a noisy copy among the columns; the rest of the columns are new."""
DEAD = 0.16, 0.12
"""`dead`: shares of rows and of columns that are 1e-6 of their size."""
NOISE = 0.3
"""`tiled`: what is added to each copy of a real feature, relative to its norm."""
STRUCTURES = (*PERSISTING, "tiled")


def factors(n: int, d: int, structure: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """float32 rows and columns [n, d], of unit norm but for the noise, columns relabelled.

    `tiled`: the decoders of the bundled blocks 12 and 13 (d = 576), folded, over and over with noise.
    """
    generator = torch.Generator().manual_seed(seed)
    if structure == "tiled":
        return _tiled(12, n, d, generator), _tiled(13, n, d, generator)
    rows = torch.randn(n, d, generator=generator) / d**0.5
    columns = torch.randn(n, d, generator=generator) / d**0.5
    persisting = int(PERSISTING[structure] * n)
    columns[:persisting] *= 0.5
    columns[:persisting] += rows[:persisting]
    if structure == "dead":
        first = int(0.3 * n)
        rows[: int(DEAD[0] * n)] *= 1e-6
        columns[first : first + int(DEAD[1] * n)] *= 1e-6
    return rows, columns[torch.randperm(n, generator=generator)]


def _tiled(layer: int, n: int, d: int, generator: torch.Generator) -> Tensor:
    from saematch import fold_thresholds, load_sae

    decoder = fold_thresholds(load_sae(f"bundled:smollm2-135m/{layer}")).W_dec
    if decoder.shape[1] != d:
        raise SystemExit(f"expected a width of {decoder.shape[1]} for `tiled`, got {d}")
    copies = decoder.repeat(-(-n // len(decoder)), 1)[:n]
    noise = torch.randn(copies.shape, generator=generator) / d**0.5
    copies = copies + NOISE * copies.norm(dim=1, keepdim=True) * noise
    return copies[torch.randperm(n, generator=generator)].contiguous()


def product_seconds(rows: Tensor, columns: Tensor) -> float:
    """One float32 matrix product of the operands, by blocks that always fit."""
    out = torch.empty(min(1024, len(rows)), len(columns))
    started = time.perf_counter()
    for block in rows.split(1024):
        torch.mm(block, columns.T, out=out[: len(block)])
    return time.perf_counter() - started
