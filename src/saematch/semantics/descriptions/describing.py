"""Features of some SAEs described from one pass of their language model over a corpus.

1. Record what the features activate on (max_activating.py).
2. Ask the unembedding for their top logits.
3. Choose the tokens that tell what a feature is about: those with most of its activation; those in its
   examples more often than by chance, by number of examples times the logarithm of rarity; those that
   its decoder row raises most.
4. Put them in words (description.py): once from all that was read, and once from either half of the
   documents, without the top logits, which no choice of documents changes: a judge's controls
   and pairs are then made of the same kind of text from different documents.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from jaxtyping import Int64

from saematch.models import Documents, LanguageModel
from saematch.sae import SAE
from saematch.semantics.descriptions.description import Description, describe_tokens
from saematch.semantics.descriptions.max_activating import (
    HALVES,
    NONE,
    ActivationStatistics,
    Examples,
    watch,
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


ACTIVATIONS = "activations"


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Documents of several corpora as one, and which is which."""

    documents: Documents
    corpus_of: tuple[str, ...]
    """Corpus of each document."""
    number_of: tuple[int, ...]
    """Number of each document in its corpus."""

    @classmethod
    def of(cls, corpora: Sequence[Documents]) -> "ReadTexts":
        joined = Documents(
            "+".join(one.corpus for one in corpora),
            "; ".join(dict.fromkeys(one.origin for one in corpora)),
            tuple(ids for one in corpora for ids in one.token_ids),
            sum(one.too_short for one in corpora),
            corpora[0].has_bos,
            _numbered([one.text_of for one in corpora]),
        )
        names = tuple(one.corpus for one in corpora for _ in range(len(one)))
        numbers = tuple(number for one in corpora for number in range(len(one)))
        return cls(joined, names, numbers)


def _numbered(text_of: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Numbers of the texts of several corpora as of one, without gaps, in their order."""
    numbers: dict[tuple[int, int], int] = {}
    for corpus, texts in enumerate(text_of):
        for text in texts:
            numbers.setdefault((corpus, text), len(numbers))
    return tuple(numbers[corpus, text] for corpus, texts in enumerate(text_of) for text in texts)


@dataclass(frozen=True, eq=False)
class DescribedFeatures:
    """The features of one SAE."""

    examples: Examples
    statistics: ActivationStatistics
    typical: Mapping[int, TypicalTokens]
    """From all documents."""
    top_logits: Int64[np.ndarray, "d_sae count"]
    descriptions: Mapping[str, Sequence[Description]]
    """By source: `activations`, and of either half alone `activations-0` and `activations-1`."""


def half_source(source: str, half: int) -> str:
    """The name of descriptions made of one half of the documents."""
    return f"{source}-{half}"


def describe_features(
    model: LanguageModel,
    texts: ReadTexts,
    saes: Mapping[str, SAE],
    examples: int = 5,
    batch_tokens: int = 2048,
    layers: Collection[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, DescribedFeatures]:
    """By key; `saes` are on the model's device, `examples` is their number per feature and half.

    `layers`: of other SAEs of the run, whose massive-activation tokens are left out too.
    `progress` is told how many documents were read.
    """
    # First: a model whose unembedding cannot be read should say so before the long pass.
    top_logits = {
        key: model.top_logit_tokens(sae.W_dec, TOP_LOGITS).numpy() for key, sae in saes.items()
    }
    watched = watch(
        model,
        texts.documents,
        saes,
        examples,
        batch_tokens=batch_tokens,
        layers=layers,
        progress=progress,
    )
    return {
        key: _described(model, texts, top_logits[key], *found) for key, found in watched.items()
    }


def _described(
    model: LanguageModel,
    texts: ReadTexts,
    top_logits: Int64[np.ndarray, "d_sae count"],
    examples: Examples,
    statistics: ActivationStatistics,
) -> DescribedFeatures:
    typical = typical_tokens(examples, statistics, texts.documents)
    descriptions: dict[str, Sequence[Description]] = {
        ACTIVATIONS: _in_words(model, typical, ACTIVATIONS, top_logits)
    }
    for half in range(HALVES):
        source = half_source(ACTIVATIONS, half)
        of_half = typical_tokens(examples, statistics, texts.documents, half)
        descriptions[source] = _in_words(model, of_half, source)
    return DescribedFeatures(examples, statistics, typical, top_logits, descriptions)


def _in_words(
    model: LanguageModel,
    typical: Mapping[int, TypicalTokens],
    source: str,
    top_logits: np.ndarray | None = None,
) -> list[Description]:
    words = model.token_text
    found = []
    for feature, tokens in sorted(typical.items()):
        raised = [] if top_logits is None else [words(int(t)) for t in top_logits[feature]]
        activates_on = [words(token) for token, _ in tokens.activates_on]
        text = describe_tokens(activates_on, [words(token) for token in tokens.amid], raised)
        found.append(Description(feature, text, source, EXPLAINER, LICENCE))
    return found


def feature_rows(model: LanguageModel, described: DescribedFeatures) -> dict[str, Any]:
    """Columns of `features/{key}.parquet`."""
    statistics, words = described.statistics, model.token_text
    activation_count = statistics.activation_count
    active = activation_count > 0
    typical = [
        described.typical.get(f, TypicalTokens((), ())) for f in range(len(activation_count))
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(active, statistics.total / activation_count, np.nan)
    return {
        "feature": np.arange(len(activation_count)),
        "activation_count": activation_count,
        "activation_frequency": activation_count / max(1, statistics.tokens),
        "mean_activation": mean,
        "greatest_activation": np.where(active, statistics.greatest, np.nan),
        "activates_on": [[words(token) for token, _ in one.activates_on] for one in typical],
        "activates_on_share": [[share for _, share in one.activates_on] for one in typical],
        "amid": [[words(token) for token in one.amid] for one in typical],
        "top_logits": [[words(int(token)) for token in row] for row in described.top_logits],
    }


def example_rows(
    model: LanguageModel, texts: ReadTexts, described: DescribedFeatures
) -> dict[str, Any]:
    """Columns of `examples/{key}.parquet`, by feature, half and rank."""
    examples, documents = described.examples, texts.documents
    rows: dict[str, list[Any]] = {
        name: []
        for name in (
            "feature", "half", "rank", "corpus", "document", "position", "activation", "place",
            "tokens", "activations",
        )
    }  # fmt: skip
    known = np.argwhere(np.moveaxis(examples.document, 1, 0) != NONE)
    for feature, half, rank in known.tolist():
        number = int(examples.document[half, feature, rank])
        position = int(examples.position[half, feature, rank])
        ids = window_of(documents, examples, number, position)
        first = first_of_window(documents, examples, position)
        start = first - position + examples.window.before
        around = examples.activations[half, feature, rank]
        values = (
            feature, half, rank + 1, texts.corpus_of[number], texts.number_of[number], position,
            float(around[examples.window.before]), position - first,
            [model.token_text(token) for token in ids],
            around[start : start + len(ids)].astype(float).tolist(),
        )  # fmt: skip
        for name, value in zip(rows, values, strict=True):
            rows[name].append(value)
    return rows
