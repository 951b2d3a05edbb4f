"""A language model as judge of two descriptions (SAE Match, section 5.1; the paper took GPT-4o-mini).

Scores of other models and other rubrics do not compare with the paper's: `identity` names both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saematch.errors import UsageError
from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import Reply
from saematch.semantics.chat.spending import Estimate
from saematch.semantics.judges.judge import Judgement, Keep, Outcome, Question
from saematch.semantics.judges.rubric import (
    RUBRIC_SHA256,
    SCHEMA,
    Reading,
    conversation_of,
    read_label,
)

NAME_CHARACTERS = 80


@dataclass(frozen=True)
class LLMJudge:
    """A judge that asks a chat's model for a reason and a label; implements `Judge`."""

    chat: Chat
    attempts: int = 3
    """Replies asked for until one can be read."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UsageError(f"expected attempts of 1 or more, got {self.attempts}")

    @property
    def name(self) -> str:
        """`llm-` and the model's name, as a file name may have it."""
        plain = re.sub(r"[^a-z0-9.]+", "-", self.chat.model.lower()).strip("-.")
        return f"llm-{plain[-NAME_CHARACTERS:].strip('-.')}"

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides its labels."""
        return {
            "kind": "llm",
            "model": self.chat.model,
            "endpoint": self.chat.host,
            "rubric": RUBRIC_SHA256,
            "temperature": self.chat.temperature,
            "max_tokens": self.chat.max_tokens,
            "attempts": self.attempts,
        }

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        """Ask all questions, telling `keep` of each judgement as it comes, in any order.

        Raises what `Chat.ask` raises; what `keep` was told before stands.
        """
        conversations = [conversation_of(question) for question in questions]

        def reading(number: int, text: str) -> Reading | None:
            question = questions[number]
            told = conversations[number].text(again=True)
            return read_label(text, told, (question.first, question.second))

        def keep_judgement(number: int, reply: Reply) -> None:
            read = reading(number, reply.text) if reply.read else None
            keep(number, _judgement(reply, read))

        self.chat.ask(
            conversations,
            keep_judgement,
            readable=lambda number, text: reading(number, text) is not None,
            attempts=self.attempts,
            schema=SCHEMA,
        )

    def estimate(self, questions: Sequence[Question]) -> Estimate:
        """What these questions will take, about, if the first reply to each can be read."""
        return self.chat.estimate([conversation_of(question) for question in questions])


def _judgement(reply: Reply, read: Reading | None) -> Judgement:
    outcome = Outcome.UNREADABLE if read is None else Outcome.JUDGED
    return Judgement(
        outcome=Outcome.FAILED if reply.failure else outcome,
        label=None if read is None else read.label,
        # A failure says why, so that nobody has to guess from the endpoint's silence.
        reason=reply.failure or reply.trouble if read is None else read.reason,
        prompt=reply.prompt,
        reply=reply.text,
        model=reply.model,
        attempts=reply.attempts,
        seconds=reply.seconds,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        cost=reply.cost,
        time=reply.time,
    )
