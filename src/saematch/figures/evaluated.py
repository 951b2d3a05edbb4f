"""Figures of an evaluation on text: 1 (norms by layer), 7 right and 12 (how often matched features are active
together), 10, 11, 13, 16 and 17 (a layer replaced by features of the one before it), 14 and 15 (what mean L0,
the number of active features per token, has to do with it).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from saematch.figures import style
from saematch.figures.captions import caption, label, not_measured, plain, shared_partners, signed
from saematch.figures.data import (
    CONDITIONS,
    INTERVALS,
    NotInRunError,
    corpora,
    corpora_facts,
    gaps,
    on_text,
    run_command,
    suite_facts,
)
from saematch.loading.suite import choose_suite
from saematch.matching.matchers import MAIN, matcher, usual_in_runs
from saematch.pipelines.evaluation.summary import corpora_of, features_said
from saematch.stats import Values, document_weights, interval
from saematch.store.manifest import on_directory
from saematch.store.names import corpus_slug, documents_name, stream_name
from saematch.text import plural
from saematch.types import Interval

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


def norms(run: "Run") -> Figure:
    """Figure 1: norm of the residual stream by layer; mean threshold; how both change from layer to layer.

    Raises NotInRunError for a run that was not evaluated, or whose SAEs' norms were not measured.
    """
    measures = run.measures()
    weights = measures[measures["corpus"] == ""]
    if "decoder_norm_ratio" not in set(weights["measure"]):
        raise NotInRunError(run, "thresholds and folded decoder norms", run_command(run))
    found = {name: stream_norms(run, name) for name in corpora(run)}
    if not any(found.values()):
        raise NotInRunError(run, "residual streams", on_directory(run.path, "evaluate"))
    keys, pairs = [key for chain in run.chains for key in chain], run.adjacent
    ends = [n - 1 for n in accumulate(map(len, run.chains))][:-1]
    figure, axes = style.new_figure(2.7 + style.below(pairs), columns=3)
    missing: dict[str, list[str]] = {}
    for number, (name, values) in enumerate(found.items()):
        line = style.corpus_line(number, f"residual stream, {name}")
        streams = [values.get(key) for key in keys]
        growth = [_growth(values.get(a), values.get(b)) for a, b in pairs]
        for ax, drawn, breaks in (
            (axes[0], streams, ends),
            (axes[2], growth, style.breaks_of(pairs)),
        ):
            x = np.arange(len(drawn)) + style.dodge(number, len(found), len(drawn), 3)
            style.draw_line(ax, line, x, _spans(drawn), breaks)
        missing[f"the stream on {name}"] = [f"layer {key}" for key in keys if key not in values]
    thresholds = weights[weights["measure"] == "threshold"].set_index("a").reindex(keys)
    line = replace(style.WEIGHTS_LINE, label="thresholds")
    style.draw_line(axes[1], line, np.arange(len(keys)), thresholds, ends)
    none = thresholds["value"].isna().all()
    threshold = "these SAEs have no thresholds" if none else "mean threshold of live features"
    ratios = weights[weights["measure"] == "decoder_norm_ratio"]
    matched = replace(style.main_line(), label="matched folded decoder norms")
    style.draw_strategies(axes[2], [(matched, ratios)], pairs)
    axes[2].axhline(1, color="black", linewidth=0.8)
    axes[0].set_ylabel("residual norm\n(root mean square)")
    axes[1].set_ylabel("mean threshold\n(activation)")
    axes[2].set_ylabel("norm over that\nat the layer before")
    for ax in axes[:2]:
        style.label_pairs(ax, keys, "layer")
        style.from_zero(ax)
    style.legend_below(figure, axes)
    return caption(
        figure,
        "Norms by layer (SAE Match, figure 1)",
        suite_facts(run),
        "Left: norm of the residual stream, without tokens whose norm exceeds 10 medians of their "
        f"document; {corpora_facts(run)} {INTERVALS}",
        f"Middle: {threshold}. Right: change from layer to layer; of the SAEs "
        "the geometric mean, over live matched pairs, of the "
        "partner's folded decoder norm over the feature's.",
        not_measured(missing, len(keys)),
    )


def stream_norms(run: "Run", corpus: str) -> dict[str, Values]:
    """Root mean square norm of the residual stream by SAE on a corpus: as it is, then of every
    bootstrap draw of texts (the draws of the corpus's other measures)."""
    slug = corpus_slug(corpus)
    documents = run.directory.table(documents_name(slug))[0].to_pandas()
    weights = document_weights(
        documents["text"].to_numpy(), corpus, corpora_of(run)[corpus]["seed"]
    )
    found = {}
    for key in run.keys:
        name = stream_name(slug, key)
        if not run.directory.is_current(name):
            continue
        table = run.directory.table(name)[0].to_pandas()
        square, tokens = (
            weights @ table[f"typical_{of}"].to_numpy() for of in ("stream_square", "tokens")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            found[key] = np.sqrt(square / tokens)
    return found


def _growth(before: Values | None, after: Values | None) -> Values | None:
    if before is None or after is None or len(before) != len(after):
        return None
    return after / before


def _spans(values: Sequence[Values | None]) -> pd.DataFrame:
    spans = [Interval(np.nan) if one is None else interval(one) for one in values]
    return pd.DataFrame(spans, columns=style.SPAN).astype(float)


SCORE = "matching_score"
MEANING = (
    "Matching score: joint activations of matched features over activations of the earlier one. Chance: of "
    f"{MAIN}'s pairs, their score if the two activated independently at the same rates."
)


def matching_score(run: "Run") -> Figure:
    """Figure 7 (right): matching score per layer pair, unfolded and folded, with chance."""
    rows, looks = on_text(run, SCORE), style.strategy_lines()
    names = [name for name in usual_in_runs() if not matcher(name).control]
    found = {name: (looks[name], rows[rows["strategy"] == name]) for name in names}
    return _scores(run, found, "Matching score by layer (SAE Match, figure 7, right)")


def score_by_parts(run: "Run") -> Figure:
    """Figure 12: matching score of folded matchings by decoder alone, encoder alone and all parts.

    Raises NotInRunError where single parts were not measured.
    """
    slug = run.config.slug
    lines = {name: line for name, line in style.PART_LINES.items() if name != slug}
    lines[""] = replace(style.PART_LINES[""], label=slug.replace("+", ", "))
    found = {}
    for parts, line in lines.items():
        rows = on_text(run, SCORE, parts or slug)
        found[parts] = line, rows[rows["strategy"] == MAIN]
    if all(rows.empty for parts, (_, rows) in found.items() if parts):
        needed = "matching scores by decoder alone and encoder alone"
        raise NotInRunError(run, needed, on_directory(run.path, "evaluate", "--other-parts"))
    return _scores(run, found, "Matching score by parts of the cost (SAE Match, figure 12)")


def _scores(run: "Run", found: Mapping[str, tuple[style.Line, pd.DataFrame]], title: str) -> Figure:
    """A panel per corpus, in it the lines of `found` and chance."""
    pairs, columns = run.adjacent, len(corpora(run))
    if all(rows.empty for _, rows in found.values()):
        raise NotInRunError(run, "matching scores", on_directory(run.path, "evaluate"))
    chance = on_text(run, "chance")
    every = [*found.values(), (style.CHANCE_LINE, chance[chance["strategy"] == MAIN])]
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        drawn = [(line, rows[rows["corpus"] == corpus]) for line, rows in every]
        style.draw_strategies(ax, drawn, pairs, columns)
        for line, rows in drawn[:-1]:
            missing[f"{line.label} on {corpus}"] = gaps(rows, pairs)

    figure = panels(run, draw, {SCORE: "matching score"})
    counted = features_said(on_text(run, "features_compared"))
    return _captioned(
        run,
        figure,
        title,
        MEANING,
        f"Over {counted} features of each pair's earlier SAE: those that activate and have a partner under "
        "every strategy."
        if counted
        else "",
        shared_partners([name for name, (_, rows) in found.items() if len(rows)]),
        INTERVALS,
        not_measured(missing, len(pairs)),
    )


def pruned_by_corpus(run: "Run") -> Figure:
    """Figure 10: explained variance and ΔL of encode-permute-decode per layer pair, one line per corpus."""
    pairs = run.adjacent
    lines = {name: style.corpus_line(number, name) for number, name in enumerate(corpora(run))}
    figure, axes = style.new_figure(2.7 + style.below(pairs), columns=len(PANELS))
    missing: dict[str, list[str]] = {}
    for ax, (measure, words) in zip(axes, PANELS.items(), strict=True):
        rows = _measured(run, measure, [MAIN])
        found = {corpus: rows[rows["corpus"] == corpus] for corpus in lines}
        style.draw_strategies(
            ax, [(lines[name], mine) for name, mine in found.items()], pairs, len(axes)
        )
        missing |= {f"{words} on {corpus}": gaps(mine, pairs) for corpus, mine in found.items()}
        ax.set_ylabel(words)
        limit([ax], measure)
    style.legend_below(figure, axes)
    title = "Encode-permute-decode by layer and corpus (SAE Match, figure 10)"
    return _captioned(run, figure, title, MATCHED, INTERVALS, not_measured(missing, len(pairs)))


def pruned_by_strategy(run: "Run") -> Figure:
    """Figures 11 and 13: the same for matched features, plain reconstructions and a dropped layer."""
    found = {measure: _measured(run, measure, CONDITIONS) for measure in PANELS}
    pairs, looks, columns = run.adjacent, style.strategy_lines(), len(corpora(run))
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        rows = found[measure][found[measure]["corpus"] == corpus]
        drawn = [(looks[name], rows[rows["strategy"] == name]) for name in CONDITIONS]
        style.draw_strategies(ax, drawn, pairs, columns)
        for line, mine in drawn:
            missing[f"{PANELS[measure]} of {line.label} on {corpus}"] = gaps(mine, pairs)

    figure = panels(run, draw)
    title = "A layer replaced, by strategy (SAE Match, figures 11 and 13)"
    return _captioned(run, figure, title, MATCHED, INTERVALS, not_measured(missing, len(pairs)))


def mixed_quantiles(run: "Run") -> Figure:
    """Figures 16 and 17: explained variance and ΔL against the quantile of pairs mixed in (eq. 6).

    Raises NotInRunError where fewer than two quantiles were measured.
    """
    pairs = run.adjacent
    found = {}
    for measure in PANELS:
        rows = on_text(run, measure)
        found[measure] = rows[rows["strategy"].str.startswith("quantile(")]
    shares = sorted({_share(name) for rows in found.values() for name in rows["strategy"]})
    if len(shares) < 2:
        needed = "measures at MSE quantiles"
        flags = f"--quantiles {QUANTILES}"
        raise NotInRunError(run, needed, on_directory(run.path, "evaluate", flags))
    lines = depth_lines(pairs)
    many, columns = len(lines) > MANY, len(corpora(run))
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        here = found[measure][found[measure]["corpus"] == corpus]
        for number, (pair, line) in enumerate(lines.items()):
            rows = here[(here["a"] == pair[0]) & (here["b"] == pair[1])]
            rows = rows.set_index(rows["strategy"].map(_share))[style.SPAN].reindex(shares)
            unknown = rows.index[rows["value"].isna()]
            # From 0 to 1 there is one place, and half a one next to it.
            aside = 0.0 if many else style.dodge(number, len(lines), 1, columns)
            drawn = rows.assign(low=np.nan, high=np.nan) if many else rows
            style.draw_line(ax, line, np.array(shares) + aside, drawn)
            missing[f"{PANELS[measure]} of {line.label} on {corpus}"] = [f"{q:g}" for q in unknown]
        ax.set_xlabel("share of pairs mixed in,\nleast MSE first")
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
    columns, rows = len(names), len(measures)
    height = 0.8 + 1.9 * rows + style.below(run.adjacent)
    figure, axes = style.new_figure(height, columns, rows, share=True)
    for row, (measure, words) in enumerate(measures.items()):
        beside = axes[row * columns : (row + 1) * columns]
        for ax, corpus in zip(beside, names, strict=True):
            draw(ax, measure, corpus)
            if row == 0:
                style.set_title(ax, label(style.shortened([corpus], style.TITLE)[0]))
            if row < rows - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
        beside[0].set_ylabel(words)
        limit(beside, measure)
    style.legend_below(figure, axes)
    return figure


def depth_lines(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], style.Line]:
    """A line per layer pair, from dark to light with depth."""
    found = {}
    names = map(label, style.shortened(style.arrows(pairs)))
    for number, ((a, b), name) in enumerate(zip(pairs, names, strict=True)):
        color = to_hex(colormaps["cividis"](0.82 * number / max(len(pairs) - 1, 1)))
        dashes = DASHES[number % len(DASHES)]
        found[a, b] = style.Line(name, color, MARKERS[number % len(MARKERS)], dashes)
    return found


def _measured(run: "Run", measure: str, strategies: Sequence[str]) -> pd.DataFrame:
    rows = on_text(run, measure)
    rows = rows[rows["strategy"].isin(strategies)]
    if rows.empty:
        needed = f"{PANELS[measure]} on text"
        raise NotInRunError(run, needed, on_directory(run.path, "evaluate"))
    return rows


def limit(axes: Sequence[Axes], measure: str) -> None:
    """The y axis of a row of panels; what it cuts off is counted in each."""
    low, high = axes[0].get_ylim()
    if measure == SCORE:
        style.from_zero(axes[0])
        return
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
            ax.text(0.02, 0.03, words, transform=ax.transAxes, fontsize=style.SMALLEST)


def _captioned(run: "Run", figure: Figure, title: str, *sentences: str) -> Figure:
    return caption(figure, title, suite_facts(run), corpora_facts(run), *sentences)


def _share(strategy: str) -> float:
    return float(strategy.removeprefix("quantile(").removesuffix(")"))


SEVERAL = (
    "saematch run --suite FOLDER --out NEW with SAEs of several L0s as FOLDER/layer_L/NAME, then "
    "saematch evaluate NEW"
)
CHOSEN = style.Line("chosen for even L0", style.WEIGHTS_LINE.color, "s", "-")
L0_PANELS = {
    "l0": "mean L0\n(features a token)",
    "explained_variance": PANELS["explained_variance"],
}
CLOSE = 1.08
"""L0s closer than by this factor share a tick."""
BESIDE = 14
"""Characters of a name next to a line."""
APART = 0.09
"""Names next to lines stand this share of the axis apart."""
OTHERS = style.Line("as they are, by name", style.CHANCE_LINE.color, "o", "--")


def against_l0(run: "Run") -> Figure:
    """Figure 14: explained variance and ΔL of two adjacent layers' SAEs against their mean L0.

    Raises NotInRunError where no two layers are joined by pairs of several L0s.
    """
    saes = run.manifest["saes"]
    layers = {(a, b): (saes[a]["layer"], saes[b]["layer"]) for a, b in run.adjacent}
    joined, count = Counter(layers.values()).most_common(1)[0]
    if count < 2:
        raise NotInRunError(run, "SAEs of several L0s at two adjacent layers", SEVERAL)
    chosen = [pair for pair, of in layers.items() if of == joined]
    columns, looks = len(corpora(run)), style.strategy_lines()
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
            rows = style.by_pair(rows, ordered or chosen)
            # On a logarithmic axis points stand aside by a factor.
            aside = np.exp(style.dodge(number, len(CONDITIONS), 1, columns) * max(span, CLOSE - 1))
            if ordered:
                style.draw_line(ax, looks[strategy], x * aside, rows)
            of = f"{PANELS[measure]} of {looks[strategy].label} on {corpus}"
            missing[of] = gaps(rows.reset_index(), chosen)
        ax.set_xscale("log")
        ticks: list[int] = []
        for value in x:
            if not ticks or value > CLOSE * ticks[-1]:
                ticks.append(round(value))
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("mean L0 of the two SAEs\n(features a token)")

    figure = panels(run, draw)
    return caption(
        figure,
        "Against the SAEs' mean L0 (SAE Match, figure 14)",
        suite_facts(run),
        f"{plural(count, 'pair')} of SAEs of layers {joined[0]} and {joined[1]}; L0 is measured on the same "
        "texts.",
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
    chains = [{saes[key]["layer"]: key for key in chain} for chain in run.chains]
    layers = sorted({layer for chain in chains for layer in chain})
    names = style.shortened([plain(saes[chain[0]]["name"]) for chain in run.chains], BESIDE)
    # '' where a chain has no SAE at a layer.
    lines = {
        name: [chain.get(layer, "") for layer in layers]
        for name, chain in zip(names, chains, strict=True)
    }
    choice = _choice(layers, list(lines.values()), found["l0"]["value"])
    missing: dict[str, list[str]] = {}

    def draw(ax: Axes, measure: str, corpus: str) -> None:
        here = found[measure]
        here = here[here["corpus"] == corpus][style.SPAN]
        x = np.arange(len(layers), dtype=float)
        ends: dict[str, float] = {}
        for name, keys in lines.items():
            rows = here.reindex(keys)
            style.draw_line(ax, OTHERS if choice else style.WEIGHTS_LINE, x, rows)
            unknown = rows.index[rows["value"].isna()]
            of = f"{'L0' if measure == 'l0' else PANELS[measure]} on {corpus}"
            missing[of] = [*missing.get(of, []), *filter(None, unknown)]
            ends[name] = float(rows["value"].iloc[-1])
        if choice:
            _name_ends(ax, x[-1] + 0.1, ends)
            style.draw_line(ax, CHOSEN, x + 0.04, here.reindex(choice))
        style.label_pairs(ax, [str(layer) for layer in layers], "layer")

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
            ax.text(x, before, label(name), fontsize=style.SMALLEST, va="center")


def _choice(layers: list[int], lines: list[list[str]], l0: pd.Series) -> list[str] | None:
    """Keys that `choose_suite` takes; None if there is no choice, or an L0 is not known."""
    if len(lines) < 2:
        return None
    means = {str(key): float(value) for key, value in l0.groupby(level=0).mean().items()}
    candidates = {
        layer: {key: means[key] for key in keys if key in means}
        for layer, *keys in zip(layers, *lines, strict=True)
    }
    if not all(candidates.values()):
        return None
    taken = choose_suite(candidates)
    return [taken[layer] for layer in layers]
