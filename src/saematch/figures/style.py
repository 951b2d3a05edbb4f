"""How all figures look: one colour, marker and dash a strategy, everywhere the same.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and dashes carry the
same distinction in greyscale.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """How a strategy is drawn."""

    label: str
    color: str
    marker: str
    dashes: Any


STRATEGY_LINES = {
    "folded": Line("folded (SAE Match)", "#0072B2", "o", "-"),
    "unfolded": Line("unfolded", "#E69F00", "s", "--"),
    "cosine": Line("cosine argmax", "#009E73", "^", "-."),
    "naive": Line("naive (identity)", "#D55E00", "v", (0, (4, 1.5))),
    "random": Line("random", "#7F7F7F", "x", ":"),
    "composition": Line("composition", "#CC79A7", "D", (0, (1, 1))),
}

TEXT_SIZE = 9


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure, width and height in inches, without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=TEXT_SIZE)
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure, axes


def label_pairs(ax: Axes, pairs: Sequence[str]) -> None:
    """Layer pairs along the x axis, upright where they would touch; every second one of many."""
    step = 1 if len(pairs) <= 14 else 2
    rotation = 0 if len(pairs) <= 3 else 60
    ax.set_xticks(range(0, len(pairs), step), list(pairs)[::step], rotation=rotation)
    ax.set_xlabel("layer pair", fontsize=TEXT_SIZE)


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element to be put into a page; the same bytes for the same figure."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "saematch", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
