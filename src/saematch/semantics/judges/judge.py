"""What a judge is: two descriptions in, a label out (SAE Match, section 5.1); and descriptions of one's own
judged without a run directory.

The paper's labels: DIFFERENT, another topic or meaning (1); MAYBE, half comparable or undecided (2);
SAME, the same thing (3).  A judge that cannot be read gives no label: it is recorded so, and counted
nowhere as one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from saematch.errors import UsageError
from saematch.semantics.chat.endpoint import Outcome

if TYPE_CHECKING:
    import pandas as pd


class Label(StrEnum):
    """What a judge says of two descriptions."""

    DIFFERENT = "DIFFERENT"
    MAYBE = "MAYBE"
    SAME = "SAME"

    @property
    def value_in_means(self) -> int:
        """1, 2 or 3, as in the paper."""
        return list(Label).index(self) + 1


@dataclass(frozen=True)
class Question:
    """Two descriptions, in the order in which they are shown."""

    first: str
    second: str


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one question, with everything that it cost."""

    outcome: Outcome
    label: Label | None
    """None unless `outcome` is judged."""
    score: float | None = None
    """What lies under the label, where the judge has such a number: a cosine."""
    reason: str = ""
    prompt: str = ""
    """What was asked, whole; '' where nothing was."""
    reply: str = ""
    """The last reply as it came, cut to a stated length."""
    model: str = ""
    """As the endpoint names it."""
    attempts: int = 1
    """Replies asked for until this one."""
    seconds: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    """In the currency of the given prices; None: no prices were given."""
    time: str = ""
    """UTC, ISO 8601."""


Keep = Callable[[int, Judgement], None]
"""Told of every judgement as soon as there is one: (number of the question, judgement)."""


@runtime_checkable
class Judge(Protocol):
    """One of the three kinds."""

    @property
    def name(self) -> str:
        """Short, for tables and file names: `embedding-all-minilm-l6-v2`, `llm-gpt-4o-mini`, `human`."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides its labels, as JSON: kind, model, rubric's sha256, thresholds.

        A key is never in it.
        """
        ...

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        """Ask all questions, telling `keep` of each reply as it comes, in any order.

        Raises a SaematchError where going on makes no sense (a key that is refused); what `keep` was
        told before stands.
        """
        ...


def judge(pairs: Sequence[Sequence[str]], judge: Judge) -> "pd.DataFrame":
    """Ask a judge about pairs of descriptions: one row per pair, with what the judge said.

    Columns besides the two texts: outcome, label (DIFFERENT, MAYBE, SAME; missing if there is none),
    score, reason, reply, model, attempts, seconds, prompt_tokens, completion_tokens, cost.  Judges:
    `EmbeddingJudge` (calibrated on controls), `LLMJudge`.  What a judge is worth is seen from controls:
    put pairs that are the same, and pairs drawn at random, among yours.

    Raises UsageError for pairs that are not two texts, and what the judge raises.
    """
    import pandas as pd

    wrong = [pair for pair in pairs if len(pair) != 2 or not all(isinstance(t, str) for t in pair)]
    if wrong:
        raise UsageError(f"expected pairs of two texts, got {str(wrong[0])[:80]}")
    questions = [Question(first, second) for first, second in pairs]
    found: dict[int, Judgement] = {}
    judge.judge(questions, found.__setitem__)
    names = (
        "outcome", "label", "score", "reason", "reply", "model", "attempts", "seconds",
        "prompt_tokens", "completion_tokens", "cost",
    )  # fmt: skip
    rows = [
        {
            "first": question.first,
            "second": question.second,
            **{name: getattr(found[number], name, None) for name in names if number in found},
        }
        for number, question in enumerate(questions)
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(["first", "second", *names]))
    for name in ("outcome", "label"):
        frame[name] = [None if value is None else str(value) for value in frame[name]]
    return frame
