"""Judgements in a run directory: their files, and answers joined to the questions of a sample."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from saematch.configs import JudgeConfig
from saematch.errors import SaematchError
from saematch.semantics.judges.experiments import CALIBRATION, Answer, ResultRow
from saematch.semantics.judges.journal import Journal
from saematch.semantics.judges.judge import Judge, Judgement, Label, Outcome, Question
from saematch.settings import config_from
from saematch.stats import kappa
from saematch.store.directory import RunDirectory
from saematch.store.names import JUDGING, experiments_of, sample_name
from saematch.store.schema import JUDGEMENTS
from saematch.text import printable


def kept_config(held: RunDirectory, experiment: str) -> JudgeConfig | None:
    """The settings of an experiment's sample; None where none was drawn."""
    name = sample_name(experiment)
    if held.record(name) is None:
        return None
    return config_from(JudgeConfig, held.kept(name).table()[1]["config"])


def same_judge(identity: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Thresholds follow from the sample, and make no other judge."""
    first, second = (
        {name: value for name, value in one.items() if name != "thresholds"}
        for one in (identity, other)
    )
    return first == second


def results_about(held: RunDirectory, experiment: str) -> dict[str, dict[str, Any]]:
    """Judge, identity and key in the journal of the judges of an experiment, by their names."""
    found = {}
    for name in held.names(f"{JUDGING}{experiment}/"):
        if name != sample_name(experiment):
            about = held.kept(name).table()[1]
            found[about["judge"]] = {k: about[k] for k in ("judge", "identity", "judge_key")}
    return found


def name_of(judges: Mapping[str, Mapping[str, Any]], judge: Judge) -> str:
    """What the results of a judge are called among those of others (`results_about`) of an experiment.

    Its own name; with a number behind it where another judge has that one: the same model at another
    endpoint, or asked in another way.
    """
    number, name = 1, judge.name
    while name in judges and not same_judge(judges[name]["identity"], judge.identity):
        number += 1
        name = f"{judge.name}-{number}"
    return name


def question_of(row: Mapping[str, Any]) -> Question | None:
    """The question of a row of a sample as it is asked; None where a description is missing."""
    if row["text_a"] is None or row["text_b"] is None:
        return None
    texts = (row["text_b"], row["text_a"]) if row["swapped"] else (row["text_a"], row["text_b"])
    return Question(*texts)


def asked_of(
    rows: Iterable[Mapping[str, Any]], judge_key: str, journal: Journal
) -> Iterator[tuple[Mapping[str, Any], Question | None, Judgement | None]]:
    """Rows of a sample with their question and what a judge answered; calibration pairs are left out."""
    for row in rows:
        if not row["kind"].startswith(CALIBRATION):
            question = question_of(row)
            yield row, question, None if question is None else journal.get(judge_key, question)


def answers_of(rows: Sequence[Mapping[str, Any]], judge_key: str, journal: Journal) -> list[Answer]:
    """The sample with what a judge answered; calibration pairs are left out."""
    names = ("kind", "strategy", "a", "b", "feature", "partner", "swapped")
    return [
        Answer(
            **{name: row[name] for name in names}, askable=question is not None, judgement=judgement
        )
        for row, question, judgement in asked_of(rows, judge_key, journal)
    ]


def kappas(
    rows: Sequence[Mapping[str, Any]],
    judge_key: str,
    others: Mapping[str, str],
    journal: Journal,
    seed: int,
) -> list[ResultRow]:
    """Agreement with other judges of the experiment on the questions that both answered."""
    mine = {
        question: judgement.label
        for _, question, judgement in asked_of(rows, judge_key, journal)
        if question is not None and judgement is not None and judgement.label is not None
    }
    found: list[ResultRow] = []
    for name, key in others.items():
        labels = [
            (label, theirs.label)
            for question, label in mine.items()
            if (theirs := journal.get(key, question)) is not None and theirs.label is not None
        ]
        if labels:
            found.append(
                ("", "", "", f"kappa_{name}", *kappa(labels, list(Label), seed), len(labels))
            )
    return found


def check_some_read(answers: Iterable[Judgement | None], what: str, where: str) -> None:
    """Raise SaematchError where questions were asked and not one of the answers could be used.

    What was kept stands; `what`: what the answers should have been; `where`: where they are.
    """
    asked = [one for one in answers if one is not None]
    if asked and all(one.outcome is not Outcome.JUDGED for one in asked):
        reason, times = Counter(one.reason or "no reason given" for one in asked).most_common(1)[0]
        raise SaematchError(
            f"expected {what}, got none in {len(asked):,} answers; in {times:,}: {printable(reason, 250)}. "
            f"All of them are kept in {where}"
        )


def encode_judgements(held: RunDirectory, journal: Journal) -> bytes:
    """`judgements.parquet`: every experiment's questions with every judge's answers."""
    rows: list[dict[str, Any]] = []
    for experiment in experiments_of(held.names(JUDGING)):
        sample = held.kept(sample_name(experiment)).table()[0].to_pylist()
        for judge, about in sorted(results_about(held, experiment).items()):
            rows += [
                {
                    **vars(judgement),
                    "experiment": experiment,
                    "question": row["question"],
                    "judge": judge,
                    "outcome": str(judgement.outcome),
                    "label": None if judgement.label is None else str(judgement.label),
                }
                for row, _, judgement in asked_of(sample, about["judge_key"], journal)
                if judgement is not None
            ]
    return JUDGEMENTS.encode_records(rows)
