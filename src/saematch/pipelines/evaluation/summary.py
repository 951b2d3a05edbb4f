"""An evaluation in few numbers: what the terminal, the report and the findings show."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from saematch.matching.matchers import MAIN, matchers, ranked_matchers
from saematch.store.names import SOURCES, corpus_slug, documents_name
from saematch.text import plural
from saematch.types import INTERVENTIONS, RIDGE, Interval, refolded

if TYPE_CHECKING:
    import pandas as pd

    from saematch.store.reader import Run

MAIN_MEASURES: Mapping[str, tuple[str, str]] = {
    "explained_variance": ("EV", "explained variance"),
    "delta_loss": ("ΔL", "change in loss, nats a token"),
    "matching_score": ("score", "matching score"),
    "chance": ("chance", "matching score by chance"),
    "lift": ("lift", "matching score over chance"),
    "phi": ("φ", "mean φ"),
    "causal_agreement": ("causal", "causal agreement"),
}
"""Short and long names of the measures that stand in summaries."""


def evaluated(run: "Run") -> "pd.DataFrame":
    """The measures on text."""
    measures = run.measures()
    return measures[measures["corpus"] != ""]


def corpora_of(run: "Run") -> dict[str, dict[str, Any]]:
    """The metadata of each corpus's table, by the corpus's name; tables of matchings that were made again
    since are left out."""

    found = {}
    for name in run.directory.current_names(f"{SOURCES}corpus-"):
        about = run.directory.table(name)[1]
        found[about["corpus"]] = about
    return found


def texts_of(run: "Run", corpus: str) -> int:
    """How many texts a corpus's documents are of: what intervals resample."""
    table, _ = run.directory.table(documents_name(corpus_slug(corpus)))
    return len(set(table["text"].to_pylist()))


def documents_said(texts: int, documents: int) -> str:
    """The number of documents, and of the texts that they are pieces of where these are fewer."""
    if texts == 1:
        pieces = "" if documents == 1 else f" in {documents:,} pieces"
        return f"1 text{pieces} (no interval: one text)"
    return (
        plural(documents, "document")
        if texts == documents
        else f"{plural(texts, 'text')} in {documents:,} pieces"
    )


def listed() -> list[str]:
    """Everything that is measured of a pair, in the order in which it is listed."""
    ways = ((one.name, refolded(one.name)) for one in ranked_matchers())
    return [*INTERVENTIONS, RIDGE, *(name for some in ways for name in some)]


def strategy_rows(measures: "pd.DataFrame") -> Iterator[tuple[str, dict[str, float]]]:
    """Means over pairs of SAEs of each measure, by strategy (and parts, if there are several), in
    a fixed order."""
    drawn = [one.name for one in matchers() if one.seeded]
    main = measures[measures["strategy"].isin(drawn)]["parts"]
    pairs = measures[measures["a"] != measures["b"]]
    grouped = pairs.groupby(["strategy", "parts", "measure"], sort=False)["value"].mean()
    means: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in grouped.items():
        strategy, parts, measure = map(str, cast(tuple, key))
        means.setdefault((strategy, parts), {})[measure] = float(value)
    slugs = [parts for strategy, parts in means if strategy == MAIN]
    main_slug = str(main.iloc[0]) if len(main) else max(slugs, key=len, default="")

    order = listed()

    def place(key: tuple[str, str]) -> tuple[int, bool, str]:
        strategy, parts = key
        at = order.index(strategy) if strategy in order else len(order)
        return at, parts != main_slug, strategy

    for strategy, parts in sorted(means, key=place):
        other = strategy == MAIN and parts != main_slug
        yield f"{MAIN}, {parts} only" if other else strategy, means[strategy, parts]


def spanned(span: Interval | None, interval: bool = True) -> str:
    """A value to three places, its interval in brackets; a dash if there is none."""
    if span is None or not math.isfinite(span.value):
        return "–"
    value, low, high = span
    text = f"{value:.3f}"
    if interval and low is not None and high is not None:
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def features_said(measures: "pd.DataFrame") -> str:
    """How many features of the earlier SAE the scores of strategies are over, from the rows of measures of
    one corpus or several; empty where none were measured."""
    chosen = (measures["measure"] == "features_compared") & (measures["strategy"] == MAIN)
    counts = measures["value"][chosen].dropna()
    if counts.empty:
        return ""
    least, most = int(counts.min()), int(counts.max())
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
