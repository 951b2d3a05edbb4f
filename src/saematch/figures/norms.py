"""Figure 1: the residual stream grows with depth, and thresholds and folded decoder rows with it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saematch.figures.captions import caption, not_measured
from saematch.figures.data import (
    INTERVALS,
    NotInRunError,
    adjacent,
    command,
    corpora,
    corpora_facts,
    run_command,
    suite_facts,
)
from saematch.figures.style import (
    TEXT_SIZE,
    WEIGHTS_LINE,
    arrows,
    below,
    breaks_of,
    corpus_line,
    dodge,
    draw_line,
    draw_strategy,
    from_zero,
    label_pairs,
    legend_below,
    main_line,
    new_figure,
)
from saematch.matching.matchers import MAIN
from saematch.pipelines.evaluation.summary import corpora_of
from saematch.stats import Values, document_weights, interval
from saematch.store.names import corpus_slug, documents_name, stream_name
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.store.reader import Run


def norms(run: "Run") -> Figure:
    """Norm of the residual stream by layer; mean threshold; how both change from layer to layer.

    Raises NotInRunError for a run that was not evaluated, or whose SAEs' norms were not measured.
    """
    measures = run.measures()
    weights = measures[measures["corpus"] == ""]
    if "decoder_norm_ratio" not in set(weights["measure"]):
        raise NotInRunError(run, "thresholds and folded decoder norms", run_command(run))
    found = {name: stream_norms(run, name) for name in corpora(run)}
    if not any(found.values()):
        raise NotInRunError(run, "residual streams", command(run, "evaluate"))
    keys = [key for chain in run.chains for key in chain]
    ends = [n - 1 for n in accumulate(len(chain) for chain in run.chains)][:-1]
    pairs = adjacent(run)
    figure, axes = new_figure(2.7 + below(pairs), columns=3)
    missing: dict[str, list[str]] = {}
    for number, (name, values) in enumerate(found.items()):
        line = corpus_line(number, f"residual stream, {name}")
        x = np.arange(len(keys)) + dodge(number, len(found), len(keys), 3)
        draw_line(axes[0], line, x, _spans([values.get(key) for key in keys]), ends)
        steps = _spans([_growth(values.get(a), values.get(b)) for a, b in pairs])
        x = np.arange(len(pairs)) + dodge(number, len(found), len(pairs), 3)
        draw_line(axes[2], line, x, steps, breaks_of(pairs))
        missing[f"the stream on {name}"] = [f"layer {key}" for key in keys if key not in values]
    thresholds = weights[weights["measure"] == "threshold"].set_index("a").reindex(keys)
    draw_line(
        axes[1], replace(WEIGHTS_LINE, label="thresholds"), np.arange(len(keys)), thresholds, ends
    )
    none = thresholds["value"].isna().all()
    threshold = "these SAEs have no thresholds" if none else "mean threshold of live features"
    ratios = weights[weights["measure"] == "decoder_norm_ratio"]
    matched = replace(main_line(), label="matched folded decoder norms")
    draw_strategy(axes[2], ratios, MAIN, pairs, line=matched)
    axes[2].axhline(1, color="black", linewidth=0.8)
    for ax, words in zip(
        axes,
        (
            "residual norm\n(root mean square)",
            "mean threshold\n(activation)",
            "norm over that\nat the layer before",
        ),
        strict=True,
    ):
        ax.set_ylabel(words, fontsize=TEXT_SIZE)
        label_pairs(ax, keys if ax is not axes[2] else arrows(pairs), "layer")
    axes[2].set_xlabel("layer pair", fontsize=TEXT_SIZE)
    for ax in axes[:2]:
        from_zero(ax)
    legend_below(figure, axes)
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
        sums = (weights @ table[f"typical_{of}"].to_numpy() for of in ("stream_square", "tokens"))
        square, tokens = sums
        with np.errstate(divide="ignore", invalid="ignore"):
            found[key] = np.sqrt(square / tokens)
    return found


def _growth(before: Values | None, after: Values | None) -> Values | None:
    if before is None or after is None or len(before) != len(after):
        return None
    return after / before


def _spans(values: Sequence[Values | None]) -> pd.DataFrame:
    spans = [Interval(np.nan) if one is None else interval(one) for one in values]
    return pd.DataFrame(spans, columns=["value", "low", "high"]).astype(float)
