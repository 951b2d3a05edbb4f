"""Figures 18 and 19: single features followed through the layers, with their descriptions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from saematch.errors import UsageError
from saematch.figures.captions import LINE, MARGIN, caption, wrap
from saematch.figures.data import NotInRunError, run_command, suite_facts
from saematch.figures.described import Described, described
from saematch.figures.style import SMALL, STRATEGY_LINES
from saematch.run.steps import Step, followed_steps

if TYPE_CHECKING:
    from saematch.run import Run

QUANTILES = (0.0, 0.1, 0.5, 0.9)
"""Of the total cost of whole live paths: which of them are shown where none are named."""
WIDTH, GAP, EDGE = 2.45, 0.15, 0.45
"""Inches: of a box, between columns, left of them for the layers' names."""
HEIGHT, ARROW, HEAD = 0.58, 0.34, 0.3
"""Inches: of a box, between layers, above the first."""
LINES = 3
TEXT = 6.5


def followed(run: "Run", features: Sequence[tuple[str, int]] = ()) -> Figure:
    """Paths through the layers, a column each: features, descriptions, cosine of each step.

    `features`: (layer, feature) that paths go through; default, whole paths of live features at four
    quantiles of their cost.  Raises UsageError for a feature that no path goes through, NotInRunError
    where none goes through all layers.
    """
    steps = list(followed_steps(run).values())
    if features:
        chosen = [_through(run, steps, key, feature) for key, feature in features]
        said = "Paths of chosen features."
    else:
        chosen, said = _examples(run, steps)
    if not chosen:
        needed = "paths of live features through all layers"
        raise NotInRunError(run, needed, run_command(run))
    keys = [key for key in run.keys if any(step.key == key for path in chosen for step in path)]
    words = described(run)
    high = HEIGHT if words.texts else 0.26
    width = EDGE + len(chosen) * (WIDTH + GAP)
    height = HEAD + len(keys) * high + (len(keys) - 1) * ARROW + 0.1
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, width), ylim=(height, 0))
    tops = {key: HEAD + number * (high + ARROW) for number, key in enumerate(keys)}
    ax.text(EDGE - 0.08, HEAD - 0.1, "layer", ha="right", fontsize=SMALL)
    for key, top in tops.items():
        layer = run.manifest["saes"][key]["layer"]
        ax.text(EDGE - 0.08, top + high / 2, str(layer), ha="right", va="center", fontsize=SMALL)
    for number, path in enumerate(chosen):
        _column(ax, path, EDGE + number * (WIDTH + GAP), high, tops, words)
    return caption(
        figure,
        "Single features through the layers (SAE Match, figures 18 and 19)",
        suite_facts(run),
        said,
        "An arrow leads to the nearest feature under a one-to-one matching, beside it the cosine of the "
        "two decoder rows and, in brackets, the share of the layer's live pairs that cost at most as "
        "much; dashed where an equally good matching may pair it otherwise. Dashed boxes: dead or "
        "degenerate features.",
        words.facts(),
    )


def _examples(run: "Run", steps: Sequence[Sequence[Step]]) -> tuple[list[Sequence[Step]], str]:
    chain = run.chains[0]
    whole = [
        path
        for path in steps
        if tuple(step.key for step in path) == chain and all(s.status == "live" for s in path)
    ]
    ranked = sorted(whole, key=lambda path: sum(step.cost or 0.0 for step in path))
    places = dict.fromkeys(round(q * (len(ranked) - 1)) for q in QUANTILES) if ranked else {}
    said = (
        f"Of {len(ranked):,} whole paths of live features those at quantiles "
        f"{', '.join(f'{q:g}' for q in QUANTILES)} of total cost."
    )
    return [ranked[place] for place in places], said


def _through(run: "Run", steps: Sequence[Sequence[Step]], key: str, feature: int) -> Sequence[Step]:
    wanted = run.key(key), feature
    for path in steps:
        if any((step.key, step.feature) == wanted for step in path):
            return path
    raise UsageError(f"needed a feature that a path goes through, found {key}/{feature}")


def _column(
    ax: Axes,
    path: Sequence[Step],
    left: float,
    high: float,
    tops: dict[str, float],
    words: Described,
) -> None:
    """One path: a box a layer, an arrow a step."""
    color = STRATEGY_LINES["folded"].color
    for step in path:
        top, live = tops[step.key], step.status == "live"
        ax.add_patch(
            FancyBboxPatch(
                (left + 0.03, top + 0.03), WIDTH - 0.06, high - 0.06,
                boxstyle="round,pad=0.03", facecolor="white", edgecolor="#333333", linewidth=0.9,
                linestyle="-" if live else "--",
            )
        )  # fmt: skip
        name = f"{step.key}/{step.feature}" + ("" if live else f" ({step.status})")
        at, align = (top + 0.05, "top") if words.texts else (top + high / 2, "center_baseline")
        ax.text(left + 0.07, at, name, fontsize=7, weight="bold", va=align)
        text = words(step.key, step.feature)
        if text:
            lines = wrap(text, WIDTH * 72 - 2 * MARGIN, TEXT, LINES)
            ax.text(
                left + 0.07, top + 0.19, "\n".join(lines), fontsize=TEXT, va="top",
                linespacing=LINE * 0.9, parse_math=False,
            )  # fmt: skip
        if step.cosine is None:
            continue
        middle = left + WIDTH * 0.3
        ax.annotate(
            "", (middle, top), (middle, top - ARROW),
            arrowprops={
                "arrowstyle": "-|>", "color": color, "shrinkA": 1, "shrinkB": 1, "linewidth": 1.6,
                "linestyle": "-" if step.certain else "--",
            },
        )  # fmt: skip
        share = "" if step.quantile is None else f"  ({step.quantile:.0%})"
        ax.text(middle + 0.1, top - ARROW / 2, f"{step.cosine:.2f}{share}", fontsize=7, va="center")
