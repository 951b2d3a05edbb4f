"""Figures 7 (right) and 12: how often matched features are active together."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from saematch.figures.captions import caption, label, not_measured, shared_partners
from saematch.figures.data import (
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
    PART_LINES,
    TEXT_SIZE,
    TITLE,
    Line,
    arrows,
    below,
    dodge,
    draw_strategy,
    from_zero,
    label_pairs,
    legend_below,
    new_figure,
    page_of,
    shortened,
    strategy_lines,
)
from saematch.matching.matchers import MAIN, matcher, usual_in_runs
from saematch.pipelines.evaluation.summary import features_said

if TYPE_CHECKING:
    from saematch.store.reader import Run

SCORE = "matching_score"
MEANING = (
    "Matching score: joint activations of matched features over activations of the earlier one. Chance: of "
    f"{MAIN}'s pairs, their score if the two activated independently at the same rates."
)


def matching_score(run: "Run") -> Figure:
    """Figure 7 (right): matching score per layer pair, unfolded and folded, with chance."""
    rows = on_text(run, SCORE)
    looks = strategy_lines()
    lines = {name: looks[name] for name in usual_in_runs() if not matcher(name).control}
    found = {name: rows[rows["strategy"] == name] for name in lines}
    return _by_corpus(
        run, found, lines, "Matching score by layer (SAE Match, figure 7, right)"
    )  # fmt: skip


def score_by_parts(run: "Run") -> Figure:
    """Figure 12: matching score of folded matchings by decoder alone, encoder alone and all parts.

    Raises NotInRunError where single parts were not measured.
    """
    slug = run.config.slug
    lines = {name: line for name, line in PART_LINES.items() if name != slug}
    lines[""] = replace(PART_LINES[""], label=slug.replace("+", ", "))
    found = {}
    for parts in lines:
        rows = on_text(run, SCORE, parts or slug)
        found[parts] = rows[rows["strategy"] == MAIN]
    if all(rows.empty for parts, rows in found.items() if parts):
        needed = "matching scores by decoder alone and encoder alone"
        raise NotInRunError(run, needed, command(run, "evaluate", "--other-parts"))
    return _by_corpus(
        run, found, lines, "Matching score by parts of the cost (SAE Match, figure 12)"
    )


def _by_corpus(
    run: "Run", found: Mapping[str, pd.DataFrame], lines: Mapping[str, Line], title: str
) -> Figure:
    """A panel per corpus, a line per key of `found`, and chance."""
    names, pairs = list(corpora(run)), adjacent(run)
    if all(rows.empty for rows in found.values()):
        raise NotInRunError(run, "matching scores", command(run, "evaluate"))
    chance = on_text(run, "chance")
    chance = chance[chance["strategy"] == MAIN]
    figure, axes = new_figure(
        2.7 + below(pairs), columns=len(names), share=True, width=page_of(len(names))
    )
    missing = {}
    for ax, corpus in zip(axes, names, strict=True):
        for number, (key, rows) in enumerate(found.items()):
            mine = rows[rows["corpus"] == corpus]
            aside = dodge(number, len(found) + 1, len(pairs), len(names))
            draw_strategy(ax, mine, MAIN, pairs, aside, lines[key])
            missing[f"{lines[key].label} on {corpus}"] = gaps(mine, pairs)
        here = chance[chance["corpus"] == corpus]
        aside = dodge(len(found), len(found) + 1, len(pairs), len(names))
        draw_strategy(ax, here, MAIN, pairs, aside, CHANCE_LINE)
        ax.set_title(label(shortened([corpus], TITLE)[0]), fontsize=TEXT_SIZE)
        label_pairs(ax, arrows(pairs))
    from_zero(axes[0])
    axes[0].set_ylabel("matching score", fontsize=TEXT_SIZE)
    legend_below(figure, axes)
    return caption(
        figure,
        title,
        suite_facts(run),
        corpora_facts(run),
        MEANING,
        f"Over {counted} features of each pair's earlier SAE: those that activate and have a partner under "
        "every strategy."
        if (counted := features_said(on_text(run, "features_compared")))
        else "",
        shared_partners([name for name, rows in found.items() if len(rows)]),
        INTERVALS,
        not_measured(missing, len(pairs)),
    )
