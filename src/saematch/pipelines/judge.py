"""`saematch judge`: an experiment of a judge on a run's pairs, into the run directory.

1. Make what the experiment needs of matchings; draw its sample, controls among it, and keep it.
2. Show what it is about to do (`Intent`), before anything is asked.
3. Set the thresholds of a judge that has any on pairs set aside for that.
4. Ask every question that this judge was not asked before, each pair of texts once, in an order that
   tells nothing of their kind; every answer is in the journal as soon as it comes.
5. Results with intervals and the judge's quality; all judgements in one table; the report.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from saematch._io import files
from saematch.configs import JudgeConfig
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN
from saematch.pipelines.evaluation.evaluated_run import HeldRun
from saematch.pipelines.matching.run import composition_steps, matching_steps
from saematch.pipelines.sampling import COMPOSITION, Pair, compared_features, pairs_for, with_texts
from saematch.pipelines.suite import forget_loaded
from saematch.semantics.judges.embedding import EmbeddingJudge
from saematch.semantics.judges.experiments import (
    CALIBRATION,
    DIFFERENT,
    LEAST_CONTROLS,
    PAIR,
    SAME,
    Compared,
    half_width_of_mean,
    results,
    verdict,
)
from saematch.semantics.judges.journal import Journal, key_of
from saematch.semantics.judges.judge import Judge, Judgement, Question
from saematch.store.build import Progress, hash_of, make, silent
from saematch.store.directory import RunDirectory
from saematch.store.judgements import (
    answers_of,
    check_some_read,
    encode_judgements,
    kappas,
    kept_config,
    name_of,
    question_of,
    results_about,
    same_judge,
)
from saematch.store.matchings import kept_matching
from saematch.store.names import (
    JUDGEMENTS_NAME,
    JUDGING,
    experiments_of,
    matching_name,
    results_name,
    sample_name,
)
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.schema import RESULTS, SAMPLE, decode
from saematch.text import plural


@dataclass(frozen=True)
class Intent:
    """What an experiment is about to do; shown before a judge is asked anything."""

    pairs: int
    """Questions about pairs of features, under all strategies."""
    controls: int
    without_text: int
    """Questions that cannot be asked: a feature has no description."""
    to_ask: Sequence[Question]
    """Different questions that this judge has not answered yet."""
    a_mean: int
    """Features behind the mean of one strategy at one pair of SAEs, the fewest of all; 0: some have none."""

    @property
    def half_width_of_mean(self) -> float:
        """The most that a 95% interval of such a mean can reach to either side."""
        return half_width_of_mean(max(1, self.a_mean))

    @property
    def half_width_of_share(self) -> float:
        return self.half_width_of_mean / 2


def intent_of(rows: Sequence[Mapping[str, Any]], is_answered: Callable[[Question], bool]) -> Intent:
    """`rows`: of the sample; questions left are in an order that tells nothing of their kind."""
    asked = [row for row in rows if not row["kind"].startswith(CALIBRATION)]
    questions = dict.fromkeys(
        one for row in asked if (one := question_of(row)) is not None and not is_answered(one)
    )
    order = np.random.default_rng(0).permutation(len(questions))
    waiting = list(questions)
    pairs = [row for row in asked if row["kind"] == PAIR and not row["swapped"]]
    counts = Counter({(row["strategy"], row["a"], row["b"]): 0 for row in pairs})
    counts.update(
        (row["strategy"], row["a"], row["b"]) for row in pairs if question_of(row) is not None
    )
    return Intent(
        pairs=len(pairs),
        controls=sum(row["kind"] != PAIR for row in asked),
        without_text=sum(question_of(row) is None and not row["swapped"] for row in asked),
        to_ask=[waiting[number] for number in order.tolist()],
        a_mean=min(counts.values(), default=0),
    )


JOURNAL = "judging/journal.jsonl"
_REDRAW = (
    "draw a new one with redraw=True (on the command line --redraw): results of other judges are then "
    "of what they answered of it"
)


def judge(
    directory: str | Path,
    config: JudgeConfig,
    the_judge: Judge,
    progress: Progress | None = None,
    agree: Callable[[Intent], bool] = lambda _: True,
    at_most: int | None = None,
    redraw: bool = False,
) -> Run:
    """Run an experiment; what an earlier call asked is not asked again.

    `agree` is shown what will be asked, and nothing is asked where it says no.  `at_most`: questions to ask
    in this call, drawn at random.  An error of the judge, or a kill, leaves what was answered in the journal.
    An experiment has one sample, which all its judges share; `redraw`: let another take its place, and
    the results of other judges be of what they answered of it.

    Raises UsageError for settings of another sample than other judges had, InputError for a run without
    matchings or descriptions, and for a journal that was altered.
    """
    if at_most is not None and at_most < 1:
        raise UsageError(f"expected at least one question to ask, got {at_most}")
    with holding_run(directory) as held:
        experiment = _Experiment(held, open_run(directory), config, progress or silent)
        experiment.ask(the_judge, agree, at_most, redraw)
        forget_loaded()
    return open_run(directory)


def draw_sample(
    held: RunDirectory, run: Run, config: JudgeConfig, calibration: bool, progress: Progress
) -> set[tuple[str, int]]:
    """The features, by key and number, that an experiment asks about; the directory must be held.

    `calibration`: those that thresholds are set on too, which only the embedding judge needs.
    """
    compared = [
        one
        for one in _Experiment(held, run, config, progress).compared()
        if calibration or not one.kind.startswith(CALIBRATION)
    ]
    ends = {(one.a, one.feature) for one in compared} | {(one.b, one.partner) for one in compared}
    forget_loaded()
    return ends


class _Experiment(HeldRun):
    @cached_property
    def drawn_from(self) -> dict[str, None]:
        """Tables that the sample was drawn from."""
        return {}

    def ask(
        self, the_judge: Judge, agree: Callable[[Intent], bool], at_most: int | None, redraw: bool
    ) -> None:
        others = [] if redraw else self._other_judges(the_judge)
        if others:
            self._check_settings(others)
        data = self._sample()
        if others:
            self._check_questions(others, data)
        rows = decode(data)[0].to_pylist()
        if isinstance(the_judge, EmbeddingJudge):
            self.tell("setting the thresholds of the judge")
            same, different = _calibration(rows)
            if min(len(same), len(different)) < LEAST_CONTROLS:
                raise UsageError(
                    f"expected {LEAST_CONTROLS} controls of each kind to set the embedding judge's "
                    f"thresholds "
                    f"on, got {len(same)} of 'same' (a feature described twice) and {len(different)} of "
                    "'different'; describe features from activations, or let a language model explain them "
                    "(saematch explain --for-embedding) or judge them (saematch judge --model)"
                )
            the_judge = the_judge.calibrated(same, different)
        judge_key = key_of(the_judge.identity)
        with Journal(self.held.file(JOURNAL)) as journal:
            if journal.unreadable:
                self.tell(
                    f"left out of {JOURNAL}: {plural(len(journal.unreadable), 'line')} that cannot be read"
                )
            intent = intent_of(rows, lambda question: journal.has(judge_key, question))
            if not agree(intent):
                return
            self._keep_sample(data)
            questions = list(intent.to_ask)[:at_most]

            def keep(number: int, judgement: Judgement) -> None:
                journal.add(judge_key, questions[number], judgement)
                self.tell(f"judged {number + 1} of {len(questions)}")

            self.tell(f"asking {the_judge.name}")
            try:
                if questions:
                    the_judge.judge(questions, keep)
            finally:
                self._keep_results(rows, the_judge, journal)
            answers = answers_of(rows, judge_key, journal)
        where = f"{self.held.path}/{JUDGEMENTS_NAME}"
        check_some_read((one.judgement for one in answers), f"labels by {the_judge.name}", where)

    def _other_judges(self, the_judge: Judge) -> list[str]:
        """Those with results of the sample that is there."""
        experiment = self.config.experiment
        sample = self.held.record(sample_name(experiment))
        return [
            judge
            for judge, about in results_about(self.held, experiment).items()
            if (record := self.held.record(results_name(experiment, judge))) is not None
            and sample is not None
            and sample.sha256 in record.depends.values()
            and not same_judge(about["identity"], the_judge.identity)
        ]

    def _check_settings(self, others: Sequence[str]) -> None:
        """Raises UsageError where the settings are of another sample than other judges had."""
        config, name = self.config, self.config.experiment
        kept = kept_config(self.held, name)
        if kept is not None and kept != config:
            old, new = kept.to_dict(), config.to_dict()
            differ = [setting for setting in new if new[setting] != old[setting]]
            raise UsageError(
                f"expected the sample of {name} that {', '.join(others)} judged "
                f"({_listed(old, differ)}), got other settings ({_listed(new, differ)}); leave them "
                f"out to judge the same sample, or {_REDRAW}"
            )

    def _check_questions(self, others: Sequence[str], data: bytes) -> None:
        """Raises UsageError where other judges had other questions under the same settings."""
        name = self.config.experiment
        if self.held.kept(sample_name(name)).sha256 != files.sha256(data):
            raise UsageError(
                f"expected the questions of {name} that {', '.join(others)} judged; the descriptions or "
                f"matchings that they were drawn from have changed since; {_REDRAW}"
            )

    def compared(self) -> list[Compared]:
        """The sample without texts; makes what the experiment needs of matchings."""
        pairs = pairs_for(self.run, self.config)
        if self.config.experiment == "persistence":
            self._match_directly(pairs)
        self.tell("drawing the sample")
        return compared_features(self.run, self.config, self._matching)

    def _sample(self) -> bytes:
        """Step 1."""
        rows, tables = with_texts(self.run, self.config, self.compared())
        self.drawn_from |= dict.fromkeys(tables)
        return SAMPLE.encode_records(rows, {"config": self.config.to_dict()})

    def _keep_sample(self, data: bytes) -> None:
        name = sample_name(self.config.experiment)
        inputs = hash_of(stage="sample", sample=files.sha256(data))
        record = self.held.record(name)
        # The same questions may come from other tables now: results stand as long as these do.
        known = record is not None and record.depends.keys() == self.drawn_from.keys()
        if not (known and self.held.is_finished(name, inputs) and self.held.is_current(name)):
            self.held.keep(name, data, inputs, [self.held.kept(one) for one in self.drawn_from])

    def _match_directly(self, pairs: Sequence[Pair]) -> None:
        """Non-adjacent pairs matched directly, and the adjacent matchings composed."""
        for a, b in pairs:
            chain = next(keys for keys in self.run.chains if a in keys and b in keys)
            ends = self.members[a], self.members[b]
            self.tell(f"matching {a}--{b}")
            steps = matching_steps(self.run.config, *ends, MAIN)
            if chain.index(b) > chain.index(a) + 1:
                steps += composition_steps(self.run.config, *ends, chain, MAIN)
            for step in steps:
                make(self.held, step)

    def _matching(self, pair: Pair, strategy: str) -> Any:
        name = matching_name(*pair, strategy, self.run.config.slug)
        if self.held.record(name) is None:
            return None
        self.drawn_from[name] = None
        return kept_matching(self.held.kept(name))

    def _keep_results(
        self, rows: Sequence[Mapping[str, Any]], the_judge: Judge, journal: Journal
    ) -> None:
        """Step 4, of whatever was answered; those of other judges too, whose sample may have changed."""
        config, held = self.config, self.held
        judges = results_about(held, config.experiment)
        name = name_of(judges, the_judge)
        judges |= {
            name: {
                "judge": name,
                "identity": dict(the_judge.identity),
                "judge_key": key_of(the_judge.identity),
            }
        }
        sample = held.kept(sample_name(config.experiment))
        reference = COMPOSITION if config.experiment == "persistence" else MAIN
        for name, about in judges.items():
            key = about["judge_key"]
            answers = answers_of(rows, key, journal)
            if key != key_of(the_judge.identity) and all(one.judgement is None for one in answers):
                continue  # of another sample; out of date, and no results of this one
            found = results(answers, config.seed, reference)
            others = {o: of["judge_key"] for o, of in judges.items() if o != name}
            found += kappas(rows, key, others, journal, config.seed)
            passes_controls, sentence = verdict(found, answers)
            about = {
                **about,
                "config": config.to_dict(),
                "passes_controls": passes_controls,
                "verdict": sentence,
            }
            data = RESULTS.encode_rows(found, about)
            inputs = hash_of(stage="results", data=files.sha256(data))
            held.keep(results_name(config.experiment, name), data, inputs, [sample])
        data = encode_judgements(held, journal)
        samples = [held.kept(sample_name(one)) for one in experiments_of(held.names(JUDGING))]
        inputs = hash_of(stage="judgements", data=files.sha256(data))
        held.keep(JUDGEMENTS_NAME, data, inputs, samples)


def _calibration(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Question], list[Question]]:
    found = [
        [
            Question(row["text_a"], row["text_b"])
            for row in rows
            if row["kind"] == CALIBRATION + kind and row["text_a"] and row["text_b"]
        ]
        for kind in (SAME, DIFFERENT)
    ]
    return found[0], found[1]


def _listed(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {json.dumps(values[name])}" for name in names)
