"""The tables of a run directory as frames, and the descriptions in it, read.

Every file is checked against the manifest when it is read.  No lock is needed: files appear whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saematch.configs import RunConfig
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN
from saematch.semantics.descriptions.description import Description, first_texts
from saematch.store.directory import RunDirectory
from saematch.store.names import (
    DESCRIPTIONS,
    FOLLOWED_NAME,
    MEASURES_NAME,
    PATHS_NAME,
    WEIGHTS_NAME,
    candidates_name,
    descriptions_name,
    fates_name,
    matching_name,
    split_descriptions_name,
)
from saematch.types import FOLLOW_WAYS, find_feature, find_key

if TYPE_CHECKING:
    import pandas as pd

    from saematch.matching.correspondence import Correspondence


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a run directory, those that are current."""

    directory: RunDirectory

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest says (manifest.py)."""
        return self.directory.manifest

    @cached_property
    def config(self) -> RunConfig:
        """The settings it was run with."""
        return RunConfig.from_dict(self.manifest["config"], str(self.path))

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the SAEs, in order of depth."""
        return tuple(self.manifest["saes"])

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Adjacent pairs first, in order of depth, then the others."""
        _, details = self.directory.table(WEIGHTS_NAME)
        return tuple((a, b) for a, b in details["pairs"])

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """Keys of the SAEs that paths go through, in order of depth; several where a layer has
        several SAEs."""
        _, details = self.directory.table(PATHS_NAME)
        return tuple(tuple(keys) for keys in details["chains"])

    @property
    def adjacent(self) -> tuple[tuple[str, str], ...]:
        """Pairs of SAEs that follow each other on a chain, in order of depth."""
        return tuple(pair for keys in self.chains for pair in pairwise(keys))

    def matching_table(self, a: str | int, b: str | int, strategy: str = MAIN) -> "pd.DataFrame":
        """The table of a pair's matching under the run's parts; `composition`: of non-adjacent pairs.

        Raises UsageError naming the pairs or strategies there are.
        """
        return self._frame(self._matching_name(a, b, strategy))

    def matching_details(self, a: str | int, b: str | int, strategy: str = MAIN) -> dict[str, Any]:
        """Proof, shares, notes and sizes of a pair's matching (docs/run-directory.md)."""
        return self.directory.table(self._matching_name(a, b, strategy))[1]

    def correspondence(self, a: str | int, b: str | int, strategy: str = MAIN) -> "Correspondence":
        """All partners of a pair's features, with weights; raises as `matching_table`."""
        from saematch.store.matchings import kept_matching

        file = self.directory.kept(self._matching_name(a, b, strategy))
        return kept_matching(file).correspondence

    def candidates(self, a: str | int, b: str | int) -> "pd.DataFrame":
        """The nearest features of each feature of `a`; raises UsageError naming the pairs."""
        first, second = self.key(a), self.key(b)
        name = candidates_name(first, second)
        if not self.directory.is_current(name):
            raise self._no_pair(first, second, "candidates/")
        return self._frame(name)

    def paths(self) -> "pd.DataFrame":
        """One row per (path, layer)."""
        return self._frame(PATHS_NAME)

    def fates(self, a: str | int, b: str | int) -> "pd.DataFrame":
        """What becomes of each feature of `a` in `b`; raises UsageError naming the pairs.

        `attrs["notes"]` says why probabilities are not known, if they are not; `attrs["born"]` has the
        features of `b` that no feature of `a` is the same as.
        """
        first, second = self.key(a), self.key(b)
        name = fates_name(first, second)
        if not self.directory.is_current(name):
            raise self._no_pair(first, second, "fates/")
        frame, (_, details) = self._frame(name), self.directory.table(name)
        frame.attrs.update(notes=details["notes"], born=details["born"])
        return frame

    def followed(self, way: str = FOLLOW_WAYS[0]) -> "pd.DataFrame":
        """Paths that agree with their start, one row per (path, layer): `consensus`, or `exact`."""
        if way not in FOLLOW_WAYS:
            raise UsageError(f"expected a way of {', '.join(FOLLOW_WAYS)}, got '{way}'")
        every = self._frame(FOLLOWED_NAME)
        return every[every["way"] == way].drop(columns="way").reset_index(drop=True)

    def measures(self) -> "pd.DataFrame":
        """Every measure of every pair and strategy."""
        return self._frame(MEASURES_NAME)

    def key(self, layer_key: str | int) -> str:
        """The key of an SAE from its key or layer; raises UsageError naming those there are."""
        return find_key(layer_key, self.keys)

    def feature(self, named: object) -> tuple[str, int]:
        """Key and index of a feature named as `12/345` or (12, 345); raises UsageError for one that is not
        there."""
        return find_feature(
            named, {key: sae["d_sae"] for key, sae in self.manifest["saes"].items()}
        )

    def _matching_name(self, a: str | int, b: str | int, strategy: str) -> str:
        first, second = self.key(a), self.key(b)
        slug = self.config.slug
        name = matching_name(first, second, strategy, slug)
        if self.directory.is_current(name):
            return name
        folder = f"matchings/{strategy}/{slug}/"
        if not self.directory.current_names(folder):
            there = {found.split("/")[1] for found in self.directory.current_names("matchings/")}
            raise UsageError(
                f"expected a strategy of {', '.join(sorted(there)) or 'a finished run'}, got "
                f"'{strategy}'"
            )
        raise self._no_pair(first, second, folder)

    def _no_pair(self, a: str, b: str, folder: str) -> UsageError:
        names = self.directory.current_names(folder)
        there = [name.removeprefix(folder).removesuffix(".parquet") for name in names]
        return UsageError(
            f"expected one of the pairs {', '.join(there) or '(none is finished)'}, got {a}--{b}; "
            "pairs further apart are matched if named by far (--far on the command line)"
        )

    def _frame(self, name: str) -> "pd.DataFrame":
        return self.directory.table(name)[0].to_pandas()


def pairs_among(run: Tables, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs that are named by layers or keys; raises UsageError for one that was not matched."""
    there = run.pairs
    found = [(run.key(a), run.key(b)) for a, b in wanted]
    for a, b in found:
        if (a, b) not in there:
            said = ", ".join(f"{x},{y}" for x, y in there)
            raise UsageError(f"expected pairs among {said}, got {a},{b}")
    return found


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
        texts = sorted(self.texts.items())
        return texts[len(texts) // 2] if texts else (-1, "")


def descriptions_of(run: "Tables", source: str, key: str) -> Described | None:
    """The current descriptions of an SAE from a source (directory.py); None if there are none."""
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
    names = map(split_descriptions_name, run.directory.current_names(DESCRIPTIONS))
    every = sorted(names, key=lambda name: run.keys.index(name[1]))
    return {
        (key, source): found
        for source, key in every
        if (found := descriptions_of(run, source, key)) is not None
    }
