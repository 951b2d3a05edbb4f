"""What warnings are worth: for flagged steps and for the others, what the judge says and how often partners
activate together.

python benchmarks/doubts.py my-run

Over live pairs of adjacent layers of a run that was evaluated and judged.  The judge's own warning is left
out, as it would prove itself; φ says nothing new of pairs that are never active together.  Prints a row for
each kind of warning: share of the steps, mean label (1 DIFFERENT to 3 SAME) and how many were judged, mean φ
of the activations.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from saematch.matching.matchers import MAIN
from saematch.semantics.judges.judge import Label
from saematch.store.following import StepWarning, followed_steps
from saematch.store.judge_results import labels_of_pairs
from saematch.store.names import PAIR_SOURCES
from saematch.store.reader import Run, open_run

KINDS = tuple(
    kind for kind in StepWarning if kind not in (StepWarning.NOT_LIVE, StepWarning.DIFFERENT)
)


def steps_of(run: Run) -> pd.DataFrame:
    """A row per step between live features."""
    labels = labels_of_pairs(run)
    names = [name for name in run.directory.names(PAIR_SOURCES) if name.endswith(".parquet")]
    fired = pd.concat(pd.read_parquet(run.path / name) for name in names)
    fired = fired[fired["strategy"] == MAIN]
    phi = fired.groupby(["a", "b", "feature"])["phi"].mean().to_dict()
    rows = []
    for path in followed_steps(run).values():
        for before, step in pairwise(path):
            if (before.status, step.status) != ("live", "live"):
                continue
            said = labels.get((before.key, step.key, before.feature, step.feature), ())
            row: dict[str, float] = {kind: kind in step.kinds for kind in KINDS}
            row["label"] = np.mean([Label(one).value_in_means for one in said]) if said else np.nan
            row["phi"] = phi.get((before.key, step.key, before.feature), np.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    steps = steps_of(open_run(parser.parse_args().run))
    some = steps[list(KINDS)].any(axis=1)
    chosen = {"none of them": ~some, "any of them": some, **{kind: steps[kind] for kind in KINDS}}
    table = pd.DataFrame(
        {
            kind: {
                "share": rows.mean(),
                "label": steps["label"][rows].mean(),
                "judged": steps["label"][rows].count(),
                "phi": steps["phi"][rows].mean(),
            }
            for kind, rows in chosen.items()
        }
    ).T
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
