"""The results of judges in a run directory: the only reader, of what is current (directory.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saematch.errors import UsageError
from saematch.semantics.judges.experiments import PAIR
from saematch.semantics.judges.judge import Judge
from saematch.store.directory import RunDirectory
from saematch.store.names import JUDGEMENTS_NAME, JUDGING, experiments_of, results_name, sample_name
from saematch.types import Interval

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from saematch.store.tables import Tables


PREFERRED = ("llm-", "human", "embedding-")
"""Names of judges start so; of several the first stands for the run."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What a judge said in an experiment."""

    experiment: str
    judge: str
    table: "pa.Table"
    """A row per measure (docs/run-directory.md)."""
    about: Mapping[str, Any]
    """Identity of the judge, settings, verdict on its controls."""

    @cached_property
    def results(self) -> "pd.DataFrame":
        """The table as a frame."""
        return self.table.to_pandas()

    @property
    def passes_controls(self) -> bool:
        """Whether the judge passes its controls."""
        return bool(self.about["passes_controls"])

    @property
    def verdict(self) -> str:
        return str(self.about["verdict"])

    def span(self, measure: str, strategy: str = "", a: str = "", b: str = "") -> Interval | None:
        """A measure with its interval; None where it was not measured."""
        row = self._spans.get((strategy, a, b, measure))
        return None if row is None else Interval(row[0], *map(_known, row[1:]))

    @cached_property
    def _spans(self) -> Mapping[tuple[str, str, str, str], list[float]]:
        rows = self.results
        keys = rows[["strategy", "a", "b", "measure"]].itertuples(index=False, name=None)
        return dict(zip(keys, rows[["value", "low", "high"]].to_numpy().tolist(), strict=True))

    @property
    def strategies(self) -> tuple[str, ...]:
        """Those whose pairs were judged, as sampled."""
        paired = self.results[(self.results["strategy"] != "")]
        names = paired[~paired["strategy"].str.startswith("control: ")]["strategy"]
        return tuple(dict.fromkeys(names))

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of SAEs, in the order of the sample."""
        named = self.results[self.results["a"] != ""]
        return tuple(dict.fromkeys(zip(named["a"], named["b"], strict=True)))


def judged(run: "Tables", of: str = "") -> list[Judged]:
    """All results, or those of one experiment, by experiment and judge."""
    found = []
    for name in run.directory.current_names(f"{JUDGING}{of}/" if of else JUDGING):
        experiment, file = name.removeprefix(JUDGING).split("/")
        if name != sample_name(experiment):
            found.append(_read(run, experiment, file.removesuffix(".parquet")))
    return found


def answered_experiments(directory: RunDirectory) -> list[str]:
    """Experiments whose sample is current, and no other than the one that the answers were given to."""
    answers = directory.record(JUDGEMENTS_NAME)
    given_to = {} if answers is None else answers.depends
    found = []
    for experiment in experiments_of(directory.current_names(JUDGING)):
        sample = directory.kept(sample_name(experiment))
        if given_to.get(sample.name, sample.sha256) == sample.sha256:
            found.append(experiment)
    return found


def best_judge(run: "Tables", experiment: str) -> Judged | None:
    """The judge whose labels decide; None where the experiment was not judged."""
    found = judged(run, experiment)
    named = [one for prefix in PREFERRED for one in found if one.judge.startswith(prefix)]
    # A judge that fails its controls stands behind any that passes.
    return min(named, key=lambda one: not one.passes_controls, default=None)


def judged_by(run: "Tables", experiment: str, judge: str) -> Judged:
    """One of them; raises UsageError naming what there is."""
    if not run.directory.is_current(results_name(experiment, judge)):
        there = ", ".join(f"{one.judge} in {one.experiment}" for one in judged(run))
        raise UsageError(
            f"expected results of {judge} in {experiment}, got {there or 'none'}; "
            f"try: saematch judge {run.path} --experiment {experiment}"
        )
    return _read(run, experiment, judge)


def name_in(run: "Tables", experiment: str, judge: Judge) -> str | None:
    """What a judge's results of an experiment are called; None if there are none of this sample."""
    from saematch.store.judgements import name_of, results_about  # with what draws samples: heavy

    name = name_of(results_about(run.directory, experiment), judge)
    return name if run.directory.is_current(results_name(experiment, name)) else None


def labelled_sample(run: "Tables", experiment: str, judge: str) -> "pd.DataFrame":
    """The questions of an experiment with what a judge said: columns of both tables, one row per answer."""
    sample = run.directory.table(sample_name(experiment))[0].to_pandas()
    answers = run.directory.table(JUDGEMENTS_NAME)[0].to_pandas()
    mine = answers[(answers["experiment"] == experiment) & (answers["judge"] == judge)]
    return sample.merge(mine.drop(columns="experiment"), on="question", validate="one_to_one")


def labelled_pairs(run: "Tables", experiment: str, judge: str) -> "pd.DataFrame":
    """The rows of `labelled_sample` that are of pairs and got a label; those asked the other way round too
    are left out."""
    rows = labelled_sample(run, experiment, judge)
    return rows[(rows["kind"] == PAIR) & ~rows["swapped"] & rows["label"].notna()]


def labels_of_pairs(run: "Tables") -> dict[tuple[str, str, int, int], tuple[str, ...]]:
    """What the judges whose labels count, one per experiment, and who pass their controls call two features:
    labels in alphabetical order, by (a, b, feature of a, feature of b)."""
    found: dict[tuple[str, str, int, int], set[str]] = {}
    for experiment in answered_experiments(run.directory):
        judge = best_judge(run, experiment)
        if judge is None or not judge.passes_controls:
            continue
        rows = labelled_pairs(run, experiment, judge.judge)
        columns = (rows[name] for name in ("a", "b", "feature", "partner", "label"))
        for a, b, feature, partner, label in zip(*columns, strict=True):
            found.setdefault((a, b, feature, partner), set()).add(label)
    return {pair: tuple(sorted(labels)) for pair, labels in found.items()}


def _read(run: "Tables", experiment: str, judge: str) -> Judged:
    table, about = run.directory.table(results_name(experiment, judge))
    return Judged(experiment, judge, table, about)


def _known(value: float) -> float | None:
    return None if value != value else value
