"""Figures 18 and 19: single features followed through the layers, with their descriptions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, SupportsIndex

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from saematch.errors import UsageError
from saematch.figures.captions import LINE, caption, label, lacking, signed, wrap, write_lines
from saematch.figures.data import Described, NotInRunError, described, run_command, suite_facts
from saematch.figures.style import PAGE, SMALL, SMALLEST, main_line, shortened
from saematch.store.following import Step, followed_steps
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

QUANTILES = (0.0, 0.1, 0.5, 0.9)
"""Quantiles of the total cost of whole live paths: those shown if none are named."""
LONG = 14
"""More layers than this do not stand below each other on a page: paths are broken into two halves, and
fewer of them are shown."""
QUANTILES_OF_LONG = (0.1, 0.5)
GAP, EDGE, NARROWEST = 0.1, 0.42, 1.4
"""Inches: between columns, left of them for the layers' names, and the least width of a column."""
HEAD, ARROW, INSIDE = 0.42, 0.18, 0.04
"""Inches: above the first box, between boxes, around their text."""
HIGHEST = 8.3
"""Inches: descriptions are cut to fewer lines where the figure would be higher; a page takes so much
next to its caption."""
LINES = 4
"""Lines of a description, at most."""
LINE_HEIGHT = SMALLEST * LINE / 72
_Column = tuple[str, Sequence[Step]]
"""A path, and before it what stands above it."""


@dataclass(frozen=True)
class Box:
    """Where the first column has its box of a layer, in inches."""

    left: float
    top: float
    height: float
    leads: bool
    """It is the first of its block."""


@dataclass(frozen=True)
class Layout:
    width: float
    boxes: dict[str, Box]
    lines: int
    """Lines of a description, at most."""
    blocks: int

    @property
    def height(self) -> float:
        return max(box.top + box.height for box in self.boxes.values())


def followed(run: "Run", features: Sequence[str | tuple[str | int, SupportsIndex]] = ()) -> Figure:
    """Paths through the layers, a column each: features, descriptions, cosine of each step.

    `features`: `12/345` or (layer, feature) that paths go through; default, whole paths of live features
    at four quantiles of their cost.  Raises UsageError for what is no feature, or one that no path goes
    through, NotInRunError where none goes through all layers.
    """
    wanted = [run.feature(one) for one in ([features] if isinstance(features, str) else features)]
    steps = list(followed_steps(run).values())
    if wanted:
        chosen = [_through(steps, key, feature) for key, feature in wanted]
        said = "Paths of chosen features, above each its total cost."
    else:
        chosen, said = _examples(run, steps)
    if not chosen:
        needed = "paths of live features through all layers"
        raise NotInRunError(run, needed, run_command(run))
    keys = [key for key in run.keys if any(step.key == key for _, path in chosen for step in path)]
    words = described(run)
    texts = {
        key: [words(key, step.feature) for _, path in chosen for step in path if step.key == key]
        for key in keys
    }
    layout = laid_out(texts, len(chosen))
    width = layout.blocks * (EDGE + len(chosen) * (layout.width + GAP))
    height = layout.height + 0.1
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, width), ylim=(height, 0))
    for key, box in layout.boxes.items():
        layer, left = str(run.manifest["saes"][key]["layer"]), box.left - 0.08
        ax.text(left, box.top + box.height / 2, layer, ha="right", va="center", fontsize=SMALL)
        if box.leads:
            ax.text(left, HEAD - 0.06, "layer", ha="right", fontsize=SMALL)
    for number, one in enumerate(chosen):
        _draw_column(ax, one, number * (layout.width + GAP), layout, words)
    return caption(
        figure,
        "Single features through the layers (SAE Match, figures 18 and 19)",
        suite_facts(run),
        said,
        "An arrow leads to the nearest feature under a one-to-one matching, next to it the cosine of the "
        "two decoder rows and, in brackets, the share of the layer's live pairs that cost at most as "
        "much; thin and hollow if the step has a warning (a high cost, a near tie, a nearer feature, a "
        "judge; saematch paths names the reasons). Dashed boxes: dead or degenerate features.",
        words.facts(),
        lacking(text for row in texts.values() for text in row),
    )


def laid_out(texts: Mapping[str, Sequence[str]], columns: int) -> Layout:
    """Columns that fill a page's width; boxes as high as the longest text of their layer needs, if the
    page's height allows.  `texts`: by key of the SAE."""
    blocks = 2 if len(texts) > LONG and columns <= len(QUANTILES_OF_LONG) else 1
    width = max(NARROWEST, (PAGE / blocks - EDGE) / columns - GAP)
    room = (width - 2 * INSIDE) * 72
    needed = [
        max(len(wrap(text, room, SMALLEST)) if text else 0 for text in row)
        for row in texts.values()
    ]
    a_block = math.ceil(len(texts) / blocks)
    for lines in range(LINES, 0, -1):
        boxes, top = {}, 0.0
        for place, (key, most) in enumerate(zip(texts, needed, strict=True)):
            block, below = divmod(place, a_block)
            if not below:  # a later block begins with the arrow that leads to it
                top = HEAD + ARROW * (blocks > 1)
            left = EDGE + block * PAGE / blocks
            height = 2 * INSIDE + (1 + min(lines, most)) * LINE_HEIGHT
            boxes[key] = Box(left, top, height, not below)
            top += height + ARROW
        layout = Layout(width, boxes, lines, blocks)
        if layout.height <= HIGHEST:
            break
    return layout


def _examples(run: "Run", steps: Sequence[Sequence[Step]]) -> tuple[list[_Column], str]:
    chain = run.chains[0]
    quantiles = QUANTILES if len(chain) <= LONG else QUANTILES_OF_LONG
    whole = [
        path
        for path in steps
        if tuple(step.key for step in path) == chain and all(s.status == "live" for s in path)
    ]
    ranked = sorted(whole, key=_cost)
    places = {round(q * (len(ranked) - 1)): q for q in reversed(quantiles)} if ranked else {}
    chosen = [
        (f"quantile {q:g} of the paths,\ntotal cost {_cost(ranked[place]):.3g}", ranked[place])
        for place, q in sorted(places.items())
    ]
    return chosen, (
        f"Of {plural(len(ranked), 'whole path')} of live features those at quantiles "
        f"{', '.join(f'{q:g}' for q in quantiles)} of total cost, the sum over steps, from the cheapest "
        "(0) to the most costly (1)."
    )


def _cost(path: Sequence[Step]) -> float:
    return sum(step.cost or 0.0 for step in path)


def _through(steps: Sequence[Sequence[Step]], key: str, feature: int) -> _Column:
    for path in steps:
        if any((step.key, step.feature) == (key, feature) for step in path):
            name = label(f"{shortened([key])[0]}/{feature}")
            return f"through {name},\ntotal cost {_cost(path):.3g}", path
    raise UsageError(f"expected a feature that a path goes through, got {key}/{feature}")


def _draw_column(ax: Axes, column: _Column, aside: float, layout: Layout, words: Described) -> None:
    """One path: a box per layer, an arrow per step."""
    title, path = column
    color, width = main_line().color, layout.width
    for step in path:
        box, live = layout.boxes[step.key], step.status == "live"
        left, top = box.left + aside, box.top
        if box.leads:
            ax.text(left, HEAD - 0.06, title, fontsize=SMALL, linespacing=1.2, va="bottom")
        ax.add_patch(
            FancyBboxPatch(
                (left + 0.03, top + 0.03), width - 0.06, box.height - 0.06,
                boxstyle="round,pad=0.03", facecolor="white", edgecolor="#333333", linewidth=0.9,
                linestyle="-" if live else "--",
            )
        )  # fmt: skip
        name = f"{shortened([step.key])[0]}/{step.feature}" + ("" if live else f" ({step.status})")
        first = top + INSIDE + SMALLEST / 72
        ax.text(left + INSIDE, first, label(name), fontsize=SMALLEST, weight="bold")
        text = words(step.key, step.feature)
        if text:
            lines = wrap(text, (width - 2 * INSIDE) * 72, SMALLEST, layout.lines)
            write_lines(ax, left + INSIDE, first + LINE_HEIGHT, lines, SMALLEST)
        if step.cosine is None:
            continue
        middle = left + width * 0.3
        ax.annotate(
            "", (middle, top), (middle, top - ARROW),
            arrowprops={
                "arrowstyle": "-|>", "edgecolor": color, "shrinkA": 1, "shrinkB": 1,
                "linewidth": 0.9 if step.warnings else 1.6,
                "facecolor": "white" if step.warnings else color, "mutation_scale": 10,
            },
        )  # fmt: skip
        share = "" if step.quantile is None else f"  ({step.quantile:.0%})"
        ax.text(
            middle + 0.1, top - ARROW / 2, f"{signed(step.cosine)}{share}", fontsize=SMALLEST,
            va="center_baseline",
        )  # fmt: skip
