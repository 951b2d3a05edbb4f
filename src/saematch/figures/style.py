"""How all figures look: one colour, marker and dash per strategy, everywhere the same; and the same bytes for
the same figure.

Colours of strategies are those that their matchers name (matching/matchers.py); those of corpora
are Paul Tol's muted ones with hollow markers, so that a corpus is never taken for a strategy.  Markers
and dashes carry every distinction once more, for greyscale.
"""

import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from saematch.figures.captions import caption_of, label, plain, quiet_glyphs, text_width
from saematch.matching.matchers import MAIN, compositions, ranked_matchers


@dataclass(frozen=True)
class Line:
    label: str
    color: str
    marker: str
    dashes: Any
    hollow: bool = False
    """Its markers are white inside: corpora."""


COMPOSITION_LINE = Line("composition", "#CC79A7", "D", (0, (1, 1)))
"""Line of the main strategy's compositions."""
_INTERVENTION_LINES = {
    "reconstruct_previous": Line("reconstruct previous", "#000000", "<", "--"),
    "reconstruct_current": Line("reconstruct current", "#000000", ">", "-"),
    "layer_drop": Line("layer drop", "#555555", "d", ":"),
    "ridge": Line("ridge map", "#B8860B", "*", "-."),
}
PART_LINES = {
    "": Line("all parts", "#0072B2", "o", "-"),
    "decoder": Line("decoder only", "#5BA3D0", "^", "--"),
    "encoder": Line("encoder only", "#00304A", "s", ":"),
}
"""Shades of the colour of the main strategy, which matches by all of them."""
CHANCE_LINE = Line(f"chance ({MAIN})", "#7F7F7F", "_", ":")
WEIGHTS_LINE = Line("the SAEs", "#000000", "o", "-")
"""What is a property of the SAEs, not of a matching."""
_CORPUS_STYLES = (
    ("#332288", "o", "-"),
    ("#AA4499", "s", "--"),
    ("#117733", "^", "-."),
    ("#882255", "D", ":"),
    ("#999933", "v", (0, (4, 1.5))),
    ("#44AA99", "P", (0, (5, 1, 1, 1))),
)
SPAN = ["value", "low", "high"]
"""Columns of a measure and its interval."""
LABEL_FILLS = {
    "same": ("SAME", "#0B5C8F"),
    "maybe": ("MAYBE", "#8DC1E2"),
    "different": ("DIFFERENT", "#F1F1F1"),
}
"""Name and colour of the judge's labels: the surer that two features mean the same, the darker, in
steps that greyscale keeps apart."""
FATE_FILLS = {
    "persists": "#0072B2",
    "splits": "#56B4E9",
    "merges": "#F0E442",
    "dies": "#4D4D4D",
    "born": "#009E73",
}
"""Colours of what becomes of features, in the order of a stack: Okabe and Ito's, neighbours apart in
greyscale too."""
HALO = [Stroke(linewidth=2.6, foreground="white"), Normal()]
"""Around black lines, which would be lost on dark bars."""

PAGE = 7.0
"""Inches: width of a page's text, and of a figure; sizes of text are those that a reader sees there."""
NARROWEST = 1.9
"""Inches of a panel: with many corpora a figure is wider than a page."""
TEXT_SIZE = 8.0
SMALL = 7.5
SMALLEST = 7.0
"""Points: no text of a figure is smaller."""
HANDLE, COLUMN = 3.2, 3.0
"""In a legend: length of a line, and space around an entry, in units of its text's size."""
ASIDE = 2.4
"""Points between neighbouring lines where they stand aside, as long as there is room."""
AROUND = 40.0
"""Points that a panel loses to its axis' numbers and name."""
LONGEST = 18
"""Signs of a name along an axis; a longer one loses its middle."""
SHORT = 0.45
"""Inches below an axis that every figure has for names of layer pairs."""
TITLE = 26
"""The same, of a name above a panel."""
FIRST = 8
"""Signs that a name keeps at its beginning, where the layers stand."""


def strategy_lines() -> dict[str, Line]:
    """How each strategy and intervention is drawn, in the order of legends."""
    ways = {
        one.name: Line(one.label, one.color, one.marker, one.dashes) for one in ranked_matchers()
    }
    return {**ways, compositions()[MAIN]: COMPOSITION_LINE, **_INTERVENTION_LINES}


def main_line() -> Line:
    return strategy_lines()[MAIN]


def corpus_line(number: int, name: str) -> Line:
    """How the corpus of this number is drawn; after six they come round again."""
    return Line(label(name), *_CORPUS_STYLES[number % len(_CORPUS_STYLES)], hollow=True)


def new_figure(
    height: float, columns: int = 1, rows: int = 1, share: bool = False, width: float = PAGE
) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row, without pyplot's global state; sizes in inches.

    `share`: the axes of a row have one y axis.
    """
    figure = Figure(figsize=(max(width, NARROWEST * columns), height), layout="constrained")
    sharey: Any = "row" if share else False
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel())
    for ax in axes:
        plain_axes(ax)
    return figure, axes


def below(pairs: Sequence[tuple[str, str]]) -> float:
    """Inches that a figure needs for slanted names of these layer pairs beyond those of `12→13`."""
    widest = max((text_width(name, TEXT_SIZE) for name in shortened(arrows(pairs))), default=0.0)
    return max(0.0, widest * math.sin(math.radians(60)) / 72 - SHORT)


def plain_axes(ax: Axes) -> None:
    """Two lines around a panel, and light ones across it; its words in the size of a figure's text."""
    ax.xaxis.label.set_fontsize(TEXT_SIZE)
    ax.yaxis.label.set_fontsize(TEXT_SIZE)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TEXT_SIZE)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)


def set_title(ax: Axes, words: str) -> None:
    ax.set_title(words, fontsize=TEXT_SIZE)


def from_zero(ax: Axes) -> None:
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])


def dodge(number: int, of: int, places: int, columns: int = 1) -> float:
    """How far to the side the points of a line stand, so that intervals do not hide each other.

    In units of `places` that an axis has, `columns` panels wide; on both sides of a place alike, and no
    wider on paper if there are few.
    """
    room = PAGE * 72 / columns - AROUND
    return (number - (of - 1) / 2) * min(ASIDE * places / room, 0.5 / max(of, 1))


def draw_line(
    ax: Axes, line: Line, x: np.ndarray, rows: pd.DataFrame, breaks: Sequence[int] = ()
) -> None:
    """Values at `x`, each with its interval where it has one; nothing where none is known.

    `rows`: columns value, low, high, in the order of `x`; a missing value is a gap.  `breaks`: places
    after which the line is cut, since what follows belongs to something else.
    """
    table = np.column_stack([x, rows[SPAN].to_numpy(dtype=float)])
    if np.isnan(table[:, 1]).all():
        return
    place, value, low, high = np.insert(table, [n + 1 for n in breaks], np.nan, axis=0).T
    ax.plot(
        place, value, color=line.color, marker=line.marker, linestyle=line.dashes, label=line.label,
        markerfacecolor="white" if line.hollow else line.color, markersize=4, linewidth=1.2,
    )  # fmt: skip
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(value)
    if known.any():
        ax.vlines(place[known], low[known], high[known], color=line.color, linewidth=1)


def by_pair(rows: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Columns value, low, high for each layer pair, in their order; those of a pair without a row are NaN."""
    index = pd.MultiIndex.from_tuples(pairs, names=["a", "b"])
    return rows.set_index(["a", "b"])[SPAN].reindex(index)


def draw_strategies(
    ax: Axes,
    drawn: Sequence[tuple[Line, pd.DataFrame]],
    pairs: Sequence[tuple[str, str]],
    columns: int = 1,
) -> None:
    """The values of strategies at each layer pair, next to each other in one of `columns` panels, with the
    range from `low` to `high` where there is one.

    Rows: one per pair of evaluation/measures.parquet; a pair without one is a gap, and pairs that share no
    SAE are not joined.
    """
    for number, (line, rows) in enumerate(drawn):
        x = np.arange(len(pairs)) + dodge(number, len(drawn), len(pairs), columns)
        draw_line(ax, line, x, by_pair(rows, pairs), breaks_of(pairs))
    label_pairs(ax, arrows(pairs))


def breaks_of(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Places after which a chain of pairs ends."""
    return [n for n, (one, other) in enumerate(pairwise(pairs)) if one[1] != other[0]]


def arrows(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Pairs as people read them; the name of two SAEs that share it (`12.wide`, `13.wide`) once."""
    found = []
    for a, b in pairs:
        (first, _, name), (second, _, other) = a.partition("."), b.partition(".")
        found.append(f"{first}→{second} {name}" if name and name == other else f"{a}→{b}")
    return found


def shortened(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Names with … in place of a part where they are longer, and still as many different ones: what is
    left out is their middle, or what lies nearest to it that all share; if need be they stay longer."""
    for length in range(longest, max(map(len, names), default=0)):
        ends = range(max(1, length - FIRST))
        for end in sorted(ends, key=lambda end: abs(end - (length - 1) // 2)):
            found = [
                name
                if len(name) <= length
                else f"{name[: length - 1 - end]}…{name[len(name) - end :]}"
                for name in names
            ]
            if len(set(found)) == len(set(names)):
                return found
    return list(names)


def label_pairs(ax: Axes, pairs: Sequence[str], name: str = "layer pair") -> None:
    """Layer pairs, or layers, along the x axis: slanted where they would touch, and of too many only
    every second, third, ..."""
    labels = [label(pair) for pair in shortened(list(map(plain, pairs)))]
    grid, figure = ax.get_gridspec(), ax.get_figure(root=True)
    assert figure is not None
    assert grid is not None
    room = figure.get_size_inches()[0] * 72 / grid.ncols - AROUND
    widest = max((text_width(one, TEXT_SIZE) for one in labels), default=0.0) + 0.5 * TEXT_SIZE
    slanted = widest * len(labels) > room and widest > 2.5 * TEXT_SIZE
    step = max(1, math.ceil(len(labels) * (1.4 * TEXT_SIZE if slanted else widest) / room))
    ax.set_xticks(range(0, len(labels), step), labels[::step], rotation=60 if slanted else 0)
    if slanted:
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_xlabel(name)


def legend_below(figure: Figure, axes: Sequence[Axes], columns: int = 5) -> None:
    """One legend for all axes, below them, in at most so many columns; none for a single line."""
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= {str(one.get_label()): one for one in ax.get_legend_handles_labels()[0]}
    if len(handles) < 2:
        return
    room = figure.get_size_inches()[0] * 72
    longest = max(text_width(name, SMALL) for name in handles)
    fits = max(1, min(columns, len(handles), int(room / (longest + SMALL * (HANDLE + COLUMN)))))
    rows = math.ceil(len(handles) / fits)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center",
        ncols=math.ceil(len(handles) / rows), frameon=False, fontsize=SMALL, handlelength=HANDLE,
    )  # fmt: skip


_ID = re.compile(r'(?<=id=")[A-Za-z]([0-9a-f]{10})(?=")')
"""Id of a clip path, a marker or a hatch: matplotlib hashes its geometry."""


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element, its title and caption as <title> and <desc>.

    Text stays text: it can be searched, read aloud and copied.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "saematch", "svg.fonttype": "none"}), quiet_glyphs():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = _renamed(text[text.index("<svg") :])
    title, words = caption_of(figure)
    if not title:
        return text
    tag, _, rest = text.partition(">")
    about = f"<title>{escape(title)}</title>\n <desc>{escape(words)}</desc>"
    return f'{tag} role="img">\n {about}{rest}'


def _renamed(text: str) -> str:
    """Ids by what the figure shows, and by their order in it.

    matplotlib's come from unrounded coordinates, whose last bits the layout does not repeat; ids of
    several figures on one page must still differ.
    """
    old = list(dict.fromkeys(match[0] for match in _ID.finditer(text)))
    for number, one in enumerate(old):
        text = text.replace(one, f"\0{number}\0")  # what no text of a figure holds
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    for number, one in enumerate(old):
        text = text.replace(f"\0{number}\0", f"{one[0]}{digest}-{number}")
    return text


def to_png(figure: Figure, pixels_per_inch: int = 150) -> bytes:
    buffer = io.BytesIO()
    with quiet_glyphs():
        figure.savefig(buffer, format="png", dpi=pixels_per_inch, metadata={"Software": None})
    return buffer.getvalue()
