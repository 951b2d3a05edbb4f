"""What is in a checkpoint: the `inspect` verb."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from saematch._io.files import os_errors_in_words
from saematch.loading import registry
from saematch.loading.canonical import row_norms
from saematch.loading.references import checkpoint_at, files_read, format_of, load_sae, locate
from saematch.sae import SAE

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


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
        """Plain values that JSON can hold."""
        return _plain(asdict(self))


@os_errors_in_words("read")
def inspect_sae(reference: str, *, layer: int | None = None) -> Inspection:
    """Shapes, activation, thresholds, norms, degenerate features, and what was converted.

    Raises as `load_sae`.
    """
    place = locate(reference)
    sae = load_sae(reference, layer=layer)
    if place.registered is not None and place.registered.loader not in registry.OUR_LOADERS:
        stored: dict[str, Tensor] = {
            name: tensor
            for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
            if (tensor := getattr(sae, name)) is not None
        }
        files: tuple[str, ...] = ()
        size = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
    else:
        checkpoint = checkpoint_at(place, layer)
        stored = checkpoint.tensors
        paths = files_read(checkpoint, format_of(checkpoint))
        files = tuple(str(path) for path in paths)
        size = sum(path.stat().st_size for path in paths)
    return _describe(sae, stored, files, size)


def _describe(sae: SAE, stored: dict[str, Tensor], files: tuple[str, ...], size: int) -> Inspection:
    status = sae.status
    return Inspection(
        reference=sae.reference,
        format=sae.checkpoint_format,
        layer=sae.layer,
        name=sae.name,
        hook=sae.hook_name,
        model=sae.model_name,
        activation=sae.activation,
        k=sae.k,
        d_model=sae.d_model,
        d_sae=sae.d_sae,
        centred=sae.centred,
        tensors=tuple(
            TensorRow(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in sorted(stored.items())
        ),
        bytes=size,
        files=files,
        threshold=None if sae.threshold is None else _quantiles(sae.threshold),
        decoder_norm=_quantiles(row_norms(sae.W_dec)),
        encoder_norm=_quantiles(_column_norms(sae.W_enc)),
        b_dec_norm=float(sae.b_dec.double().norm()),
        degenerate=status.count("degenerate"),
        dead=None if sae.firing is None else status.count("dead"),
        live=status.count("live"),
        firing_corpus=None if sae.firing is None else sae.firing.corpus,
        firing_tokens=None if sae.firing is None else sae.firing.tokens,
        conversions=sae.conversions,
        metadata=dict(sae.metadata),
    )


def _quantiles(values: Tensor) -> tuple[tuple[float, float], ...]:
    # torch.quantile refuses more than 2^24 values; sorting does not.
    ordered = values.double().sort().values
    last = len(ordered) - 1
    return tuple((q, float(ordered[round(q * last)])) for q in QUANTILES)


def _column_norms(matrix: Tensor) -> Tensor:
    squares = torch.zeros(matrix.shape[1], dtype=torch.float64)
    for block in matrix.split(max(1, (1 << 22) // max(1, matrix.shape[1]))):
        squares += block.double().square().sum(dim=0)
    return squares.sqrt()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
