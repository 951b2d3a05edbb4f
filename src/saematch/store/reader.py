"""Reading a run directory: tables as frames, one feature followed through the layers.

Every file is checked against the manifest when it is read.  No lock is needed: files appear whole.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.configs.run import RunConfig
from saematch.errors import InputError, UsageError
from saematch.notebook import curve, number, page
from saematch.store.commands import run_again
from saematch.store.directory import RunDirectory
from saematch.store.freshness import current_names, is_current
from saematch.store.names import MEASURES_NAME, PATHS_NAME, candidates_name, matching_name
from saematch.store.schema import decode

if TYPE_CHECKING:
    import pandas as pd

_FOLLOWED: dict[str, str] = {
    **{name: name for name in ("key", "feature", "status", "cost", "cosine", "margin", "certain")},
    **{name: name for name in ("born", "dies", "quantile", "runner_up")},
    "runner_up_extra_cost": "extra_cost",
    **{name: name for name in ("runner_up_cosine", "runner_up_status", "doubts", "kinds")},
}
"""Columns of `Run.follow`, and what a step calls them (following.py)."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished (or half finished) run; `open_run` makes one."""

    directory: RunDirectory

    def _repr_html_(self) -> str:
        """Its adjacent pairs, and their mean decoder MSE."""
        measures = self.measures()
        folded = measures[
            (measures["strategy"] == "folded") & (measures["parts"] == self.config.slug)
        ]
        texts = folded[folded["corpus"] != ""]
        values = {
            **_means(folded[folded["corpus"] == ""], ("mse_decoder", "certain_share")),
            **_means(texts, ("explained_variance", "matching_score")),
        }
        pairs = self.adjacent
        facts: dict[str, Any] = {
            "directory": str(self.path),
            "measured on": ", ".join(dict.fromkeys(texts["corpus"]))
            or "no text: saematch evaluate",
        }
        for a, b in pairs:
            said = (("decoder MSE", "mse_decoder"), ("certain", "certain_share"))
            said += (("explained variance", "explained_variance"), ("score", "matching_score"))
            known = [(name, values.get((a, b, measure))) for name, measure in said]
            facts[f"{a} → {b}"] = ", ".join(f"{n} {number(v)}" for n, v in known if v is not None)
        drawn = np.array([values.get((a, b, "mse_decoder"), np.nan) for a, b in pairs])
        title = f"Run of {self.config.suite}"
        return page(title, facts, curve(drawn, "mean decoder MSE of folded, by layer pair"))

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
        """Adjacent pairs first, in order of depth, then far ones."""
        _, details = self._table("evaluation/measures/weights.parquet")
        return tuple((a, b) for a, b in details["pairs"])

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """Keys of the SAEs that paths go through, in order of depth; several where a layer has
        several SAEs."""
        _, details = self._table(PATHS_NAME)
        return tuple(tuple(keys) for keys in details["chains"])

    @property
    def adjacent(self) -> tuple[tuple[str, str], ...]:
        """Pairs of SAEs that follow each other on a chain, in order of depth."""
        return tuple(pair for keys in self.chains for pair in pairwise(keys))

    def matching_table(
        self, a: str | int, b: str | int, strategy: str = "folded"
    ) -> "pd.DataFrame":
        """The table of a pair's matching under the run's parts; `composition`: of far pairs.

        Raises UsageError naming the pairs or strategies there are.
        """
        return self._frame(self._matching_name(a, b, strategy))

    def matching_details(
        self, a: str | int, b: str | int, strategy: str = "folded"
    ) -> dict[str, Any]:
        """Proof, shares, notes and sizes of a pair's matching (docs/run-directory.md)."""
        return self._table(self._matching_name(a, b, strategy))[1]

    def candidates(self, a: str | int, b: str | int) -> "pd.DataFrame":
        """The nearest features of each feature of `a`; raises UsageError naming the pairs."""
        first, second = self.key(a), self.key(b)
        name = candidates_name(first, second)
        if not is_current(self.directory, name):
            raise self._no_pair(first, second, "candidates/")
        return self._frame(name)

    def paths(self) -> "pd.DataFrame":
        """A row a (path, layer)."""
        return self._frame(PATHS_NAME)

    def measures(self) -> "pd.DataFrame":
        """Every measure of every pair and strategy."""
        return self._frame(MEASURES_NAME)

    def key(self, layer_key: str | int) -> str:
        """The key of an SAE from its key or layer; raises UsageError naming those there are."""
        wanted = str(layer_key)
        saes = self.manifest["saes"]
        if wanted in saes:
            return wanted
        found = [key for key, sae in saes.items() if str(sae["layer"]) == wanted]
        if len(found) != 1:
            raise UsageError(
                f"needed one of the layers {', '.join(saes)}, found '{wanted}'"
                + (", which names several" if found else "")
            )
        return found[0]

    def follow(self, layer_key: str | int, feature: int) -> "pd.DataFrame":
        """The path through a feature, a row a layer; a step's values are in the row of its end.

        Columns: layer, key, feature, status, cost, cosine, margin, certain, born, dies (as in paths.parquet);
        quantile: share of the step's live-live pairs that cost at most as much (missing
        where a feature is not live); runner_up: the feature of least cost but for the one taken, with
        runner_up_extra_cost (its cost less that of the pair; negative: nearer, but given to another),
        runner_up_cosine and runner_up_status; doubts: why to doubt the step, in words; kinds: what kinds
        of doubt these are.
        Raises UsageError naming the layers, or the features, that there are.
        """
        import pandas as pd

        from saematch.store.following import steps_through

        key = self.key(layer_key)
        d_sae = self.manifest["saes"][key]["d_sae"]
        if not 0 <= feature < d_sae:
            raise UsageError(
                f"needed a feature of layer {key} from 0 to {d_sae - 1}, found {feature}"
            )
        steps = steps_through(self, key, feature)
        if not steps:
            raise UsageError(
                f"needed a layer that paths go through, found {key}; there are: "
                f"{', '.join(name for chain in self.chains for name in chain)}"
            )
        path = pd.DataFrame(
            {name: [vars(step)[column] for step in steps] for name, column in _FOLLOWED.items()}
        )
        path.insert(0, "layer", [self.manifest["saes"][step.key]["layer"] for step in steps])
        measured = [
            name for name in _FOLLOWED if name.endswith(("cost", "cosine", "margin", "quantile"))
        ]
        return path.astype({**dict.fromkeys(measured, float), "runner_up": "Int64"})

    def _matching_name(self, a: str | int, b: str | int, strategy: str) -> str:
        first, second = self.key(a), self.key(b)
        slug = self.config.slug
        name = matching_name(first, second, strategy, slug)
        if is_current(self.directory, name):
            return name
        folder = f"matchings/{strategy}/{slug}/"
        if not current_names(self.directory, folder):
            there = {found.split("/")[1] for found in current_names(self.directory, "matchings/")}
            raise UsageError(
                f"needed a strategy of {', '.join(sorted(there)) or 'a finished run'}, found "
                f"'{strategy}'"
            )
        raise self._no_pair(first, second, folder)

    def _no_pair(self, a: str, b: str, folder: str) -> UsageError:
        names = current_names(self.directory, folder)
        there = [name.removeprefix(folder).removesuffix(".parquet") for name in names]
        return UsageError(
            f"needed one of the pairs {', '.join(there) or '(none is finished)'}, found {a}--{b}; "
            "pairs further apart are matched by far (in the command line --far)"
        )

    def _table(self, name: str) -> tuple[Any, dict[str, Any]]:
        if self.directory.record(name) is not None and not is_current(self.directory, name):
            raise InputError(
                f"expected {self.directory.file(name)} of the run's present settings, got one of other "
                "settings or of files that were made again since; try: "
                f"{run_again(self.path, self.manifest['config'])}"
            )
        return decode(self.directory.read(name))

    def _frame(self, name: str) -> "pd.DataFrame":
        return self._table(name)[0].to_pandas()


def open_run(directory: str | Path) -> Run:
    """The run in a directory; raises InputError where there is none or its manifest was altered."""
    run = Run(RunDirectory(directory))
    if run.manifest["config"] is None:
        raise InputError(f"needed a run in {directory}, found one that was never begun")
    return run


@contextmanager
def holding_run(directory: str | Path) -> Iterator[RunDirectory]:
    """Be the only writer of a run that is there; raises as `open_run`, then as `RunDirectory.holding`."""
    open_run(directory)  # first: nothing is made where there is no run
    with RunDirectory(directory).holding() as held:
        yield held


def _means(rows: Any, names: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """By pair and measure; over corpora."""
    rows = rows[rows["measure"].isin(names)]
    means = rows.groupby(["a", "b", "measure"])["value"].mean().dropna()
    return {(a, b, measure): float(value) for (a, b, measure), value in means.items()}
