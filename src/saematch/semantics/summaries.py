"""A short description of a feature without a language model, from where it fires and what it promotes.

`fires on ' Paris', ' London' amid ' capital', ' city'; promotes ' France', ' England'`: the tokens with most
of its activation; tokens that stand in the windows of its contexts more often than chance, by number of
contexts times the logarithm of rarity; the tokens that its decoder row raises most.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import log

import numpy as np

from saematch.language_model import Documents
from saematch.semantics.firing import NONE, Contexts

EXPLAINER = "tokens"
"""Who writes these descriptions."""
FIRES_ON = 5
AMID = 5
PROMOTES = 5
LEAST_CONTEXTS = 2
"""A token must be in so many of a feature's contexts to be called typical of them."""


def describe_tokens(
    fires_on: Sequence[str], amid: Sequence[str] = (), promotes: Sequence[str] = ()
) -> str:
    """The description; '' where the feature was seen to fire on nothing."""
    if not fires_on:
        return ""
    text = f"fires on {_listed(fires_on)}"
    if amid:
        text += f" amid {_listed(amid)}"
    if promotes:
        text += f"; promotes {_listed(promotes)}"
    return text


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in tokens)


def document_frequency(documents: Documents) -> Mapping[int, int]:
    """In how many documents each token is."""
    return Counter(token for ids in documents.token_ids for token in set(ids))


def typical_tokens(
    contexts: Contexts,
    documents: Documents,
    feature: int,
    halves: Sequence[int],
    frequency: Mapping[int, int],
    left_out: Callable[[int], bool] = lambda _: False,
    count: int = AMID,
) -> list[int]:
    """Ids of tokens that are in more of a feature's contexts than their rarity lets expect."""
    seen: Counter[int] = Counter()
    for half in halves:
        for number, position in zip(
            contexts.document[half, feature], contexts.position[half, feature], strict=True
        ):
            if number != NONE:
                seen.update(set(window_of(documents, contexts, int(number), int(position))))
    scored = [
        (-times * log(len(documents) / frequency[token]), token)
        for token, times in seen.items()
        if times >= LEAST_CONTEXTS and not left_out(token)
    ]
    return [token for score, token in sorted(scored)[:count] if score < 0]


def window_of(
    documents: Documents, contexts: Contexts, number: int, position: int
) -> tuple[int, ...]:
    """Ids of a context's tokens, BOS left out."""
    first = max(1 if documents.has_bos else 0, position - contexts.window.before)
    return documents.token_ids[number][first : position + contexts.window.after + 1]


def window_activations(
    documents: Documents, contexts: Contexts, half: int, feature: int, rank: int
) -> np.ndarray:
    """Activations of those tokens."""
    position = int(contexts.position[half, feature, rank])
    number = int(contexts.document[half, feature, rank])
    first = max(1 if documents.has_bos else 0, position - contexts.window.before)
    length = len(window_of(documents, contexts, number, position))
    start = first - position + contexts.window.before
    return contexts.activations[half, feature, rank, start : start + length]
