"""`saematch benchmark`: where each matcher of an evaluated run stands, in one table.

A value is the mean over pairs of SAEs and corpora, with a 95% interval: the bootstrap of the evaluation, over
texts, or over the features that were ablated or judged.  Its draws are the same for every matcher, so that
differences are paired: from `folded`, and from the best, which says who is not clearly worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.errors import InputError, UsageError
from saematch.evaluation.collecting import Pair
from saematch.matching.matchers import MAIN, is_matcher, matcher
from saematch.pipelines.evaluation.results import Evaluated, difference
from saematch.pipelines.evaluation.summary import listed
from saematch.semantics.judges.judge import Label
from saematch.stats import Values, draw_weights, interval
from saematch.store.build import Progress, hash_of, silent
from saematch.store.judge_results import best_judge, labelled_pairs
from saematch.store.names import (
    LEADERBOARD_NAME,
    corpus_measures_name,
    corpus_slug,
    correspondence_name,
    matching_name,
    results_name,
)
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.schema import LEADERBOARD, decode
from saematch.store.tables import pairs_among
from saematch.types import INTERVENTIONS, RIDGE, Interval, is_refolded

if TYPE_CHECKING:
    import pandas as pd

LABEL = "label"
GREATER_IS_BETTER: Mapping[str, bool] = {
    "explained_variance_typical": True,
    "delta_loss": False,
    "lift": True,
    "phi": True,
    "f1": True,
    "causal_agreement": True,
    "deactivation": True,
    "substitution": True,
    "ausqc": True,
    LABEL: True,
}
"""The columns, in their order."""
JUDGED_IN = "layers"
"""The experiment whose labels are compared."""


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Where matchers stand."""

    rows: "pd.DataFrame"
    """A row per matcher or reference and measure (docs/reference/tables.md)."""
    about: Mapping[str, Any]
    """Pairs, corpora, judge."""
    seconds: Mapping[str, float]
    """By matcher, of finding the partners of one pair of SAEs, the median over pairs; those fitted to text
    read it meanwhile."""


def benchmark(
    directory: str | Path,
    pairs: Sequence[tuple[str, str]] | None = None,
    progress: Progress | None = None,
) -> Leaderboard:
    """The leaderboard of an evaluated run, into its `leaderboard.parquet`.

    `pairs`: layers or keys (None: all that were evaluated).  Raises InputError for a run that was not
    evaluated, UsageError for pairs that were not.
    """
    with holding_run(directory) as held:
        run = open_run(directory)
        evaluated = Evaluated(run)
        chosen = evaluated.pairs if pairs is None else pairs_among(run, pairs)
        missing = [pair for pair in chosen if pair not in evaluated.pairs]
        if missing:
            there = "; ".join(",".join(pair) for pair in evaluated.pairs)
            raise UsageError(f"expected evaluated pairs ({there}), got {','.join(missing[0])}")
        judge = best_judge(run, JUDGED_IN)
        if judge is not None and not judge.passes_controls:
            judge = None
        reads = [held.kept(corpus_measures_name(corpus_slug(one))) for one in evaluated.about]
        if judge is not None:
            reads.append(held.kept(results_name(JUDGED_IN, judge.judge)))
        decides = {"pairs": chosen, "reads": [[file.name, file.sha256] for file in reads]}
        inputs = hash_of(stage="leaderboard", **decides)
        if not held.is_finished(LEADERBOARD_NAME, inputs):
            (progress or silent)(0, 1, "means and their intervals")
            labels = {} if judge is None else _labels(run, judge.judge, chosen)
            corpora = {
                name: {one: about[one] for one in ("origin", "documents", "tokens")}
                for name, about in evaluated.about.items()
            }
            about = {
                "pairs": chosen,
                "model": evaluated.model_name,
                "corpora": corpora,
                "judge": None if judge is None else judge.judge,
            }
            data = LEADERBOARD.encode_records(_standings(evaluated, chosen, labels), about)
            held.keep(LEADERBOARD_NAME, data, inputs, reads)
        table, about = decode(held.read(LEADERBOARD_NAME))
    rows = table.to_pandas()
    return Leaderboard(rows, about, _seconds(run, chosen, rows["strategy"].unique().tolist()))


def _standings(
    evaluated: Evaluated, pairs: Sequence[Pair], labels: Mapping[str, Values]
) -> list[dict[str, Any]]:
    """Rows of the table, matchers by explained variance, then what they are compared with."""
    values: dict[str, dict[str, Values]] = {}
    for strategy, parts in _measured(evaluated):
        mine = {
            measure: evaluated.mean(measure, strategy, parts, pairs)
            for measure in GREATER_IS_BETTER
            if measure != LABEL
        }
        mine[LABEL] = labels.get(strategy)
        values[strategy] = {name: one for name, one in mine.items() if one is not None}
    if not any(values.values()):
        raise InputError(
            f"expected a strategy measured on every pair and corpus in {evaluated.run.path}, got none; "
            "try other pairs"
        )
    ranked = sorted(values, key=lambda one: (_is_reference(one), -_first(values[one])))
    places = {
        measure: _places({s: values[s][measure] for s in ranked if measure in values[s]}, greater)
        for measure, greater in GREATER_IS_BETTER.items()
    }
    main = values.get(MAIN, {})
    rows = []
    for strategy in ranked:
        for measure, mine in values[strategy].items():
            from_main = difference(mine, main.get(measure)) if strategy != MAIN else None
            change = Interval(np.nan) if from_main is None else interval(from_main)
            names = ("value", "low", "high")
            rows.append(
                {
                    "strategy": strategy,
                    "reference": _is_reference(strategy),
                    "data": _data(strategy),
                    "measure": measure,
                    **dict(zip(names, interval(mine), strict=True)),
                    **dict(zip((f"{n}_minus_folded" for n in names), change, strict=True)),
                    "place": places[measure].get(strategy, ""),
                }
            )
    return rows


def _measured(evaluated: Evaluated) -> list[tuple[str, str]]:
    """Strategies and parts of the matchers and of what they are compared with, in the order of tables."""
    found = [
        (strategy, parts)
        for strategy, parts in evaluated.strategies()
        if strategy in (*INTERVENTIONS, RIDGE)
        or (
            parts == evaluated.slug
            and not is_refolded(strategy)
            and not strategy.startswith("quantile")
        )
    ]
    order = listed()
    return sorted(found, key=lambda one: order.index(one[0]) if one[0] in order else len(order))


def _is_reference(strategy: str) -> bool:
    """Whether matchers are compared with it, and it is given no place."""
    known = is_matcher(strategy) and matcher(strategy).control
    return known or strategy in (*INTERVENTIONS, RIDGE)


def _data(strategy: str) -> str:
    """What finding it takes: `none` or `text`; '' of a matcher that is not registered here."""
    if is_matcher(strategy):
        return "text" if matcher(strategy).needs_data else "none"
    return {RIDGE: "text"}.get(strategy, "none" if strategy in INTERVENTIONS else "")


def _first(values: Mapping[str, Values]) -> float:
    first = next(iter(GREATER_IS_BETTER))
    return float(values[first][0]) if first in values else -np.inf


def _places(values: Mapping[str, Values], greater: bool) -> dict[str, str]:
    """`best`, and `near` of each whose paired difference from the best may be none."""
    placed = {s: v for s, v in values.items() if not _is_reference(s) and np.isfinite(v[0])}
    if not placed:
        return {}
    sign = 1 if greater else -1
    best = max(placed, key=lambda one: sign * placed[one][0])
    places = {best: "best"}
    for strategy, mine in placed.items():
        _, low, high = interval(mine - placed[best])
        if strategy != best and (low is None or high is None or low <= 0 <= high):
            places[strategy] = "near"
    return places


def _labels(run: Run, judge: str, pairs: Sequence[Pair]) -> dict[str, Values]:
    """Mean label by strategy, over the features of the pairs with a label under every one of them."""
    rows = labelled_pairs(run, JUDGED_IN, judge)
    rows = rows[[pair in pairs for pair in zip(rows["a"], rows["b"], strict=True)]]
    numbers = rows["label"].map(lambda label: Label(label).value_in_means).astype(float)
    table = rows.assign(number=numbers).pivot_table("number", ["a", "b", "feature"], "strategy")
    table = table.dropna()
    if table.empty:
        return {}
    means = draw_weights(len(table), seed=0) @ table.to_numpy() / len(table)
    return {str(strategy): means[:, n] for n, strategy in enumerate(table.columns)}


def _seconds(run: Run, pairs: Sequence[Pair], strategies: Sequence[str]) -> dict[str, float]:
    timing = run.directory.manifest["timing"]["outputs"]
    found: dict[str, list[float]] = {}
    for strategy in strategies:
        for pair in pairs:
            names = (of(*pair, strategy, run.config.slug) for of in _FOUND_IN)
            took = [timing[name]["seconds"].get("total") for name in names if name in timing]
            if any(one is not None for one in took):
                found.setdefault(strategy, []).append(sum(one or 0.0 for one in took))
    return {strategy: median(some) for strategy, some in found.items()}


_FOUND_IN = (matching_name, correspondence_name)
