"""saematch: follow features of sparse autoencoders through a neural network.

Importing the package is cheap: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saematch.assignment import Assignment, Certified, Verification, solve, verify
    from saematch.consistency import Consistency, pw_mcc
    from saematch.errors import InputError, SaematchError, UnsupportedError, UsageError
    from saematch.evaluation.choice import choose_suite
    from saematch.evaluation.evaluate import evaluate
    from saematch.loading import Suite, inspect_sae, load_sae, load_suite
    from saematch.matched import Matching
    from saematch.matching import match, match_pairs, verify_matching
    from saematch.measuring import measure
    from saematch.paths import FeaturePaths, chain
    from saematch.permutation import compose, inverse, permute_features
    from saematch.pricing import price_curve
    from saematch.run.read import Run, open_run
    from saematch.sae import SAE, FoldedSAE, fold_thresholds
    from saematch.semantics.chat import Chat
    from saematch.semantics.embedding_judge import EmbeddingJudge
    from saematch.semantics.judge import judge
    from saematch.semantics.llm_judge import LLMJudge

__version__ = "0.1.0"

_HOMES = {
    "saematch.assignment": (
        "Assignment",
        "Certified",
        "Verification",
        "solve",
        "verify",
    ),
    "saematch.consistency": ("Consistency", "pw_mcc"),
    "saematch.errors": ("InputError", "SaematchError", "UnsupportedError", "UsageError"),
    "saematch.evaluation.choice": ("choose_suite",),
    "saematch.evaluation.evaluate": ("evaluate",),
    "saematch.loading": ("Suite", "inspect_sae", "load_sae", "load_suite"),
    "saematch.matched": ("Matching",),
    "saematch.matching": ("match", "match_pairs", "verify_matching"),
    "saematch.measuring": ("measure",),
    "saematch.paths": ("FeaturePaths", "chain"),
    "saematch.permutation": ("compose", "inverse", "permute_features"),
    "saematch.pricing": ("price_curve",),
    "saematch.run.read": ("Run", "open_run"),
    "saematch.sae": ("SAE", "FoldedSAE", "fold_thresholds"),
    "saematch.semantics.chat": ("Chat",),
    "saematch.semantics.embedding_judge": ("EmbeddingJudge",),
    "saematch.semantics.judge": ("judge",),
    "saematch.semantics.llm_judge": ("LLMJudge",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SAE",
    "Assignment",
    "Certified",
    "Chat",
    "Consistency",
    "EmbeddingJudge",
    "FeaturePaths",
    "FoldedSAE",
    "InputError",
    "LLMJudge",
    "Matching",
    "Run",
    "SaematchError",
    "Suite",
    "UnsupportedError",
    "UsageError",
    "Verification",
    "chain",
    "choose_suite",
    "compose",
    "evaluate",
    "fold_thresholds",
    "inspect_sae",
    "inverse",
    "judge",
    "load_sae",
    "load_suite",
    "match",
    "match_pairs",
    "measure",
    "open_run",
    "permute_features",
    "price_curve",
    "pw_mcc",
    "solve",
    "verify",
    "verify_matching",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'saematch' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
