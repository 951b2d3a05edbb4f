"""Residual streams of real language models, and the texts that they read.

The only package of saematch that imports transformers, and only inside functions.
"""

from saematch.models.corpora import CORPORA, Batch, Corpus, Documents, batches, load_corpus
from saematch.models.language_model import (
    LanguageModel,
    capture_residual_stream,
    decoder_blocks,
    load_language_model,
)
from saematch.models.smollm2 import (
    SMOLLM2_NAME,
    load_smollm2,
    smollm2_checkpoint,
    smollm2_weights_sha256,
)

__all__ = [
    "CORPORA",
    "SMOLLM2_NAME",
    "Batch",
    "Corpus",
    "Documents",
    "LanguageModel",
    "batches",
    "capture_residual_stream",
    "decoder_blocks",
    "load_corpus",
    "load_language_model",
    "load_smollm2",
    "smollm2_checkpoint",
    "smollm2_weights_sha256",
]
