"""What judges call pairs of features, as SQL over samples and judgements; and whose labels are shown."""

from typing import Any

from saematch.explorer.run_files import RunFiles
from saematch.semantics.judges.protocol import Label
from saematch.store.names import JUDGEMENTS_NAME, sample_name

_JUDGE = "answer.experiment || '/' || answer.judge"
_VALUE = " ".join(f"WHEN '{one}' THEN {one.value_in_means}" for one in Label)
_VALUE = f"CASE answer.label {_VALUE} END"
_ANSWERED = f"""{{samples}} AS sample JOIN {{judgements}} AS answer ON answer.question = sample.question
  AND answer.experiment = string_split(replace(sample.filename, chr(92), '/'), '/')[-2]
  WHERE sample.kind = 'pair' AND NOT sample.swapped AND answer.label IS NOT NULL
  AND list_contains($judges, {_JUDGE})"""
"""Answers with their questions; the file names of the samples must be known."""


def standing_judges(run: RunFiles) -> tuple[list[str], list[str]]:
    """Whose labels are shown, and who of them passes its controls, as experiment/judge."""
    named = {
        f"{experiment}/{judge.judge}": judge.passes_controls
        for experiment, judge in run.judges.items()
    }
    return list(named), [name for name, passes_controls in named.items() if passes_controls]


def label_parameters(run: RunFiles) -> dict[str, Any]:
    """Parameters of `paired_labels`; none where nothing was judged.

    Raises InputError where a file of them cannot be used.
    """
    judges, passing = standing_judges(run)
    if not judges or run.sha256(JUDGEMENTS_NAME) is None:
        return {}
    samples = [sample_name(experiment) for experiment in run.judges]
    return {
        "judges": judges,
        "passing": passing,
        "samples": run.files(samples),
        "answers": run.file(JUDGEMENTS_NAME),
    }


def labels_query(samples: str, judgements: str) -> str:
    """What the judges of $judges (experiment/judge) call the two features of a pair, whatever paired them:
    distinct labels, and those of the judges of $passing."""
    answered = _ANSWERED.format(samples=samples, judgements=judgements)
    return (
        "SELECT sample.a, sample.b, sample.feature, sample.partner, "
        "list_sort(list(DISTINCT answer.label)) AS labels, "
        f"list_sort(list(DISTINCT answer.label) FILTER (list_contains($passing, {_JUDGE}))) AS told "
        f"FROM {answered} GROUP BY sample.a, sample.b, sample.feature, sample.partner"
    )


def paired_labels(samples: str, judgements: str, one: str, other: str) -> str:
    """Mean labels of a feature's partners by two strategies, where one experiment has both."""
    answered = _ANSWERED.format(samples=samples, judgements=judgements)
    return (
        "(WITH said AS (SELECT answer.experiment, answer.judge, sample.strategy, sample.a, sample.b, "
        f"sample.feature, sample.partner, avg({_VALUE}) AS label FROM {answered} GROUP BY ALL) "
        "SELECT one.a, one.b, one.feature, one.partner AS partner_one, other.partner AS partner_other, "
        "avg(one.label) AS label_one, avg(other.label) AS label_other "
        "FROM said AS one JOIN said AS other USING (experiment, judge, a, b, feature) "
        f"WHERE one.strategy = '{one}' AND other.strategy = '{other}' GROUP BY ALL)"
    )
