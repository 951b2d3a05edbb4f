"""What results look like in a notebook: a small table and a curve, as HTML that needs nothing else.

The curve is written as SVG by hand, since matplotlib takes longer to import than a matching to look at.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.matching.matched import describe_gap
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.matching.matched import Matching
    from saematch.matching.paths import FeaturePaths
    from saematch.store.reader import Run

WIDTH, HEIGHT, EDGE = 340, 90, 8
POINTS = 200
"""Of a curve; more of them would not be seen."""
DOTS = 32
"""A curve of no more values has a dot for each."""
EXAMPLES = 5
COLOR = "#0072B2"


def matching_html(matching: "Matching") -> str:
    """Its summary, and the decoder MSE of the pairs that its means are over, in order."""
    row = matching.summary()
    facts: dict[str, Any] = {
        "pairs": f"{row['pairs']:,}; means are over {row['compared']:,} of live features of A",
        "mean decoder MSE": number(row["mse_decoder"]),
        "mean encoder MSE": number(row["mse_encoder"]),
        "mean decoder cosine": number(row["cosine"]),
        "shares of the cost": ", ".join(f"{p} {s:.1%}" for p, s in matching.shares.items()),
    }
    if matching.gap is not None:
        facts["proof"] = describe_gap(matching.gap)
    if row["certain"] is not None:
        facts["certain"] = f"{row['certain']:.0%} of these pairs are in every optimal matching"
    if row["unmatched_a"]:
        facts["unmatched"] = f"{plural(row['unmatched_a'], 'feature')} of {row['a']}"
    title = f"Matching {row['a']} → {row['b']}, {matching.strategy}"
    ordered = np.sort(matching.mse_decoder[matching.compared])
    return page(title, facts, curve(ordered, "decoder MSE of these pairs, sorted"), matching.notes)


def paths_html(paths: "FeaturePaths") -> str:
    """How many paths there are, some whole ones from cheap to dear, and the mean cosine of each step."""
    live = np.flatnonzero(paths.live())
    facts: dict[str, Any] = {
        "paths": f"{len(paths):,}, {len(live):,} of them through every layer by live features"
    }
    if len(live):
        ranked = live[np.argsort(paths.cost[live].sum(axis=1), kind="stable")]
        places = np.unique(np.linspace(0, len(ranked) - 1, EXAMPLES).round().astype(int))
        for place in places:
            path = ranked[place]
            steps = zip(paths.keys, paths.features[path], strict=True)
            share = f"cost rank {place + 1:,} of {len(ranked):,}"
            facts[share] = " → ".join(f"{key}/{feature}" for key, feature in steps)
    cosines = paths.cosine[live].mean(axis=0) if len(live) else np.zeros(0)
    title = f"FeaturePaths through {', '.join(paths.keys)}"
    return page(title, facts, curve(cosines, "mean decoder cosine of each step, live paths"))


def run_html(run: "Run") -> str:
    """Its adjacent pairs, and their mean decoder MSE."""
    measures = run.measures()
    folded = measures[(measures["strategy"] == "folded") & (measures["parts"] == run.config.slug)]
    texts = folded[folded["corpus"] != ""]
    values = {
        **_means(folded[folded["corpus"] == ""], ("mse_decoder", "certain_share")),
        **_means(texts, ("explained_variance", "matching_score")),
    }
    pairs = run.adjacent
    facts: dict[str, Any] = {
        "directory": str(run.path),
        "measured on": ", ".join(dict.fromkeys(texts["corpus"])) or "no text: saematch evaluate",
    }
    for a, b in pairs:
        said = (("decoder MSE", "mse_decoder"), ("certain", "certain_share"))
        said += (("explained variance", "explained_variance"), ("score", "matching_score"))
        known = [(name, values.get((a, b, measure))) for name, measure in said]
        facts[f"{a} → {b}"] = ", ".join(f"{n} {number(v)}" for n, v in known if v is not None)
    drawn = np.array([values.get((a, b, "mse_decoder"), np.nan) for a, b in pairs])
    title = f"Run of {run.config.suite}"
    return page(title, facts, curve(drawn, "mean decoder MSE of folded, by layer pair"))


def page(title: str, facts: Mapping[str, Any], drawing: str, notes: Sequence[str] = ()) -> str:
    """A heading, a table of facts, a drawing; all text escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    said = "".join(f"<p>note: {escape(note)}</p>" for note in notes)
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{drawing}{said}</div>"


def curve(values: np.ndarray, words: str) -> str:
    """Values in order as a small <svg> from zero to the greatest; a missing one is a gap."""
    known = np.isfinite(values)
    if not known.any():
        return ""
    if len(values) > POINTS:
        values = values[np.linspace(0, len(values) - 1, POINTS).round().astype(int)]
    low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
    span = (high - low) or 1.0
    bottom = HEIGHT - 2 * EDGE
    x = EDGE + np.arange(len(values)) * (WIDTH - 2 * EDGE) / max(len(values) - 1, 1)
    y = EDGE + (high - values) / span * (bottom - EDGE)
    points = [(f"{across:.1f}", f"{down:.1f}") for across, down in zip(x, y, strict=True)]
    places = np.flatnonzero(np.isfinite(values))
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    drawn = "".join(
        f"<polyline points='{' '.join(','.join(points[n]) for n in run)}' fill='none' "
        f"stroke='{COLOR}' stroke-width='1.6'/>"
        for run in runs
    )
    if len(values) <= DOTS:
        dots = (points[n] for n in places)
        drawn += "".join(f"<circle cx='{x}' cy='{y}' r='2.5' fill='{COLOR}'/>" for x, y in dots)
    text = f"{words}: {number(float(np.nanmin(values)))} to {number(float(np.nanmax(values)))}"
    return (
        f"<svg width='{WIDTH}' height='{HEIGHT}' role='img' xmlns='http://www.w3.org/2000/svg'>"
        f"<title>{escape(text)}</title>"
        f"<line x1='{EDGE}' x2='{WIDTH - EDGE}' y1='{bottom}' y2='{bottom}' stroke='#999999'/>{drawn}"
        f"<text x='{EDGE}' y='{HEIGHT - 3}' font-size='10' font-family='sans-serif' "
        f"fill='currentColor'>{escape(text)}</text></svg>"
    )


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def _means(rows: Any, names: Sequence[str]) -> dict[tuple[str, str, str], float]:
    """By pair and measure; over corpora."""
    rows = rows[rows["measure"].isin(names)]
    means = rows.groupby(["a", "b", "measure"])["value"].mean().dropna()
    return {(a, b, measure): float(value) for (a, b, measure), value in means.items()}
