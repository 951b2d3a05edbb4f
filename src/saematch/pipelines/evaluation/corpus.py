"""One corpus of an evaluation: a pass for what is missing, ablations, then measures from the sums.

1. Fit to text what needs it: ridge maps, and the matchings of matchers that need data.
2. Which outputs are missing follows from names and hashes (evaluated_run.py).
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
from saematch.evaluation.collecting import Collected, Condition, PairInputs, collect, conditions_of
from saematch.evaluation.fitting import TOKENS_PER_DIMENSION, fit, fitting_documents, passes
from saematch.evaluation.interventions import LinearMap
from saematch.matching.correspondence import Correspondence
from saematch.matching.match import measure
from saematch.matching.matched import Matching, same_features
from saematch.matching.matchers import MAIN, matcher
from saematch.models import Corpus, Documents, load_corpus
from saematch.pipelines.evaluation import evaluated_run
from saematch.pipelines.evaluation import stages as evaluation
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun, Matchings, Pair, Unit
from saematch.pipelines.matching.measures import details_of
from saematch.store.build import Step, call_for, hash_of, make
from saematch.store.matchings import encode_correspondence, kept_matching, matching_columns
from saematch.store.names import SOURCES, correspondence_name, matching_name, pair_source_name
from saematch.store.schema import MATCHINGS
from saematch.types import RIDGE

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
                of.held.keep(name, encode_correspondence(matching), hashes[pair])
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
        saes = {key: of.model.saes[key] for key in of.keys if key in keys}
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


class CorpusEvaluation:
    """A run measured on one corpus; `ablate`: whether feature pairs are ablated on it."""

    def __init__(self, of: EvaluatedRun, corpus: Corpus, fitting: Fitting, ablate: bool) -> None:
        self.of, self.corpus, self.fitting = of, corpus, fitting
        self.ablate = ablate and bool(of.config.causal_pairs)
        self.slug = evaluated_run.corpus_slug(corpus.name)
        self.matchings: Matchings = of.matchings()
        self.base: dict[str, Any] = {
            "model": of.model.identity,
            "texts": corpus.sha256,
            "documents": of.config.documents,
            "tokens": of.config.tokens,
        }

    def run(self) -> None:
        of, slug = self.of, self.slug
        units = evaluated_run.units_of(
            of.config, slug, self.base, self.fitting.identity, of.members, of.pairs,
            self.matchings, of.slug, of.run.config.scale,
        )  # fmt: skip
        missing = [unit for unit in units if not of.held.is_finished(unit.name, unit.inputs)]
        about_documents = {
            evaluated_run.documents_name(slug): hash_of(stage="documents", base=self.base),
            **{
                evaluated_run.stream_name(slug, key): hash_of(
                    stage="stream", base=self.base, sae=of.members[key].identity
                )
                for key in of.keys
            },
        }
        whole = all(of.held.is_finished(name, sha) for name, sha in about_documents.items())
        if missing or not whole:
            name = evaluated_run.documents_name(slug)
            base_loss = not of.held.is_finished(name, about_documents[name])
            found = self._collect(missing, base_loss)
            self._keep_sums(found, about_documents, missing)
        done = [unit for unit in units if of.held.is_finished(unit.name, unit.inputs)]
        self._measure(done, self._ablate() if self.ablate else [])

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
        wanted = {unit.key for unit in missing}
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

    def _keep_sums(
        self, found: Collected, about_documents: dict[str, str], missing: Sequence[Unit]
    ) -> None:
        held = self.of.held
        name = evaluated_run.documents_name(self.slug)
        if not held.is_finished(name, about_documents[name]):
            data = evaluation.encode_documents(found.documents)
            held.keep(name, data, about_documents[name])
        for key, rows in found.layers.items():
            name = evaluated_run.stream_name(self.slug, key)
            held.keep(name, evaluation.encode_stream(rows), about_documents[name])
        units = {unit.key: unit for unit in missing}
        for pair, conditions in found.conditions.items():
            for strategy, parts in dict.fromkeys(
                (condition.strategy, condition.parts) for condition, _ in conditions
            ):
                unit = units[pair, strategy, parts]
                draws = [
                    (condition, rows)
                    for condition, rows in conditions
                    if (condition.strategy, condition.parts) == (strategy, parts)
                ]
                depends = [unit.matching] if unit.matching is not None else []
                held.keep(unit.name, evaluation.encode_conditions(draws), unit.inputs, depends)
        for path in held.file(UNFINISHED).glob("*.npz"):
            files.remove(path)

    def _ablate(self) -> list[tuple[Pair, str]]:
        """Step 3: files of the pairs' agreements."""
        of, config = self.of, self.of.config
        found = []
        for pair in of.pairs:
            mine = {
                strategy: kept
                for (a_b, strategy, parts), kept in self.matchings.items()
                if a_b == pair and parts == of.slug
            }
            name = evaluated_run.causal_name(self.slug, pair)
            inputs = hash_of(
                stage="causal", base=self.base, pairs=config.causal_pairs,
                tokens=config.causal_tokens, seed=config.seed,
                matchings={s: kept.sha256 for s, kept in mine.items()},
                saes=[of.members[key].identity for key in pair],
            )  # fmt: skip
            found.append((pair, name))
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
                sample(
                    kept[MAIN],
                    same_features(kept.values()),
                    config.causal_pairs,
                    config.seed,
                ),
                config.causal_tokens,
            )
            of.held.keep(name, evaluation.encode_causal(agreements), inputs, list(mine.values()))
        return found

    def _measure(self, units: Sequence[Unit], causal: Sequence[tuple[Pair, str]]) -> None:
        """Step 4."""
        of, config = self.of, self.of.config
        conditions = tuple(
            evaluation.ConditionFile(
                unit.pair,
                unit.strategy,
                unit.parts,
                unit.name,
                unit.matching.name if unit.matching is not None and unit.counts_joint else None,
                unit.draws,
                unit.seed,
            )
            for unit in units
        )
        about = {
            "corpus": self.corpus.name,
            "origin": self.corpus.origin,
            "model": self.base["model"],
            "documents": config.documents,
            "tokens": config.tokens,
            "seed": config.seed,
            "texts": self.corpus.sha256,
            "pairs": [list(pair) for pair in of.pairs],
            "notes": list(self._notes_kept()),
        }
        task = evaluation.CorpusTask(
            self.corpus.name,
            evaluated_run.documents_name(self.slug),
            tuple((key, evaluated_run.stream_name(self.slug, key)) for key in of.keys),
            conditions,
            tuple(causal),
            tuple(of.widths.items()),
            of.slug,
            config.seed,
            tuple(about.items()),
        )
        reads = dict.fromkeys(
            [
                task.documents,
                *(name for _, name in task.streams),
                *(condition.name for condition in conditions),
                *(condition.matching for condition in conditions if condition.matching is not None),
                *(name for _, name in causal),
            ]
        )
        of.tell(f"{self.corpus.name}: measures and intervals")
        name = f"{SOURCES}corpus-{self.slug}.parquet"
        make(of.held, Step(name, evaluation.measure_corpus, task, tuple(reads)))
        name = pair_source_name(self.slug)
        make(of.held, Step(name, evaluation.measure_pairs, task, tuple(reads)))

    def _notes_kept(self) -> list[str]:
        """This call's notes, or, where it had nothing to find out, those that stand in the table."""
        if self.of.model.was_needed:
            return self.of.notes
        name = f"{SOURCES}corpus-{self.slug}.parquet"
        if self.of.held.record(name) is None:
            return self.of.notes
        return cast("list[str]", self.of.held.kept(name).table()[1].get("notes", []))
