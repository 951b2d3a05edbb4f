"""Figures of an evaluation on text."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from saematch.figures.style import (
    TEXT_SIZE,
    arrows,
    below,
    dodge,
    draw_strategy,
    label_pairs,
    legend_below,
    new_figure,
    strategy_lines,
)

PANELS = {
    "explained_variance": "explained variance",
    "delta_loss": "ΔL (nats a token)",
    "matching_score": "matching score",
}
LOWEST_EXPLAINED = -1.0


def measured_by_pair(measures: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Figure:
    """Explained variance, ΔL and matching score per layer pair and strategy (the paper's figures 11
    and 7, right), with 95% intervals.

    `measures`: rows of evaluation/measures.parquet of one corpus and one slug of parts.
    """
    figure, axes = new_figure(2.9 + below(pairs), columns=len(PANELS))
    for ax, (measure, words) in zip(axes, PANELS.items(), strict=True):
        rows = measures[measures["measure"] == measure]
        drawn = [name for name in strategy_lines() if name in set(rows["strategy"])]
        for number, name in enumerate(drawn):
            mine = rows[rows["strategy"] == name]
            draw_strategy(ax, mine, name, pairs, dodge(number, len(drawn), len(pairs), len(PANELS)))
        ax.set_ylabel(words, fontsize=TEXT_SIZE)
        label_pairs(ax, arrows(pairs))
        low, high = ax.get_ylim()
        if measure == "explained_variance":
            ax.set_ylim(max(low, LOWEST_EXPLAINED), 1)
        else:
            ax.set_ylim(min(low, 0) if measure == "delta_loss" else 0, high)
    legend_below(figure, axes)
    return figure
