"""Rewriting one form of SAE into another without changing what it reconstructs.

Each function states the form before; after it the form is `pre = x W_enc + b_enc`,
`f = activation(pre)`, `x̂ = f W_dec + b_dec`.  All arithmetic is in float64 and stored in float32;
tensors that need no rewriting keep the file's dtype and stay memory-mapped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saematch.errors import InputError
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.tensors import take
from saematch.sae import BLOCK_ELEMENTS, SAE, Activation


@dataclass(frozen=True, eq=False)
class Draft:
    """An SAE on its way to canonical form, and what has been rewritten so far."""

    W_enc: Float[Tensor, "d_model d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d_model"]
    b_dec: Float[Tensor, " d_model"]
    activation: Activation
    threshold: Float[Tensor, " d_sae"] | None = None
    k: int | None = None
    conversions: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """All that are stored, by name."""
    where: str = ""
    """The file, for messages."""

    def stored(self, name: str) -> Tensor:
        """A stored tensor [d_sae]."""
        return take(self.tensors, name, self.where, shape=self.b_enc.shape)

    def jumping(self, threshold: Tensor) -> "Draft":
        """This draft with a threshold for each feature, or with one for all."""
        if threshold.ndim == 0:
            threshold = threshold.float().expand(self.b_enc.shape).contiguous()
        return replace(self, activation="jumprelu", threshold=threshold)

    def saying(self, conversion: str, **changes: Any) -> "Draft":
        """This draft with changes, and with words for what changed."""
        return replace(self, conversions=(*self.conversions, conversion), **changes)


CANONICAL = ("W_enc", "b_enc", "W_dec", "b_dec")
LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def draft_of(
    tensors: Mapping[str, Tensor], where: str, names: tuple[str, str, str, str] = CANONICAL
) -> Draft:
    """A relu draft of the stored tensors called `names`, whose shapes must agree; '' for no b_dec.

    A name in `.weight` is that of a torch.nn.Linear, which stores [out, in] and multiplies by the transpose.
    """
    W_enc = take(tensors, names[0], where)
    if W_enc.ndim != 2 or not W_enc.numel():
        shape = list(W_enc.shape)
        raise InputError(f"expected a matrix of weights in '{names[0]}' of {where}, got {shape}")
    W_enc = W_enc.T if names[0].endswith(".weight") else W_enc
    d_model, d_sae = W_enc.shape
    b_enc = take(tensors, names[1], where, shape=(d_sae,))
    if names[2].endswith(".weight"):
        W_dec = take(tensors, names[2], where, shape=(d_model, d_sae)).T
    else:
        W_dec = take(tensors, names[2], where, shape=(d_sae, d_model))
    b_dec = W_enc.new_zeros(d_model)
    if names[3]:
        b_dec = take(tensors, names[3], where, shape=(d_model,))
    return Draft(W_enc, b_enc, W_dec, b_dec, "relu", tensors=tensors, where=where)


def fold_input_bias(draft: Draft) -> Draft:
    """From `pre = (x - b_dec) W_enc + b_enc`: b_enc' = b_enc - b_dec W_enc."""
    if not bool(draft.b_dec.any()):
        return draft.saying("b_dec, subtracted from the input, is zero: nothing to fold into b_enc")
    b_enc = draft.b_enc.double() - product(draft.b_dec, draft.W_enc)
    return draft.saying(
        "b_dec, subtracted from the input, is folded into b_enc: b_enc' = b_enc - b_dec W_enc",
        b_enc=b_enc.float(),
    )


def fold_scale(
    draft: Draft, scale: float, scale_out: float | None = None, *, name: str = "activation scale"
) -> Draft:
    """From `pre = (s x) W_enc + b_enc`, `x̂ = (f W_dec + b_dec) / s_out`.

    Features are rescaled by 1/s, so that W_enc and the norms of decoder rows stay:
    b_enc' = b_enc / s, θ' = θ / s, b_dec' = b_dec / s_out, W_dec' = W_dec · s / s_out.
    """
    scale_out = scale if scale_out is None else scale_out
    for value in (scale, scale_out):
        if not (0 < value < float("inf")):
            raise InputError(f"expected a positive finite {name}, got {value}")
    changes: dict[str, Any] = {
        "b_enc": (draft.b_enc.double() / scale).float(),
        "b_dec": (draft.b_dec.double() / scale_out).float(),
    }
    words = f"{name} s = {scale:.6g} is folded into the weights: b_enc' = b_enc / s"
    if draft.threshold is not None:
        changes["threshold"] = (draft.threshold.double() / scale).float()
        words += ", θ' = θ / s"
    if scale_out == scale:
        return draft.saying(f"{words}, b_dec' = b_dec / s", **changes)
    ratio = scale / scale_out
    changes["W_dec"] = (draft.W_dec.double() * ratio).float()
    words += f", b_dec' = b_dec / {scale_out:.6g}, W_dec' = {ratio:.6g} W_dec"
    return draft.saying(words, **changes)


def fold_decoder_norms(draft: Draft) -> Draft:
    """From `f = activation(pre · n) / n` with `n_i = ‖W_dec_i‖`.

    jumprelu: θ' = θ / n, and the weights stay.  topk selects across features, so there the norms
    move into the encoder: W_enc' = n W_enc (columns), b_enc' = n b_enc, W_dec' = W_dec / n (rows).
    relu: scaling before and after cancels.
    """
    if draft.activation == "relu":
        return draft
    norms = row_norms(draft.W_dec)
    # A zero row reconstructs nothing, whatever its activation.
    safe = torch.where(norms > 0, norms, torch.ones_like(norms))
    if draft.threshold is not None:
        return draft.saying(
            "the threshold is compared with pre · ‖W_dec row‖: θ' = θ / ‖W_dec row‖",
            threshold=(draft.threshold.double() / safe).float(),
        )
    return draft.saying(
        "decoder norms, by which TopK ranks, are moved into the encoder: W_enc' = n W_enc, "
        "b_enc' = n b_enc, W_dec' = W_dec / n",
        W_enc=(draft.W_enc.double() * norms).float(),
        b_enc=(draft.b_enc.double() * norms).float(),
        W_dec=(draft.W_dec.double() / safe[:, None]).float(),
    )


def fold_feature_gain(draft: Draft, gain: Float[Tensor, " d_sae"]) -> Draft:
    """From `x̂ = (g · f) W_dec + b_dec`: W_dec' = g W_dec (rows)."""
    return draft.saying(
        "the fine-tuned gain of each feature is folded into the decoder: W_dec' = g W_dec",
        W_dec=(draft.W_dec.double() * gain.double()[:, None]).float(),
    )


def fold_whitening(
    draft: Draft,
    mean: Float[Tensor, " d_model"],
    matrix: Float[Tensor, "d_model d_model"],
    inverse: Float[Tensor, "d_model d_model"],
) -> Draft:
    """From `pre = ((x - μ) M) W_enc + b_enc`, `x̂ = (f W_dec + b_dec) M⁻¹ + μ`.

    W_enc' = M W_enc, b_enc' = b_enc - μ M W_enc, W_dec' = W_dec M⁻¹, b_dec' = b_dec M⁻¹ + μ.
    """
    W_enc = matrix.double() @ draft.W_enc.double()
    return draft.saying(
        "covariance whitening is folded into the weights: W_enc' = M W_enc, "
        "b_enc' = b_enc - μ M W_enc, W_dec' = W_dec M⁻¹, b_dec' = b_dec M⁻¹ + μ",
        W_enc=W_enc.float(),
        b_enc=(draft.b_enc.double() - mean.double() @ W_enc).float(),
        W_dec=(draft.W_dec.double() @ inverse.double()).float(),
        b_dec=(draft.b_dec.double() @ inverse.double() + mean.double()).float(),
    )


def blocks(matrix: Float[Tensor, "rows columns"]) -> Iterator[Float[Tensor, "block columns"]]:
    """Some rows at a time in float64, so that a mapped matrix is never copied whole."""
    for block in matrix.split(max(1, BLOCK_ELEMENTS // max(1, matrix.shape[1]))):
        yield block.double()


def product(vector: Float[Tensor, " rows"], matrix: Float[Tensor, "rows columns"]) -> Tensor:
    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    start = 0
    for block in blocks(matrix):
        total += vector[start : start + len(block)].double() @ block
        start += len(block)
    return total


def row_norms(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """Euclidean norm of each row in float64."""
    return torch.cat([block.norm(dim=1) for block in blocks(matrix)])


def is_centred(W_dec: Float[Tensor, "d_sae d_model"], b_dec: Float[Tensor, " d_model"]) -> bool:
    """Whether what the SAE writes lacks a mean over d_model, as after centring.

    The share of squared norm that the all-ones direction carries is 1/d_model for random rows.
    Centred: at most a hundredth of that, in the decoder rows pooled and in b_dec.
    """
    mean_energy = energy = 0.0
    for block in blocks(W_dec):
        mean_energy += float(block.sum(dim=1).square().sum())
        energy += float(block.square().sum())
    bias = b_dec.double()
    # <v, 1>²/d_model is the energy along the unit vector 1/√d_model; both sides are times d_model.
    return (
        energy > 0
        and mean_energy <= 0.01 * energy
        and float(bias.sum().square()) <= 0.01 * float(bias.square().sum())
    )


def finish(
    draft: Draft,
    checkpoint: Checkpoint,
    checkpoint_format: str,
    layer: int,
    *,
    says_centred: bool = False,
    **described: Any,
) -> SAE:
    """The canonical SAE of a draft; `SAE` itself checks that what was rewritten is finite and fits.

    `described`: its name, model, hook, firing and metadata, as far as the format knows them.
    """
    weights = {n: value for n, value in vars(draft).items() if n not in ("tensors", "where")}
    return SAE(
        **weights,
        layer=layer,
        reference=checkpoint.reference,
        checkpoint_format=checkpoint_format,
        centred=says_centred or is_centred(draft.W_dec, draft.b_dec),
        **described,
    )
