"""What features are said to mean, as figures show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from saematch.figures.captions import plain
from saematch.store.descriptions import descriptions_of, shown_descriptions
from saematch.store.names import features_name

if TYPE_CHECKING:
    from saematch.store.reader import Run

ACTIVATES_ON = "tokens that a feature activates on"
WORDS = {
    "activations": "lists of tokens from activations",
    "model": "words of a language model",
    "neuronpedia": "texts from Neuronpedia",
}
"""What descriptions are, by their source."""
TOKENS = 4
"""Tokens that stand for a feature without a description."""


@dataclass(frozen=True)
class Described:
    """Texts by key of the SAE and feature."""

    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __call__(self, key: str, feature: int) -> str:
        """The feature's text in one line; '' where it has none."""
        return self.texts.get(key, {}).get(feature, "")

    def facts(self) -> str:
        """The sentence that says whose descriptions these are, or how to come by some."""
        if not self.texts:
            return "Without descriptions; saematch describe makes them."
        said = " or ".join(WORDS.get(source, source) for source in self.sources)
        return f"Descriptions: {said}, not checked by anyone."


def described(run: "Run") -> Described:
    """The run's descriptions; of an SAE without any, the tokens that its features activate on."""
    texts: dict[str, dict[int, str]] = {}
    sources: dict[str, None] = {}
    for key in run.keys:
        source = next((source for source, _ in shown_descriptions(run.directory, key)), None)
        if source is not None and (found := descriptions_of(run, source, key)) is not None:
            texts[key] = {feature: plain(text) for feature, text in found.texts.items()}
            sources[source] = None
        elif run.directory.is_current(features_name(key)):
            texts[key] = _activates_on(run.directory.table(features_name(key))[0].to_pandas())
            sources[ACTIVATES_ON] = None
    return Described(texts, tuple(sources))


def _activates_on(table: pd.DataFrame) -> dict[int, str]:
    return {
        int(feature): plain(", ".join(f"'{token}'" for token in list(tokens)[:TOKENS]))
        for feature, tokens in zip(table["feature"], table["activates_on"], strict=True)
        if len(tokens)
    }
