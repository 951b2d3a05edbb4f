"""saematch: follow features of sparse autoencoders through a neural network.

Importing the package is cheap: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saematch.assignment import Assignment, Dense, solve
    from saematch.consistency import Consistency, pw_mcc
    from saematch.errors import InputError, SaematchError, UnsupportedError, UsageError
    from saematch.loading import Suite, inspect_sae, load_sae, load_suite
    from saematch.matching import Matching, match, measure
    from saematch.paths import FeaturePaths, chain
    from saematch.permutation import compose, inverse, permute_features
    from saematch.sae import SAE, FoldedSAE, fold_thresholds

__version__ = "0.1.0"

_HOMES = {
    "saematch.assignment": ("Assignment", "Dense", "solve"),
    "saematch.consistency": ("Consistency", "pw_mcc"),
    "saematch.errors": ("InputError", "SaematchError", "UnsupportedError", "UsageError"),
    "saematch.loading": ("Suite", "inspect_sae", "load_sae", "load_suite"),
    "saematch.matching": ("Matching", "match", "measure"),
    "saematch.paths": ("FeaturePaths", "chain"),
    "saematch.permutation": ("compose", "inverse", "permute_features"),
    "saematch.sae": ("SAE", "FoldedSAE", "fold_thresholds"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SAE",
    "Assignment",
    "Consistency",
    "Dense",
    "FeaturePaths",
    "FoldedSAE",
    "InputError",
    "Matching",
    "SaematchError",
    "Suite",
    "UnsupportedError",
    "UsageError",
    "chain",
    "compose",
    "fold_thresholds",
    "inspect_sae",
    "inverse",
    "load_sae",
    "load_suite",
    "match",
    "measure",
    "permute_features",
    "pw_mcc",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'saematch' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
