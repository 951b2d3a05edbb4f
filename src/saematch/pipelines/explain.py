"""`saematch explain`: a language model writes descriptions of the features that an experiment asks about.

Every feature is described twice, from the examples of either half of the documents, so that it can be its
own control.  The same examples are asked about once, whichever features they are of.  Answers go to a
journal as they come: after a kill only calls that were under way are made again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from saematch._io import files
from saematch.configs import JudgeConfig
from saematch.errors import InputError
from saematch.pipelines.judge import draw_sample
from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import Estimate
from saematch.semantics.descriptions.describing import HALVES, half_source
from saematch.semantics.descriptions.description import Description
from saematch.semantics.explaining import (
    Examples,
    conversation_about,
    explain,
)
from saematch.semantics.judges.journal import Journal, key_of
from saematch.semantics.judges.judge import Judgement, Outcome, Question
from saematch.store.build import Progress, hash_of, silent
from saematch.store.directory import RunDirectory
from saematch.store.judgements import check_some_read
from saematch.store.names import descriptions_name, examples_name
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.schema import DESCRIPTIONS

MODEL = "model"
"""The source of these descriptions."""
JOURNAL = "descriptions/journal.jsonl"


@dataclass(frozen=True)
class ExplainingIntent:
    """What is about to be asked."""

    features: int
    """Features of all SAEs together."""
    answered: int
    """Requests, two a feature, that this model has answered before."""
    estimate: Estimate
    """Estimate for those that are left."""


def explain_features(
    directory: str | Path,
    config: JudgeConfig,
    chat: Chat,
    progress: Progress | None = None,
    agree: Callable[[ExplainingIntent], bool] = lambda _: True,
    calibration: bool = False,
) -> Run:
    """Describe the features of an experiment's sample; `agree` is shown what will be asked.

    `calibration`: also those that the embedding judge sets its thresholds on; others do not need them.

    Raises InputError for a run whose features were not described from activations, and what `Chat.ask`
    raises; what was answered before stands.
    """
    with holding_run(directory) as held:
        run = open_run(directory)
        tell = progress or silent
        wanted = sorted(draw_sample(held, run, config, calibration, tell))
        requests = list(_requests(held, wanted))
        identity = {"model": chat.model, "endpoint": chat.host, "temperature": chat.temperature}
        explainer = key_of(identity)
        with Journal(held.file(JOURNAL)) as journal:
            asked = [one.question for one in requests]
            new = {
                question: one.examples
                for question, one in zip(asked, requests, strict=True)
                # A reply without a description is asked for again: other settings may cure it.
                if (kept := journal.get(explainer, question)) is None
                or kept.outcome is not Outcome.JUDGED
            }
            questions, left = list(new), list(new.values())
            answered = sum(question not in new for question in asked)
            estimate = chat.estimate([conversation_about(examples) for examples in left])
            if not agree(ExplainingIntent(len(wanted), answered, estimate)):
                return run

            def keep(number: int, judgement: Judgement) -> None:
                journal.add(explainer, questions[number], judgement)
                tell(0, 1, f"described {number + 1} of {len(left)}")

            try:
                explain(chat, left, keep)
            finally:
                _keep_descriptions(held, requests, explainer, chat.model, journal)
            answers = [journal.get(explainer, question) for question in asked]
    check_some_read(answers, f"descriptions by {chat.model}", f"{directory}/{JOURNAL}")
    return open_run(directory)


@dataclass(frozen=True)
class _Request:
    key: str
    half: int
    feature: int
    examples: Examples

    @property
    def question(self) -> Question:
        """What the journal knows it by: all that the model is told."""
        return Question(conversation_about(self.examples).text(), "")


def _requests(held: RunDirectory, wanted: list[tuple[str, int]]) -> Iterator[_Request]:
    for key in dict.fromkeys(key for key, _ in wanted):
        name = examples_name(key)
        if held.record(name) is None:
            raise InputError(
                f"expected max-activating examples of the features of {key}, got none; make them with: "
                f"saematch describe {held.path} --source activations"
            )
        features = {feature for of, feature in wanted if of == key}
        rows = held.table(name)[0].to_pandas()
        rows = rows[rows["feature"].isin(features)].sort_values(["feature", "half", "rank"])
        for (feature, half), group in rows.groupby(["feature", "half"]):  # pyright: ignore
            examples = [
                list(zip(tokens, activations, strict=True))
                for tokens, activations in zip(group["tokens"], group["activations"], strict=True)
            ]
            yield _Request(key, int(half), int(feature), examples)


def _keep_descriptions(
    held: RunDirectory, requests: list[_Request], explainer: str, model: str, journal: Journal
) -> None:
    """Tables of either half, and of both: the first half's description stands for a feature."""
    by_key: dict[str, dict[tuple[int, int], Description]] = {}
    for one in requests:
        found = journal.get(explainer, one.question)
        if found is not None and found.outcome is Outcome.JUDGED:
            description = Description(one.feature, found.reason, MODEL, model, "")
            by_key.setdefault(one.key, _kept_before(held, one.key, explainer))
            by_key[one.key][one.half, one.feature] = description
    for key, some in by_key.items():
        tables = {
            half_source(MODEL, half): [some[at] for at in sorted(some) if at[0] == half]
            for half in range(HALVES)
        }
        tables[MODEL] = [some[at] for at in sorted(some, key=lambda at: at[::-1])]
        for source, descriptions in tables.items():
            named = ({**vars(one), "source": source} for one in descriptions)
            data = DESCRIPTIONS.encode_records(named, {"explainer": explainer, "model": model})
            inputs = hash_of(stage="explained", data=files.sha256(data))
            held.keep(descriptions_name(source, key), data, inputs, [held.kept(examples_name(key))])


def _kept_before(
    held: RunDirectory, key: str, explainer: str
) -> dict[tuple[int, int], Description]:
    """What the same model wrote for other experiments, by half and feature."""
    found: dict[tuple[int, int], Description] = {}
    for half in range(HALVES):
        name = descriptions_name(half_source(MODEL, half), key)
        if not held.is_current(name):
            continue  # none, or of examples that changed since
        table, about = held.table(name)
        if about.get("explainer") == explainer:
            for row in table.to_pylist():
                found[half, row["feature"]] = Description(**{**row, "source": MODEL})
    return found
