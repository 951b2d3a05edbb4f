"""What an evaluation fits to text: ridge maps, and the matchings of matchers that need data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from saematch.evaluation.fitting import (
    TOKENS_PER_DIMENSION,
    fit,
    fitting_documents,
    passes,
)
from saematch.evaluation.interventions import LinearMap
from saematch.matching.correspondence import Correspondence
from saematch.matching.measuring import measure
from saematch.matching.registry import matcher
from saematch.models import Corpus, load_corpus
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun
from saematch.pipelines.evaluation.plan import Pair
from saematch.pipelines.matching.measures import details_of
from saematch.store.build import call_for, hash_of
from saematch.store.matchings import encode_correspondence, matching_columns
from saematch.store.names import correspondence_name, matching_name
from saematch.store.schema import MATCHINGS

USUAL_DOCUMENT_TOKENS = 400
"""What a document is taken to have, where it must be said how many to fetch."""


def read_texts(of: EvaluatedRun, name: str) -> tuple[Corpus, Corpus]:
    """What is measured on, and what is fitted to: other texts of the same corpus."""
    d_model = next(iter(of.held.manifest["saes"].values()))["d_model"]
    share = TOKENS_PER_DIMENSION * d_model / len(of.config.corpora)
    more = -(-int(1.25 * share) // USUAL_DOCUMENT_TOKENS)
    of.tell(f"reading {name}")
    count = of.config.documents
    corpus = load_corpus(name, count + more, of.config.seed, of.config.offline or None)
    of.note(*corpus.notes)
    return corpus.first(count), corpus.without(count)


@dataclass(frozen=True)
class Fitting:
    """Texts that nothing is measured on, and what is fitted to them."""

    of: EvaluatedRun
    texts: Sequence[Corpus]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the maps, besides the SAEs."""
        return {"texts": [text.sha256 for text in self.texts], "model": self.of.model.identity}

    def ridges(self, pairs: Sequence[Pair]) -> dict[Pair, LinearMap]:
        """Linear maps from the residual stream of a pair's first layer to its second's."""
        return self._fit(pairs, ridge=True)[0] if pairs else {}

    def fit_maps(self) -> None:
        """The matchings by matchers that need data, as tables next to those of the run."""
        for strategy in self.of.fitted:
            self._fit_map(strategy)

    def _fit_map(self, strategy: str) -> None:
        of = self.of
        hashes = {}
        for pair in of.pairs:
            ends = [of.members[key].identity for key in pair]
            hashes[pair] = hash_of(
                stage=strategy, ends=ends, fitted_on=self.identity, scale=of.run.config.scale
            )
        names = {pair: matching_name(*pair, strategy, of.slug) for pair in of.pairs}
        for pair, name in names.items():
            call_for(of.held, name, hashes[pair])
        missing = [
            pair for pair, name in names.items() if not of.held.is_finished(name, hashes[pair])
        ]
        if not missing:
            return
        _, maps = self._fit(missing, strategies=[strategy])
        for (pair, _), correspondence in maps.items():
            a, b = (of.members[key].folded(of.run.config.scale) for key in pair)
            parts = of.run.config.parts
            matching = measure(a, b, correspondence, parts=parts, strategy=strategy)
            partners = []
            if matcher(strategy).several:
                name = correspondence_name(*pair, strategy, of.slug)
                call_for(of.held, name, hashes[pair])
                of.held.keep(name, encode_correspondence(correspondence), hashes[pair])
                partners = [of.held.kept(name)]
            details = details_of(matching, *(file.sha256 for file in partners))
            data = MATCHINGS.encode(matching_columns(matching), details)
            of.held.keep(names[pair], data, hashes[pair], partners)

    def _fit(
        self, pairs: Sequence[Pair], *, ridge: bool = False, strategies: Sequence[str] = ()
    ) -> tuple[dict[Pair, LinearMap], dict[tuple[Pair, str], Correspondence]]:
        of = self.of
        documents = fitting_documents(self.texts, of.model.load())
        keys = {key for pair in pairs for key in pair}
        saes = {key: of.model.saes[key].sae for key in of.keys if key in keys}
        total = len(passes(pairs, saes, ridge=ridge, strategies=strategies)) * sum(
            len(some) for some in documents
        )
        read = 0

        def tell(count: int) -> None:
            nonlocal read
            read += count
            of.tell(f"fitting to {read} of {total} other documents")

        ridges, maps, notes = fit(
            of.model.load(),
            documents,
            saes,
            pairs,
            of.config.batch_tokens,
            ridge=ridge,
            strategies=strategies,
            progress=tell,
        )
        of.note(*notes)
        return ridges, maps
