"""The descriptions in a run directory, read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saematch.semantics.descriptions.description import Description, first_texts
from saematch.store.directory import RunDirectory
from saematch.store.names import DESCRIPTIONS, descriptions_name, split_descriptions_name

if TYPE_CHECKING:
    from saematch.store.tables import Tables

SHOWN_FIRST = ("neuronpedia", "model", "activations")
"""Sources whose descriptions are shown, the preferred first; halves (`model-0`) are for judges."""


@dataclass(frozen=True, eq=False)
class Described:
    """The descriptions of one SAE's features from one source."""

    descriptions: tuple[Description, ...]
    about: Mapping[str, Any]
    """What the table's metadata says: corpora, tokens, model."""

    @cached_property
    def texts(self) -> Mapping[int, str]:
        """The text that stands for each feature that has one."""
        return first_texts(self.descriptions)

    @property
    def count(self) -> int:
        """Features with a description."""
        return len(self.texts)

    @property
    def example(self) -> tuple[int, str]:
        """A feature in the middle of those described, and its text; '' if there is none."""
        features = sorted(self.texts)
        if not features:
            return -1, ""
        middle = features[len(features) // 2]
        return middle, self.texts[middle]


def descriptions_of(run: "Tables", source: str, key: str) -> Described | None:
    """The current descriptions of an SAE from a source (freshness.py); None if there are none."""
    name = descriptions_name(source, key)
    if not run.directory.is_current(name):
        return None
    table, about = run.directory.table(name)
    return Described(tuple(Description(**row) for row in table.to_pylist()), about)


def shown_descriptions(directory: RunDirectory, key: str) -> list[tuple[str, str]]:
    """Sources of an SAE's current descriptions and their files, the preferred first; what was made from half
    of the documents, which only judges need, is left out."""
    found = ((source, descriptions_name(source, key)) for source in SHOWN_FIRST)
    return [(source, name) for source, name in found if directory.is_current(name)]


def described(run: "Tables") -> dict[tuple[str, str], Described]:
    """All there are, by key and source, in order of depth."""
    found = {}
    for key in run.keys:
        for name in run.directory.current_names(DESCRIPTIONS):
            source, of = split_descriptions_name(name)
            if of == key:
                one = descriptions_of(run, source, key)
                assert one is not None
                found[key, source] = one
    return found
