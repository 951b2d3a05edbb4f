"""The finished files of a run that the index of one SAE is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from saematch.explorer.catalogue_query import role_of, strategies
from saematch.explorer.labels import standing_judges
from saematch.explorer.run_files import RunFiles
from saematch.store.names import (
    JUDGEMENTS_NAME,
    PATHS_NAME,
    candidates_name,
    examples_name,
    features_name,
    sample_name,
)


@dataclass(frozen=True)
class Sources:
    """Names of files by what they are for."""

    following: str
    """Key of the SAE after it on its chain; '' at the end."""
    tables: Mapping[str, Sequence[str]]
    """Names by role (`TABLES`)."""
    descriptions: Sequence[tuple[str, str]]
    """Source and name, those that are preferred first."""
    judges: Sequence[str]
    """Whose labels are shown, as experiment/judge."""
    passing: Sequence[str]
    """Those of them that pass their controls."""

    @property
    def names(self) -> list[tuple[str, str]]:
        """Every file with its role."""
        tables = ((role, name) for role, some in self.tables.items() for name in some)
        return [*tables, *(("descriptions", name) for _, name in self.descriptions)]

    def without(self, names: set[str]) -> "Sources":
        """The same but for these files; samples and judgements say nothing without each other."""
        tables = {
            role: [one for one in some if one not in names] for role, some in self.tables.items()
        }
        if not tables.get("samples") or not tables.get("judgements"):
            tables |= {"samples": [], "judgements": []}
        return replace(
            self,
            tables={role: some for role, some in tables.items() if some},
            descriptions=[one for one in self.descriptions if one[1] not in names],
        )


def sources_of(run: RunFiles, key: str) -> Sources:
    """Those of an SAE that are finished."""
    following = next((b for a, b in run.adjacent if a == key), "")
    before = next((a for a, b in run.adjacent if b == key), "")
    tables = {
        "paths": [PATHS_NAME],
        "previous": [run.matching(before, key)],
        "candidates": [candidates_name(key, following)],
        "features": [features_name(key)],
        "examples": [examples_name(key)],
        "samples": [sample_name(experiment) for experiment in run.judges],
        "judgements": [JUDGEMENTS_NAME],
        "pairs": list(run.pair_sources.values()),
        **{role_of(one): [run.matching(key, following, one)] for one in strategies()},
    }
    judges, passing = standing_judges(run)
    every = Sources(following, tables, run.descriptions(key), judges, passing)
    return every.without({name for _, name in every.names if run.sha256(name) is None})
