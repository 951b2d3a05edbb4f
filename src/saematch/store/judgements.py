"""Judgements in a run directory: their files, and answers joined to the questions of a sample."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from saematch.store.schema_semantics import JUDGEMENTS, RESULTS
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


def answers_of(rows: Sequence[Mapping[str, Any]], judge_key: str, journal: Journal) -> list[Answer]:
    """The sample with what a judge answered; calibration pairs are left out."""
    found = []
    for row in rows:
        if row["kind"].startswith(CALIBRATION):
            continue
        question = question_of(row)
        judgement = None if question is None else journal.get(judge_key, question)
        names = ("kind", "strategy", "a", "b", "feature", "partner", "swapped")
        found.append(
            Answer(**{name: row[name] for name in names}, askable=question is not None,
                   judgement=judgement)
        )  # fmt: skip
    return found


def kappas(
    rows: Sequence[Mapping[str, Any]],
    judge_key: str,
    others: Mapping[str, str],
    journal: Journal,
    seed: int,
) -> list[ResultRow]:
    """Agreement with other judges of the experiment on the questions that both answered."""
    questions = dict.fromkeys(
        one
        for row in rows
        if not row["kind"].startswith(CALIBRATION) and (one := question_of(row)) is not None
    )
    found: list[ResultRow] = []
    for name, key in others.items():
        both = [(journal.get(judge_key, one), journal.get(key, one)) for one in questions]
        labels = [
            (x.label, y.label)
            for x, y in both
            if x is not None and y is not None and x.label is not None and y.label is not None
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


def encode_results(rows: Sequence[ResultRow], about: Mapping[str, Any]) -> bytes:
    """`judging/{experiment}/{judge}.parquet`."""
    columns = {name: [row[place] for row in rows] for place, name in enumerate(RESULTS.names)}
    return RESULTS.encode(columns, about)


def encode_judgements(held: RunDirectory, journal: Journal) -> bytes:
    """`judgements.parquet`: every experiment's questions with every judge's answers."""
    rows: dict[str, list[Any]] = {name: [] for name in JUDGEMENTS.names}
    for experiment in experiments_of(held.names(JUDGING)):
        sample = held.kept(sample_name(experiment)).table()[0].to_pylist()
        for judge, about in sorted(results_about(held, experiment).items()):
            key = about["judge_key"]
            for row in sample:
                question = question_of(row)
                judgement = None if question is None else journal.get(key, question)
                if judgement is None or row["kind"].startswith(CALIBRATION):
                    continue
                values = {
                    **vars(judgement),
                    "experiment": experiment,
                    "question": row["question"],
                    "judge": judge,
                    "outcome": str(judgement.outcome),
                    "label": None if judgement.label is None else str(judgement.label),
                }
                for name, column in rows.items():
                    column.append(values[name])
    return JUDGEMENTS.encode(rows)
