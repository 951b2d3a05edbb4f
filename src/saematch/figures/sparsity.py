"""Figures 14 and 15: what the number of active features per token, mean L0, has to do with it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saematch.evaluation.even_l0 import choose_suite
from saematch.figures.captions import caption, label, not_measured, plain
from saematch.figures.data import (
    CONDITIONS,
    INTERVALS,
    NotInRunError,
    adjacent,
    corpora,
    corpora_facts,
    gaps,
    on_text,
    suite_facts,
)
from saematch.figures.pruning import LOWEST, PANELS, panels
from saematch.figures.style import (
    CHANCE_LINE,
    SMALLEST,
    TEXT_SIZE,
    WEIGHTS_LINE,
    Line,
    dodge,
    draw_line,
    label_pairs,
    shortened,
    strategy_lines,
)
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

SEVERAL = (
    "saematch run --suite FOLDER --out NEW with SAEs of several L0s as FOLDER/layer_L/NAME, then "
    "saematch evaluate NEW"
)
CHOSEN = Line("chosen for even L0", WEIGHTS_LINE.color, "s", "-")
L0_PANELS = {
    "l0": "mean L0\n(features a token)",
    "explained_variance": PANELS["explained_variance"],
}
SHORT = {"l0": "L0", "explained_variance": "explained variance"}
CLOSE = 1.08
"""L0s closer than by this factor share a tick."""
BESIDE = 14
"""Characters of a name next to a line."""
APART = 0.09
"""Names next to lines stand this share of the axis apart."""
NO_KEY = ""
"""Stands where a chain has no SAE at a layer."""
OTHERS = Line("as they are, by name", CHANCE_LINE.color, "o", "--")


def against_l0(run: "Run") -> Figure:
    """Figure 14: explained variance and ΔL of two adjacent layers' SAEs against their mean L0.

    Raises NotInRunError where no two layers are joined by pairs of several L0s.
    """
    pairs = adjacent(run)
    saes = run.manifest["saes"]
    layers = Counter((saes[a]["layer"], saes[b]["layer"]) for a, b in pairs)
    (first, second), count = layers.most_common(1)[0]
    if count < 2:
        raise NotInRunError(run, "SAEs of several L0s at two adjacent layers", SEVERAL)
    chosen = [p for p in pairs if (saes[p[0]]["layer"], saes[p[1]]["layer"]) == (first, second)]
    columns = len(corpora(run))
    sparsity = on_text(run, "l0")
    found = {measure: on_text(run, measure) for measure in PANELS}
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        here = sparsity[sparsity["corpus"] == corpus].set_index("a")["value"]
        at = {pair: float(here.reindex(list(pair)).mean(skipna=False)) for pair in chosen}
        ordered = sorted((p for p in chosen if np.isfinite(at[p])), key=lambda p: (at[p], p))
        x = np.array([at[pair] for pair in ordered])
        span = float(np.log(x[-1] / x[0])) if len(x) and x[0] > 0 else 0.0
        for number, strategy in enumerate(CONDITIONS):
            rows = found[measure]
            rows = rows[(rows["corpus"] == corpus) & (rows["strategy"] == strategy)]
            rows = rows.set_index(["a", "b"])[["value", "low", "high"]]
            rows = rows.reindex(pd.MultiIndex.from_tuples(ordered or chosen, names=["a", "b"]))
            # On a logarithmic axis points stand aside by a factor.
            aside = np.exp(dodge(number, len(CONDITIONS), 1, columns) * max(span, CLOSE - 1))
            if ordered:
                draw_line(ax, strategy_lines()[strategy], x * aside, rows)
            of = f"{PANELS[measure]} of {strategy_lines()[strategy].label} on {corpus}"
            missing[of] = gaps(rows.reset_index(), chosen)
        ax.set_xscale("log")
        ticks: list[int] = []
        for value in x:
            if not ticks or value > CLOSE * ticks[-1]:
                ticks.append(round(value))
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("mean L0 of the two SAEs\n(features a token)", fontsize=TEXT_SIZE)

    figure = panels(run, draw)
    return caption(
        figure,
        "Against the SAEs' mean L0 (SAE Match, figure 14)",
        suite_facts(run),
        f"{plural(count, 'pair')} of SAEs of layers {first} and {second}; L0 is measured on the same texts.",
        corpora_facts(run),
        INTERVALS,
        not_measured(missing, len(chosen)),
    )


def even_l0(run: "Run") -> Figure:
    """Figure 15: L0 by layer of the run's SAEs and of those that `choose_suite` takes, and the
    explained variance of their reconstructions.

    The choice is by mean L0 over corpora.  Where a layer has one SAE there is nothing to choose, and
    the figure says so.
    """
    corpora(run)
    reconstructed = on_text(run, "explained_variance")
    reconstructed = reconstructed[reconstructed["strategy"] == "reconstruct_current"]
    found = {
        "l0": on_text(run, "l0").set_index("a"),
        # One reconstruction, however many pairs end at the SAE.
        "explained_variance": reconstructed.drop_duplicates(["b", "corpus"]).set_index("b"),
    }
    saes = run.manifest["saes"]
    layers = sorted({saes[key]["layer"] for chain in run.chains for key in chain})
    names = shortened([plain(saes[chain[0]]["name"]) for chain in run.chains], BESIDE)
    lines = {
        name: [_at(layer, chain, saes) for layer in layers]
        for name, chain in zip(names, run.chains, strict=True)
    }
    choice = _choice(layers, lines.values(), found["l0"]["value"])
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        here = found[measure]
        here = here[here["corpus"] == corpus][["value", "low", "high"]]
        x = np.arange(len(layers), dtype=float)
        ends: dict[str, float] = {}
        for name, keys in lines.items():
            rows = here.reindex(keys)
            draw_line(ax, OTHERS if choice else WEIGHTS_LINE, x, rows)
            known = rows.index[rows["value"].notna()]
            of = f"{SHORT[measure]} on {corpus}"
            unknown = [key for key in keys if key != NO_KEY and key not in known]
            missing[of] = [*missing.get(of, []), *unknown]
            ends[name] = float(rows["value"].iloc[-1])
        if choice:
            _name_ends(ax, x[-1] + 0.1, ends)
            draw_line(ax, CHOSEN, x + 0.04, here.reindex(choice))
        label_pairs(ax, [str(layer) for layer in layers], "layer")

    figure = panels(run, draw, L0_PANELS)
    said = (
        f"Chosen: {', '.join(choice)}, for the least sum of squared steps of ln L0 (mean over corpora)."
        if choice
        else "One SAE per layer: there is nothing to choose from."
    )
    return caption(
        figure,
        "L0 by layer (SAE Match, figure 15)",
        suite_facts(run),
        said,
        "Explained variance is of each SAE's own reconstruction.",
        corpora_facts(run),
        INTERVALS,
        not_measured(missing, len(run.keys)),
    )


def _name_ends(ax: Axes, x: float, ends: Mapping[str, float]) -> None:
    """The names of lines next to their last points, apart where points are close."""
    low, high = ax.get_ylim()
    low, before = max(low, LOWEST), -np.inf
    for name, value in sorted(ends.items(), key=lambda end: end[1]):
        if np.isfinite(value) and value >= LOWEST:
            before = max(value, before + APART * (high - low))
            ax.text(x, before, label(name), fontsize=SMALLEST, va="center")


def _at(layer: int, chain: Sequence[str], saes: Mapping[str, Any]) -> str:
    return next((key for key in chain if saes[key]["layer"] == layer), NO_KEY)


def _choice(
    layers: Sequence[int], lines: Collection[Sequence[str]], l0: pd.Series
) -> list[str] | None:
    """Keys that `choose_suite` takes; None if there is no choice, or an L0 is not known."""
    if len(lines) < 2:
        return None
    means = {str(key): float(value) for key, value in l0.groupby(level=0).mean().items()}
    candidates = {
        layer: {keys[n]: means[keys[n]] for keys in lines if keys[n] in means}
        for n, layer in enumerate(layers)
    }
    if not all(candidates.values()):
        return None
    taken = choose_suite(candidates)
    return [taken[layer] for layer in layers]
