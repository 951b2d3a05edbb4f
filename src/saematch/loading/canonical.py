"""Rewriting one form of SAE into another without changing what it reconstructs.

Each function states the form before; after it the form is `pre = x W_enc + b_enc`,
`f = activation(pre)`, `x̂ = f W_dec + b_dec`.  All arithmetic is in float64 and stored in float32;
tensors that need no rewriting keep the file's dtype and stay memory-mapped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saematch.errors import InputError
from saematch.loading.tensors import check_shape
from saematch.sae import BLOCK_ELEMENTS, SAE, Activation, Firing


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
    conversions: tuple[str, ...] = field(default=())

    def saying(self, conversion: str, **changes: Any) -> "Draft":
        """This draft with changes, and with words for what changed."""
        return replace(self, conversions=(*self.conversions, conversion), **changes)


def draft_of(
    where: str,
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b_dec: Tensor,
    names: tuple[str, str, str, str] = ("W_enc", "b_enc", "W_dec", "b_dec"),
) -> Draft:
    """A relu draft of tensors whose shapes have been found to agree; `names` are for messages."""
    d_model, d_sae = W_enc.shape
    if d_model == 0 or d_sae == 0:
        raise InputError(
            f"expected weights in '{names[0]}' of {where}, got shape {[d_model, d_sae]}"
        )
    check_shape(names[1], b_enc, (d_sae,), where)
    check_shape(names[2], W_dec, (d_sae, d_model), where)
    check_shape(names[3], b_dec, (d_model,), where)
    return Draft(W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, activation="relu")


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
    draft: Draft,
    scale: float,
    scale_out: float | None = None,
    *,
    threshold_scaled: bool = True,
    name: str = "activation scale",
) -> Draft:
    """From `pre = (s x) W_enc + b_enc`, `x̂ = (f W_dec + b_dec) / s_out`.

    Features are rescaled by 1/s, so that W_enc and the norms of decoder rows stay:
    b_enc' = b_enc / s, θ' = θ / s, b_dec' = b_dec / s_out, W_dec' = W_dec · s / s_out.
    `threshold_scaled=False`: the format compares θ with raw-unit pre-activations already.
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
    if draft.threshold is not None and threshold_scaled:
        changes["threshold"] = (draft.threshold.double() / scale).float()
        words += ", θ' = θ / s"
    if scale_out == scale:
        words += ", b_dec' = b_dec / s"
    else:
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


def product(vector: Float[Tensor, " rows"], matrix: Float[Tensor, "rows columns"]) -> Tensor:
    """`vector @ matrix` in float64, in blocks, so that a mapped matrix is never copied whole."""
    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    step = max(1, BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        total += vector[start : start + step].double() @ matrix[start : start + step].double()
    return total


def row_norms(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """Euclidean norm of each row in float64, in blocks."""
    step = max(1, BLOCK_ELEMENTS // max(1, matrix.shape[1]))
    return torch.cat([block.double().norm(dim=1) for block in matrix.split(step)])


def is_centred(W_dec: Float[Tensor, "d_sae d_model"], b_dec: Float[Tensor, " d_model"]) -> bool:
    """Whether what the SAE writes lacks a mean over d_model, as after centring.

    The share of squared norm that the all-ones direction carries is 1/d_model for random rows.
    Centred: at most a hundredth of that, in the decoder rows pooled and in b_dec.
    """
    step = max(1, BLOCK_ELEMENTS // max(1, W_dec.shape[1]))
    mean_energy = energy = 0.0
    for block in W_dec.split(step):
        values = block.double()
        mean_energy += float(values.sum(dim=1).square().sum()) / W_dec.shape[1]
        energy += float(values.square().sum())
    bias = b_dec.double()
    limit = 0.01 / W_dec.shape[1]
    bias_share = float(bias.sum().square()) / W_dec.shape[1]
    return (
        energy > 0
        and mean_energy <= limit * energy
        and (bias_share <= limit * float(bias.square().sum()))
    )


def finish(
    draft: Draft,
    *,
    layer: int,
    name: str,
    reference: str,
    checkpoint_format: str,
    model_name: str | None = None,
    hook_name: str | None = None,
    says_centred: bool = False,
    firing: Firing | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> SAE:
    """The canonical SAE of a draft; `SAE` itself checks that what was rewritten is finite and fits."""
    return SAE(
        W_enc=draft.W_enc,
        b_enc=draft.b_enc,
        W_dec=draft.W_dec,
        b_dec=draft.b_dec,
        activation=draft.activation,
        threshold=draft.threshold,
        k=draft.k,
        layer=layer,
        name=name,
        reference=reference,
        model_name=model_name,
        hook_name=hook_name,
        checkpoint_format=checkpoint_format,
        conversions=draft.conversions,
        centred=says_centred or is_centred(draft.W_dec, draft.b_dec),
        firing=firing,
        metadata=dict(metadata or {}),
    )
