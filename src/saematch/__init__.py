"""saematch: follow features of sparse autoencoders through a neural network.

Importing the package is cheap: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saematch.assignment import Assignment, Certified, Verification, solve, verify
    from saematch.errors import InputError, SaematchError, UnsupportedError, UsageError
    from saematch.evaluation.evaluate import evaluate
    from saematch.loading import Suite, inspect_sae, load_sae, load_suite
    from saematch.loading.suite import choose_suite
    from saematch.matching.consistency import Consistency, pw_mcc
    from saematch.matching.correspondence import (
        Correspondence,
        compose,
        inverse,
        permute_features,
    )
    from saematch.matching.fates import Fates, fates
    from saematch.matching.match import match, match_pairs, measure, price_curve, verify_matching
    from saematch.matching.matched import Matching
    from saematch.matching.matchers import Matcher, Transport, register
    from saematch.matching.paths import FeaturePaths, chain, follow
    from saematch.matching.probability import Calibration
    from saematch.sae import SAE, FoldedSAE, fold_thresholds
    from saematch.semantics.chat.chat import Chat
    from saematch.semantics.judges.embedding import EmbeddingJudge
    from saematch.semantics.judges.judge import judge
    from saematch.semantics.judges.llm import LLMJudge
    from saematch.store.reader import Run, open_run

__version__ = "0.1.0"

_HOMES = {
    "saematch.assignment": (
        "Assignment",
        "Certified",
        "Verification",
        "solve",
        "verify",
    ),
    "saematch.errors": (
        "InputError",
        "SaematchError",
        "UnsupportedError",
        "UsageError",
    ),
    "saematch.evaluation.evaluate": ("evaluate",),
    "saematch.loading": (
        "Suite",
        "inspect_sae",
        "load_sae",
        "load_suite",
    ),
    "saematch.loading.suite": ("choose_suite",),
    "saematch.matching.consistency": (
        "Consistency",
        "pw_mcc",
    ),
    "saematch.matching.correspondence": (
        "Correspondence",
        "compose",
        "inverse",
        "permute_features",
    ),
    "saematch.matching.match": (
        "match",
        "match_pairs",
        "measure",
        "price_curve",
        "verify_matching",
    ),
    "saematch.matching.matched": ("Matching",),
    "saematch.matching.matchers": (
        "Matcher",
        "Transport",
        "register",
    ),
    "saematch.matching.paths": (
        "FeaturePaths",
        "chain",
        "follow",
    ),
    "saematch.matching.fates": ("Fates", "fates"),
    "saematch.matching.probability": ("Calibration",),
    "saematch.sae": (
        "FoldedSAE",
        "SAE",
        "fold_thresholds",
    ),
    "saematch.semantics.chat.chat": ("Chat",),
    "saematch.semantics.judges.embedding": ("EmbeddingJudge",),
    "saematch.semantics.judges.judge": ("judge",),
    "saematch.semantics.judges.llm": ("LLMJudge",),
    "saematch.store.reader": (
        "Run",
        "open_run",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SAE",
    "Assignment",
    "Calibration",
    "Certified",
    "Chat",
    "Consistency",
    "Correspondence",
    "EmbeddingJudge",
    "Fates",
    "FeaturePaths",
    "FoldedSAE",
    "InputError",
    "LLMJudge",
    "Matcher",
    "Matching",
    "Run",
    "SaematchError",
    "Suite",
    "Transport",
    "UnsupportedError",
    "UsageError",
    "Verification",
    "chain",
    "choose_suite",
    "compose",
    "evaluate",
    "fates",
    "fold_thresholds",
    "follow",
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
    "register",
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
