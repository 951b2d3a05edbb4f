"""Residual streams of real language models.

The only package of saematch that imports transformers, and only inside functions.
"""

from saematch.language_model.capture import capture_residual_stream, decoder_blocks
from saematch.language_model.smollm2 import (
    SMOLLM2_NAME,
    load_smollm2,
    smollm2_checkpoint,
    smollm2_weights_sha256,
)

__all__ = [
    "SMOLLM2_NAME",
    "capture_residual_stream",
    "decoder_blocks",
    "load_smollm2",
    "smollm2_checkpoint",
    "smollm2_weights_sha256",
]
