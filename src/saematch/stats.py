"""Values with intervals: bootstrap draws, and the measures of agreement that are drawn.

Intervals are the 2.5% and 97.5% quantiles of a seeded bootstrap over independent units (texts, questions).
The same units and seed give the same draws, so that differences of measures are paired.
"""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64

from saematch.types import Interval

DRAWS = 2000
Z = 1.959964
"""Standard deviations of a normal distribution that 95% of it lie within."""

Values = Float64[np.ndarray, " draws"]
"""A measure of the documents as they are, then of every bootstrap draw."""


def draw_weights(
    units: int, seed: int | tuple[int, ...], draws: int = DRAWS
) -> Float64[np.ndarray, "draws units"]:
    """How often each independent unit (a text, a question) counts: once each, then in every bootstrap draw.

    One unit says nothing of how units differ: its draws are not numbers.
    """
    if units == 1:
        return np.concatenate([np.ones((1, 1)), np.full((draws, 1), np.nan)])
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(units, np.full(units, 1 / units), size=draws)
    return np.concatenate([np.ones((1, units)), drawn])


def document_weights(
    text_of: Sequence[Any] | np.ndarray, corpus: str, seed: int
) -> Float64[np.ndarray, "draws documents"]:
    """How often each document of a corpus counts in every draw: as often as its text (`text_of`).

    Pieces of one text are alike, so that texts are what is drawn.
    """
    texts, place = np.unique(np.asarray(text_of), return_inverse=True)
    # Of its own for every corpus: texts of different corpora have nothing to do with each other.
    return draw_weights(len(texts), (seed, zlib.crc32(corpus.encode())))[:, place]


def interval(values: Values) -> Interval:
    """The value, and the ends of its 95% interval where the draws give one."""
    value = float(values[0])
    known = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or not len(known):
        return Interval(value)
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def spread(values: Sequence[float]) -> Interval:
    """Mean, least and greatest."""
    return Interval(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def share_interval(count: int, of: int) -> Interval:
    """A share of independent units and Wilson's score interval of it; NaN of none."""
    if not of:
        return Interval(np.nan)
    share, z2 = count / of, Z * Z / of
    middle = (share + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return Interval(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def mean_interval(values: np.ndarray, seed: int) -> Interval:
    return interval(_weights(len(values), seed) @ values.astype(float) / len(values))


@lru_cache(maxsize=2)
def _weights(count: int, seed: int) -> np.ndarray:
    """Drawn once for all measures of the same questions."""
    return draw_weights(count, seed)


def auc(same: Sequence[float], different: Sequence[float], seed: int) -> Interval:
    """The probability that one of `same` is rated above one of `different`, ties counting half."""
    s, d = np.asarray(same)[:, None], np.asarray(different)[None]
    above = (s > d) + 0.5 * (s == d)
    w_s, w_d = draw_weights(len(same), (seed, 1)), draw_weights(len(different), (seed, 2))
    values = np.einsum("ws,sd,wd->w", w_s, above, w_d, optimize=True)
    return interval(values / above.size)


def auc_of_many(rated: np.ndarray, truth: np.ndarray) -> float:
    """The same of many, without an interval, from ranks; NaN where all are of one kind."""
    from scipy.stats import rankdata

    yes = int(truth.sum())
    no = len(truth) - yes
    if not yes or not no:
        return math.nan
    return float((rankdata(rated)[truth].sum() - yes * (yes + 1) / 2) / (yes * no))


def kappa(pairs: Sequence[tuple[str, str]], labels: Sequence[str], seed: int) -> Interval:
    """Cohen's κ of two judges' labels of the same questions; NaN where both always say one label."""
    counts = np.zeros((len(pairs), len(labels), len(labels)))
    for number, (x, y) in enumerate(pairs):
        counts[number, labels.index(x), labels.index(y)] = 1
    table = np.tensordot(draw_weights(len(pairs), seed), counts, axes=1) / len(pairs)
    observed = np.trace(table, axis1=1, axis2=2)
    expected = np.einsum("wi,wi->w", table.sum(axis=2), table.sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return interval((observed - expected) / (1 - expected))
