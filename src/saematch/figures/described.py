"""What features are said to mean, as figures show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from saematch.figures.captions import plain
from saematch.figures.data import current, read
from saematch.store.descriptions import SHOWN_FIRST

if TYPE_CHECKING:
    from saematch.store.reader import Run

FIRES_ON = "tokens that a feature fires on"
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
    """The run's descriptions; of an SAE without any, the tokens that its features fire on."""
    texts: dict[str, dict[int, str]] = {}
    sources: dict[str, None] = {}
    descriptions = {
        tuple(name.split("/")[-1].removesuffix(".parquet").split("--", 1)): name
        for name in current(run, "descriptions/")
    }
    features = set(current(run, "features/"))
    for key in run.keys:
        source = next((one for one in SHOWN_FIRST if (one, key) in descriptions), None)
        if source is not None:
            table, _ = read(run, descriptions[source, key])
            first = table.drop_duplicates("feature")
            texts[key] = dict(zip(first["feature"], map(plain, first["text"]), strict=True))
            sources[source] = None
        elif f"features/{key}.parquet" in features:
            table, _ = read(run, f"features/{key}.parquet")
            texts[key] = _fires_on(table)
            sources[FIRES_ON] = None
    return Described(texts, tuple(sources))


def _fires_on(table: pd.DataFrame) -> dict[int, str]:
    return {
        int(feature): plain(", ".join(f"'{token}'" for token in list(tokens)[:TOKENS]))
        for feature, tokens in zip(table["feature"], table["fires_on"], strict=True)
        if len(tokens)
    }
