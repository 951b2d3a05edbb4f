"""Reading a run: its tables, and one feature followed through the layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.errors import InputError, UsageError
from saematch.matching.matchers import MAIN
from saematch.notebook import curve, number, page
from saematch.store.directory import RunDirectory
from saematch.store.names import CALIBRATION_NAME
from saematch.store.tables import Tables

if TYPE_CHECKING:
    import pandas as pd

    from saematch.matching.probability import Calibration


@dataclass(frozen=True, eq=False)
class Run(Tables):
    """A finished or half-finished run; `open_run` makes one."""

    def _repr_html_(self) -> str:
        """Its adjacent pairs, and their mean decoder MSE."""
        measures = self.measures()
        folded = measures[(measures["strategy"] == MAIN) & (measures["parts"] == self.config.slug)]
        means = folded.groupby(["a", "b", "measure"])["value"].mean().dropna().to_dict()
        corpora = ", ".join(filter(None, dict.fromkeys(folded["corpus"])))
        facts: dict[str, Any] = {
            "directory": str(self.path),
            "measured on": corpora or "no text: saematch evaluate",
        }
        shown = {"decoder MSE": "mse_decoder", "certain": "certain_share"}
        shown |= {"explained variance": "explained_variance", "score": "matching_score"}
        for a, b in self.adjacent:
            known = {name: means.get((a, b, measure)) for name, measure in shown.items()}
            facts[f"{a} → {b}"] = ", ".join(
                f"{name} {number(value)}" for name, value in known.items() if value is not None
            )
        drawn = np.array([means.get((a, b, "mse_decoder"), np.nan) for a, b in self.adjacent])
        title = f"Run of {self.config.suite}"
        return page(title, facts, curve(drawn, "mean decoder MSE of folded, by layer pair"))

    @property
    def calibration(self) -> "Calibration":
        """What its probabilities are by: its own, or the one that ships."""
        from saematch.matching.probability import Calibration

        if not self.directory.is_current(CALIBRATION_NAME):
            return Calibration.load()
        text = self.directory.read(CALIBRATION_NAME).decode()
        return Calibration.read(text, str(self.path / CALIBRATION_NAME))

    def follow(self, layer_key: str | int, feature: int) -> "pd.DataFrame":
        """The path through a feature, one row per layer; a step's values are in the row of its end.

        Columns: layer, key, feature, status, cost, cosine, margin, certain, born, dies (as in paths.parquet);
        quantile: share of the step's live-live pairs that cost at most as much (missing
        where a feature is not live); runner_up: the feature of least cost but for the one taken, with
        runner_up_extra_cost (its cost less that of the pair; negative: nearer, but given to another),
        runner_up_cosine and runner_up_status; warnings: about the step, in words; kinds: the kinds of these
        warnings.
        Raises UsageError naming the layers, or the features, that there are.
        """
        import pandas as pd

        from saematch.store.following import steps_through

        key, feature = self.feature((layer_key, feature))
        steps = steps_through(self, key, feature)
        if not steps:
            raise UsageError(
                f"expected a layer that paths go through, got {key}; there are: "
                f"{', '.join(name for chain in self.chains for name in chain)}"
            )
        path = pd.DataFrame([vars(step) for step in steps])
        path = path.rename(columns={"extra_cost": "runner_up_extra_cost"})
        path.insert(0, "layer", [self.manifest["saes"][step.key]["layer"] for step in steps])
        measured = path.filter(regex="(cost|cosine|margin|quantile)$").columns
        return path.astype({**dict.fromkeys(measured, float), "runner_up": "Int64"})


def open_run(directory: str | Path) -> Run:
    """Open the run in a directory; raises InputError if there is none or its manifest was altered."""
    run = Run(RunDirectory(directory))
    if run.manifest["config"] is None:
        raise InputError(f"the run in {directory} has not started")
    return run


@contextmanager
def holding_run(directory: str | Path) -> Iterator[RunDirectory]:
    """Be the only writer of a run that is there; raises as `open_run`, then as `RunDirectory.holding`."""
    open_run(directory)  # first: nothing is made if there is no run
    with RunDirectory(directory).holding() as held:
        yield held
