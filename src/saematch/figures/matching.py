"""Figures of every pair's measures: of matchings from the weights alone, and of an evaluation on text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saematch.figures import style
from saematch.figures.captions import caption, not_measured, shared_partners
from saematch.figures.data import gaps, suite_facts
from saematch.matching.matchers import MAIN, matcher

if TYPE_CHECKING:
    from saematch.store.reader import Run


PARTS = {"decoder": "decoder", "encoder": "encoder", "bias": "encoder bias"}
BESIDE = 4.6
"""Inches: width of the report's figures that stand side by side."""


def mse(run: "Run") -> Figure:
    """Figure 3: MSE of decoder, encoder and bias per adjacent layer pair and strategy."""
    measures, pairs = run.measures(), run.adjacent
    measures = measures[measures["corpus"] == ""]
    rows = measures[measures["measure"] == "mse_decoder"]
    missing = {name: gaps(rows[rows["strategy"] == name], pairs) for name in run.config.strategies}
    counts = measures[measures["measure"] == "compared"]["value"]
    compared = f"{int(counts.min()):,} to {int(counts.max()):,}" if len(counts) else "none"
    drawn = [name for name in run.config.strategies if matcher(name).seeded]
    draws = f" Range of {', '.join(drawn)}: its least and greatest draw." if drawn else ""
    return caption(
        mse_by_pair(measures, pairs),
        "MSE of matched pairs by part (SAE Match, figure 3)",
        suite_facts(run),
        "Mean squared difference of matched features, in each layer pair over the same live features of "
        f"the earlier SAE for every strategy ({compared}), all measured on folded weights; "
        f"from the weights alone, no text was read.{draws}",
        shared_partners(run.config.strategies),
        not_measured(missing, len(pairs)),
    )


def mse_by_pair(measures: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Figure:
    """MSE of decoder, encoder and bias per layer pair and strategy (the paper's figure 3).

    `measures`: rows of evaluation/measures.parquet; means over the same features, on folded weights.  The
    random strategy's range is its least and greatest draw.
    """
    figure, axes = style.new_figure(2.6 + style.below(pairs), columns=len(PARTS))
    for ax, (part, words) in zip(axes, PARTS.items(), strict=True):
        _by_strategy(ax, measures[measures["measure"] == f"mse_{part}"], pairs, len(PARTS))
        style.set_title(ax, words)
        style.from_zero(ax)
    axes[0].set_ylabel("mean squared error\n(folded weights)")
    style.legend_below(figure, axes, 6)
    return figure


def _by_strategy(
    ax: Axes, rows: pd.DataFrame, pairs: Sequence[tuple[str, str]], columns: int
) -> None:
    there = set(rows["strategy"])
    lines = {name: line for name, line in style.strategy_lines().items() if name in there}
    drawn = [(line, rows[rows["strategy"] == name]) for name, line in lines.items()]
    style.draw_strategies(ax, drawn, pairs, columns)


def cost_distribution(costs: dict[tuple[str, str], np.ndarray]) -> Figure:
    """The distribution of the cost of live pairs, one violin per layer pair, with its quartiles."""
    figure, (ax,) = style.new_figure(2.8, width=BESIDE)
    drawn = {n: values for n, values in enumerate(costs.values()) if len(values)}
    if drawn:
        values, positions = list(drawn.values()), list(drawn)
        parts = ax.violinplot(values, positions=positions, widths=0.85, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=style.main_line().color, alpha=0.35)
    for position, values in drawn.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        ax.vlines(position, low, high, color="black", linewidth=2.5)
        ax.plot(position, middle, "o", color="white", markeredgecolor="black", markersize=4)
    ax.set_ylabel("cost of a live pair (folded weights)")
    style.from_zero(ax)
    style.label_pairs(ax, style.arrows(list(costs)))
    return figure


def certain_share(measures: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Figure:
    """Share of the features compared whose pair every optimal matching contains, per layer pair."""
    figure, (ax,) = style.new_figure(2.8, width=BESIDE)
    rows = measures[(measures["measure"] == "certain_share") & (measures["strategy"] == MAIN)]
    values = rows.set_index(["a", "b"])["value"].reindex(pd.MultiIndex.from_tuples(pairs))
    ax.bar(range(len(pairs)), values, color=style.main_line().color, width=0.7)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of pairs proven certain")
    style.label_pairs(ax, style.arrows(pairs))
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
    figure, axes = style.new_figure(2.9 + style.below(pairs), columns=len(PANELS))
    for ax, (measure, words) in zip(axes, PANELS.items(), strict=True):
        _by_strategy(ax, measures[measures["measure"] == measure], pairs, len(PANELS))
        ax.set_ylabel(words)
        low, high = ax.get_ylim()
        if measure == "explained_variance":
            ax.set_ylim(max(low, LOWEST_EXPLAINED), 1)
        else:
            ax.set_ylim(min(low, 0) if measure == "delta_loss" else 0, high)
    style.legend_below(figure, axes)
    return figure
