"""From sums of documents to measures with intervals (definitions: docs/definitions.md).

Tokens are pooled over documents, never document values averaged.  Intervals are the 2.5% and 97.5%
quantiles of a bootstrap over texts (all pieces of a text together), whose draws are the same for every
condition of a pair, so that differences between conditions are paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from saematch.evaluation.collecting import Row
from saematch.matching.permutation import UNMATCHED, Permutation
from saematch.stats import Values

ENTRIES = 1 << 23
"""Draws × features worked on at a time."""
FREQUENCY_EDGES = (1e-3, 1e-2, 1e-1)
"""Features are grouped by the share of tokens they activate on: up to each of these, and beyond."""
COMPARED = ("explained_variance", "delta_loss", "matching_score", "lift", "phi")
"""Measures whose difference from `folded` is given too."""


def variance(rows: Sequence[Row], name: str, weights: np.ndarray, prefix: str = "") -> Values:
    """Σ_d Var_d over the tokens of the weighted documents, from sums and squared norms."""
    tokens = weights @ np.array([row[f"{prefix}tokens"] for row in rows], dtype=np.float64)
    total = weights @ np.stack([row[f"{prefix}{name}_sum"] for row in rows])
    square = weights @ np.array([row[f"{prefix}{name}_square"] for row in rows])
    with np.errstate(divide="ignore", invalid="ignore"):
        return square / tokens - np.square(total / tokens[:, None]).sum(axis=1)


def reconstruction_measures(
    rows: Sequence[Row], stream: Sequence[Row], documents: Sequence[Row], weights: np.ndarray
) -> dict[str, Values]:
    """Explained variance, of all tokens and of typical ones, and ΔL where losses were taken."""
    found: dict[str, Values] = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for prefix, suffix in (("", ""), ("typical_", "_typical")):
            fvu = variance(rows, "error", weights, prefix)
            fvu = fvu / variance(stream, "stream", weights, prefix)
            found[f"explained_variance{suffix}"] = 1 - fvu
            found[f"fvu{suffix}"] = fvu
        loss = np.array([row["loss"] for row in rows], dtype=np.float64)
        if np.isfinite(loss).all():
            base = np.array([row["loss"] for row in documents])
            predicted = weights @ np.array([row["predicted"] for row in documents], dtype=float)
            found["delta_loss"] = (weights @ (loss - base)) / predicted
    return found


@dataclass(frozen=True, eq=False)
class ActivationCounts:
    """How often features are active in each document: [documents, features], float64."""

    counts: Float64[np.ndarray, "documents features"]

    @classmethod
    def of(cls, rows: Sequence[Row], features: int) -> "ActivationCounts":
        counts = np.zeros((len(rows), features))
        for number, row in enumerate(rows):
            counts[number, row["features"]] = row["counts"]
        return cls(counts)


def matching_measures(
    joint: ActivationCounts,
    of_a: ActivationCounts,
    of_b: ActivationCounts,
    tokens: np.ndarray,
    p: Permutation,
    w: np.ndarray,
) -> dict[str, Values]:
    """The matching score, everything reported with it, and the score by activation frequency of i."""
    step = max(1, ENTRIES // max(1, len(p)))
    parts = [
        _matching_measures(joint, of_a, of_b, tokens, p, w[first : first + step])
        for first in range(0, len(w), step)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _matching_measures(
    joint: ActivationCounts,
    of_a: ActivationCounts,
    of_b: ActivationCounts,
    tokens: np.ndarray,
    p: Permutation,
    w: np.ndarray,
) -> dict[str, Values]:
    matched = np.flatnonzero(p != UNMATCHED)
    total = (w @ tokens)[:, None]
    both = w @ joint.counts[:, matched]
    a = w @ of_a.counts[:, matched]
    b = (w @ of_b.counts)[:, p[matched]]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = both.sum(axis=1) / a.sum(axis=1)
        chance = (a * b / total).sum(axis=1) / a.sum(axis=1)
        spread = np.sqrt(a * (total - a) * b * (total - b))
        # A partner that is never active, or always, agrees with nothing.
        phi = np.where(spread > 0, (both * total - a * b) / np.where(spread > 0, spread, 1), 0.0)
        active = a > 0
        count = active.sum(axis=1)
        found = {
            "matching_score": score,
            "features_compared": np.where(total[:, 0] > 0, count, np.nan),
            "matching_score_reverse": both.sum(axis=1) / b.sum(axis=1),
            "jaccard": both.sum(axis=1) / (a + b - both).sum(axis=1),
            "matching_score_macro": np.where(active, both / np.where(active, a, 1), 0).sum(axis=1)
            / count,
            "phi": np.where(active, phi, 0).sum(axis=1) / count,
            "chance": chance,
            "lift": score / chance,
        }
        # Groups are made once, by the activation frequency on the documents as they are.
        activation_frequency = (of_a.counts[:, matched].sum(axis=0)) / tokens.sum()
        group = np.searchsorted(FREQUENCY_EDGES, activation_frequency, side="left")
        for number, name in enumerate(frequency_groups()):
            here = group == number
            found[f"matching_score_{name}"] = both[:, here].sum(axis=1) / a[:, here].sum(axis=1)
            found[f"chance_{name}"] = (a * b / total)[:, here].sum(axis=1) / a[:, here].sum(axis=1)
    return found


def frequency_groups() -> tuple[str, ...]:
    """Names of the groups of features by activation frequency, from the rarest on."""
    return (
        *(f"frequency_to_{edge:g}" for edge in FREQUENCY_EDGES),
        f"frequency_over_{FREQUENCY_EDGES[-1]:g}",
    )


def stream_measures(rows: Sequence[Row], weights: np.ndarray) -> dict[str, Values]:
    """Mean L0 of one SAE, and the share of massive-activation tokens."""
    tokens = np.array([row["tokens"] for row in rows], dtype=np.float64)
    typical = np.array([row["typical_tokens"] for row in rows], dtype=np.float64)
    active = np.array([row["counts"].sum() for row in rows], dtype=np.float64)
    total = weights @ tokens
    return {"l0": weights @ active / total, "massive_tokens": weights @ (tokens - typical) / total}


def pair_table(
    joint: ActivationCounts,
    of_a: ActivationCounts,
    of_b: ActivationCounts,
    tokens: int,
    p: Permutation,
) -> dict[str, np.ndarray]:
    """Activations, joint activations, φ and lift of every matched pair, over all documents."""
    feature = np.flatnonzero(p != UNMATCHED)
    partner = p[feature]
    both = joint.counts.sum(axis=0)[feature]
    a, b = of_a.counts.sum(axis=0)[feature], of_b.counts.sum(axis=0)[partner]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(a * (tokens - a) * b * (tokens - b))
        phi = np.where(spread > 0, (both * tokens - a * b) / np.where(spread > 0, spread, 1), 0.0)
        phi[a == 0] = np.nan
        lift = both * tokens / (a * b)
    lift[~np.isfinite(lift)] = np.nan
    return {
        "feature": feature,
        "partner": partner,
        "activation_count": a.astype(np.int64),
        "partner_activation_count": b.astype(np.int64),
        "joint_activation_count": both.astype(np.int64),
        "phi": phi,
        "lift": lift,
    }


def differences(
    values: Mapping[str, Values], from_values: Mapping[str, Values]
) -> dict[str, Values]:
    """`NAME_minus_folded`: paired differences of the measures in `COMPARED`."""
    return {
        f"{name}_minus_folded": values[name] - from_values[name]
        for name in COMPARED
        if name in values and name in from_values
    }
