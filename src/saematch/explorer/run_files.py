"""The finished files of a run, each checked against the manifest before it is read.

The manifest is read again whenever it changes, so that a run that is still being written shows what it has.
A file's sha256 is taken when it is first used, and again when its size or time of change is another.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from saematch._io import files
from saematch.errors import InputError, SaematchError, UsageError
from saematch.matching.matchers import MAIN
from saematch.pipelines.suite import chains
from saematch.store.directory import RunDirectory
from saematch.store.judge_results import Judged, answered_experiments, best_judge
from saematch.store.manifest import MANIFEST, altered_error
from saematch.store.names import (
    DESCRIPTIONS,
    FOLLOWED_NAME,
    JUDGEMENTS_NAME,
    JUDGING,
    PAIR_SOURCES,
    PATHS_NAME,
    matching_name,
)
from saematch.store.tables import Tables, shown_descriptions

READ = (
    PATHS_NAME, "matchings/", "fates/", FOLLOWED_NAME, "candidates/", "features/", DESCRIPTIONS, "examples/",
    JUDGING, JUDGEMENTS_NAME, PAIR_SOURCES,
)  # fmt: skip
"""The files of a run that are shown; those that the page needs first come first."""
MOST_FEATURES = 1 << 24
"""Features of one SAE; a manifest that says more was not written by us."""


@dataclass(frozen=True)
class Checked:
    stamp: files.Stamp
    settled: bool
    """Any change since gives the file another stamp."""
    sha256: str
    """That it should have."""
    wrong: str
    """Why it cannot be used, in words; '': it can."""


class Place(NamedTuple):
    key: str
    layer: int
    name: str


class RunFiles(Tables):
    """A run directory, for reading only; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises InputError if there is no run at `path` or its manifest was altered."""
        # Not `resolve`, which fails in a way of its own where links lead to each other.
        self._directory = RunDirectory(os.path.realpath(files.user_path(path)))
        self.read_at = self.path
        """Where its files are found by who reads them (`Database.let_in`)."""
        self._lock = threading.Lock()
        self._checked: dict[str, Checked] = {}
        self._missing: dict[str, str] = {}
        self._stamp: files.Stamp | None = None
        """Stamp of the manifest that was read; None also where it may have changed within a tick of its
        clock."""
        self._judges: tuple[Any, dict[str, Judged]] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the manifest again if it changed, and look again at files that were wrong and changed since;
        raises InputError as `__init__` does."""
        self._read_manifest()
        wrong = [name for name, one in self._checked.copy().items() if one.wrong]
        for name in (*wrong, *self._missing.copy()):
            with suppress(InputError):  # `wrong` says it
                if self.sha256(name) is not None:
                    self._checked_file(name)

    def _read_manifest(self) -> None:
        looked, stamp = files.now_ns(), None
        with suppress(OSError):
            stamp = files.Stamp.of(self.path / MANIFEST)
        with self._lock:
            if stamp is not None and stamp == self._stamp:
                return
            directory = RunDirectory(self.path)
            if directory.manifest["config"] is None:
                raise InputError(
                    f"the run in {self.path} has not started; make one with saematch run"
                )
            self._chains = _chains(directory.manifest["saes"])
            self._pair_sources = {
                name.removeprefix(PAIR_SOURCES).removesuffix(".parquet"): name
                for name in directory.current_names(PAIR_SOURCES)
            }
            # The same manifest stays the same object: what is made of it is kept by that.
            if directory.manifest != self._directory.manifest:
                self._directory = directory
                vars(self).pop("config", None)  # read from the manifest before
            self._stamp = stamp if stamp is not None and stamp.is_settled(looked) else None

    @property
    def directory(self) -> RunDirectory:
        """As its manifest says that it is now."""
        return self._directory

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """Keys of SAEs that are matched one to the next, in order of depth: known before the paths are."""
        return self._chains

    def width(self, key: str) -> int:
        width = self.manifest["saes"][key]["d_sae"]
        if not isinstance(width, int) or not 0 < width <= MOST_FEATURES:
            raise InputError(
                f"expected from 1 to {MOST_FEATURES} features for {key}, got {width} in "
                f"{self.path / MANIFEST}"
            )
        return width

    def matching(self, a: str, b: str, strategy: str = MAIN) -> str:
        return matching_name(a, b, strategy, self.config.slug)

    def descriptions(self, key: str) -> list[tuple[str, str]]:
        """Sources of an SAE's descriptions and their files, the preferred first."""
        return shown_descriptions(self.directory, key)

    @property
    def pair_sources(self) -> dict[str, str]:
        """Tables of feature pairs' activations, by corpus, as far as they are of what the run has now."""
        return self._pair_sources

    @property
    def judges(self) -> dict[str, Judged]:
        """The judge that stands for each experiment that was judged; one whose results cannot be read
        is left out, and named under `wrong`."""
        directory = self._directory
        if self._judges is not None and self._judges[0] is directory:
            return self._judges[1]
        found, whole = {}, True
        for experiment in answered_experiments(directory):
            name = f"{JUDGING}{experiment}/"
            try:
                best = best_judge(self, experiment)
                if best is not None and best.verdict:
                    found[experiment] = best
                self._missing.pop(name, None)
            except (SaematchError, ValueError, KeyError, TypeError) as error:
                self._missing[name] = (
                    f"the judges' results in {self.path / name} cannot be read: {error}"
                )
                whole = False
        self._judges = (directory, found) if whole else None
        return found

    def names(self, prefix: str) -> list[str]:
        """Current tables whose names start so (store/directory.py)."""
        names = self.directory.current_names(prefix)
        return [name for name in names if name.endswith(".parquet")]

    def sha256(self, name: str) -> str | None:
        """What the manifest says of a file; None if there is none that is current."""
        return self.directory.kept(name).sha256 if self.directory.is_current(name) else None

    def file(self, name: str) -> str:
        """The path of a finished file whose bytes are those that were written.

        Raises InputError where it is not finished, is no plain file in the directory, or was altered.
        """
        try:
            return self._checked_file(name)
        except InputError:
            self.refresh()  # a run may have replaced it since
            return self._checked_file(name)

    def files(self, names: Sequence[str]) -> list[str]:
        return [self.file(name) for name in names]

    def refuse(self, name: str, wrong: str) -> None:
        """Say of a file whose bytes are those that were written that it is no such table even so."""
        if (known := self._checked.get(name)) is not None:
            self._checked[name] = replace(known, wrong=wrong)

    @property
    def wrong(self) -> list[str]:
        """Files that could not be used when they were last looked at, in words."""
        found = {name: one.wrong for name, one in self._checked.copy().items()} | self._missing
        return [why for name, why in sorted(found.items()) if why and self.names(name)]

    def check(self, stopped: Callable[[], bool]) -> None:
        """Look at every table, so that `wrong` names those that were altered."""
        for name in (name for prefix in READ for name in self.names(prefix)):
            if stopped():
                return
            with suppress(InputError):  # `wrong` says it
                self._checked_file(name)

    def _checked_file(self, name: str) -> str:
        path = self._directory.file(name)
        expected = self.sha256(name)
        if expected is None:
            raise InputError(f"{path} is not finished; run again")
        if set(name) & set(
            "*?["
        ):  # DuckDB would take it for a pattern; keys that we make have none
            raise InputError(f"expected a file name without wildcards, got '{name}'")
        if not files.is_plain_file(path) or not path.resolve().is_relative_to(self.path):
            self._checked.pop(name, None)
            self._missing[name] = f"there is no file {path}; run again"
            raise InputError(self._missing[name])
        self._missing.pop(name, None)
        with files.os_errors_in_words("read", path):
            looked = files.now_ns()
            stamp = files.Stamp.of(path)
            known = self._checked.get(name)
            same = known is not None and (known.stamp, known.sha256) == (stamp, expected)
            if known is None or not same or not known.settled:
                if files.sha256_of_file(path) != expected:
                    wrong = str(altered_error(path))
                else:  # it may be no such table, though its bytes are those that were written
                    wrong = known.wrong if known is not None and same else ""
                known = Checked(stamp, stamp.is_settled(looked), expected, wrong)
                self._checked[name] = known
        if known.wrong:
            raise InputError(known.wrong)
        return str(self.read_at / name)


def _chains(saes: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    if not saes:
        return ()  # the run has only just begun
    places = [Place(key, int(sae["layer"]), str(sae["name"])) for key, sae in saes.items()]
    try:
        return tuple(tuple(chain) for chain in chains(places)[0])
    except UsageError as error:
        raise InputError(str(error)) from error
