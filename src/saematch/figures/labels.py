"""Figures 4, 6, 7 (left) and 8: what a judge says of matched features."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from saematch.figures import style
from saematch.figures.captions import caption, label, not_measured
from saematch.figures.data import counts, gaps, judges_facts, labelled, results, suite_facts
from saematch.matching.matchers import MAIN
from saematch.pipelines.sampling import COMPOSITION, EXACT
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

PANELS = 3
"""Layer pairs of figure 6: the first, the middle and the last that were judged."""
FAR_LINES = {
    EXACT: replace(style.main_line(), label=f"exact matching ({MAIN})"),
    COMPOSITION: style.COMPOSITION_LINE,
}
CONTROLS = {
    "control: same": ("a feature and itself", (0, (1, 1))),
    "control: different": ("two features at random", (0, (4, 3))),
}
"""Name and dashes of what the judge is asked besides pairs."""
FEW = 12
"""Up to so many layer pairs the bars of two strategies fit side by side."""


def judged_shares(run: "Run") -> Figure:
    """Figures 4 and 7 (left): shares of DIFFERENT, MAYBE and SAME per layer pair and strategy."""
    found, pairs = results(run, "layers"), run.adjacent
    shares = {
        judge: rows[
            rows["measure"].isin(style.LABEL_FILLS) & (rows["strategy"] != "") & (rows["a"] != "")
        ]
        for judge, rows in found.items()
    }
    every = pd.concat(list(shares.values()))
    names = [name for name in style.strategy_lines() if name in set(every["strategy"])]
    shown = [(judge, name) for judge in shares for name in names]
    columns = 2 if len(pairs) <= FEW and len(shown) > 1 else 1
    rows = max(1, math.ceil(len(shown) / columns))
    figure, axes = style.new_figure(0.7 + 1.45 * rows + style.below(pairs), columns, rows)
    missing = {}
    for place, (ax, (judge, name)) in enumerate(zip(axes, shown, strict=False)):
        mine = shares[judge][shares[judge]["strategy"] == name]
        _stack(ax, mine, pairs)
        style.set_title(ax, _title(style.strategy_lines()[name].label, judge, found))
        style.label_pairs(ax, style.arrows(pairs))
        if place + columns < len(shown):  # another panel below has the same axis
            ax.tick_params(labelbottom=False)
            ax.set_xlabel("")
        if place % columns == 0:
            ax.set_ylabel("share of labels")
        else:
            ax.tick_params(labelleft=False)
        missing[f"{name} by {judge}"] = gaps(mine, pairs)
    for ax in axes[len(shown) :]:
        figure.delaxes(ax)
    figure.legend(
        handles=[
            *(
                Patch(facecolor=color, edgecolor="#333333", linewidth=0.5, label=name)
                for name, color in style.LABEL_FILLS.values()
            ),
            Line2D(
                [], [], color="black", linestyle="", marker="|", markersize=9, markeredgewidth=1.2,
                label="95% interval: left of SAME, right of DIFFERENT",
            ),
        ],
        loc="outside lower center", ncols=len(style.LABEL_FILLS) + 1, frameon=False, fontsize=style.SMALL,
    )  # fmt: skip
    return caption(
        figure,
        "What the judge says of matched features (SAE Match, figures 4 and 7, left)",
        suite_facts(run),
        judges_facts(found),
        f"A bar: {counts(every)} on descriptions of matched features. Upright lines: 95% intervals of two "
        "shares, on the left of a bar that of SAME, on the right that of DIFFERENT, measured from the top.",
        not_measured(missing, len(pairs)),
    )


def _stack(ax: Axes, rows: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> None:
    """A bar per pair, SAME at the bottom; intervals of SAME and of DIFFERENT at their edges."""
    x, floor = np.arange(len(pairs)), np.zeros(len(pairs))
    for measure, (_, color) in style.LABEL_FILLS.items():
        mine = style.by_pair(rows[rows["measure"] == measure], pairs)
        value, low, high = mine.to_numpy(dtype=float).T
        ax.bar(x, value, 0.8, floor, color=color, edgecolor="#333333", linewidth=0.5)
        floor = floor + value
        known = np.isfinite(low) & np.isfinite(high)
        if measure == "maybe":
            continue
        aside, least, most = (-0.2, low, high) if measure == "same" else (0.2, 1 - high, 1 - low)
        lines = ax.vlines(x[known] + aside, least[known], most[known], color="black")
        lines.set(linewidth=1.2, path_effects=style.HALO, zorder=3)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.5, 1])


def mse_by_label(run: "Run") -> Figure:
    """Figure 6: the distribution of decoder MSE by the judge's label, three layer pairs."""
    found, asked = results(run, "mse"), labelled(run, "mse")
    asked = asked[asked["strategy"] == MAIN] if MAIN in set(asked["strategy"]) else asked
    asked = asked[asked["mse_decoder"].notna()]
    there = [pair for pair in run.pairs if pair in set(zip(asked["a"], asked["b"], strict=True))]
    most = len(there) - 1
    chosen = there if most < PANELS else [there[n] for n in (0, len(there) // 2, most)]
    judges = list(dict.fromkeys(asked["judge"]))
    figure, axes = style.new_figure(2.5 * len(judges), columns=len(chosen), rows=len(judges))
    grid = iter(axes)
    for judge in judges:
        for a, b in chosen:
            ax = next(grid)
            rows = asked[(asked["judge"] == judge) & (asked["a"] == a) & (asked["b"] == b)]
            _spread(ax, {name: rows[rows["label"] == name]["mse_decoder"] for name, *_ in _RISING})
            style.set_title(
                ax, _title(label(style.shortened(style.arrows([(a, b)]))[0]), judge, judges)
            )
            style.from_zero(ax)
            ax.set_xlabel("judge's label")
    for ax in axes[:: len(chosen)]:
        ax.set_ylabel("decoder MSE of a pair\n(folded weights)")
    others = len(there) - len(chosen)
    strata = asked["stratum"].nunique()
    each = f", as many from each of {strata} equal parts by decoder MSE" * (strata > 1)
    return caption(
        figure,
        "Decoder MSE by the judge's label (SAE Match, figure 6)",
        suite_facts(run),
        judges_facts({judge: found[judge] for judge in judges}),
        f"{plural(len(asked), 'label')} on descriptions of matched features, in a layer pair live pairs at "
        f"random{each}; n under each label. Boxes: quartiles, line: median, whiskers: 5% to 95%; a point "
        "is a pair.",
        f"{plural(others, 'more layer pair')} judged and not shown." if others else "",
        "" if "decoder" in run.config.parts else "The decoder was not among the parts matched on.",
    )


def _title(what: str, judge: str, judges: Collection[str]) -> str:
    """What a panel shows, and by whom if there are several judges."""
    return f"{what}\n{label(style.shortened([judge], style.TITLE)[0])}" if len(judges) > 1 else what


_RISING = tuple(reversed(style.LABEL_FILLS.values()))
"""DIFFERENT, MAYBE, SAME."""


def _spread(ax: Axes, values: dict[str, pd.Series]) -> None:
    """A box and its points for each label; a label that nobody gave is an empty place."""
    generator = np.random.default_rng(0)
    for place, (name, color) in enumerate(_RISING):
        mine = values[name].to_numpy(dtype=float)
        if not len(mine):
            continue
        drawn = ax.boxplot(
            [mine], positions=[place], widths=0.55, whis=(5, 95), showfliers=False, patch_artist=True,
            medianprops={"color": "black", "linewidth": 1.8, "path_effects": style.HALO, "zorder": 4},
        )  # fmt: skip
        for box in drawn["boxes"]:
            box.set(facecolor=color, linewidth=0.8)
        aside = generator.uniform(-0.2, 0.2, len(mine))
        ax.plot(
            place + aside, mine, ".", color="#333333", markersize=4, markeredgecolor="white",
            markeredgewidth=0.4,
        )  # fmt: skip
    names = [f"{name}\nn = {len(values[name])}" for name, *_ in _RISING]
    ax.set_xticks(range(len(names)), names, fontsize=style.SMALL)
    ax.set_xlim(-0.6, len(names) - 0.4)


def persistence(run: "Run") -> Figure:
    """Figure 8: the judge's mean label from start layers to each later layer, exact and composition."""
    found = results(run, "persistence")
    means = {judge: rows[rows["measure"] == "mean"] for judge, rows in found.items()}
    every = pd.concat([rows[rows["strategy"].isin(FAR_LINES)] for rows in means.values()])
    every = every[every["a"] != ""]  # the rows over all starts together are not drawn
    starts = [key for key in run.keys if key in set(every["a"])]
    columns = max(len(starts), 1)
    figure, axes = style.new_figure(0.5 + 2.1 * len(found), columns, len(found), share=True)
    missing, grid = {}, iter(axes)
    drawn = [strategy for strategy in FAR_LINES if strategy in set(every["strategy"])]
    for judge, rows in means.items():
        for number, start in enumerate(starts):
            ax, chain = next(grid), next(chain for chain in run.chains if start in chain)
            pairs = [(start, key) for key in chain[chain.index(start) + 1 :]]
            for strategy, line in FAR_LINES.items():
                mine = rows[rows["strategy"] == strategy]
                if strategy in drawn:
                    aside = style.dodge(drawn.index(strategy), len(drawn), len(pairs), columns)
                    x = np.arange(len(pairs)) + aside
                    style.draw_line(ax, line, x, style.by_pair(mine, pairs))
                # The first step is adjacent: there, both are one and the same matching.
                wanted = pairs[1:] if strategy == COMPOSITION else pairs
                of = f"{strategy} by {judge}"
                missing[of] = [*missing.get(of, []), *gaps(mine, wanted)]
            _draw_controls(ax, rows)
            of = label(style.shortened([start])[0])
            style.set_title(ax, _title(f"from layer {of}", judge, found))
            style.label_pairs(ax, [key for _, key in pairs], "to layer")
            ax.set_ylim(1, 3)
            ax.set_yticks([1, 2, 3], ["DIFFERENT 1", "MAYBE 2", "SAME 3"])
            if number == 0:
                ax.set_ylabel("mean label")
    style.legend_below(figure, axes)
    controls = any(kind in set(rows["strategy"]) for rows in means.values() for kind in CONTROLS)
    return caption(
        figure,
        "How far meaning persists (SAE Match, figure 8)",
        suite_facts(run),
        judges_facts(found),
        f"A point: {counts(every)}. Exact: layers matched directly; composition: through the layers "
        "between. Bars through points: 95% intervals.",
        "Horizontal, with their intervals: the judge's controls, a feature described twice (ceiling) and "
        "two at random (floor)." * controls,
        not_measured(missing, -1),
    )


def _draw_controls(ax: Axes, rows: pd.DataFrame) -> None:
    for kind, (words, dashes) in CONTROLS.items():
        mine = rows[rows["strategy"] == kind]
        if len(mine):
            ax.axhspan(*mine[["low", "high"]].iloc[0], color="0.5", alpha=0.18, linewidth=0)
            ax.axhline(
                mine["value"].iloc[0], color="0.35", linestyle=dashes, label=words, linewidth=1
            )
