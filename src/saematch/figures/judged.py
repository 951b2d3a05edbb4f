"""What judges said, as figures read it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from saematch.figures.captions import plain
from saematch.figures.data import NotInRunError, command, current, read
from saematch.run.names import JUDGEMENTS_NAME, sample_name

if TYPE_CHECKING:
    from saematch.run import Run

NO_RESULTS = pd.DataFrame(columns=pd.Index(["measure", "strategy", "value"]))


def results(run: "Run", experiment: str) -> dict[str, pd.DataFrame]:
    """The measures of labels by judge; raises NotInRunError where nobody judged the experiment."""
    sample = sample_name(experiment)
    prefix = sample.rpartition("/")[0] + "/"
    found = {
        name.removeprefix(prefix).removesuffix(".parquet"): read(run, name)[0]
        for name in current(run, prefix)
        if name != sample
    }
    if not found:
        needed = f"judgements of the experiment '{experiment}'"
        raise NotInRunError(run, needed, command(run, "judge"))
    return found


def labelled(run: "Run", experiment: str) -> pd.DataFrame:
    """The pairs of features of an experiment that got a label, as they were asked: columns of its
    sample, with judge and label.  Controls and pairs asked the other way round are left out.

    Raises NotInRunError where nobody judged the experiment.
    """
    name = sample_name(experiment)
    there = {*current(run, name), *current(run, JUDGEMENTS_NAME)}
    if {name, JUDGEMENTS_NAME} <= there:
        sample, judgements = read(run, name)[0], read(run, JUDGEMENTS_NAME)[0]
        asked = sample[(sample["kind"] == "pair") & ~sample["swapped"]]
        said = judgements[
            (judgements["experiment"] == experiment) & (judgements["outcome"] == "judged")
        ]
        both = asked.merge(said[["question", "judge", "label"]], on="question")
        if len(both):
            return both
    needed = f"labelled pairs of the experiment '{experiment}'"
    raise NotInRunError(run, needed, command(run, "judge"))


def results_of(run: "Run", experiment: str, judges: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The measures of labels by these judges; of one whose labels have none, an empty table."""
    try:
        found = results(run, experiment)
    except NotInRunError:
        found = {}
    return {judge: found.get(judge, NO_RESULTS) for judge in judges}


def judges_facts(found: dict[str, pd.DataFrame]) -> str:
    """The sentence that says who judged, and how well they tell controls apart."""
    said = []
    for judge, rows in found.items():
        controls = rows[(rows["measure"] == "auc") & (rows["strategy"] == "")]["value"].dropna()
        auc = f" (controls told apart with AUC {controls.iloc[0]:.2f})" if len(controls) else ""
        said.append(f"{plain(judge)}{auc}")
    return f"Judged by {', '.join(said)}."


def counts(rows: pd.DataFrame) -> str:
    """How many labels a value is made of, from the fewest to the most."""
    if rows.empty:
        return "no labels"
    least, most = int(rows["judged"].min()), int(rows["judged"].max())
    return f"{least} labels" if least == most else f"{least} to {most} labels"
