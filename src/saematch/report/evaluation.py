"""The report's section on the language model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.matching.registry import MAIN
from saematch.pipelines.evaluation.summary import (
    MAIN_MEASURES,
    corpora_of,
    documents_said,
    evaluated,
    features_said,
    spanned,
    strategy_rows,
    texts_of,
)
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.store.reader import Run


def evaluations(run: "Run", adjacent: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """One entry a corpus; empty where nothing was evaluated."""
    from markupsafe import Markup

    from saematch.figures import measured_by_pair, to_svg

    measures = evaluated(run)
    slug = run.config.slug
    found = []
    for corpus, about in corpora_of(run).items():
        here = measures[measures["corpus"] == corpus]
        if here.empty:
            continue  # of matchings that were made again since
        main = here[here["parts"].isin(["", slug])]
        pairs = [pair for pair in map(tuple, about["pairs"]) if pair in adjacent]
        found.append(
            {
                "corpus": corpus,
                "origin": about["origin"],
                "model": about["model"]["name"],
                "texts": texts_of(run, corpus),
                "documents": documents_said(
                    texts_of(run, corpus), int(main[main["a"] == main["b"]]["documents"].max())
                ),
                "tokens": int(main[main["a"] == main["b"]]["tokens"].max()),
                "features": features_said(main),
                "notes": about["notes"],
                "figure": Markup(to_svg(measured_by_pair(main, pairs))),
                "pairs": [_pair(main, *pair) for pair in pairs],
                "labels": [short for short, _ in MAIN_MEASURES.values()],
                "strategies": [
                    (name, [spanned(Interval(values.get(m, np.nan))) for m in MAIN_MEASURES])
                    for name, values in strategy_rows(here)
                ],
            }
        )
    return found


def _pair(measures: Any, a: str, b: str) -> dict[str, Any]:
    rows = measures[(measures["a"] == a) & (measures["b"] == b) & (measures["strategy"] == MAIN)]
    spans: dict[str, Any] = dict.fromkeys(MAIN_MEASURES)
    for row in rows.to_dict("records"):
        spans[row["measure"]] = Interval(row["value"], row["low"], row["high"])
    return {"a": a, "b": b, **spans}
