"""What a judge is: two descriptions in, a label out (SAE Match, section 5.1); the judge who reads; and
descriptions of one's own judged without a run directory.

The paper's labels: DIFFERENT, another topic or meaning (1); MAYBE, half comparable or undecided (2);
SAME, the same thing (3).  A judge that cannot be read gives no label: it is recorded so, and counted
nowhere as one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from saematch.errors import UsageError
from saematch.semantics.chat.endpoint import Reply
from saematch.text import printable

if TYPE_CHECKING:
    import pandas as pd


class Outcome(StrEnum):
    """How asking a judge ended."""

    JUDGED = "judged"
    UNREADABLE = "unreadable"
    """Replies came, and none of them says one label."""
    FAILED = "failed"
    """No reply came: the endpoint refused, or went on failing."""


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

    @classmethod
    def of_reply(cls, reply: Reply, read: bool, label: Label | None, reason: str) -> "Judgement":
        """What a model's reply says, if it could be `read`; one that could not says why in its reason."""
        outcome = Outcome.JUDGED if read else Outcome.UNREADABLE
        outcome = Outcome.FAILED if reply.failure else outcome
        reason = reason or reply.failure or reply.trouble
        same = {name: value for name, value in vars(reply).items() if name in _COMMON}
        return cls(outcome, label, None, reason, reply=reply.text, **same)


_COMMON = Judgement.__dataclass_fields__.keys() & Reply.__dataclass_fields__.keys()
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


KEYS = {"d": Label.DIFFERENT, "m": Label.MAYBE, "s": Label.SAME, "1": Label.DIFFERENT,
        "2": Label.MAYBE, "3": Label.SAME}  # fmt: skip
QUIT = "q"
SHOWN = 2_000
"""Characters of a description; they are a line long."""


@dataclass(frozen=True)
class HumanJudge:
    """Asks the person at the terminal, blind to the strategy; stopping early keeps what was answered."""

    ask: Callable[[str], str]
    """Shows a text and returns what was typed; EOFError ends the sitting."""
    name: str = "human"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "human", "name": self.name}

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, question in enumerate(questions):
            shown = (
                f"\n[{number + 1} of {len(questions)}]\n  A: {printable(question.first, SHOWN)}\n"
                f"  B: {printable(question.second, SHOWN)}\n"
                "Do they mean the same?  d different, m maybe, s same, q stop: "
            )
            started = time.monotonic()
            attempts = 1
            try:
                answer = self.ask(shown).strip().lower()
                while answer not in KEYS and answer != QUIT:
                    attempts += 1
                    answer = self.ask("d, m, s or q: ").strip().lower()
            except EOFError:
                return
            if answer == QUIT:
                return
            judgement = Judgement(
                Outcome.JUDGED,
                KEYS[answer],
                attempts=attempts,
                reply=answer,
                seconds=time.monotonic() - started,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            keep(number, judgement)


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
    # What stands in a judgement, but for what was asked and when.
    names = [name for name in Judgement.__dataclass_fields__ if name not in ("prompt", "time")]
    rows = [
        {**vars(question), **(vars(found[number]) if number in found else {})}
        for number, question in enumerate(questions)
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(["first", "second", *names]))
    for name in ("outcome", "label"):
        frame[name] = [None if pd.isna(value) else str(value) for value in frame[name]]
    return frame
