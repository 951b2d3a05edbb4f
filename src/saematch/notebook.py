"""What results look like in a notebook: a small table and a curve, as HTML that needs nothing else.

A result puts its own numbers into `page` and `curve`, in its `_repr_html_`.

The curve is written as SVG by hand, since matplotlib takes longer to import than a matching to look at.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

WIDTH, HEIGHT, EDGE = 340, 90, 8
POINTS = 200
"""Points of a curve; more of them would not be seen."""
DOTS = 32
"""A curve of no more values has a dot for each."""
COLOR = "#0072B2"


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
    return f"{value:.4g}"
