"""The measures of a pair's matchings."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from saematch.matching.match import match, measure
from saematch.matching.matched import Matching, same_features
from saematch.matching.matchers import is_matcher, matcher
from saematch.sae import FoldedSAE
from saematch.stats import spread
from saematch.store.schema import WEIGHT_MEASURES
from saematch.types import RANDOM_DRAWS, Interval

COUNTS = ("pairs", "compared", "left_out", "unmatched_a", "unmatched_b")


def compared_measures(
    a: FoldedSAE,
    b: FoldedSAE,
    matchings: Mapping[str, Matching],
    *,
    seed: int = 0,
    draws: int = RANDOM_DRAWS,
) -> dict[str, dict[str, Interval]]:
    """The measures of one pair's matchings by strategy, their means over the same features of A.

    These are the `same_features` of all the matchings; how many there are, and how many of A's they
    leave out, is among the measures.  Of a matcher that is drawn by a seed: the mean, least and greatest of
    `draws` draws from `seed` on, of which the matching is the first.  Solutions of an assignment problem are
    measured on the weights as shipped too.
    """
    features = same_features(matchings.values())
    rows: dict[str, dict[str, Interval]] = {}
    for strategy, found in matchings.items():
        measures = measures_of(found, features)
        if is_matcher(strategy) and matcher(strategy).assigns:
            raw = measure(a.sae, b.sae, found.permutation, parts=found.parts, scale="none")
            measures["mse_decoder_raw"] = Interval(mean_of(raw.mse_decoder, features))
        if is_matcher(strategy) and matcher(strategy).seeded:
            more = (
                measures_of(
                    match(a, b, parts=found.parts, strategy=strategy, seed=seed + n), features
                )
                for n in range(1, draws)
            )
            all_draws = [measures, *more]
            measures = {name: spread([one[name].value for one in all_draws]) for name in measures}
        rows[strategy] = measures
    return rows


def measures_of(found: Matching, features: np.ndarray) -> dict[str, Interval]:
    """The measures of a matching by name, means over `features` ([d_a] bool); the names are those of
    `WEIGHT_MEASURES`."""
    summary = found.summary(features)
    names = ("total_cost", "mean_cost", "mse_decoder", "mse_encoder", "mse_bias", "cosine")
    values = {name: summary[name] for name in names}
    values |= {f"share_{part}": share for part, share in found.shares.items()}
    values |= {name: float(summary[name]) for name in COUNTS}
    if found.gap is not None:
        values |= {"gap": found.gap, "slack": found.slack, "certain_share": summary["certain"]}
    return {
        name: Interval(math.nan if value is None else float(value))
        for name, value in values.items()
    }


def measure_rows(
    a: str, b: str, strategy: str, parts: str, measures: Mapping[str, Interval]
) -> list[tuple[Any, ...]]:
    """Rows of the table of measures for one matching that needed no data."""
    ordered = [name for name in WEIGHT_MEASURES if name in measures]
    assert len(ordered) == len(measures), set(measures) - set(WEIGHT_MEASURES)
    return [(a, b, "", strategy, parts, name, *measures[name], 0, 0) for name in ordered]


def measure_records(rows: Mapping[str, Mapping[str, Interval]]) -> list[dict[str, Any]]:
    """Measures by strategy as one record each; a range adds `NAME_low` and `NAME_high`."""
    records = []
    for strategy, measures in rows.items():
        record: dict[str, Any] = {"strategy": strategy}
        record |= {name: value for name, (value, _, _) in measures.items()}
        for name, (_, low, high) in measures.items():
            record |= {} if low is None else {f"{name}_low": low, f"{name}_high": high}
        records.append(record)
    return records


def mean_of(values: np.ndarray, chosen: np.ndarray) -> float:
    """Mean of the chosen values; NaN where none are."""
    return float(values[chosen].mean()) if chosen.any() else math.nan
