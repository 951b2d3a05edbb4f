"""One corpus of an evaluation: a pass for what is missing, ablations, then measures from the sums.

1. Which outputs are missing follows from names and hashes (plan.py).
2. One pass of the model over the documents for all of them, kept batch by batch
   (`evaluation/unfinished`), so that a killed run goes on at the next batch; then a table of sums for
   each pair and strategy.
3. On the first corpus a sample of feature pairs is ablated.
4. Measures with intervals, from the sums.
"""

from collections.abc import Sequence
from typing import Any, cast

from saematch._io import files
from saematch.evaluation import saved_sums as saved
from saematch.evaluation.ablation import causal_agreement, sample
from saematch.evaluation.arms import PairInputs, conditions_of
from saematch.evaluation.collecting import Collected, Condition, collect
from saematch.evaluation.names import RIDGE
from saematch.matching.matched import Matching, same_features
from saematch.matching.registry import MAIN, matcher
from saematch.models import Corpus, Documents
from saematch.pipelines.evaluation import plan
from saematch.pipelines.evaluation import stages as evaluation
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun, Matchings
from saematch.pipelines.evaluation.fitting import Fitting
from saematch.pipelines.evaluation.plan import Pair, Unit
from saematch.store.build import Step, hash_of, make
from saematch.store.matchings import kept_matching
from saematch.store.names import SOURCES, pair_source_name

UNFINISHED = "evaluation/unfinished"


class CorpusEvaluation:
    """A run measured on one corpus; `ablate`: whether feature pairs are ablated on it."""

    def __init__(self, of: EvaluatedRun, corpus: Corpus, fitting: Fitting, ablate: bool) -> None:
        self.of, self.corpus, self.fitting = of, corpus, fitting
        self.ablate = ablate and bool(of.config.causal_pairs)
        self.slug = plan.corpus_slug(corpus.name)
        self.matchings: Matchings = of.matchings()
        self.base: dict[str, Any] = {
            "model": of.model.identity,
            "texts": corpus.sha256,
            "documents": of.config.documents,
            "tokens": of.config.tokens,
        }

    def run(self) -> None:
        of, slug = self.of, self.slug
        units = plan.units_of(
            of.config, slug, self.base, self.fitting.identity, of.members, of.pairs,
            self.matchings, of.slug, of.run.config.scale,
        )  # fmt: skip
        missing = [unit for unit in units if not of.held.is_finished(unit.name, unit.inputs)]
        about_documents = {
            plan.documents_name(slug): hash_of(stage="documents", base=self.base),
            **{
                plan.stream_name(slug, key): hash_of(
                    stage="stream", base=self.base, sae=of.members[key].identity
                )
                for key in of.keys
            },
        }
        whole = all(of.held.is_finished(name, sha) for name, sha in about_documents.items())
        if missing or not whole:
            name = plan.documents_name(slug)
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
            files.write_atomically(path, saved.to_bytes(found))
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
                part = saved.from_bytes(path.read_bytes(), conditions)
            if part is None:
                files.remove(path)
            else:
                found.append(part)
        return found

    def _keep_sums(
        self, found: Collected, about_documents: dict[str, str], missing: Sequence[Unit]
    ) -> None:
        held = self.of.held
        name = plan.documents_name(self.slug)
        if not held.is_finished(name, about_documents[name]):
            data = evaluation.encode_documents(found.documents)
            held.keep(name, data, about_documents[name])
        for key, rows in found.layers.items():
            name = plan.stream_name(self.slug, key)
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
            name = plan.causal_name(self.slug, pair)
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
            plan.documents_name(self.slug),
            tuple((key, plan.stream_name(self.slug, key)) for key in of.keys),
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
