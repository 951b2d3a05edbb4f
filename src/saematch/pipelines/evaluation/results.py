"""A run's evaluations as their documents' sums, from which any mean and its interval follow."""

import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from saematch.errors import InputError, UsageError
from saematch.evaluation.ablation import CAUSAL_MEASURES, causal_values
from saematch.evaluation.collecting import Pair
from saematch.evaluation.measuring import CorpusMeasures
from saematch.matching.matchers import is_matcher, matcher
from saematch.pipelines.evaluation.stages import Measured, ablated_pairs_of, corpus_measures
from saematch.pipelines.evaluation.summary import corpora_of
from saematch.stats import Values
from saematch.store.directory import KeptFile
from saematch.store.names import NO_PARTS, corpus_measures_name, corpus_slug, documents_name
from saematch.store.reader import Run


class Evaluated:
    """All corpora of one run directory."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.about = corpora_of(run)
        if not self.about:
            raise InputError(
                f"{run.path} has not been evaluated; try: saematch evaluate {run.path}"
            )
        self.slug = run.config.slug
        some = next(iter(self.about.values()))
        self.pairs: list[Pair] = [(a, b) for a, b in some["pairs"]]
        adjacent = run.adjacent
        self.adjacent = [pair for pair in self.pairs if pair in adjacent]

    @cached_property
    def files(self) -> dict[str, list[KeptFile]]:
        """What each corpus's table was made of."""
        directory, found = self.run.directory, {}
        for corpus in self.about:
            record = directory.record(corpus_measures_name(corpus_slug(corpus)))
            assert record is not None
            found[corpus] = [directory.kept(name) for name in record.depends]
        return found

    @cached_property
    def conditions(self) -> dict[str, list[Measured]]:
        """What was measured on each corpus."""
        return {corpus: list(self._conditions(corpus)) for corpus in self.about}

    @cached_property
    def measures(self) -> list[CorpusMeasures]:
        return [
            corpus_measures(self.files[corpus], corpus, conditions, self.about[corpus]["seed"])
            for corpus, conditions in self.conditions.items()
        ]

    @cached_property
    def _values(self) -> Callable[[Pair, str, str], list[dict[str, Values]]]:
        """The measures of a pair, strategy and parts on each corpus."""
        return cache(lambda *condition: [one.values(*condition) for one in self.measures])

    def mean(
        self, measure: str, strategy: str, parts: str | None = None, pairs: Sequence[Pair] = ()
    ) -> Values | None:
        """Mean over corpora and pairs (adjacent ones where none are named); None where it was not measured
        for each of them, since means over other pairs and texts do not compare."""
        parts = self.slug if parts is None else parts
        pairs = pairs or self.adjacent
        if measure in CAUSAL_MEASURES:
            found = [self.causal.get(pair, {}).get(strategy, {}).get(measure) for pair in pairs]
            found = [values for values in found if values is not None]
            whole = len(pairs)
        else:
            found = [
                values[measure]
                for pair in pairs
                for values in self._values(pair, strategy, parts)
                if measure in values
            ]
            whole = len(pairs) * len(self.about)
        return np.mean(found, axis=0) if len(found) == whole else None

    def strategies(self) -> list[tuple[str, str]]:
        """Strategy and parts of everything that was measured."""
        every = (one for some in self.conditions.values() for one in some)
        return list(dict.fromkeys((one.strategy, one.parts) for one in every))

    def within(self, first: int, last: int) -> "Evaluated":
        """The same, with means over adjacent pairs of these layers alone.

        Raises UsageError if there are none.
        """
        layer = {key: sae["layer"] for key, sae in self.run.manifest["saes"].items()}
        kept = [(a, b) for a, b in self.adjacent if first <= layer[a] and layer[b] <= last]
        if not kept:
            raise UsageError(
                f"expected pairs of adjacent SAEs within layers {first} to {last} in {self.run.path}, "
                f"got only those of {', '.join(f'{a}→{b}' for a, b in self.adjacent)}"
            )
        part = copy.copy(self)
        part.adjacent = kept
        return part

    @property
    def texts(self) -> dict[str, tuple[Any, ...]]:
        """What each corpus was measured with: only equal ones give paired differences between runs."""
        names = ("origin", "documents", "tokens", "seed", "model", "texts")
        return {corpus: tuple(about[n] for n in names) for corpus, about in self.about.items()}

    @property
    def model_name(self) -> str:
        """The language model that the run was evaluated on."""
        return str(next(iter(self.about.values()))["model"]["name"])

    def reference_at(self, layer: int) -> str:
        """The reference of the run's SAE at a layer; raises UsageError if there is none."""
        for key, sae in self.run.manifest["saes"].items():
            if sae["layer"] == layer:
                return str(self.run.manifest["references"][key])
        raise UsageError(f"expected an SAE of one of the run's layers, got one of layer {layer}")

    def l0(self, key: str) -> float:
        """Mean L0 of an SAE over corpora."""
        rows = self.run.measures()
        return float(rows[(rows["measure"] == "l0") & (rows["a"] == key)]["value"].mean())

    @cached_property
    def causal(self) -> dict[Pair, dict[str, dict[str, Values]]]:
        """What ablations say, by pair, strategy and measure; they are made on one corpus."""
        return {
            pair: causal_values(some, zlib.crc32("--".join(pair).encode()))
            for corpus, conditions in self.conditions.items()
            for pair, some in ablated_pairs_of(self.files[corpus], corpus, conditions).items()
        }

    def _conditions(self, corpus: str) -> Iterator[Measured]:
        """What a corpus's sums are of, as the names of their files say."""
        documents = PurePosixPath(documents_name(corpus_slug(corpus)))
        for file in self.files[corpus]:
            path = PurePosixPath(file.name)
            if path.parent.parent.parent == documents.parent:
                strategy, parts = path.parts[-3], path.parts[-2]
                a, _, b = path.stem.partition("--")
                seeded = is_matcher(strategy) and matcher(strategy).seeded
                draws = 1 + max(file.table()[0]["draw"].to_pylist()) if seeded else 1
                parts, seed = "" if parts == NO_PARTS else parts, self.about[corpus]["seed"]
                yield Measured(a, b, strategy, parts, draws, seed)


def difference(values: Values | None, other: Values | None) -> Values | None:
    """Paired difference; None where either was not measured or the draws are not the same."""
    if values is None or other is None or len(values) != len(other):
        return None
    return values - other
