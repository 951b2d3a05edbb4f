"""One corpus of an evaluation: a pass for what is missing, ablations, then measures from the sums.

1. Fit to text what needs it: ridge maps, and the matchings of matchers that need data.
2. Which outputs are missing follows from names and hashes, which follow from the run's manifest, the settings
   and the texts: finished outputs are known without loading a language model.
3. One pass of the model over the documents for all of them, kept batch by batch
   (`evaluation/unfinished`), so that a killed run goes on at the next batch; then a table of sums for
   each pair and strategy.
4. On the first corpus a sample of feature pairs is ablated.
5. Measures with intervals, from the sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from saematch._io import files
from saematch.evaluation import collecting
from saematch.evaluation.ablation import causal_agreement, sample
from saematch.evaluation.collecting import (
    Collected,
    Condition,
    Pair,
    PairInputs,
    collect,
    conditions_of,
)
from saematch.evaluation.fitting import TOKENS_PER_DIMENSION, fit, fitting_documents, passes
from saematch.evaluation.interventions import LinearMap
from saematch.matching.correspondence import Correspondence
from saematch.matching.match import measure
from saematch.matching.matched import Matching, same_features
from saematch.matching.matchers import MAIN, matcher
from saematch.models import Corpus, Documents, load_corpus
from saematch.pipelines.evaluation import stages
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun, Matchings
from saematch.pipelines.matching.stages import encode_matching
from saematch.store.build import Step, call_for, hash_of, make
from saematch.store.directory import KeptFile
from saematch.store.matchings import encode_correspondence, kept_matching
from saematch.store.names import (
    causal_name,
    condition_name,
    corpus_measures_name,
    corpus_slug,
    correspondence_name,
    documents_name,
    matching_name,
    pair_source_name,
    stream_name,
)
from saematch.store.schema import CAUSAL, DOCUMENTS, STREAMS
from saematch.types import INTERVENTIONS, RIDGE, is_refolded, refolded

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
        of, config = self.of, self.of.run.config
        hashes: dict[Pair, str] = {}
        for pair in of.pairs:
            ends = [of.members[key].identity for key in pair]
            inputs = hash_of(stage=strategy, ends=ends, fitted_on=self.identity, scale=config.scale)
            name = matching_name(*pair, strategy, of.slug)
            call_for(of.held, name, inputs)
            if not of.held.is_finished(name, inputs):
                hashes[pair] = inputs
        _, maps = self._fit(list(hashes), strategies=[strategy]) if hashes else ({}, {})
        for (pair, _), correspondence in maps.items():
            a, b = (of.members[key].folded(config.scale) for key in pair)
            matching = measure(a, b, correspondence, parts=config.parts, strategy=strategy)
            partners = None
            if matcher(strategy).several:
                name = correspondence_name(*pair, strategy, of.slug)
                call_for(of.held, name, hashes[pair])
                of.held.keep(name, encode_correspondence(matching), hashes[pair])
                partners = of.held.kept(name)
            name, data = (
                matching_name(*pair, strategy, of.slug),
                encode_matching(matching, {}, partners),
            )
            of.held.keep(name, data, hashes[pair], [partners] if partners else [])

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


UNFINISHED = "evaluation/unfinished"


@dataclass(frozen=True)
class Unit:
    """One output: the sums of a corpus's documents under a strategy or intervention."""

    pair: Pair
    strategy: str
    parts: str
    """Slug; '' if there are none."""
    name: str
    inputs: str
    """sha256 of what decides it."""
    matching: KeptFile | None = None
    """The matching that it applies."""
    draws: int = 1
    seed: int = 0

    @property
    def counts_joint(self) -> bool:
        """Whether joint activations are counted: once for each map of features."""
        return not is_refolded(self.strategy) and not self.strategy.startswith("quantile")


class CorpusEvaluation:
    """A run measured on one corpus; `ablate`: whether feature pairs are ablated on it."""

    def __init__(self, of: EvaluatedRun, corpus: Corpus, fitting: Fitting, ablate: bool) -> None:
        self.of, self.corpus, self.fitting = of, corpus, fitting
        self.ablate = ablate and bool(of.config.causal_pairs)
        self.slug = corpus_slug(corpus.name)
        self.matchings: Matchings = of.matchings()
        self.base: dict[str, Any] = {
            "model": of.model.identity,
            "texts": corpus.sha256,
            "documents": of.config.documents,
            "tokens": of.config.tokens,
        }

    def run(self) -> None:
        of, slug = self.of, self.slug
        units = [unit for pair in of.pairs for unit in self._units(pair)]
        missing = [unit for unit in units if not of.held.is_finished(unit.name, unit.inputs)]
        hashes = {documents_name(slug): hash_of(stage="documents", base=self.base)}
        for key, member in zip(of.keys, of.used, strict=True):
            inputs = hash_of(stage="stream", base=self.base, sae=member.identity)
            hashes[stream_name(slug, key)] = inputs
        absent = [name for name, sha in hashes.items() if not of.held.is_finished(name, sha)]
        if missing or absent:
            found = self._collect(missing, base_loss=documents_name(slug) in absent)
            self._keep_sums(found, hashes, missing)
        done = [unit for unit in units if of.held.is_finished(unit.name, unit.inputs)]
        self._measure(done, self._ablate() if self.ablate else [])

    def _units(self, pair: Pair) -> list[Unit]:
        """Every output of a pair."""
        of, config = self.of, self.of.config
        a, b = (of.members[key] for key in pair)
        ends = {"a": a.identity, "b": b.identity, "scale": of.run.config.scale}
        found: list[Unit] = []

        def add(strategy: str, parts: str, kept: KeptFile | None = None, **more: Any) -> None:
            decides = {"base": self.base, **ends, "strategy": strategy, "parts": parts, **more}
            decides |= {} if kept is None else {"matching": kept.sha256}
            drawn = {name: more[name] for name in ("draws", "seed") if name in more}
            name = condition_name(self.slug, strategy, parts, *pair)
            inputs = hash_of(stage="condition", **decides)
            found.append(Unit(pair, strategy, parts, name, inputs, kept, **drawn))

        for intervention in INTERVENTIONS:
            if a.entry.layer != b.entry.layer or intervention == "reconstruct_current":
                add(intervention, "")
        mine = [
            (*which, kept) for (of_pair, *which), kept in self.matchings.items() if of_pair == pair
        ]
        for strategy, parts, kept in mine:
            if not matcher(strategy).seeded:
                add(strategy, parts, kept, losses=parts == of.slug)
                if matcher(strategy).raw:
                    add(refolded(strategy), parts, kept)
        for strategy, _, _ in mine:
            if matcher(strategy).seeded:
                add(strategy, of.slug, draws=config.random_draws, seed=config.seed)
        if config.takes(RIDGE):
            add(RIDGE, "", fitted_on=self.fitting.identity)
        for q in config.quantiles:
            add(f"quantile({q:g})", of.slug, self.matchings[pair, MAIN, of.slug], q=q)
        return found

    def _documents(self) -> Documents:
        config = self.of.config
        documents = Documents.of(self.corpus, self.of.model.load(), config.tokens, config.documents)
        self.of.note(*documents.notes(config.documents))
        return documents

    def _collect(self, missing: Sequence[Unit], base_loss: bool) -> Collected:
        """Step 2, from where an earlier call was cut off."""
        of, documents = self.of, self._documents()
        conditions = self._conditions(missing)
        saes = {key: of.model.saes[key].sae for key in of.keys}
        units = sorted(unit.inputs for unit in missing)
        identity = hash_of(stage="pass", units=units, base_loss=base_loss)[:16]
        parts = self._unfinished(identity, conditions)
        number = len(parts)
        done = {row["document"] for part in parts for row in part.documents}
        left = [n for n in range(len(documents)) if n not in done]
        count = sum(condition.loss for some in conditions.values() for condition in some)

        def tell(place: int) -> None:
            text = f"{documents.corpus}: {len(done)} of {len(documents)} documents"
            of.tell(f"{text}, {place} of {count} interventions in the next" if count else text)

        batches = collect(
            of.model.load(),
            documents,
            saes,
            conditions,
            of.config.batch_tokens,
            left,
            of.note,
            tell,
            base_loss,
        )
        for found in batches:
            path = of.held.file(f"{UNFINISHED}/{identity}-{number}.npz")
            files.write_atomically(path, collecting.sums_to_bytes(found))
            parts.append(found)
            number += 1
            done |= {row["document"] for row in found.documents}
        return Collected.joined(parts)

    def _conditions(self, missing: Sequence[Unit]) -> dict[Pair, list[Condition]]:
        """What is applied to each pair for the missing outputs."""
        of, config = self.of, self.of.config
        wanted = {(unit.pair, unit.strategy, unit.parts) for unit in missing}
        ridges = self.fitting.ridges([unit.pair for unit in missing if unit.strategy == RIDGE])
        conditions: dict[Pair, list[Condition]] = {}
        for pair in of.pairs:
            mine: dict[str, Matching] = {}
            others: dict[str, Matching] = {}
            drawn: list[str] = []
            for (a_b, strategy, parts), kept in self.matchings.items():
                if a_b != pair:
                    continue
                if matcher(strategy).seeded:
                    drawn.append(strategy)
                elif parts == of.slug:
                    mine[strategy] = kept_matching(kept)
                else:
                    others[parts] = kept_matching(kept)
            inputs = PairInputs(
                of.model.saes[pair[0]], of.model.saes[pair[1]], of.slug, mine, others,
                ridges.get(pair),
            )  # fmt: skip
            every = conditions_of(
                inputs,
                drawn=drawn,
                draws=config.random_draws,
                seed=config.seed,
                quantiles=config.quantiles,
            )
            conditions[pair] = [
                condition
                for condition in every
                if (pair, condition.strategy, condition.parts) in wanted
            ]
        return conditions

    def _unfinished(
        self, identity: str, conditions: dict[Pair, list[Condition]]
    ) -> list[Collected]:
        """Batches of the same pass that an earlier call finished; those of another are removed."""
        found = []
        for path in sorted(self.of.held.file(UNFINISHED).glob("*.npz")):
            part = None
            if path.name.startswith(f"{identity}-"):
                part = collecting.sums_from_bytes(path.read_bytes(), conditions)
            if part is None:
                files.remove(path)
            else:
                found.append(part)
        return found

    def _keep_sums(self, found: Collected, hashes: dict[str, str], missing: Sequence[Unit]) -> None:
        held = self.of.held
        name = documents_name(self.slug)
        if not held.is_finished(name, hashes[name]):
            held.keep(name, stages.encode(DOCUMENTS, found.documents), hashes[name])
        for key, rows in found.layers.items():
            name = stream_name(self.slug, key)
            held.keep(name, stages.encode(STREAMS, rows), hashes[name])
        for unit in missing:
            draws = [
                (condition, rows)
                for condition, rows in found.conditions[unit.pair]
                if (condition.strategy, condition.parts) == (unit.strategy, unit.parts)
            ]
            if draws:
                depends = [unit.matching] if unit.matching is not None else []
                held.keep(unit.name, stages.encode_conditions(draws), unit.inputs, depends)
        for path in held.file(UNFINISHED).glob("*.npz"):
            files.remove(path)

    def _ablate(self) -> list[str]:
        """Step 4: files of the pairs' agreements."""
        of, config = self.of, self.of.config
        found = []
        for pair in of.pairs:
            mine = {
                strategy: kept
                for (a_b, strategy, parts), kept in self.matchings.items()
                if a_b == pair and parts == of.slug
            }
            name = causal_name(self.slug, *pair)
            inputs = hash_of(
                stage="causal", base=self.base, pairs=config.causal_pairs,
                tokens=config.causal_tokens, seed=config.seed,
                matchings={s: kept.sha256 for s, kept in mine.items()},
                saes=[of.members[key].identity for key in pair],
            )  # fmt: skip
            found.append(name)
            if of.held.is_finished(name, inputs):
                continue
            of.tell(f"ablating {config.causal_pairs} feature pairs of {pair[0]}--{pair[1]}")
            kept = {strategy: kept_matching(file) for strategy, file in mine.items()}
            agreements = causal_agreement(
                of.model.load(),
                self._documents(),
                of.model.saes[pair[0]].sae,
                of.model.saes[pair[1]].sae,
                {strategy: one.permutation for strategy, one in kept.items()},
                sample(kept[MAIN], same_features(kept.values()), config.causal_pairs, config.seed),
                config.causal_tokens,
            )
            data = CAUSAL.encode_objects(agreements)
            of.held.keep(name, data, inputs, list(mine.values()))
        return found

    def _measure(self, units: Sequence[Unit], causal: Sequence[str]) -> None:
        """Step 5."""
        of, config = self.of, self.of.config
        conditions = [
            stages.Measured(*unit.pair, unit.strategy, unit.parts, unit.draws, unit.seed)
            for unit in units
        ]
        task = {
            "corpus": self.corpus.name,
            "conditions": conditions,
            "parts": of.slug,
            "seed": config.seed,
            "about": {
                "corpus": self.corpus.name,
                "origin": self.corpus.origin,
                **self.base,
                "seed": config.seed,
                "pairs": of.pairs,
                "notes": self._notes_kept(),
            },
        }
        applied = (unit.matching for unit in units if unit.counts_joint)
        reads = (
            documents_name(self.slug),
            *(stream_name(self.slug, key) for key in of.keys),
            *(unit.name for unit in units),
            *(matching.name for matching in applied if matching is not None),
            *causal,
        )
        of.tell(f"{self.corpus.name}: measures and intervals")
        for name, stage in (
            (corpus_measures_name(self.slug), stages.measure_corpus),
            (pair_source_name(self.slug), stages.measure_pairs),
        ):
            make(of.held, Step(name, stage, task, tuple(dict.fromkeys(reads))))

    def _notes_kept(self) -> list[str]:
        """This call's notes, or, where it had nothing to find out, those that stand in the table."""
        if self.of.model.was_needed:
            return self.of.notes
        name = corpus_measures_name(self.slug)
        if self.of.held.record(name) is None:
            return self.of.notes
        return cast("list[str]", self.of.held.kept(name).table()[1].get("notes", []))
