"""Figures 10, 11, 13, 16 and 17: a layer replaced by features of the one before it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from saematch.figures.captions import caption, label, not_measured, signed
from saematch.figures.data import (
    CONDITIONS,
    INTERVALS,
    NotInRunError,
    adjacent,
    command,
    corpora,
    corpora_facts,
    gaps,
    on_text,
    suite_facts,
)
from saematch.figures.style import (
    SMALLEST,
    TEXT_SIZE,
    TITLE,
    Line,
    arrows,
    below,
    corpus_line,
    dodge,
    draw_line,
    draw_strategy,
    label_pairs,
    legend_below,
    new_figure,
    page_of,
    shortened,
    strategy_lines,
)
from saematch.matching.registry import MAIN
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

PANELS: Mapping[str, str] = {
    "explained_variance": "explained variance",
    "delta_loss": "ΔL (nats a token)",
}
LOWEST = -1.0
"""Explained variance below this is cut off: it says no more than that a reconstruction failed."""
NEAR_ZERO = 0.3
"""An axis of explained variance whose least value is between zero and this begins at zero."""
MANY = 8
"""With more lines in a panel the intervals would hide each other."""
QUANTILES = "0,0.25,0.5,0.75,1"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "d")
DASHES = ("-", "--", "-.", ":")
MATCHED = (
    "Features of the earlier layer, permuted, through the decoder of the later one, whose block is "
    "skipped (encode-permute-decode)."
)


def pruned_by_corpus(run: "Run") -> Figure:
    """Figure 10: explained variance and ΔL of encode-permute-decode per layer pair, one line per corpus."""
    pairs, names = adjacent(run), list(corpora(run))
    figure, axes = new_figure(2.7 + below(pairs), columns=len(PANELS))
    missing: dict[str, list[str]] = {}
    for ax, (measure, words) in zip(axes, PANELS.items(), strict=True):
        rows = _measured(run, measure, [MAIN])
        for number, corpus in enumerate(names):
            mine = rows[rows["corpus"] == corpus]
            aside = dodge(number, len(names), len(pairs), len(PANELS))
            draw_strategy(ax, mine, MAIN, pairs, aside, corpus_line(number, corpus))
            missing[f"{words} on {corpus}"] = gaps(mine, pairs)
        label_pairs(ax, arrows(pairs))
        ax.set_ylabel(words, fontsize=TEXT_SIZE)
        limit([ax], measure)
    legend_below(figure, axes)
    title = "Encode-permute-decode by layer and corpus (SAE Match, figure 10)"
    return _captioned(run, figure, title, MATCHED, INTERVALS, not_measured(missing, len(pairs)))


def pruned_by_strategy(run: "Run") -> Figure:
    """Figures 11 and 13: the same for matched features, plain reconstructions and a dropped layer."""
    pairs = adjacent(run)
    found = {measure: _measured(run, measure, CONDITIONS) for measure in PANELS}
    columns = len(corpora(run))
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        rows = found[measure]
        for number, strategy in enumerate(CONDITIONS):
            mine = rows[(rows["corpus"] == corpus) & (rows["strategy"] == strategy)]
            draw_strategy(
                ax, mine, strategy, pairs, dodge(number, len(CONDITIONS), len(pairs), columns)
            )
            of = f"{PANELS[measure]} of {strategy_lines()[strategy].label} on {corpus}"
            missing[of] = gaps(mine, pairs)
        label_pairs(ax, arrows(pairs))

    figure = panels(run, draw)
    title = "A layer replaced, by strategy (SAE Match, figures 11 and 13)"
    return _captioned(run, figure, title, MATCHED, INTERVALS, not_measured(missing, len(pairs)))


def mixed_quantiles(run: "Run") -> Figure:
    """Figures 16 and 17: explained variance and ΔL against the quantile of pairs mixed in (eq. 6).

    Raises NotInRunError where fewer than two quantiles were measured.
    """
    pairs = adjacent(run)
    found = {measure: on_text(run, measure) for measure in PANELS}
    found = {
        name: rows[rows["strategy"].str.startswith("quantile(")] for name, rows in found.items()
    }
    shares = sorted({_share(name) for rows in found.values() for name in rows["strategy"]})
    if len(shares) < 2:
        needed = "measures at MSE quantiles"
        raise NotInRunError(run, needed, command(run, "evaluate", f"--quantiles {QUANTILES}"))
    lines = depth_lines(pairs)
    many, columns = len(lines) > MANY, len(corpora(run))
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        here = found[measure][found[measure]["corpus"] == corpus]
        for number, (pair, line) in enumerate(lines.items()):
            rows = here[(here["a"] == pair[0]) & (here["b"] == pair[1])]
            by_share = rows.set_index(rows["strategy"].map(_share))
            by_share = by_share[["value", "low", "high"]].reindex(shares)
            if many:
                draw_line(ax, line, shares, by_share.assign(low=np.nan, high=np.nan))
            else:
                # From 0 to 1 there is one place, and half a one next to it.
                x = np.array(shares) + dodge(number, len(lines), 1, columns)
                draw_line(ax, line, x, by_share)
            unknown = by_share.index[by_share["value"].isna()]
            missing[f"{PANELS[measure]} of {line.label} on {corpus}"] = [f"{q:g}" for q in unknown]
        ax.set_xlabel("share of pairs mixed in,\nleast MSE first", fontsize=TEXT_SIZE)
        ax.set_xticks(shares, [f"{share:g}" for share in shares])

    figure = panels(run, draw)
    text = (
        "The share of pairs of least decoder MSE goes through the matched decoder, the others through "
        "their own; the block of the later layer is skipped."
    )
    title = "Only the best pairs mixed in (SAE Match, figures 16 and 17)"
    hidden = f"Intervals are not drawn: those of {len(lines)} lines would hide each other."
    intervals = hidden if many else INTERVALS
    return _captioned(run, figure, title, text, intervals, not_measured(missing, len(shares)))


def panels(
    run: "Run", draw: Callable[[Axes, str, str], None], measures: Mapping[str, str] = PANELS
) -> Figure:
    """A row per measure, a column per corpus; `draw(axes, measure, corpus)` fills each.

    `measures`: what stands at the y axis of each.
    """
    names = list(corpora(run))
    figure, axes = new_figure(
        4.6 + below(adjacent(run)), columns=len(names), rows=len(measures), share=True,
        width=page_of(len(names)),
    )  # fmt: skip
    grid = iter(axes)
    for row, (measure, words) in enumerate(measures.items()):
        for column, corpus in enumerate(names):
            ax = next(grid)
            draw(ax, measure, corpus)
            if row == 0:
                ax.set_title(label(shortened([corpus], TITLE)[0]), fontsize=TEXT_SIZE)
            if row < len(measures) - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if column == 0:
                ax.set_ylabel(words, fontsize=TEXT_SIZE)
    for row, measure in enumerate(measures):
        limit(axes[row * len(names) : (row + 1) * len(names)], measure)
    legend_below(figure, axes)
    return figure


def depth_lines(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Line]:
    """A line per layer pair, from dark to light with depth."""
    found = {}
    names = map(label, shortened(arrows(pairs)))
    for number, ((a, b), name) in enumerate(zip(pairs, names, strict=True)):
        color = to_hex(colormaps["cividis"](0.82 * number / max(len(pairs) - 1, 1)))
        dashes = DASHES[number % len(DASHES)]
        found[a, b] = Line(name, color, MARKERS[number % len(MARKERS)], dashes)
    return found


def _measured(run: "Run", measure: str, strategies: Sequence[str]) -> pd.DataFrame:
    rows = on_text(run, measure)
    rows = rows[rows["strategy"].isin(strategies)]
    if rows.empty:
        raise NotInRunError(run, f"{PANELS[measure]} on text", command(run, "evaluate"))
    return rows


def limit(axes: Sequence[Axes], measure: str) -> None:
    """The y axis of a row of panels; what it cuts off is counted in each."""
    low, high = axes[0].get_ylim()
    if measure != "explained_variance":
        # By what is drawn: the axis' own limits leave a margin, which may be below zero.
        negative = min(float(ax.dataLim.y0) for ax in axes) < 0
        axes[0].set_ylim(low if negative else 0, high)
        for ax in axes if negative else ():
            ax.axhline(0, color="black", linewidth=0.8, zorder=1)
        return
    # What is drawn are points and intervals; the axis' own limits may begin anywhere just above zero.
    least = min(float(ax.dataLim.y0) for ax in axes)
    axes[0].set_ylim(0 if 0 <= least < NEAR_ZERO else max(low, LOWEST), 1)
    for ax in axes:
        values = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]
        lower = sum(int((value < LOWEST).sum()) for value in values)
        if lower:
            words = f"{plural(lower, 'value')} below {signed(LOWEST, 'g')}"
            ax.text(0.02, 0.03, words, transform=ax.transAxes, fontsize=SMALLEST)


def _captioned(run: "Run", figure: Figure, title: str, *sentences: str) -> Figure:
    return caption(figure, title, suite_facts(run), corpora_facts(run), *sentences)


def _share(strategy: str) -> float:
    return float(strategy.removeprefix("quantile(").removesuffix(")"))
