"""Figure 5: all pairs of two layers in order of decoder MSE, with examples from low to high."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from saematch.figures.captions import LINE, caption, wrap
from saematch.figures.data import adjacent, live_rows, suite_facts
from saematch.figures.described import described
from saematch.figures.style import SMALL, STRATEGY_LINES, TEXT_SIZE, new_figure

if TYPE_CHECKING:
    from saematch.run import Run

PAPER_PAIR = ("19", "20")
DEPTH = 0.75
"""Where the run lacks the paper's pair, that at this share of its depth is shown."""
EXAMPLE_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
TEXT_WIDTH = 4.6
"""Inches that the examples' texts take."""


def sorted_pairs(run: "Run", pair: tuple[str, str] | None = None) -> Figure:
    """Decoder MSE of every live pair of two SAEs under `folded`, sorted, and examples with descriptions.

    `pair`: default, the paper's 19→20, or that at three quarters of the run's depth.
    Raises UsageError for a pair that the run lacks.
    """
    pairs = adjacent(run)
    if pair is None:
        pair = PAPER_PAIR if PAPER_PAIR in pairs else pairs[round(DEPTH * (len(pairs) - 1))]
    a, b = run.key(pair[0]), run.key(pair[1])
    table = run.matching_table(a, b)
    ranked = live_rows(table).sort_values(["mse_decoder", "feature"]).reset_index(drop=True)
    chosen = [round(q * (len(ranked) - 1)) for q in EXAMPLE_QUANTILES] if len(ranked) else []
    words = described(run)
    figure, (ax, beside) = new_figure(10.5, 4.3, columns=2)
    ax.plot(
        np.arange(1, len(ranked) + 1), ranked["mse_decoder"], color=STRATEGY_LINES["folded"].color
    )
    ax.set_xlabel("pairs, from least to greatest MSE", fontsize=TEXT_SIZE)
    ax.set_ylabel(f"decoder MSE of a pair {a}→{b}\n(folded weights)", fontsize=TEXT_SIZE)
    ax.set_ylim(bottom=0)
    beside.set_axis_off()
    beside.set(xlim=(0, 1), ylim=(len(EXAMPLE_QUANTILES), 0))
    for number, rank in enumerate(chosen, start=1):
        row = ranked.iloc[rank]
        ax.plot(
            rank + 1, row["mse_decoder"], "o", color="white", markeredgecolor="black", markersize=11,
            clip_on=False, zorder=5,
        )  # fmt: skip
        place = rank + 1, row["mse_decoder"]
        ax.annotate(str(number), place, ha="center", va="center", fontsize=7, zorder=6)
        head = (
            f"{number}   {a}/{row['feature']} → {b}/{row['partner']}    MSE {row['mse_decoder']:.3g}, "
            f"cosine {row['cosine']:.2f}"
        )
        beside.text(0, number - 0.9, head, fontsize=SMALL, weight="bold", va="top")
        texts = [words(a, int(row["feature"])), words(b, int(row["partner"]))]
        shown = [wrap(text, TEXT_WIDTH * 72, 7.0, 1)[0] if text else "–" for text in texts]
        if words.texts:
            beside.text(
                0.03, number - 0.61, "\n".join(shown), fontsize=7, va="top", linespacing=LINE,
                parse_math=False,
            )  # fmt: skip
    return caption(
        figure,
        f"Pairs {a}→{b} sorted by decoder MSE (SAE Match, figure 5)",
        suite_facts(run),
        f"The {len(ranked):,} live pairs of {a}→{b} that SAE Match finds, by decoder MSE; "
        f"{len(table) - len(ranked):,} features that are dead, degenerate or unmatched, or whose "
        "partner is, are left out. Examples at quantiles "
        f"{', '.join(f'{q:g}' for q in EXAMPLE_QUANTILES)}; from the weights alone.",
        words.facts(),
    )
