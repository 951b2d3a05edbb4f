"""Figures 4, 6, 7 (left) and 8: what a judge says of matched features."""

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from saematch.figures.captions import caption, label, not_measured
from saematch.figures.data import adjacent, gaps, suite_facts
from saematch.figures.judged import counts, judges_facts, labelled, results
from saematch.figures.style import (
    LABEL_FILLS,
    SMALL,
    STRATEGY_LINES,
    TEXT_SIZE,
    arrows,
    dodge,
    draw_line,
    label_pairs,
    legend_below,
    new_figure,
)

if TYPE_CHECKING:
    from saematch.run import Run

PANELS = 3
"""Layer pairs of figure 6: the first, the middle and the last that were judged."""
EXACT = replace(STRATEGY_LINES["folded"], label="exact matching (folded)")
COMPOSED = STRATEGY_LINES["composition"]
WIDEST = 5.2
"""Inches of a panel of bars."""
SHARE_INTERVALS = "Bars: 95% intervals."


def judged_shares(run: "Run") -> Figure:
    """Figures 4 and 7 (left): shares of DIFFERENT, MAYBE and SAME per layer pair and strategy."""
    found, pairs = results(run, "layers"), adjacent(run)
    shares = {
        judge: rows[
            rows["measure"].isin(LABEL_FILLS) & (rows["strategy"] != "") & (rows["a"] != "")
        ]
        for judge, rows in found.items()
    }
    names = [
        s for s in STRATEGY_LINES if any(s in set(rows["strategy"]) for rows in shares.values())
    ]
    figure, axes = new_figure(
        max(6.2, 0.8 + len(names) * min(1.6 + 0.3 * len(pairs), WIDEST)), 0.6 + 2.7 * len(found),
        columns=max(len(names), 1), rows=len(found), share=True,
    )  # fmt: skip
    missing, grid = {}, iter(axes)
    for judge, rows in shares.items():
        for number, name in enumerate(names):
            ax, mine = next(grid), rows[rows["strategy"] == name]
            _stack(ax, mine, pairs)
            ax.set_title(_title(STRATEGY_LINES[name].label, judge, found), fontsize=TEXT_SIZE)
            label_pairs(ax, arrows(pairs))
            if number == 0:
                ax.set_ylabel("share of labels", fontsize=TEXT_SIZE)
            missing[f"{name} by {judge}"] = gaps(mine, pairs)
    figure.legend(
        handles=[
            Patch(facecolor=color, hatch=hatch, edgecolor="#333333", label=name)
            for name, color, hatch in LABEL_FILLS.values()
        ],
        loc="outside lower center", ncols=len(LABEL_FILLS), frameon=False, fontsize=SMALL,
    )  # fmt: skip
    every = pd.concat(list(shares.values()))
    return caption(
        figure,
        "What the judge says of matched features (SAE Match, figures 4 and 7, left)",
        suite_facts(run),
        judges_facts(found),
        f"A bar: {counts(every)} on descriptions of matched features. {SHARE_INTERVALS}",
        not_measured(missing, len(pairs)),
    )


def _stack(ax: Axes, rows: pd.DataFrame, pairs: list[tuple[str, str]]) -> None:
    """A bar a pair, SAME at the bottom; intervals of SAME and of DIFFERENT at their edges."""
    index = pd.MultiIndex.from_tuples(pairs)
    x, floor = np.arange(len(pairs)), np.zeros(len(pairs))
    for measure, (_, color, hatch) in LABEL_FILLS.items():
        mine = rows[rows["measure"] == measure].set_index(["a", "b"])
        mine = mine[["value", "low", "high"]].reindex(index).to_numpy(dtype=float)
        value, low, high = mine.T
        ax.bar(
            x, value, bottom=floor, width=0.8, color=color, hatch=hatch, edgecolor="#333333",
            linewidth=0.5,
        )  # fmt: skip
        floor = floor + value
        known = np.isfinite(low) & np.isfinite(high)
        if measure == "same":
            ax.vlines(x[known] - 0.12, low[known], high[known], color="black", linewidth=1.6)
        elif measure == "different":
            ax.vlines(
                x[known] + 0.12, 1 - high[known], 1 - low[known], color="black", linewidth=1.6
            )
    ax.set_ylim(0, 1)


def mse_by_label(run: "Run") -> Figure:
    """Figure 6: the distribution of decoder MSE by the judge's label, three layer pairs."""
    asked = labelled(run, "mse")
    asked = (
        asked[asked["strategy"].isin(["folded"])] if "folded" in set(asked["strategy"]) else asked
    )
    asked = asked[asked["mse_decoder"].notna()]
    there = [
        pair for pair in run.pairs if ((asked["a"] == pair[0]) & (asked["b"] == pair[1])).any()
    ]
    places = (
        sorted({0, len(there) // 2, len(there) - 1}) if len(there) > PANELS else range(len(there))
    )
    chosen = [there[n] for n in places]
    judges = list(dict.fromkeys(asked["judge"]))
    figure, axes = new_figure(
        max(5.0, 3.4 * len(chosen)), 3.1 * len(judges), columns=len(chosen), rows=len(judges)
    )
    grid = iter(axes)
    for judge in judges:
        for a, b in chosen:
            ax = next(grid)
            rows = asked[(asked["judge"] == judge) & (asked["a"] == a) & (asked["b"] == b)]
            _spread(ax, {name: rows[rows["label"] == name]["mse_decoder"] for name, *_ in _RISING})
            ax.set_title(_title(f"{a}→{b}", judge, judges), fontsize=TEXT_SIZE)
            ax.set_ylim(bottom=0)
    for ax in axes[:: len(chosen)]:
        ax.set_ylabel("decoder MSE of a pair\n(folded weights)", fontsize=TEXT_SIZE)
    others = len(there) - len(chosen)
    return caption(
        figure,
        "Decoder MSE by the judge's label (SAE Match, figure 6)",
        suite_facts(run),
        f"Judged by {', '.join(judges)}; {len(asked):,} labels on matched pairs of features, n under "
        "each label. Boxes: quartiles, line: median, whiskers: 5% to 95%; a point is a pair.",
        f"{others} more layer pairs were judged and are not shown." if others else "",
    )


def _title(what: str, judge: str, judges: Collection[str]) -> str:
    """What a panel shows, and by whom where there are several judges."""
    return f"{what}, {label(judge)}" if len(judges) > 1 else what


_RISING = tuple(reversed(LABEL_FILLS.values()))
"""DIFFERENT, MAYBE, SAME."""


def _spread(ax: Axes, values: dict[str, pd.Series]) -> None:
    """A box and its points for each label; a label that nobody gave is an empty place."""
    generator = np.random.default_rng(0)
    # Without the labels' hatches: among points they would look like more of them.
    for place, (name, color, _) in enumerate(_RISING):
        mine = values[name].to_numpy(dtype=float)
        if not len(mine):
            continue
        drawn = ax.boxplot(
            [mine], positions=[place], widths=0.55, whis=(5, 95), showfliers=False, patch_artist=True,
            medianprops={"color": "black", "linewidth": 2},
        )  # fmt: skip
        for box in drawn["boxes"]:
            box.set(facecolor=color, alpha=0.85)
        aside = generator.uniform(-0.2, 0.2, len(mine))
        ax.plot(place + aside, mine, ".", color="black", markersize=2.5, alpha=0.5)
    names = [f"{name}\nn = {len(values[name])}" for name, *_ in _RISING]
    ax.set_xticks(range(len(names)), names, fontsize=SMALL)
    ax.set_xlim(-0.6, len(names) - 0.4)


def persistence(run: "Run") -> Figure:
    """Figure 8: the judge's mean label from start layers to each later layer, exact and composition."""
    found = results(run, "persistence")
    means = {judge: rows[rows["measure"] == "mean"] for judge, rows in found.items()}
    every = pd.concat(
        [rows[rows["strategy"].isin(["exact", "composition"])] for rows in means.values()]
    )
    every = every[every["a"] != ""]  # the rows over all starts together are not drawn
    starts = [key for key in run.keys if key in set(every["a"])]
    figure, axes = new_figure(
        max(6.2, 3.3 * len(starts)), 0.5 + 2.8 * len(found), columns=max(len(starts), 1),
        rows=len(found), share=True,
    )  # fmt: skip
    missing, grid = {}, iter(axes)
    for judge, rows in means.items():
        for number, start in enumerate(starts):
            ax, chain = next(grid), next(chain for chain in run.chains if start in chain)
            pairs = [(start, key) for key in chain[chain.index(start) + 1 :]]
            for place, (strategy, line) in enumerate((("exact", EXACT), ("composition", COMPOSED))):
                mine = rows[rows["strategy"] == strategy].set_index(["a", "b"])
                mine = mine[["value", "low", "high"]].reindex(pd.MultiIndex.from_tuples(pairs))
                draw_line(ax, line, np.arange(len(pairs)) + dodge(place, 2), mine)
                # The first step is adjacent: there, both are one and the same matching.
                wanted = pairs[1:] if strategy == "composition" else pairs
                of = f"{strategy} by {judge}"
                known = rows[rows["strategy"] == strategy]
                missing[of] = [*missing.get(of, []), *gaps(known, wanted)]
            _draw_controls(ax, rows)
            ax.set_title(_title(f"from layer {start}", judge, found), fontsize=TEXT_SIZE)
            label_pairs(ax, [key for _, key in pairs], "to layer")
            ax.set_ylim(1, 3)
            ax.set_yticks([1, 2, 3])
            if number == 0:
                ax.set_ylabel("mean label\n(1 DIFFERENT, 2 MAYBE, 3 SAME)", fontsize=TEXT_SIZE)
    legend_below(figure, axes)
    return caption(
        figure,
        "How far meaning persists (SAE Match, figure 8)",
        suite_facts(run),
        judges_facts(found),
        f"A point: {counts(every)}. Exact: layers matched directly; composition: through the layers "
        f"between. Horizontal: the judge's controls, a feature described twice (ceiling) and two at random "
        f"(floor). {SHARE_INTERVALS}",
        not_measured(missing, -1),
    )


def _draw_controls(ax: Axes, rows: pd.DataFrame) -> None:
    """What the judge says of a feature and itself, and of features drawn at random."""
    for kind, words, dashes in (
        ("control: same", "a feature and itself", (0, (1, 1))),
        ("control: different", "two features at random", (0, (4, 3))),
    ):
        mine = rows[rows["strategy"] == kind]
        if len(mine):
            ax.axhspan(*mine[["low", "high"]].iloc[0], color="0.5", alpha=0.18, linewidth=0)
            ax.axhline(
                mine["value"].iloc[0], color="0.35", linestyle=dashes, label=words, linewidth=1
            )
