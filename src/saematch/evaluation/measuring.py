"""From sums of documents to measures with intervals (definitions: docs/definitions.md), and their tables:
one row per measure, one row per feature pair.

Tokens are pooled over documents, never document values averaged.  Intervals are the 2.5% and 97.5%
quantiles of a bootstrap over texts (all pieces of a text together), whose draws are the same for every
condition of a pair, so that differences between conditions are paired.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from saematch.evaluation.collecting import Collected, Condition, Pair, Row
from saematch.matching.correspondence import UNMATCHED, Permutation
from saematch.matching.matchers import MAIN, is_matcher, matcher
from saematch.stats import Values, document_weights, interval, spread
from saematch.types import Interval

ENTRIES = 1 << 23
"""Draws × features worked on at a time."""
FREQUENCY_EDGES = (1e-3, 1e-2, 1e-1)
"""Features are grouped by the share of tokens they activate on: up to each of these, and beyond."""
FREQUENCY_GROUPS = (
    *(f"frequency_to_{edge:g}" for edge in FREQUENCY_EDGES),
    f"frequency_over_{FREQUENCY_EDGES[-1]:g}",
)
COMPARED = ("explained_variance", "delta_loss", "matching_score", "lift", "phi", "f1")
"""Measures whose difference from `folded` is given too."""


def variance(rows: Sequence[Row], name: str, weights: np.ndarray, prefix: str = "") -> Values:
    """Σ_d Var_d over the tokens of the weighted documents, from sums and squared norms: the mean of ‖x‖² less
    the squared norm of the mean.  The sums are float64: of two numbers as large as a stream's norm their
    difference keeps the digits that float32 would lose.
    """
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


Counts = Float64[np.ndarray, "documents _"]
"""[documents, features]: how often features are active in each document."""


def activation_counts(rows: Sequence[Row], features: int) -> Counts:
    """From the features that are active at all in each document."""
    counts = np.zeros((len(rows), features))
    for number, row in enumerate(rows):
        counts[number, row["features"]] = row["counts"]
    return counts


def matching_measures(
    joint: Counts, of_a: Counts, of_b: Counts, tokens: np.ndarray, p: Permutation, w: np.ndarray
) -> dict[str, Values]:
    """The matching score, everything reported with it, and the score by activation frequency of i."""
    matched = np.flatnonzero(p != UNMATCHED)
    counts = joint[:, matched], of_a[:, matched], of_b[:, p[matched]]
    # Groups are made once, by the activation frequency on the documents as they are.
    group = np.searchsorted(FREQUENCY_EDGES, counts[1].sum(axis=0) / tokens.sum(), side="left")

    def of_draws(w: np.ndarray) -> dict[str, Values]:
        total = (w @ tokens)[:, None]
        both, a, b = (w @ one for one in counts)
        of_chance, active = a * b / total, a > 0
        count = active.sum(axis=1)
        macro = np.where(active, both / np.where(active, a, 1), 0).sum(axis=1) / count
        found = {
            "matching_score": both.sum(axis=1) / a.sum(axis=1),
            "features_compared": np.where(total[:, 0] > 0, count, np.nan),
            "matching_score_reverse": both.sum(axis=1) / b.sum(axis=1),
            "jaccard": both.sum(axis=1) / (a + b - both).sum(axis=1),
            "matching_score_macro": macro,
            "phi": np.where(active, phi(both, a, b, total), 0).sum(axis=1) / count,
            "chance": of_chance.sum(axis=1) / a.sum(axis=1),
        }
        found["lift"] = found["matching_score"] / found["chance"]
        for number, name in enumerate(FREQUENCY_GROUPS):
            here = group == number
            size = a[:, here].sum(axis=1)
            found[f"matching_score_{name}"] = both[:, here].sum(axis=1) / size
            found[f"chance_{name}"] = of_chance[:, here].sum(axis=1) / size
        return found

    step = max(1, ENTRIES // max(1, len(p)))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [of_draws(w[first : first + step]) for first in range(0, len(w), step)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def phi(both: np.ndarray, a: np.ndarray, b: np.ndarray, total: np.ndarray | int) -> np.ndarray:
    """Correlation of being active; a feature that is never active, or always, agrees with nothing."""
    spread = np.sqrt(a * (total - a) * b * (total - b))
    return np.where(spread > 0, (both * total - a * b) / np.where(spread > 0, spread, 1), 0.0)


def prediction_measures(
    rows: Sequence[Row], of_b: np.ndarray, weights: np.ndarray
) -> dict[str, Values]:
    """F1 of B's activations as the map predicts them, over all tokens and features."""
    said, right = (
        weights @ np.array([row[name] for row in rows], dtype=np.float64)
        for name in ("predicted_count", "predicted_right")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"f1": 2 * right / (said + weights @ of_b.sum(axis=1))}


def stream_measures(rows: Sequence[Row], weights: np.ndarray) -> dict[str, Values]:
    """Mean L0 of one SAE, and the share of massive-activation tokens."""
    tokens = np.array([row["tokens"] for row in rows], dtype=np.float64)
    typical = np.array([row["typical_tokens"] for row in rows], dtype=np.float64)
    active = np.array([row["counts"].sum() for row in rows], dtype=np.float64)
    total = weights @ tokens
    return {"l0": weights @ active / total, "massive_tokens": weights @ (tokens - typical) / total}


def pair_table(
    joint: Counts, of_a: Counts, of_b: Counts, tokens: int, p: Permutation
) -> dict[str, np.ndarray]:
    """Activations, joint activations, φ and lift of every matched pair, over all documents."""
    feature = np.flatnonzero(p != UNMATCHED)
    partner = p[feature]
    both, a = joint.sum(axis=0)[feature], of_a.sum(axis=0)[feature]
    b = of_b.sum(axis=0)[partner]
    with np.errstate(divide="ignore", invalid="ignore"):
        lift = both * tokens / (a * b)
        correlation = np.where(a == 0, np.nan, phi(both, a, b, tokens))
    return {
        "feature": feature,
        "partner": partner,
        "activation_count": a.astype(np.int64),
        "partner_activation_count": b.astype(np.int64),
        "joint_activation_count": both.astype(np.int64),
        "phi": correlation,
        "lift": np.where(np.isfinite(lift), lift, np.nan),
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


MEASURE_COLUMNS = (
    "a", "b", "corpus", "strategy", "parts", "measure", "value", "low", "high", "documents", "tokens",
)  # fmt: skip
MeasureRow = tuple[Any, ...]
"""Values of these columns, which are those of MEASURES of the run directory."""


class CorpusMeasures:
    """Measures of one corpus.  `widths`: d_sae by key; `seed`: of the bootstrap, whose draws are the same
    for one corpus, seed and number of documents, whatever is measured."""

    def __init__(self, corpus: str, found: Collected, widths: Mapping[str, int], seed: int) -> None:
        self.corpus, self.found = corpus, found
        self.activation_counts = {
            key: activation_counts(rows, widths[key]) for key, rows in found.layers.items()
        }
        text_of = [row["text"] for row in found.documents]
        self.weights = document_weights(text_of, corpus, seed)
        self.tokens = np.array([row["tokens"] for row in found.documents], dtype=np.float64)

    def rows(self) -> Iterator[MeasureRow]:
        """Every measure: of each SAE (with itself as pair), then of each pair and condition."""
        for key, rows in self.found.layers.items():
            yield from self._rows((key, key), "", "", stream_measures(rows, self.weights))
        for pair, conditions in self.found.conditions.items():
            yield from self._of_pair(pair, conditions)

    def values(self, pair: Pair, strategy: str, parts: str) -> dict[str, Values]:
        """The measures of one condition of a pair, means over its draws; empty if there is none."""
        draws = [
            self._values(pair, condition, rows, self.weights)
            for condition, rows in self.found.conditions.get(pair, [])
            if (condition.strategy, condition.parts) == (strategy, parts)
        ]
        names = dict.fromkeys(name for draw in draws for name in draw)
        return {
            name: np.mean([draw[name] for draw in draws if name in draw], axis=0) for name in names
        }

    def compared(self, pair: Pair) -> np.ndarray:
        """[d_a] bool: the features of A with a partner under every map of the pair that was measured;
        matching scores and their kin are over these alone, so that they compare."""
        maps = [
            condition.permutation
            for condition, _ in self.found.conditions[pair]
            if condition.permutation is not None
        ]
        return np.all([p != UNMATCHED for p in maps], axis=0)

    def pairs(self, main_parts: str) -> Iterator[dict[str, Any]]:
        """Columns of the rows of feature pairs, for each pair of SAEs and strategy but for controls."""
        for (a, b), conditions in self.found.conditions.items():
            for condition, rows in conditions:
                if condition.permutation is None or condition.parts not in ("", main_parts):
                    continue
                if matcher(condition.strategy).control:
                    continue
                of_a, of_b = self.activation_counts[a], self.activation_counts[b]
                joint = activation_counts(rows, of_a.shape[1])
                tokens = int(self.tokens.sum())
                columns = pair_table(joint, of_a, of_b, tokens, condition.permutation)
                names = {"a": a, "b": b, "corpus": self.corpus, "strategy": condition.strategy}
                count = len(columns["feature"])
                yield {name: np.full(count, value) for name, value in names.items()} | columns

    def _of_pair(
        self, pair: Pair, conditions: Sequence[tuple[Condition, list[Row]]]
    ) -> Iterator[MeasureRow]:
        values: list[tuple[Condition, dict[str, Values]]] = []
        draws: dict[tuple[str, str], list[dict[str, Values]]] = {}
        for condition, rows in conditions:
            if is_matcher(condition.strategy) and matcher(condition.strategy).seeded:
                some = self._values(pair, condition, rows, self.weights[:1])
                draws.setdefault((condition.strategy, condition.parts), []).append(some)
            else:
                values.append((condition, self._values(pair, condition, rows, self.weights)))
        main = next((v for condition, v in values if condition.strategy == MAIN), None)
        for condition, found in values:
            if main is not None and found is not main:
                found = found | differences(found, main)
            yield from self._rows(pair, condition.strategy, condition.parts, found)
        for (strategy, parts), found in draws.items():
            for name in dict.fromkeys(name for draw in found for name in draw):
                of_draws = spread([draw[name][0] for draw in found if name in draw])
                yield self._row(pair, strategy, parts, name, of_draws)

    def _values(
        self, pair: Pair, condition: Condition, rows: list[Row], weights: np.ndarray
    ) -> dict[str, Values]:
        found: dict[str, Values] = {}
        if condition.intervene is not None:
            stream = self.found.layers[pair[1]]
            found |= reconstruction_measures(rows, stream, self.found.documents, weights)
        if condition.permutation is not None:
            of_a, of_b = self.activation_counts[pair[0]], self.activation_counts[pair[1]]
            joint = activation_counts(rows, of_a.shape[1])
            p = np.where(self.compared(pair), condition.permutation, UNMATCHED)
            found |= matching_measures(joint, of_a, of_b, self.tokens, p, weights)
            if condition.intervene is not None:
                found |= prediction_measures(rows, of_b, weights)
        return found

    def _rows(
        self, pair: Pair, strategy: str, parts: str, values: Mapping[str, Values]
    ) -> Iterator[MeasureRow]:
        for name, value in values.items():
            yield self._row(pair, strategy, parts, name, interval(value))

    def _row(self, pair: Pair, strategy: str, parts: str, name: str, span: Interval) -> MeasureRow:
        count, tokens = len(self.tokens), int(self.tokens.sum())
        return (*pair, self.corpus, strategy, parts, name, *span, count, tokens)
