"""What is in a checkpoint: the `inspect` verb."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from saematch._io.files import os_errors_in_words
from saematch.loading.canonical import blocks, row_norms
from saematch.loading.references import checkpoint_at, files_read, format_of, load_sae, locate

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)

AS_IN_SAE = ("layer", "name", "activation", "k", "d_model", "d_sae", "centred", "conversions")


@dataclass(frozen=True)
class TensorRow:
    """A tensor as it is stored."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds and what loading made of it.

    Quantiles are (quantile, value) pairs over features, in canonical units: the raw residual
    stream's.
    """

    reference: str
    format: str
    layer: int
    name: str
    hook: str | None
    model: str | None
    activation: str
    k: int | None
    d_model: int
    d_sae: int
    centred: bool
    tensors: tuple[TensorRow, ...]
    bytes: int
    """Size of the files that are read; for SAEs that SAELens reads, of the tensors."""
    files: tuple[str, ...]
    threshold: tuple[tuple[float, float], ...] | None
    """Quantiles of the thresholds; None for relu and topk."""
    decoder_norm: tuple[tuple[float, float], ...]
    """Quantiles of the norms of decoder rows."""
    encoder_norm: tuple[tuple[float, float], ...]
    """Quantiles of the norms of encoder columns."""
    b_dec_norm: float
    degenerate: int
    dead: int | None
    """Features that were never active on the recorded corpus; None where none is recorded."""
    live: int
    firing_corpus: str | None
    firing_tokens: int | None
    conversions: tuple[str, ...]
    metadata: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self), default=str))


@os_errors_in_words("read")
def inspect_sae(reference: str, *, layer: int | None = None) -> Inspection:
    """Shapes, activation, thresholds, norms, degenerate features, and what was converted.

    Raises as `load_sae`.
    """
    place = locate(reference)
    sae = load_sae(reference, layer=layer)
    files: tuple[str, ...] = ()
    if place.through_saelens:
        names = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        stored = {name: getattr(sae, name) for name in names if getattr(sae, name) is not None}
        size = sum(tensor.nbytes for tensor in stored.values())
    else:
        checkpoint = checkpoint_at(place, layer)
        stored = checkpoint.tensors
        paths = files_read(checkpoint, format_of(checkpoint))
        files = tuple(str(path) for path in paths)
        size = sum(path.stat().st_size for path in paths)
    columns = sum(block.square().sum(dim=0) for block in blocks(sae.W_enc))
    status, firing = Counter(sae.status), sae.firing
    return Inspection(
        reference=sae.reference,
        format=sae.checkpoint_format,
        hook=sae.hook_name,
        model=sae.model_name,
        **{name: getattr(sae, name) for name in AS_IN_SAE},
        tensors=tuple(
            TensorRow(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in sorted(stored.items())
        ),
        bytes=size,
        files=files,
        threshold=None if sae.threshold is None else _quantiles(sae.threshold),
        decoder_norm=_quantiles(row_norms(sae.W_dec)),
        encoder_norm=_quantiles(torch.as_tensor(columns).sqrt()),
        b_dec_norm=float(sae.b_dec.double().norm()),
        degenerate=status["degenerate"],
        dead=None if firing is None else status["dead"],
        live=status["live"],
        firing_corpus=None if firing is None else firing.corpus,
        firing_tokens=None if firing is None else firing.tokens,
        metadata=dict(sae.metadata),
    )


def _quantiles(values: Tensor) -> tuple[tuple[float, float], ...]:
    # torch.quantile refuses more than 2^24 values; sorting does not.
    ordered = values.double().sort().values
    last = len(ordered) - 1
    return tuple((q, float(ordered[round(q * last)])) for q in QUANTILES)
