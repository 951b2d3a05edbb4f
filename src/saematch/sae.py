"""The canonical sparse autoencoder, and threshold folding.

An `SAE` is what every checkpoint becomes at load, so that later stages have no cases:

    pre = x @ W_enc + b_enc           the encoder sees the raw residual stream
    f   = activation(pre)             jumprelu (a threshold per feature), relu or topk(k)
    x̂   = f @ W_dec + b_dec

Folding (SAE Match, eq. 4) with a scale s > 0 per feature rewrites the same function in units in
which every feature of a JumpReLU SAE activates at 1:

    W_enc' = W_enc / s (columns)   b_enc' = b_enc / s   W_dec' = s · W_dec (rows)   θ' = θ / s
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.text import cleaned
from saematch.types import ScaleKind, suite_key

Activation = Literal["jumprelu", "relu", "topk"]

DEGENERATE_SHARE_OF_MEDIAN = 0.05
"""A feature whose threshold is at most this share of its SAE's median threshold is degenerate."""


BLOCK_ELEMENTS = 1 << 22
"""Elements looked at in one go: 16 MB of float32."""

_LARGEST = torch.finfo(torch.float32).max


def check_finite(name: str, tensor: Tensor, where: str) -> None:
    """InputError naming `name` and the first index of a number that is NaN, infinite, or larger than float32
    holds; UnsupportedError for a tensor that is not plain floating-point numbers."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise UnsupportedError(
            f"expected plain numbers in '{name}' of {where}, got {tensor.layout}"
        )
    if not tensor.dtype.is_floating_point:
        raise InputError(f"expected floating-point '{name}' in {where}, got {tensor.dtype}")
    if tensor.dtype.itemsize < 2:
        raise UnsupportedError(
            f"expected '{name}' of 16, 32 or 64 bits in {where}, got {tensor.dtype}; convert it to float32"
        )
    if tensor.numel() == 0:
        return
    flat = tensor.reshape(1) if tensor.ndim == 0 else tensor
    rows = max(1, BLOCK_ELEMENTS // max(1, flat[0].numel()))
    for number, block in enumerate(flat.split(rows)):
        low, high = (float(bound) for bound in torch.aminmax(block.detach()))
        # aminmax hands NaN on, and no comparison with NaN is true.
        if not (low >= -_LARGEST and high <= _LARGEST):
            index = (~(block.double().abs() <= _LARGEST)).nonzero()[0].tolist()
            value = float(block[tuple(index)])
            index[0] += number * rows
            raise InputError(
                f"expected finite numbers in tensor '{name}' of {where}, got {value} at {index}"
            )


@dataclass(frozen=True)
class Firing:
    """How often each feature was active on a named corpus: what `dead` is decided from."""

    counts: Int[Tensor, " d_sae"]
    """Tokens on which each feature was active."""
    tokens: int
    """Tokens counted over, BOS left out."""
    corpus: str
    """The corpus's name, for people."""


@dataclass(frozen=True, eq=False, repr=False)
class SAE:
    """The weights of one sparse autoencoder in canonical form (see the module's docstring).

    Tensors keep the dtype of the file and may be memory-mapped; encoding and folding compute in
    float32.  Field names are SAELens's.
    """

    W_enc: Float[Tensor, "d_model d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_model"]
    b_dec: Float[Tensor, " d_model"]
    activation: Activation
    threshold: Float[Tensor, " d_sae"] | None = None
    """A threshold per feature on `pre`; jumprelu alone has one."""
    k: int | None = None
    """Features kept per token, after ReLU; topk alone has it."""
    layer: int = 0
    """The zero-based block whose output the SAE reads; -1: the embedding."""
    name: str = ""
    """What tells SAEs of one layer apart, e.g. `width_16k/average_l0_82`."""
    reference: str = ""
    """The text that loads this SAE again."""
    model_name: str | None = None
    hook_name: str | None = None
    checkpoint_format: str = "memory"
    conversions: tuple[str, ...] = ()
    """What loading rewrote to reach the canonical form, in words."""
    centred: bool = False
    """Trained on centred weights (TransformerLens): x̂ lacks the mean over d_model."""
    firing: Firing | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else the checkpoint says, e.g. `model_weights_sha256`, `bos_token_id`."""

    def __post_init__(self) -> None:
        for text in ("name", "model_name", "hook_name", "conversions", "metadata"):
            object.__setattr__(self, text, cleaned(getattr(self, text)))
        object.__setattr__(self, "conversions", tuple(self.conversions))
        if self.activation not in ("jumprelu", "relu", "topk"):
            raise InputError(f"expected activation jumprelu, relu or topk, got '{self.activation}'")
        for name, owner in (("threshold", "jumprelu"), ("k", "topk")):
            if (self.activation == owner) != (getattr(self, name) is not None):
                given = "none" if getattr(self, name) is None else "one"
                raise InputError(
                    f"expected {name} for {owner} and for nothing else, got {given} for "
                    f"{self.activation}"
                )
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Whatever made the weights, file or caller: shapes fit, and every number can be computed with."""
        where = self.reference or "an SAE in memory"
        if self.W_dec.ndim != 2 or 0 in self.W_dec.shape:
            raise InputError(
                f"expected W_dec [d_sae, d_model] in {where}, got {list(self.W_dec.shape)}"
            )
        d_sae, d_model = self.W_dec.shape
        tensors = {
            "W_enc": (self.W_enc, (d_model, d_sae)),
            "b_enc": (self.b_enc, (d_sae,)),
            "W_dec": (self.W_dec, (d_sae, d_model)),
            "b_dec": (self.b_dec, (d_model,)),
            "threshold": (self.threshold, (d_sae,)),
            "counts": (None if self.firing is None else self.firing.counts, (d_sae,)),
        }
        for name, (tensor, shape) in tensors.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise InputError(
                    f"expected '{name}' of shape {list(shape)} in {where}, got {list(tensor.shape)}"
                )
            if tensor is not None and name != "counts":
                check_finite(name, tensor, where)
        if self.k is not None and not (type(self.k) is int and 0 < self.k <= d_sae):
            raise InputError(f"expected k between 1 and {d_sae} in {where}, got {self.k}")

    def __repr__(self) -> str:
        kind = f"{self.activation}({self.k})" if self.k else self.activation
        where = f" from {self.reference}" if self.reference else ""
        return f"SAE(layer {self.key}, {kind}, d_model {self.d_model}, d_sae {self.d_sae}{where})"

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def d_model(self) -> int:
        return self.W_dec.shape[1]

    @property
    def key(self) -> str:
        """`layer`, or `layer.name` where the SAE has a name: unique within a suite."""
        return suite_key(self.layer, self.name)

    def encode(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_sae"]:
        """Feature activations of raw residual-stream vectors."""
        pre = x.float() @ self.W_enc.float() + self.b_enc.float()
        return self._activate(pre)

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        return f.float() @ self.W_dec.float() + self.b_dec.float()

    def reconstruct(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """`decode(encode(x))`: raw residual stream in and out."""
        return self.decode(self.encode(x))

    def _activate(self, pre: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        if self.threshold is not None:
            # Without the ReLU a negative threshold would let negative activations through.
            return torch.where(pre > self.threshold.float(), pre, torch.zeros_like(pre)).relu()
        if self.k is None:
            return pre.relu()
        values, indices = pre.relu().topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter_(-1, indices, values)

    @cached_property
    def status(self) -> tuple[str, ...]:
        """`degenerate`, `dead` or `live` for every feature (definitions: docs/definitions.md)."""
        degenerate = self.degenerate.tolist()
        counts = self.firing.counts.tolist() if self.firing is not None else [1] * self.d_sae
        return tuple(
            "degenerate" if bad else "dead" if count == 0 else "live"
            for bad, count in zip(degenerate, counts, strict=True)
        )

    @cached_property
    def degenerate(self) -> Tensor:
        """[d_sae] bool: threshold at most 0.05 of the median, or a zero row, or a zero column."""
        zero = (self.W_dec == 0).all(dim=1) | (self.W_enc == 0).all(dim=0)
        if self.threshold is None or not self.has_thresholds:
            return zero
        threshold = self.threshold.double()
        median = threshold.quantile(0.5).clamp(min=0)
        return zero | (threshold <= DEGENERATE_SHARE_OF_MEDIAN * median)

    @cached_property
    def has_thresholds(self) -> bool:
        """Whether any threshold is above zero; JumpReLU at thresholds of zero or less is ReLU."""
        return self.threshold is not None and bool((self.threshold > 0).any())


@dataclass(frozen=True, eq=False, repr=False)
class FoldedSAE:
    """An SAE with a positive scale per feature folded into its weights.

    Features come out of `encode` divided by the scale; reconstructions do not change.
    """

    sae: SAE
    scale: Float[Tensor, " d_sae"]
    """[d_sae], float32, positive."""
    scale_kind: ScaleKind
    uniform: bool = False
    """One scalar threshold for the whole SAE: a complete, square, decoder-only match cannot
    change by folding, and the result says so."""

    def __repr__(self) -> str:
        return f"FoldedSAE({self.sae!r}, scale {self.scale_kind})"

    @property
    def d_sae(self) -> int:
        return self.sae.d_sae

    @property
    def d_model(self) -> int:
        return self.sae.d_model

    @cached_property
    def W_enc(self) -> Float[Tensor, "d_model d_sae"]:
        return self.sae.W_enc.float() / self.scale

    @cached_property
    def b_enc(self) -> Float[Tensor, " d_sae"]:
        return self.sae.b_enc.float() / self.scale

    @cached_property
    def W_dec(self) -> Float[Tensor, "d_sae d_model"]:
        return self.sae.W_dec.float() * self.scale[:, None]

    @property
    def b_dec(self) -> Float[Tensor, " d_model"]:
        return self.sae.b_dec.float()

    @cached_property
    def threshold(self) -> Float[Tensor, " d_sae"] | None:
        return None if self.sae.threshold is None else self.sae.threshold.float() / self.scale

    def encode(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_sae"]:
        """Feature activations in folded units.

        The choice of what is active is made on unscaled pre-activations: topk must, and for the others
        no rounding of the fold can then change it.
        """
        return self.sae.encode(x) / self.scale

    def decode(self, f: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_model"]:
        """Residual-stream vectors from feature activations in folded units."""
        return f.float() @ self.W_dec + self.b_dec

    def reconstruct(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        return self.decode(self.encode(x))


def fold_thresholds(
    sae: SAE,
    scale: ScaleKind | None = None,
    mean_activation: Float[Tensor, " d_sae"] | None = None,
) -> FoldedSAE:
    """Fold a scale per feature into the weights (SAE Match, eq. 4); `threshold` by default.

    `scale`: `threshold` (s = θ), `decoder_norm` (s = 1 / ‖W_dec row‖), `activation`
    (s = `mean_activation`, the mean of each feature's activation when it is active), or `none`
    (s = 1: the weights as they are).

    A feature whose scale would be zero or less cannot be folded: a threshold ≤ 0 is an InputError
    that names the feature.  An SAE without thresholds and without a named scale is a UsageError that
    names the scales there are.
    """
    if scale == "none":
        return FoldedSAE(sae, torch.ones(sae.d_sae), "none", uniform=True)
    if scale in (None, "threshold"):
        scale = "threshold"
        if sae.threshold is None or not sae.has_thresholds:
            without = (
                "without any" if sae.threshold is None else "with none above zero (a ReLU SAE)"
            )
            raise UsageError(
                f"expected thresholds to fold, got a {sae.activation} SAE {without} "
                f"({sae.reference or 'in memory'}); name a scale: decoder_norm, activation or none"
            )
        values = sae.threshold.float()
    elif scale == "decoder_norm":
        norms = sae.W_dec.float().norm(dim=1)
        # A zero row has no norm to divide by and nothing to scale.
        values = torch.where(norms > 0, 1 / norms, torch.ones_like(norms))
    elif scale == "activation":
        if mean_activation is None:
            raise UsageError("expected mean_activation [d_sae] for scale 'activation', got none")
        values = mean_activation.float()
    else:
        raise UsageError(
            f"expected a scale of threshold, decoder_norm, activation or none, got '{scale}'"
        )
    if values.shape != (sae.d_sae,):
        raise UsageError(f"expected a scale of shape [{sae.d_sae}], got {list(values.shape)}")
    # A scale below 1e-38 has no float32 reciprocal to divide the encoder by.
    unusable = ~(torch.isfinite(values) & torch.isfinite(values.reciprocal()) & (values > 0))
    if unusable.any():
        first = int(unusable.nonzero()[0])
        raise InputError(
            f"expected a positive {scale} for every feature, got {float(values[first]):g} at feature "
            f"{first} and {int(unusable.sum())} such of {sae.d_sae} "
            f"({sae.reference or 'in memory'}); try the scale decoder_norm"
        )
    uniform = bool((values == values[0]).all())
    return FoldedSAE(sae, values, scale, uniform)
