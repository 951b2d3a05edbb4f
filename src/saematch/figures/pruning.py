"""Figures 10, 11, 13, 16 and 17: a layer replaced by features of the one before it; figures 14 and 15: what
the number of active features per token, mean L0, has to do with it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from saematch.figures.captions import caption, label, not_measured, plain, signed
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
    CHANCE_LINE,
    SMALLEST,
    TEXT_SIZE,
    TITLE,
    WEIGHTS_LINE,
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
from saematch.loading.suite import choose_suite
from saematch.matching.matchers import MAIN
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
