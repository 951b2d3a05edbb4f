"""`saematch evaluate`: the run's matchings on a real language model, into the run directory.

1. Find the run's SAEs again, by the hashes that the manifest has (evaluated_run.py); match by single
   parts that `folded` is compared with.
2. Read the texts; fit what needs text, ridge maps and the matchings of matchers that need data, on other
   documents than are measured on.
3. For each corpus, which outputs are missing follows from names and hashes, which follow from the run's
   manifest, the settings and the texts: finished outputs are known without loading a language model.
4. One pass of the model over the documents for all of them, kept batch by batch
   (`evaluation/unfinished`), so that a killed run goes on at the next batch; then a table of sums for
   each pair and strategy.
5. On the first corpus a sample of feature pairs is ablated.
6. Measures with intervals, from the sums; one table of all.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from saematch._io import files
from saematch.configs import EvaluationConfig
from saematch.errors import UsageError
from saematch.evaluation import collecting
from saematch.evaluation.ablation import ablate_pairs, sample
from saematch.evaluation.collecting import (
    Collected,
    Condition,
    Pair,
    PairInputs,
    collect,
    conditions_of,
)
from saematch.evaluation.fitting import TOKENS_PER_DIMENSION, fit, fitting_documents, passes
from saematch.evaluation.interventions import LinearMap, strongest
from saematch.matching.correspondence import Correspondence
from saematch.matching.match import measure
from saematch.matching.matched import Matching, same_features
from saematch.matching.matchers import MAIN, matcher
from saematch.models import Corpus, Documents, LanguageModel, load_corpus
from saematch.pipelines.evaluation import stages
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun
from saematch.pipelines.matching.run import matching_steps, merge_measures
from saematch.pipelines.suite import forget_loaded
from saematch.store.build import Progress, Step, call_for, hash_of, make, silent
from saematch.store.directory import KeptFile
from saematch.store.matchings import encode_correspondence, encode_matching, kept_matching
from saematch.store.names import (
    PAIR_SOURCES,
    PAIRS_NAME,
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
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.schema import CAUSAL, CONDITIONS, DOCUMENTS, STREAMS
from saematch.types import INTERVENTIONS, RIDGE, is_refolded, refolded


def evaluate(
    directory: str | Path,
    config: EvaluationConfig,
    progress: Progress | None = None,
    model: LanguageModel | None = None,
) -> Run:
    """Measure a run's matchings on a language model; what an earlier call finished is kept.

    `model`: one that is loaded already; default: what the config or the SAEs name.

    Raises UsageError for pairs and strategies that the run lacks, InputError for a run without
    matchings, SAEs that changed since, a model that is not theirs, a corpus without text.
    """
    with holding_run(directory) as held:
        of = EvaluatedRun(held, open_run(directory), config, progress or silent, model)
        _compare_parts(of)
        _measure_corpora(of)
        make(
            held, Step(PAIRS_NAME, stages.merge_pairs, {}, tuple(held.current_names(PAIR_SOURCES)))
        )
        merge_measures(held)
        forget_loaded()
    return open_run(directory)


def _compare_parts(of: EvaluatedRun) -> None:
    """The main strategy by single parts."""
    for a, b in of.pairs:
        ends = of.members[a], of.members[b]
        for other in of.other_parts:
            of.tell(f"matching {a}--{b} by {other}")
            by_part = replace(
                of.run.config, parts={other: 1.0}, unmatched_cost=None, degenerate="apart"
            )
            for step in matching_steps(by_part, *ends, MAIN):
                make(of.held, step)


def _measure_corpora(of: EvaluatedRun) -> None:
    texts = [read_texts(of, name) for name in of.config.corpora]
    if len({corpus_slug(corpus.name) for corpus, _ in texts}) < len(texts):
        raise UsageError(
            f"expected corpora of different names, got {', '.join(of.config.corpora)}; rename a file"
        )
    fitting = Fitting(of, [rest for _, rest in texts])
    fitting.fit_maps()
    for number, (corpus, _) in enumerate(texts):
        CorpusEvaluation(of, corpus, fitting, ablate=number == 0).run()


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
        return {"texts": [text.sha256 for text in self.texts], "model": self.of.model_identity}

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
        started = time.perf_counter()
        _, maps = self._fit(list(hashes), strategies=[strategy]) if hashes else ({}, {})
        seconds = {"total": (time.perf_counter() - started) / max(1, len(maps))}
        for (pair, _), correspondence in maps.items():
            a, b = (of.members[key].folded(config.scale) for key in pair)
            matching = measure(a, b, correspondence, parts=config.parts, strategy=strategy)
            partners = None
            if matcher(strategy).several:
                name = correspondence_name(*pair, strategy, of.slug)
                call_for(of.held, name, hashes[pair])
                of.held.keep(name, encode_correspondence(matching), hashes[pair])
                partners = of.held.kept(name)
            name = matching_name(*pair, strategy, of.slug)
            data = encode_matching(matching, partners=partners)
            of.held.keep(name, data, hashes[pair], [partners] if partners else [], seconds)

    def _fit(
        self, pairs: Sequence[Pair], *, ridge: bool = False, strategies: Sequence[str] = ()
    ) -> tuple[dict[Pair, LinearMap], dict[tuple[Pair, str], Correspondence]]:
        of = self.of
        documents = fitting_documents(self.texts, of.model)
        keys = {key for pair in pairs for key in pair}
        saes = {key: of.saes[key] for key in of.keys if key in keys}
        total = len(passes(pairs, saes, ridge=ridge, strategies=strategies)) * sum(
            len(some) for some in documents
        )
        read = 0

        def tell(count: int) -> None:
            nonlocal read
            read += count
            of.tell(f"fitting to {read} of {total} other documents")

        ridges, maps, notes = fit(
            of.model, documents, saes, pairs, of.config.batch_tokens, ridge=ridge,
            strategies=strategies, progress=tell,
        )  # fmt: skip
        of.note(*notes)
        return ridges, maps


UNFINISHED = "evaluation/unfinished"


@dataclass(frozen=True)
class Unit:
    """One output: the sums of a corpus's documents under a strategy or intervention."""

    what: stages.Measured
    name: str
    inputs: str
    """sha256 of what decides it."""
    matching: KeptFile | None
    """The matching that it applies."""

    @property
    def key(self) -> tuple[Pair, str, str]:
        return (self.what.a, self.what.b), self.what.strategy, self.what.parts

    @property
    def counts_joint(self) -> bool:
        """Whether joint activations are counted: once for each map of features."""
        strategy = self.what.strategy
        return not is_refolded(strategy) and not strategy.startswith("quantile")


class CorpusEvaluation:
    """A run measured on one corpus; `ablate`: whether feature pairs are ablated on it."""

    def __init__(self, of: EvaluatedRun, corpus: Corpus, fitting: Fitting, ablate: bool) -> None:
        self.of, self.corpus, self.fitting = of, corpus, fitting
        self.ablate = ablate and bool(of.config.causal_pairs)
        self.slug = corpus_slug(corpus.name)
        self.matchings = {pair: of.matchings(pair) for pair in of.pairs}
        self.base: dict[str, Any] = {
            "model": of.model_identity,
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
            inputs = hash_of(stage="condition", columns=CONDITIONS.names, **decides)
            found.append(Unit(stages.Measured(*pair, strategy, parts, **drawn), name, inputs, kept))

        for intervention in INTERVENTIONS:
            if a.entry.layer != b.entry.layer or intervention == "reconstruct_current":
                add(intervention, "")
        mine = self.matchings[pair]
        for (strategy, parts), kept in mine.items():
            if not matcher(strategy).seeded:
                add(strategy, parts, kept, losses=parts == of.slug)
                if matcher(strategy).raw:
                    add(refolded(strategy), parts, kept)
        for strategy, _ in mine:
            if matcher(strategy).seeded:
                add(strategy, of.slug, draws=config.random_draws, seed=config.seed)
        if config.takes(RIDGE):
            add(RIDGE, "", fitted_on=self.fitting.identity)
        for q in config.quantiles:
            add(f"quantile({q:g})", of.slug, mine[MAIN, of.slug], q=q)
        return found

    def _documents(self) -> Documents:
        config = self.of.config
        documents = Documents.of(self.corpus, self.of.model, config.tokens, config.documents)
        self.of.note(*documents.notes(config.documents))
        return documents

    def _collect(self, missing: Sequence[Unit], base_loss: bool) -> Collected:
        """Step 4, from where an earlier call was cut off."""
        of, documents = self.of, self._documents()
        conditions = self._conditions(missing)
        saes = {key: of.saes[key].sae for key in of.keys}
        units = sorted(unit.inputs for unit in missing)
        identity = hash_of(stage="pass", units=units, base_loss=base_loss)[:16]
        parts = self._unfinished(identity, conditions)
        done = {row["document"] for part in parts for row in part.documents}
        left = [n for n in range(len(documents)) if n not in done]
        count = sum(condition.loss for some in conditions.values() for condition in some)

        def tell(place: int) -> None:
            text = f"{documents.corpus}: {len(done)} of {len(documents)} documents"
            of.tell(f"{text}, {place} of {count} interventions in the next" if count else text)

        batches = collect(
            of.model, documents, saes, conditions, of.config.batch_tokens, left, of.note, tell,
            base_loss,
        )  # fmt: skip
        for found in batches:
            path = of.held.file(f"{UNFINISHED}/{identity}-{len(parts)}.parquet")
            files.write_atomically(path, collecting.sums_to_bytes(found))
            parts.append(found)
            done |= {row["document"] for row in found.documents}
        return Collected.joined(parts)

    def _conditions(self, missing: Sequence[Unit]) -> dict[Pair, list[Condition]]:
        """What is applied to each pair for the missing outputs."""
        of, config = self.of, self.of.config
        wanted = {unit.key for unit in missing}
        ridges = self.fitting.ridges([pair for pair in of.pairs if (pair, RIDGE, "") in wanted])
        conditions: dict[Pair, list[Condition]] = {}
        for pair in of.pairs:
            mine: dict[str, Matching] = {}
            others: dict[str, Matching] = {}
            drawn: list[str] = []
            for (strategy, parts), kept in self.matchings[pair].items():
                if matcher(strategy).seeded:
                    drawn.append(strategy)
                elif parts == of.slug:
                    mine[strategy] = kept_matching(kept)
                else:
                    others[parts] = kept_matching(kept)
            a, b = (of.saes[key] for key in pair)
            every = conditions_of(
                PairInputs(a, b, of.slug, mine, others, ridges.get(pair)),
                drawn=drawn,
                draws=config.random_draws,
                seed=config.seed,
                quantiles=config.quantiles,
            )
            conditions[pair] = [one for one in every if (pair, one.strategy, one.parts) in wanted]
        return conditions

    def _unfinished(
        self, identity: str, conditions: dict[Pair, list[Condition]]
    ) -> list[Collected]:
        """Batches of the same pass that an earlier call finished; those of another are removed."""
        found = []
        for path in sorted(self.of.held.file(UNFINISHED).glob("*")):
            ours = path.name.startswith(f"{identity}-")
            part = collecting.sums_from_bytes(path.read_bytes(), conditions) if ours else None
            if part is None:
                files.remove(path)
            else:
                found.append(part)
        return found

    def _keep_sums(self, found: Collected, hashes: dict[str, str], missing: Sequence[Unit]) -> None:
        held = self.of.held
        name = documents_name(self.slug)
        if not held.is_finished(name, hashes[name]):
            held.keep(name, DOCUMENTS.encode_records(found.documents), hashes[name])
        for key, rows in found.layers.items():
            name = stream_name(self.slug, key)
            held.keep(name, STREAMS.encode_records(rows), hashes[name])
        for unit in missing:
            draws = [
                (condition, rows)
                for condition, rows in found.conditions[unit.key[0]]
                if (condition.strategy, condition.parts) == unit.key[1:]
            ]
            if draws:
                depends = [unit.matching] if unit.matching is not None else []
                held.keep(unit.name, stages.encode_conditions(draws), unit.inputs, depends)
        for path in held.file(UNFINISHED).glob("*"):
            files.remove(path)

    def _ablate(self) -> list[str]:
        """Step 5: files of the ablated pairs."""
        of, config = self.of, self.of.config
        found = []
        for pair in of.pairs:
            mine = {
                strategy: kept
                for (strategy, parts), kept in self.matchings[pair].items()
                if parts == of.slug
            }
            name = causal_name(self.slug, *pair)
            inputs = hash_of(
                stage="causal", columns=CAUSAL.names, base=self.base, pairs=config.causal_pairs,
                tokens=config.causal_tokens, seed=config.seed,
                matchings={s: kept.sha256 for s, kept in mine.items()},
                saes=[of.members[key].identity for key in pair],
            )  # fmt: skip
            found.append(name)
            if of.held.is_finished(name, inputs):
                continue
            of.tell(f"ablating {config.causal_pairs} feature pairs of {pair[0]}--{pair[1]}")
            kept = {strategy: kept_matching(file) for strategy, file in mine.items()}
            a, b = (of.saes[key] for key in pair)
            pairs = ablate_pairs(
                of.model,
                self._documents(),
                a.sae,
                b.sae,
                {
                    strategy: strongest(a, b, one.correspondence, folded=not matcher(strategy).raw)
                    for strategy, one in kept.items()
                },
                sample(kept[MAIN], same_features(kept.values()), config.causal_pairs, config.seed),
                config.causal_tokens,
            )
            data = CAUSAL.encode_records(map(vars, pairs))
            of.held.keep(name, data, inputs, list(mine.values()))
        return found

    def _measure(self, units: Sequence[Unit], causal: Sequence[str]) -> None:
        """Step 6."""
        of, config = self.of, self.of.config
        task = {
            "corpus": self.corpus.name,
            "conditions": [unit.what for unit in units],
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
        if self.of.model_was_needed:
            return self.of.notes
        name = corpus_measures_name(self.slug)
        if self.of.held.record(name) is None:
            return self.of.notes
        return cast("list[str]", self.of.held.kept(name).table()[1].get("notes", []))
