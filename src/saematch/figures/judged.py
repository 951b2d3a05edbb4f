"""What judges said, as figures read it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from saematch.figures.captions import plain
from saematch.figures.data import NotInRunError, command
from saematch.store.judge_results import judged, labelled_pairs
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

NO_RESULTS = pd.DataFrame(columns=pd.Index(["measure", "strategy", "value"]))


def results(run: "Run", experiment: str) -> dict[str, pd.DataFrame]:
    """The measures of labels by judge; raises NotInRunError where nobody judged the experiment."""
    found = {one.judge: one.results for one in judged(run, experiment)}
    if not found:
        raise _not_judged(run, experiment)
    return found


def labelled(run: "Run", experiment: str) -> pd.DataFrame:
    """The pairs of features of an experiment that got a label, as they were asked: columns of its
    sample, with judge and label.

    Raises NotInRunError where nobody judged the experiment.
    """
    found = [labelled_pairs(run, experiment, one.judge) for one in judged(run, experiment)]
    if not any(map(len, found)):
        raise _not_judged(run, experiment)
    return pd.concat(found, ignore_index=True)


def _not_judged(run: "Run", experiment: str) -> NotInRunError:
    needed = f"judgements of the experiment '{experiment}'"
    return NotInRunError(run, needed, command(run, "judge", f"--experiment {experiment}"))


def results_of(run: "Run", experiment: str, judges: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The measures of labels by these judges; of one whose labels have none, an empty table."""
    try:
        found = results(run, experiment)
    except NotInRunError:
        found = {}
    return {judge: found.get(judge, NO_RESULTS) for judge in judges}


def judges_facts(found: dict[str, pd.DataFrame]) -> str:
    """The sentence that says who judged, and how they did on their controls."""
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
    return plural(most, "label") if least == most else f"{least:,} to {most:,} labels"
