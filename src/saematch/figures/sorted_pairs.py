"""Figure 5: all pairs of two layers in order of decoder MSE, with examples from low to high."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saematch.figures import style
from saematch.figures.captions import (
    LINE,
    caption,
    label,
    lacking,
    signed,
    text_width,
    wrap,
    write_lines,
)
from saematch.figures.data import Described, described, live_rows, suite_facts
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

PAPER_PAIR = ("19", "20")
DEPTH = 0.75
"""Where the run lacks the paper's pair, that at this share of its depth is shown."""
EXAMPLE_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
CURVE = (0.7, 2.55)
"""Inches from the left edge: where the curve begins and ends."""
LEFT, RIGHT = 2.8, style.PAGE - 0.08
"""Inches: where the examples begin and end."""
INDENT = 0.2
LINES = 3
"""Lines of a description; a longer one is cut."""
APART = 0.09
"""Inches between examples."""
LOWEST_CURVE = 2.4
"""Inches: the curve is at least so high."""
ABOVE, BELOW = 0.1, 0.45


@dataclass(frozen=True)
class _Example:
    head: str
    texts: tuple[tuple[str, list[str]], ...]
    """(layer, lines) of both features."""

    @property
    def height(self) -> float:
        """In inches."""
        lines = sum(len(lines) for _, lines in self.texts)
        return (style.SMALL + lines * style.SMALLEST) * LINE / 72 + APART


def sorted_pairs(run: "Run", pair: tuple[str, str] | None = None) -> Figure:
    """Decoder MSE of every live pair of two SAEs under `folded`, sorted, and examples with descriptions.

    A run that did not match the decoder is sorted by what it matched, the cost.  `pair`: default, the
    paper's 19→20, or that at three quarters of the run's depth.  Raises UsageError for a pair that the
    run lacks.
    """
    pairs = run.adjacent
    if pair is None:
        pair = PAPER_PAIR if PAPER_PAIR in pairs else pairs[round(DEPTH * (len(pairs) - 1))]
    a, b = run.key(pair[0]), run.key(pair[1])
    decoder = "decoder" in run.config.parts
    by, called = ("mse_decoder", "decoder MSE") if decoder else ("cost", "cost")
    table = run.matching_table(a, b)
    ranked = live_rows(table).sort_values([by, "feature"]).reset_index(drop=True)
    chosen = [round(q * (len(ranked) - 1)) for q in EXAMPLE_QUANTILES] if len(ranked) else []
    words = described(run)
    rows = [ranked.iloc[rank].to_dict() for rank in chosen]
    examples = [_example(number, row, a, b, by, words) for number, row in enumerate(rows, start=1)]
    height = ABOVE + max(sum(one.height for one in examples), LOWEST_CURVE + BELOW)
    figure = Figure(figsize=(style.PAGE, height))
    left, right = (inches / style.PAGE for inches in CURVE)
    ax = figure.add_axes((left, BELOW / height, right - left, 1 - (ABOVE + BELOW) / height))
    style.plain_axes(ax)
    _curve(ax, ranked[by].to_numpy(dtype=float), chosen)
    name = label(style.shortened(style.arrows([(a, b)]))[0])
    weights = "folded weights" if decoder else f"{run.config.slug}, folded"
    ax.set_ylabel(f"{called} of a pair {name}\n({weights})")
    ax.set_xlabel(f"live pairs by {called}")
    _write(figure, examples, height)
    left_out = len(table) - len(ranked)
    unmatched = "" if decoder else ", since the decoder was not among the parts matched on"
    return caption(
        figure,
        f"Pairs {a}→{b} sorted by {called} (SAE Match, figure 5)",
        suite_facts(run),
        f"The {plural(len(ranked), 'live pair')} of {a}→{b} that SAE Match finds, by {called}{unmatched}; "
        f"left out: {plural(left_out, 'feature')} dead, degenerate or unmatched, or with such a partner. "
        f"Examples at quantiles {', '.join(f'{q:g}' for q in EXAMPLE_QUANTILES)}; from the weights alone.",
        "Features of small norm have a small MSE whatever their cosine." if decoder else "",
        words.facts(),
        lacking(line for one in examples for _, lines in one.texts for line in lines),
    )


def _example(
    number: int, row: dict[Any, Any], a: str, b: str, by: str, words: Described
) -> _Example:
    first, second = map(label, style.shortened([a, b], 10))
    feature, partner = int(row["feature"]), int(row["partner"])
    cost = f"cost {row['cost']:.3g}, " if by == "cost" else ""
    head = (
        f"{number}   {first}/{feature} → {second}/{partner}   {cost}MSE {row['mse_decoder']:.3g}, "
        f"cosine {signed(row['cosine'])}"
    )
    if not words.texts:
        return _Example(head, ())
    names = f"{first}:", f"{second}:"
    room = (RIGHT - LEFT - INDENT) * 72 - _beside(names)
    texts = words(a, feature), words(b, partner)
    lines = [wrap(text or "–", room, style.SMALLEST, LINES) for text in texts]
    return _Example(head, tuple(zip(names, lines, strict=True)))


def _beside(names: tuple[str, ...]) -> float:
    """Points that the layers' names take."""
    return max(text_width(name, style.SMALLEST) for name in names) + 4


def _curve(ax: Axes, values: np.ndarray, chosen: list[int]) -> None:
    ax.plot(np.arange(1, len(values) + 1), values, color=style.main_line().color)
    ax.set_ylim(0, 1.05 * np.nanmax(values) if len(values) else 1)
    ax.margins(x=0.06)
    for number, rank in enumerate(chosen, start=1):
        ax.plot(
            rank + 1, values[rank], "o", color="white", markeredgecolor="black", markersize=10,
            clip_on=False, zorder=5,
        )  # fmt: skip
        ax.annotate(
            str(number), (rank + 1, values[rank]), ha="center", va="center_baseline",
            fontsize=style.SMALLEST, zorder=6,
        )  # fmt: skip


def _write(figure: Figure, examples: list[_Example], height: float) -> None:
    """The examples below each other, right of the curve."""
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, style.PAGE), ylim=(height, 0))
    top = ABOVE / 2
    for one in examples:
        ax.text(LEFT, top + style.SMALL / 72, one.head, fontsize=style.SMALL, weight="bold")
        below = top + (style.SMALL * LINE + style.SMALLEST) / 72
        for name, lines in one.texts:
            beside = _beside(tuple(name for name, _ in one.texts)) / 72
            # By their baselines: tops differ with what signs a line has.
            ax.text(LEFT + INDENT, below, name, fontsize=style.SMALLEST, color="#555555")
            below = write_lines(ax, LEFT + INDENT + beside, below, lines, style.SMALLEST)
        top += one.height
