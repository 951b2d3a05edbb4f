"""`saematch evaluate`: the run's matchings on a real language model, into the run directory.

1. Find the run's SAEs again, by the hashes that the manifest has; match by single parts that `folded`
   is compared with.
2. For every corpus: read the texts, and see which outputs are missing (evaluation_plan.py).
3. Fit what needs data, on other documents than are measured on.
4. One pass of the model over the documents for all that is missing, kept batch by batch
   (`evaluation/unfinished`), so that a killed run goes on at the next batch; then a table of sums for
   each pair and strategy.
5. Ablate a sample of feature pairs, on the first corpus.
6. Measures with intervals, from the sums; one table of all; the report.

An output that is there and was made from the same inputs is not made again; where none is missing the
language model is not loaded.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from saematch import files
from saematch.errors import InputError, UsageError
from saematch.evaluation import saved
from saematch.evaluation.ablation import causal_agreement, sample
from saematch.evaluation.arms import CORRELATION, RANDOM, RIDGE, PairInputs, arms_of, on_device
from saematch.evaluation.belonging import check_belongs
from saematch.evaluation.collecting import Arm, Collected, collect
from saematch.evaluation.fitting import TOKENS_PER_DIMENSION, fit, fitting_documents
from saematch.evaluation.interventions import LinearMap
from saematch.language_model import (
    SMOLLM2_NAME,
    Corpus,
    Documents,
    LanguageModel,
    load_corpus,
    load_language_model,
    smollm2_weights_sha256,
)
from saematch.language_model.model import EMBEDDED, embedded_is_here
from saematch.matched import Matching
from saematch.measuring import measure
from saematch.permutation import Permutation
from saematch.run import evaluation_plan as plan
from saematch.run import evaluation_stages as evaluation
from saematch.run import stages
from saematch.run.config import parts_slug
from saematch.run.details import details_of, measures_of
from saematch.run.directory import KeptFile, RunDirectory
from saematch.run.evaluation_config import EvaluationConfig
from saematch.run.evaluation_plan import Pair, Unit
from saematch.run.inputs import examine
from saematch.run.kept import kept_matching, matching_columns
from saematch.run.pipeline import Progress, is_current, make, merge_measures, write_report
from saematch.run.plan import SOURCES, Step, matching_name
from saematch.run.read import Run, open_run
from saematch.run.schema import MATCHINGS, decode
from saematch.run.suite import Member, find_key, forget_loaded
from saematch.sae import FoldedSAE

UNFINISHED = "evaluation/unfinished"
PAIRS_NAME = "evaluation/pairs.parquet"
USUAL_DOCUMENT_TOKENS = 400
"""What a document is taken to have, where it must be said how many to fetch."""


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
    with RunDirectory(directory).holding() as held:
        _Evaluation(held, open_run(directory), config, progress, model).run()
    return open_run(directory)


class _Evaluation:
    def __init__(
        self,
        held: RunDirectory,
        run: Run,
        config: EvaluationConfig,
        progress: Progress | None,
        model: LanguageModel | None,
    ) -> None:
        self.held, self.of, self.config, self.progress = held, run, config, progress
        self.slug = run.config.slug
        self.members, self.widths = self._members()
        self.pairs = self._pairs()
        self.given = self.loaded = model
        self.on_device: dict[str, FoldedSAE] = {}
        self.notes: list[str] = []

    def run(self) -> None:
        self._compare_parts()
        texts = [self._texts(name) for name in self.config.corpora]
        slugs = [plan.corpus_slug(corpus.name) for corpus, _ in texts]
        if len(set(slugs)) < len(slugs):
            raise UsageError(
                f"needed corpora of different names, found {', '.join(self.config.corpora)}; rename a file"
            )
        fitted_on = {"texts": [rest.sha256 for _, rest in texts], "model": self._model_identity()}
        if self.config.takes(CORRELATION):
            self._correlate([rest for _, rest in texts], fitted_on)
        for number, (corpus, _) in enumerate(texts):
            self._corpus(corpus, [rest for _, rest in texts], fitted_on, first=number == 0)
        self._merge()
        forget_loaded()

    # What there is

    def _members(self) -> tuple[dict[str, Member], dict[str, int]]:
        """The run's SAEs, which must be those that it matched."""
        from saematch.loading import load_suite

        suite = load_suite(self.of.config.suite, layers=self.of.config.layers)
        before = self.held.manifest["saes"]
        entries = tuple(entry for entry in suite.entries if entry.key in before)
        members, saes, _ = examine(entries, self.held.manifest, lambda _: None)
        changed = [k for k in before if k not in saes or saes[k]["sha256"] != before[k]["sha256"]]
        if changed:
            raise InputError(
                f"needed the SAEs that {self.held.path} was made of, found {changed[0]} changed or gone; "
                "run saematch run again"
            )
        return members, {key: int(sae["d_sae"]) for key, sae in saes.items()}

    def _pairs(self) -> list[Pair]:
        adjacent = [pair for keys in self.of.chains for pair in pairwise(keys)]
        entries = [member.entry for member in self.members.values()]
        if self.config.pairs is None:
            return [*adjacent, *(pair for pair in self.of.pairs if pair not in adjacent)]
        wanted: list[Pair] = [
            (find_key(a, entries), find_key(b, entries)) for a, b in self.config.pairs
        ]
        for a, b in wanted:
            if (a, b) not in self.of.pairs:
                there = ", ".join(f"{x},{y}" for x, y in self.of.pairs)
                raise UsageError(f"needed pairs among {there}, found {a},{b}")
        return wanted

    @property
    def keys(self) -> list[str]:
        """SAEs of the pairs, in order of depth."""
        used = {key for pair in self.pairs for key in pair}
        return [key for key in self.members if key in used]

    def _matching_files(self) -> dict[tuple[Pair, str, str], KeptFile]:
        """Matchings to measure, by pair, strategy and slug of parts."""
        found: dict[tuple[Pair, str, str], KeptFile] = {}
        others = plan.other_slugs(self.config, self.slug, self.of.config.parts)
        for pair in self.pairs:
            for strategy in (*self.of.config.strategies, CORRELATION):
                name = matching_name(*pair, strategy, self.slug)
                if self.config.takes(strategy) and self.held.record(name) is not None:
                    found[pair, strategy, self.slug] = self.held.kept(name)
            if (pair, "folded", self.slug) not in found:
                raise InputError(
                    f"needed the folded matching of {pair[0]}--{pair[1]} in {self.held.path}, found none; "
                    "run saematch run again"
                )
            for other in others:
                name = matching_name(*pair, "folded", other)
                found[pair, "folded", other] = self.held.kept(name)
        return found

    def _compare_parts(self) -> None:
        for other in plan.other_slugs(self.config, self.slug, self.of.config.parts):
            for a, b in self.pairs:
                parts = ((other, 1.0),)
                assert parts_slug(dict(parts)) == other
                scale = self.of.config.scale
                ends = self.members[a], self.members[b]
                task = stages.MatchingTask(*ends, parts, scale, strategy="folded")
                name = matching_name(a, b, "folded", other)
                self._tell(f"matching {a}--{b} by {other}")
                make(self.held, Step(name, stages.match_pair, task))

    def _texts(self, name: str) -> tuple[Corpus, Corpus]:
        """What is measured on, and what is fitted to: other texts of the same corpus."""
        d_model = next(iter(self.held.manifest["saes"].values()))["d_model"]
        share = TOKENS_PER_DIMENSION * d_model / len(self.config.corpora)
        more = -(-int(1.25 * share) // USUAL_DOCUMENT_TOKENS)
        self._tell(f"reading {name}")
        count = self.config.documents
        offline = self.config.offline or None
        corpus = load_corpus(name, count + more, self.config.seed, offline)
        if corpus.whole:  # one text may make many documents
            return corpus, corpus.without(len(corpus.texts))
        return corpus.first(count), corpus.without(count)

    # The model

    def _model_name(self) -> str:
        if self.given is not None:
            return self.given.name
        if self.config.model is not None:
            return SMOLLM2_NAME if self.config.model == EMBEDDED else self.config.model
        named = {self.held.manifest["saes"][key]["model_name"] for key in self.keys}
        if len(named) != 1 or None in named:
            raise UsageError(
                "needed the name of the language model, found that the SAEs do not record it; "
                "name it with --model"
            )
        return str(named.pop())

    def _model_identity(self) -> dict[str, Any]:
        name = self._model_name()
        if self.given is not None:
            sha = self.given.weights_sha256
        else:
            sha = smollm2_weights_sha256() if self._is_embedded(name) else None
        return {"name": name, "weights_sha256": sha, "dtype": self.config.dtype}

    def _is_embedded(self, name: str) -> bool:
        return name == SMOLLM2_NAME and embedded_is_here()

    @property
    def model(self) -> LanguageModel:
        """Loaded when it is first needed, and checked to be the SAEs' own."""
        if not self.on_device:
            if self.loaded is None:
                self._tell(f"loading {self._model_name()}")
                self.loaded = load_language_model(
                    self._model_name(),
                    device=self.config.device,
                    dtype=self.config.dtype,
                    attention=self.config.attention,
                )
            members = [self.members[key] for key in self.keys]
            said = check_belongs(
                self.loaded, [member.load() for member in members], self.config.any_model
            )
            self._note(*said)
            for member in members:
                folded = member.folded(self.of.config.scale)
                self.on_device[member.key] = on_device(folded, self.loaded.device)
        assert self.loaded is not None
        return self.loaded

    # Fitting

    def _fit(
        self, texts: Sequence[Corpus], pairs: Sequence[Pair], **which: bool
    ) -> tuple[dict[Pair, LinearMap], dict[Pair, Permutation]]:
        documents = fitting_documents(texts, self.model)
        keys = {key for pair in pairs for key in pair}
        saes = {key: self.on_device[key].sae for key in self.keys if key in keys}
        total = sum(len(some) for some in documents)
        read = 0

        def tell(count: int) -> None:
            nonlocal read
            read += count
            self._tell(f"fitting to {read} of {total} other documents")

        ridges, correlations, notes = fit(
            self.model, documents, saes, pairs, self.config.batch_tokens, **which, progress=tell
        )
        self._note(*notes)
        return ridges, correlations

    def _correlate(self, texts: Sequence[Corpus], fitted_on: dict[str, Any]) -> None:
        """The `correlation` matchings, as tables beside those of the run."""
        hashes = {}
        for pair in self.pairs:
            ends = [self.members[key].identity for key in pair]
            hashes[pair] = plan.hash_of(
                stage="correlation", ends=ends, fitted_on=fitted_on, scale=self.of.config.scale
            )
        missing = [
            pair
            for pair in self.pairs
            if not self.held.is_finished(plan.correlation_name(pair, self.slug), hashes[pair])
        ]
        if not missing:
            return
        _, found = self._fit(texts, missing, ridge=False, correlation=True)
        for pair, permutation in found.items():
            a, b = (self.members[key].folded(self.of.config.scale) for key in pair)
            parts = self.of.config.parts
            matching = measure(a, b, permutation, parts=parts, strategy=CORRELATION)
            data = MATCHINGS.encode(
                matching_columns(matching), details_of(matching, measures_of(matching))
            )
            self.held.keep(plan.correlation_name(pair, self.slug), data, hashes[pair])

    # One corpus

    def _corpus(
        self, corpus: Corpus, rest: Sequence[Corpus], fitted_on: dict[str, Any], first: bool
    ) -> None:
        config, slug = self.config, plan.corpus_slug(corpus.name)
        matchings = self._matching_files()
        base = {
            "model": self._model_identity(),
            "texts": corpus.sha256,
            "documents": config.documents,
            "tokens": config.tokens,
            "whole": corpus.whole,
        }
        units = plan.units_of(
            config, slug, base, fitted_on, self.members, self.pairs, matchings, self.slug,
            self.of.config.scale,
        )  # fmt: skip
        missing = [unit for unit in units if not self.held.is_finished(unit.name, unit.inputs)]
        about_documents = {
            plan.documents_name(slug): plan.hash_of(stage="documents", base=base),
            **{
                plan.stream_name(slug, key): plan.hash_of(
                    stage="stream", base=base, sae=self.members[key].identity
                )
                for key in self.keys
            },
        }
        whole = all(self.held.is_finished(name, sha) for name, sha in about_documents.items())
        if missing or not whole:
            documents = self._documents(corpus)
            name = plan.documents_name(slug)
            base_loss = not self.held.is_finished(name, about_documents[name])
            found = self._collect(documents, missing, rest, matchings, base_loss)
            self._keep_sums(found, about_documents, missing, slug)
        done = [unit for unit in units if self.held.is_finished(unit.name, unit.inputs)]
        causal = self._ablate(corpus, matchings, base) if first and config.causal_pairs else []
        self._measure(corpus, done, causal, base)

    def _documents(self, corpus: Corpus) -> Documents:
        documents = Documents.of(corpus, self.model, self.config.tokens, self.config.documents)
        if len(documents) < self.config.documents:
            self._note(
                f"{corpus.name} has {len(documents)} documents that can be used, not "
                f"{self.config.documents}"
            )
        return documents

    def _collect(
        self,
        documents: Documents,
        missing: Sequence[Unit],
        rest: Sequence[Corpus],
        matchings: dict[tuple[Pair, str, str], KeptFile],
        base_loss: bool,
    ) -> Collected:
        """Step 4, from where an earlier call was cut off."""
        wanted = {unit.key for unit in missing}
        need_ridge = [unit.pair for unit in missing if unit.strategy == RIDGE]
        ridges = self._fit(rest, need_ridge, ridge=True, correlation=False)[0] if need_ridge else {}
        arms: dict[Pair, list[Arm]] = {}
        for pair in self.pairs:
            mine: dict[str, Matching] = {}
            others: dict[str, Matching] = {}
            for (of, strategy, parts), kept in matchings.items():
                if of == pair and strategy != RANDOM:
                    where = mine if parts == self.slug else others
                    where[strategy if parts == self.slug else parts] = kept_matching(kept.read())
            inputs = PairInputs(
                self.on_device[pair[0]], self.on_device[pair[1]], self.slug, mine, others,
                ridges.get(pair),
            )  # fmt: skip
            every = arms_of(
                inputs,
                draws=self.config.random_draws,
                seed=self.config.seed,
                quantiles=self.config.quantiles,
            )
            arms[pair] = [arm for arm in every if (pair, arm.strategy, arm.parts) in wanted]
        saes = {key: self.on_device[key].sae for key in self.keys}
        units = sorted(unit.inputs for unit in missing)
        identity = plan.hash_of(stage="pass", units=units, base_loss=base_loss)[:16]
        parts = self._unfinished(identity, arms)
        number = len(parts)
        done = {row["document"] for part in parts for row in part.documents}
        left = [n for n in range(len(documents)) if n not in done]
        count = sum(arm.loss for some in arms.values() for arm in some)

        def tell(place: int) -> None:
            text = f"{documents.corpus}: {len(done)} of {len(documents)} documents"
            self._tell(f"{text}, {place} of {count} interventions in the next" if count else text)

        batches = collect(
            self.model,
            documents,
            saes,
            arms,
            self.config.batch_tokens,
            left,
            self._note,
            tell,
            base_loss,
        )
        for found in batches:
            path = self.held.file(f"{UNFINISHED}/{identity}-{number}.npz")
            files.write_atomically(path, saved.to_bytes(found))
            parts.append(found)
            number += 1
            done |= {row["document"] for row in found.documents}
        return Collected.joined(parts)

    def _unfinished(self, identity: str, arms: dict[Pair, list[Arm]]) -> list[Collected]:
        """Batches of the same pass that an earlier call finished; those of another are removed."""
        found = []
        for path in sorted(self.held.file(UNFINISHED).glob("*.npz")):
            part = None
            if path.name.startswith(f"{identity}-"):
                part = saved.from_bytes(path.read_bytes(), arms)
            if part is None:
                files.remove(path)
            else:
                found.append(part)
        return found

    def _keep_sums(
        self,
        found: Collected,
        about_documents: dict[str, str],
        missing: Sequence[Unit],
        slug: str,
    ) -> None:
        name = plan.documents_name(slug)
        if not self.held.is_finished(name, about_documents[name]):
            data = evaluation.encode_documents(found.documents)
            self.held.keep(name, data, about_documents[name])
        for key, rows in found.layers.items():
            name = plan.stream_name(slug, key)
            self.held.keep(name, evaluation.encode_stream(rows), about_documents[name])
        units = {unit.key: unit for unit in missing}
        for pair, arms in found.arms.items():
            for strategy, parts in dict.fromkeys((arm.strategy, arm.parts) for arm, _ in arms):
                unit = units[pair, strategy, parts]
                draws = [
                    (arm, rows)
                    for arm, rows in arms
                    if (arm.strategy, arm.parts) == (strategy, parts)
                ]
                depends = [unit.matching] if unit.matching is not None else []
                self.held.keep(unit.name, evaluation.encode_arms(draws), unit.inputs, depends)
        for path in self.held.file(UNFINISHED).glob("*.npz"):
            files.remove(path)

    def _ablate(
        self,
        corpus: Corpus,
        matchings: dict[tuple[Pair, str, str], KeptFile],
        base: dict[str, Any],
    ) -> list[tuple[Pair, str]]:
        """Step 5: files of the pairs' agreements."""
        config, slug = self.config, plan.corpus_slug(corpus.name)
        found = []
        for pair in self.pairs:
            mine = {
                strategy: kept
                for (of, strategy, parts), kept in matchings.items()
                if of == pair and parts == self.slug
            }
            name = plan.causal_name(slug, pair)
            inputs = plan.hash_of(
                stage="causal", base=base, pairs=config.causal_pairs, tokens=config.causal_tokens,
                seed=config.seed, matchings={s: kept.sha256 for s, kept in mine.items()},
                saes=[self.members[key].identity for key in pair],
            )  # fmt: skip
            found.append((pair, name))
            if self.held.is_finished(name, inputs):
                continue
            self._tell(f"ablating {config.causal_pairs} feature pairs of {pair[0]}--{pair[1]}")
            kept = {strategy: kept_matching(file.read()) for strategy, file in mine.items()}
            chosen = sample(kept["folded"], config.causal_pairs, config.seed)
            agreements = causal_agreement(
                self.model,
                self._documents(corpus),
                self.on_device[pair[0]].sae,
                self.on_device[pair[1]].sae,
                {strategy: one.permutation for strategy, one in kept.items()},
                chosen,
                config.causal_tokens,
            )
            self.held.keep(name, evaluation.encode_causal(agreements), inputs, list(mine.values()))
        return found

    def _measure(
        self,
        corpus: Corpus,
        units: Sequence[Unit],
        causal: Sequence[tuple[Pair, str]],
        base: dict[str, Any],
    ) -> None:
        slug = plan.corpus_slug(corpus.name)
        arms = tuple(
            evaluation.ArmFile(
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
            "corpus": corpus.name,
            "origin": corpus.origin,
            "model": base["model"],
            "documents": self.config.documents,
            "tokens": self.config.tokens,
            "seed": self.config.seed,
            "pairs": [list(pair) for pair in self.pairs],
            "notes": list(self._notes_kept(slug)),
        }
        task = evaluation.CorpusTask(
            corpus.name,
            plan.documents_name(slug),
            tuple((key, plan.stream_name(slug, key)) for key in self.keys),
            arms,
            tuple(causal),
            tuple(self.widths.items()),
            self.slug,
            self.config.seed,
            tuple(about.items()),
        )
        reads = dict.fromkeys(
            [
                task.documents,
                *(name for _, name in task.streams),
                *(arm.name for arm in arms),
                *(arm.matching for arm in arms if arm.matching is not None),
                *(name for _, name in causal),
            ]
        )
        self._tell(f"{corpus.name}: measures and intervals")
        name = f"{SOURCES}corpus-{slug}.parquet"
        make(self.held, Step(name, evaluation.measure_corpus, task, tuple(reads)))
        name = f"evaluation/pairs/{slug}.parquet"
        make(self.held, Step(name, evaluation.measure_pairs, task, tuple(reads)))

    def _merge(self) -> None:
        names = tuple(
            name for name in self.held.names("evaluation/pairs/") if is_current(self.held, name)
        )
        make(
            self.held, Step(PAIRS_NAME, evaluation.merge_pairs, evaluation.MergePairsTask(), names)
        )
        merge_measures(self.held)
        self._tell("the report")
        write_report(self.held)

    # Saying things

    def _note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _notes_kept(self, slug: str) -> list[str]:
        """This call's notes, or, where it had nothing to find out, those that stand in the table."""
        if self.on_device:
            return self.notes
        name = f"{SOURCES}corpus-{slug}.parquet"
        if self.held.record(name) is None:
            return self.notes
        return cast("list[str]", decode(self.held.read(name))[1].get("notes", []))

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(0, 1, what)
