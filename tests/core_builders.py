"""Small SAEs for the tests of the core."""

import numpy as np
import torch

from saematch import SAE
from saematch.sae import Activation, Firing


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_sae(
    d_sae: int = 12,
    d_model: int = 6,
    seed: int = 0,
    activation: Activation = "jumprelu",
    *,
    k: int = 3,
    layer: int = 0,
    name: str = "",
    firing: Firing | None = None,
    dtype: torch.dtype = torch.float32,
) -> SAE:
    """Random weights; thresholds between 0.5 and 1.5."""
    g = generator(seed)
    W_enc = torch.randn(d_model, d_sae, generator=g)
    b_enc = torch.randn(d_sae, generator=g) * 0.3
    W_dec = torch.randn(d_sae, d_model, generator=g)
    b_dec = torch.randn(d_model, generator=g)
    threshold = torch.rand(d_sae, generator=g) + 0.5
    return SAE(
        W_enc.to(dtype),
        b_enc.to(dtype),
        W_dec.to(dtype),
        b_dec.to(dtype),
        activation,
        threshold=threshold.to(dtype) if activation == "jumprelu" else None,
        k=k if activation == "topk" else None,
        layer=layer,
        name=name,
        firing=firing,
    )


def relabelled(sae: SAE, order: torch.Tensor) -> SAE:
    """The same SAE with feature `order[j]` of the old as feature j of the new."""
    return SAE(
        sae.W_enc[:, order],
        sae.b_enc[order],
        sae.W_dec[order],
        sae.b_dec,
        sae.activation,
        threshold=None if sae.threshold is None else sae.threshold[order],
        k=sae.k,
        layer=sae.layer,
        name=sae.name,
    )


def residual_stream(tokens: int, d_model: int, seed: int = 99) -> torch.Tensor:
    return torch.randn(tokens, d_model, generator=generator(seed)) * 2


def random_factors(n: int, m: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed)
    return torch.randn(n, d, generator=g), torch.randn(m, d, generator=g)


def pair_costs(rows: torch.Tensor, columns: torch.Tensor) -> np.ndarray:
    """Squared distances by differences in float64, from what the solver sees: float32."""
    difference = rows.float().double()[:, None] - columns.float().double()[None]
    return difference.square().sum(dim=2).numpy()
