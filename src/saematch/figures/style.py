"""How all figures look: one colour, marker and dash a strategy, everywhere the same.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and dashes carry the
same distinction in greyscale.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
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
    "correlation": Line("correlation argmax", "#56B4E9", "P", (0, (5, 1, 1, 1))),
    "reconstruct_previous": Line("reconstruct previous", "#000000", "<", "--"),
    "reconstruct_current": Line("reconstruct current", "#000000", ">", "-"),
    "layer_drop": Line("layer drop", "#000000", "", ":"),
    "ridge": Line("ridge map", "#B8860B", "*", "-."),
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


def draw_strategy(
    ax: Axes, rows: pd.DataFrame, strategy: str, pairs: Sequence[tuple[str, str]]
) -> None:
    """A strategy's values at each layer pair, and the band between `low` and `high` where it has one.

    `rows`: a row a pair of evaluation/measures.parquet; nothing is drawn where none has a value.
    """
    line = STRATEGY_LINES[strategy]
    chosen = rows.set_index(["a", "b"]).reindex(pd.MultiIndex.from_tuples(pairs))
    if chosen["value"].isna().all():
        return
    x = np.arange(len(pairs))
    ax.plot(
        x,
        chosen["value"],
        color=line.color,
        marker=line.marker,
        linestyle=line.dashes,
        label=line.label,
        markersize=4,
        linewidth=1.4,
    )
    if chosen["low"].notna().any():
        low, high = chosen["low"].astype(float), chosen["high"].astype(float)
        ax.fill_between(x, low, high, color=line.color, alpha=0.2, linewidth=0)


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
