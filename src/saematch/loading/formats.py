"""The checkpoint formats, and telling which one a checkpoint is."""

from collections.abc import Callable
from dataclasses import dataclass

from saematch.errors import InputError
from saematch.loading import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    registry,
    saelens,
    sparsify,
)
from saematch.loading.checkpoint import Checkpoint
from saematch.sae import SAE


@dataclass(frozen=True)
class CheckpointFormat:
    """What a format's module offers."""

    name: str
    configs: tuple[str, ...]
    """Files that are read with the weights if they are there."""
    recognises: Callable[[Checkpoint], bool]
    """By the files next to the weights and the names of the tensors in them."""
    load: Callable[[Checkpoint], SAE]


FORMATS = tuple(
    CheckpointFormat(module.NAME, module.CONFIGS, module.recognises, module.load)
    for module in (
        gemma_scope_2,
        sparsify,
        saelens,
        llama_scope,
        dictionary_learning,
        gemma_scope,
    )
)


def format_of(checkpoint: Checkpoint) -> CheckpointFormat:
    """The format that recognises the checkpoint; InputError with what was found if none does."""
    for known in FORMATS:
        if known.recognises(checkpoint):
            return known
    raise InputError(
        f"expected a checkpoint of a known format ({', '.join(f.name for f in FORMATS)}), got "
        f"{checkpoint.location} with tensors {', '.join(sorted(checkpoint.tensors)[:8]) or 'none'} "
        f"next to {', '.join(checkpoint.siblings[:8])}"
        f"{registry.hint_for(checkpoint.location, checkpoint.weights.rpartition('/')[2])}"
    )
