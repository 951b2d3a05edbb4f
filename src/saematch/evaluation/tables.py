"""The tables of one corpus from its documents' sums: one row per measure, one row per feature pair."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from saematch.evaluation.collecting import Collected, Condition, Pair, Row
from saematch.evaluation.measuring import (
    ActivationCounts,
    differences,
    matching_measures,
    pair_table,
    reconstruction_measures,
    stream_measures,
)
from saematch.matching.permutation import UNMATCHED
from saematch.matching.registry import MAIN, is_matcher, matcher
from saematch.stats import Values, document_weights, interval, spread
from saematch.types import Interval

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
            key: ActivationCounts.of(rows, widths[key]) for key, rows in found.layers.items()
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
        """The measures of one condition of a pair (its first draw); empty if there is none."""
        for condition, rows in self.found.conditions.get(pair, []):
            if (condition.strategy, condition.parts, condition.draw) == (strategy, parts, 0):
                return self._values(pair, condition, rows, self.weights)
        return {}

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
                joint = ActivationCounts.of(rows, self.activation_counts[a].counts.shape[1])
                columns = pair_table(
                    joint,
                    self.activation_counts[a],
                    self.activation_counts[b],
                    int(self.tokens.sum()),
                    condition.permutation,
                )
                names = {"a": a, "b": b, "corpus": self.corpus, "strategy": condition.strategy}
                yield {
                    name: np.full(len(columns["feature"]), v) for name, v in names.items()
                } | columns

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
            yield from self._rows(pair, condition.strategy, condition.parts, found)
            if main is not None and found is not main:
                yield from self._rows(
                    pair, condition.strategy, condition.parts, differences(found, main)
                )
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
            joint = ActivationCounts.of(rows, of_a.counts.shape[1])
            p = np.where(self.compared(pair), condition.permutation, UNMATCHED)
            found |= matching_measures(joint, of_a, of_b, self.tokens, p, weights)
        return found

    def _rows(
        self, pair: Pair, strategy: str, parts: str, values: Mapping[str, Values]
    ) -> Iterator[MeasureRow]:
        for name, value in values.items():
            yield self._row(pair, strategy, parts, name, interval(value))

    def _row(self, pair: Pair, strategy: str, parts: str, name: str, span: Interval) -> MeasureRow:
        count, tokens = len(self.tokens), int(self.tokens.sum())
        return (*pair, self.corpus, strategy, parts, name, *span, count, tokens)
