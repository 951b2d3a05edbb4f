"""References in, canonical SAEs out; one module a checkpoint format (docs/formats.md)."""

from saematch.loading.inspection import Inspection, TensorRow, inspect_sae
from saematch.loading.references import load_sae, source_files
from saematch.loading.suite import PRESETS, Suite, SuiteEntry, load_suite

__all__ = [
    "PRESETS",
    "Inspection",
    "Suite",
    "SuiteEntry",
    "TensorRow",
    "inspect_sae",
    "load_sae",
    "load_suite",
    "source_files",
]
