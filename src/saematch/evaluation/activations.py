"""Feature activations of many tokens, as the few that are not zero."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saematch.sae import SAE

ENTRIES = 1 << 25
"""Activations held densely at a time: 128 MiB."""
MASSIVE = 10.0
"""A token whose residual norm exceeds so many times the median of its document has massive activations."""


@dataclass(frozen=True, eq=False)
class SparseActivations:
    """Active features, ordered by token and then by feature."""

    token: Int64[Tensor, " active"]
    feature: Int64[Tensor, " active"]
    value: Float[Tensor, " active"]
    """float32, positive."""
    n_tokens: int
    d_sae: int

    def of_tokens(self, kept: Bool[Tensor, " n_tokens"]) -> "SparseActivations":
        """As if nothing were active on the other tokens."""
        here = kept.to(self.token.device)[self.token]
        return replace(
            self, token=self.token[here], feature=self.feature[here], value=self.value[here]
        )

    def dense(self) -> Float[Tensor, "n_tokens d_sae"]:
        out = torch.zeros(self.n_tokens, self.d_sae, device=self.value.device)
        out[self.token, self.feature] = self.value
        return out


def encode_sparse(sae: SAE, rows: Float[Tensor, "n d_model"]) -> SparseActivations:
    """`sae.encode`, some tokens at a time, so that no [n, d_sae] is held for wide SAEs."""
    tokens, features, values = [], [], []
    step = max(1, ENTRIES // sae.d_sae)
    for first in range(0, len(rows), step):
        dense = sae.encode(rows[first : first + step])
        token, feature = dense.nonzero(as_tuple=True)
        tokens.append(token + first)
        features.append(feature)
        values.append(dense[token, feature])
    none = torch.zeros(0, dtype=torch.int64, device=rows.device)
    return SparseActivations(
        torch.cat([none, *tokens]),
        torch.cat([none, *features]),
        torch.cat([torch.zeros(0, device=rows.device), *values]),
        len(rows),
        sae.d_sae,
    )


def typical_rows(x: Float[Tensor, "n d"], document: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Rows whose norm is at most `MASSIVE` times the median of their document."""
    norms = x.norm(dim=1)
    limit = torch.stack([norms[document == n].median() for n in range(int(document.max()) + 1)])
    return norms <= MASSIVE * limit[document]
