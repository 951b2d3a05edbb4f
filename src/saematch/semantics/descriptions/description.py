"""What a feature is said to mean, and who says so."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """One text about one feature."""

    feature: int
    text: str
    """Not empty; written by a stranger or a model: to be escaped wherever it is shown."""
    source: str
    """Where it comes from: `activations`, `model` or `neuronpedia`."""
    explainer: str
    """Who or what wrote it: a model, a method, with its version where known; '' where nobody knows."""
    licence: str
    """Under which it may be passed on; '' where nobody says."""


def first_texts(descriptions: Iterable[Description]) -> Mapping[int, str]:
    """The text that stands for each feature: the first of its descriptions."""
    found: dict[int, str] = {}
    for one in descriptions:
        found.setdefault(one.feature, one.text)
    return found
