"""Which tokens tell what a feature is about, without a language model: token_lists.py puts them in words.

The tokens with most of its activation; tokens in its examples more often than by chance, by number of
examples times the logarithm of rarity; the tokens that its decoder row raises most.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import log

from saematch.models import Documents
from saematch.semantics.descriptions.max_activating import (
    HALVES,
    NONE,
    ActivationStatistics,
    Examples,
)

EXPLAINER = "tokens"
"""Who writes these descriptions."""
LICENCE = "CC0-1.0"
"""Explainer of these descriptions: lists of tokens."""
ACTIVATES_ON = AMID = TOP_LOGITS = 5
LEAST_EXAMPLES = 2
"""A token must be in so many of a feature's examples to be called typical of them."""


@dataclass(frozen=True)
class TypicalTokens:
    """Token ids that tell what a feature is about."""

    activates_on: tuple[tuple[int, float], ...]
    """Ids and their shares of its activation."""
    amid: tuple[int, ...]


def typical_tokens(
    examples: Examples,
    statistics: ActivationStatistics,
    documents: Documents,
    half: int | None = None,
) -> dict[int, TypicalTokens]:
    """By active feature; `half`: from these documents alone."""
    frequency = Counter(token for ids in documents.token_ids for token in set(ids))
    halves = range(HALVES) if half is None else (half,)
    found = {}
    for feature, top in statistics.top_tokens(ACTIVATES_ON, half).items():
        own = {token for token, _ in top}
        seen: Counter[int] = Counter()
        for part in halves:
            for number, position in zip(
                examples.document[part, feature], examples.position[part, feature], strict=True
            ):
                if number != NONE:
                    window = window_of(documents, examples, int(number), int(position))
                    seen.update(set(window) - own)
        found[feature] = TypicalTokens(tuple(top), _surprising(seen, frequency, len(documents)))
    return found


def window_of(
    documents: Documents, examples: Examples, number: int, position: int
) -> tuple[int, ...]:
    """Ids of an example's tokens, BOS left out."""
    ids = documents.token_ids[number]
    return ids[
        first_of_window(documents, examples, position) : position + examples.window.after + 1
    ]


def first_of_window(documents: Documents, examples: Examples, position: int) -> int:
    """Place in its document of an example's first token."""
    return max(1 if documents.has_bos else 0, position - examples.window.before)


def _surprising(
    seen: Counter[int], frequency: Mapping[int, int], documents: int
) -> tuple[int, ...]:
    scored = sorted(
        (-times * log(documents / frequency[token]), token)
        for token, times in seen.items()
        if times >= LEAST_EXAMPLES
    )
    return tuple(token for score, token in scored[:AMID] if score < 0)
