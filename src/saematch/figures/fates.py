"""What becomes of features by depth, and how far its probabilities can be trusted."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from saematch.errors import InputError
from saematch.figures import style
from saematch.figures.captions import caption, not_measured, plain
from saematch.figures.data import NotInRunError, run_command, suite_facts
from saematch.matching.probability import SAME_PHI, Calibration
from saematch.stats import share_interval
from saematch.store.becoming import FATES, FateShares, fate_shares
from saematch.store.manifest import on_directory
from saematch.store.names import CALIBRATION_NAME
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.store.reader import Run


BORN = "born"
EDGE: dict[str, Any] = {"edgecolor": "#333333", "linewidth": 0.5}
SIDE = 4.2
"""Inches: width of a figure with one square panel."""
Z = 1.96


def fates(run: "Run") -> Figure:
    """Shares of what becomes of live features, a bar per layer pair; next to them the features born."""
    found = fate_shares(run)
    known = [one for one in found if one.shares]
    if not known:
        why = f" ({found[0].notes[0]})" if found else ""
        command = on_directory(run.path, "calibrate") if found else run_command(run)
        raise NotInRunError(run, f"fates of features{why}", command)
    figure = fates_by_pair(found)
    live = [one.live for one in known]
    missing = {"": [f"{one.a}→{one.b}" for one in found if not one.shares]}
    return caption(
        figure,
        "What becomes of features from layer to layer",
        suite_facts(run),
        f"Left: shares of the live features of the earlier SAE ({min(live):,} to {max(live):,}) of which one "
        "partner is the same (persists), several are (splits), one is that others share (merges), none is "
        f"(dies); the same means φ on text of at least {SAME_PHI:g}, by calibrated probability from the "
        "weights alone. Right: live features of the later SAE that no feature of the earlier one is the same "
        "as. Upright lines: 95% intervals over features, on a stack of the share of all below an edge.",
        not_measured(missing, len(found)),
    )


def fates_by_pair(found: list[FateShares]) -> Figure:
    """A stacked bar of fates for each layer pair, and a bar of the features born; a pair without is a gap."""
    pairs = [(one.a, one.b) for one in found]
    x = np.arange(len(pairs))
    figure, (ax, born) = style.new_figure(2.7 + style.below(pairs), columns=2, share=True)
    floor = np.zeros(len(pairs))
    live = [one.live for one in found]
    counts = [0] * len(pairs)
    for fate in FATES:
        values = np.array([one.shares[fate].value if one.shares else np.nan for one in found])
        ax.bar(x, values, 0.8, floor, color=style.FATE_FILLS[fate], **EDGE)
        floor = floor + values
        counts = [n + one.counts.get(fate, 0) for n, one in zip(counts, found, strict=True)]
        if fate != FATES[-1]:  # an edge is the share of all below it
            edges = zip(values, counts, live, strict=True)
            spans = [Interval(v) if np.isnan(v) else share_interval(c, n) for v, c, n in edges]
            _bars(ax, x, spans)
    spans = [Interval(np.nan) if one.born is None else one.born for one in found]
    born.bar(x, [span.value for span in spans], 0.8, color=style.FATE_FILLS[BORN], **EDGE)
    _bars(born, x, spans)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of live features")
    style.set_title(ax, "of the earlier layer: what becomes of them")
    style.set_title(born, "of the later layer: born there")
    for one in (ax, born):
        style.label_pairs(one, style.arrows(pairs))
    figure.legend(
        handles=[
            Patch(facecolor=color, label=fate, **EDGE) for fate, color in style.FATE_FILLS.items()
        ],
        loc="outside lower center", ncols=len(style.FATE_FILLS), frameon=False, fontsize=style.SMALL,
    )  # fmt: skip
    return figure


def _bars(ax: Axes, x: np.ndarray, spans: Iterable[Interval]) -> None:
    """Intervals, black on a white halo."""
    for place, span in zip(x, spans, strict=True):
        if span.low is not None and span.high is not None:
            lines = ax.vlines(place, span.low, span.high, color="black", linewidth=1.2)
            lines.set(path_effects=style.HALO)


def reliability(run: "Run") -> Figure:
    """Predicted probability of pairs against how often they are the same, on pairs that it was judged on."""
    own = run.directory.is_current(CALIBRATION_NAME)
    calibration = Calibration.load()
    if own:
        text = run.directory.read(CALIBRATION_NAME).decode()
        calibration = Calibration.read(text, str(run.path / CALIBRATION_NAME))
    judged = calibration.about.get("judged") or {}
    try:
        mean, frequency, count = np.array(judged["reliability"], dtype=float).T
    except (KeyError, TypeError):
        needed = "a calibration that was judged on other pairs than it was fitted to"
        raise NotInRunError(run, needed, on_directory(run.path, "calibrate")) from None
    except ValueError as error:
        raise InputError(
            f"expected rows of mean probability, frequency and count in a calibration, got {error}"
        ) from error
    which = "the run's own calibration" if own else "the calibration that ships with saematch"
    figure, (ax,) = style.new_figure(3.4, width=SIDE)
    ax.plot(
        [0, 1], [0, 1], color="#7F7F7F", linestyle="--", linewidth=1, label="as probable as said"
    )
    half = Z * np.sqrt(np.maximum(frequency * (1 - frequency), 0) / np.maximum(count, 1))
    ax.vlines(
        mean,
        np.maximum(frequency - half, 0),
        np.minimum(frequency + half, 1),
        color=style.WEIGHTS_LINE.color,
    )
    ax.plot(
        mean,
        frequency,
        color=style.WEIGHTS_LINE.color,
        marker="o",
        markersize=4,
        linewidth=1.2,
        label="judged pairs",
    )
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("predicted probability\nof being the same")
    ax.set_ylabel("share that are the same")
    style.legend_below(figure, [ax])
    return caption(
        figure,
        "How far probabilities of being the same can be trusted",
        suite_facts(run),
        f"Probabilities by {which}: {int(count.sum()):,} pairs in {len(count)} groups by predicted "
        f"probability; its mean against the share whose φ on text is at least {SAME_PHI:g}, with 95% "
        "intervals over pairs.",
        said("Fitted to", calibration.about.get("fitted")),
        said("Judged on", judged),
    )


def said(how: str, about: Any) -> str:
    """The sentence that says what a calibration names of its pairs; '' where it names nothing."""
    if isinstance(about, Mapping):
        facts = {name: value for name, value in about.items() if name != "reliability"}
        words = "; ".join(f"{name} {_value(value)}" for name, value in facts.items())
    else:
        words = str(about or "")
    return f"{how} {plain(words)}." if words else ""


def _value(value: Any) -> str:
    match value:
        case float():
            return f"{value:.3g}"
        case list():
            return ", ".join(map(_value, value))
        case Mapping():
            return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return str(value)
