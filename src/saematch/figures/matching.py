"""Figures of every pair's measures: of matchings from the weights alone, and of an evaluation on text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saematch.figures.captions import caption, not_measured, shared_partners
from saematch.figures.data import adjacent, gaps, suite_facts
from saematch.figures.style import (
    TEXT_SIZE,
    arrows,
    below,
    dodge,
    draw_strategy,
    from_zero,
    label_pairs,
    legend_below,
    main_line,
    new_figure,
    strategy_lines,
)
from saematch.matching.matchers import MAIN, matcher

if TYPE_CHECKING:
    from saematch.store.reader import Run


PARTS = {"decoder": "decoder", "encoder": "encoder", "bias": "encoder bias"}
BESIDE = 4.6
"""Inches: width of the report's figures that stand side by side."""


def mse(run: "Run") -> Figure:
    """Figure 3: MSE of decoder, encoder and bias per adjacent layer pair and strategy."""
    measures, pairs = run.measures(), adjacent(run)
    measures = measures[measures["corpus"] == ""]
    rows = measures[measures["measure"] == "mse_decoder"]
    missing = {name: gaps(rows[rows["strategy"] == name], pairs) for name in run.config.strategies}
    counts = measures[measures["measure"] == "compared"]["value"]
    compared = f"{int(counts.min()):,} to {int(counts.max()):,}" if len(counts) else "none"
    drawn = [name for name in run.config.strategies if matcher(name).seeded]
    draws = f" Range of {', '.join(drawn)}: its least and greatest draw." if drawn else ""
    shared = shared_partners(run.config.strategies)
    return caption(
        mse_by_pair(measures, pairs),
        "MSE of matched pairs by part (SAE Match, figure 3)",
        suite_facts(run),
        "Mean squared difference of matched features, in each layer pair over the same live features of "
        f"the earlier SAE for every strategy ({compared}), all measured on folded weights; "
        f"from the weights alone, no text was read.{draws}",
        shared,
        not_measured(missing, len(pairs)),
    )


def mse_by_pair(measures: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Figure:
    """MSE of decoder, encoder and bias per layer pair and strategy (the paper's figure 3).

    `measures`: rows of evaluation/measures.parquet; means over the same features, on folded weights.  The
    random strategy's range is its least and greatest draw.
    """
    figure, axes = new_figure(2.6 + below(pairs), columns=len(PARTS))
    for ax, (part, words) in zip(axes, PARTS.items(), strict=True):
        rows = measures[measures["measure"] == f"mse_{part}"]
        drawn = [name for name in strategy_lines() if name in set(rows["strategy"])]
        for number, name in enumerate(drawn):
            mine = rows[rows["strategy"] == name]
            draw_strategy(ax, mine, name, pairs, dodge(number, len(drawn), len(pairs), len(PARTS)))
        ax.set_title(words, fontsize=TEXT_SIZE)
        from_zero(ax)
        label_pairs(ax, arrows(pairs))
    axes[0].set_ylabel("mean squared error\n(folded weights)", fontsize=TEXT_SIZE)
    legend_below(figure, axes, 6)
    return figure


def cost_distribution(costs: dict[tuple[str, str], np.ndarray]) -> Figure:
    """The distribution of the cost of live pairs, one violin per layer pair, with its quartiles."""
    figure, (ax,) = new_figure(2.8, width=BESIDE)
    kept = list(costs.values())
    drawn = [values for values in kept if len(values)]
    if drawn:
        positions = [n for n, values in enumerate(kept) if len(values)]
        parts = ax.violinplot(drawn, positions=positions, widths=0.85, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set_facecolor(main_line().color)
            body.set_alpha(0.35)
        for position, values in zip(positions, drawn, strict=True):
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            ax.vlines(position, low, high, color="black", linewidth=2.5)
            ax.plot(position, middle, "o", color="white", markeredgecolor="black", markersize=4)
    ax.set_ylabel("cost of a live pair (folded weights)", fontsize=TEXT_SIZE)
    from_zero(ax)
    label_pairs(ax, arrows(list(costs)))
    return figure


def certain_share(measures: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Figure:
    """Share of the features compared whose pair every optimal matching contains, per layer pair."""
    figure, (ax,) = new_figure(2.8, width=BESIDE)
    rows = measures[(measures["measure"] == "certain_share") & (measures["strategy"] == MAIN)]
    values = rows.set_index(["a", "b"])["value"].reindex(pd.MultiIndex.from_tuples(pairs))
    ax.bar(range(len(pairs)), values, color=main_line().color, width=0.7)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of pairs proven certain", fontsize=TEXT_SIZE)
    label_pairs(ax, arrows(pairs))
    return figure


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
