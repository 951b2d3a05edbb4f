"""What is said to a language model and what comes back: all that those who ask need to know of a chat."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Conversation:
    """What is said to the model, before its reply."""

    system: str
    """The instructions, the same for many conversations."""
    user: str
    reminder: str = ""
    """Added to the end where the reply before could not be read."""

    def messages(self, again: bool = False, system_role: bool = True) -> list[dict[str, str]]:
        """As an endpoint wants them; `again`: with the reminder."""
        user = f"{self.user}\n\n{self.reminder}" if again and self.reminder else self.user
        if not system_role:
            return [{"role": "user", "content": f"{self.system}\n\n{user}"}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def text(self, again: bool = False) -> str:
        """All that is said, whole."""
        return self.messages(again, system_role=False)[0]["content"]


@dataclass(frozen=True)
class Reply:
    """How one conversation ended, and what it took; numbers are sums over its attempts."""

    text: str
    """Text of the last attempt, cut to the chat's limit; '' if no reply came."""
    read: bool
    """Whether it came whole and the asker could read it."""
    failure: str
    """Why no reply came; '' where one did."""
    prompt: str
    """All that was said in the last attempt."""
    model: str
    """As the endpoint names it; '' where it names none."""
    attempts: int
    seconds: float
    prompt_tokens: int | None
    """None where the endpoint counts none."""
    completion_tokens: int | None
    cost: float | None
    """None: no prices were given.  A reply without token counts costs the most that it can have."""
    time: str
    """When it ended: UTC, ISO 8601."""
    trouble: str = ""
    """Why the last reply was not read; '' where it was, or none came."""


Keep = Callable[[int, Reply], None]
"""Told of every reply as soon as it is there: (number of the conversation, reply)."""
Readable = Callable[[int, str], bool]
"""Whether a reply's text can be read: (number of the conversation, text)."""


class Outcome(StrEnum):
    """How asking a judge ended."""

    JUDGED = "judged"
    UNREADABLE = "unreadable"
    """Replies came, and none of them says one label."""
    FAILED = "failed"
    """No reply came: the endpoint refused, or went on failing."""


def as_data(value: object) -> str:
    """A value as JSON on one line, in which no tag, mark or line break can be made up."""
    text = json.dumps(value, ensure_ascii=False)
    for character in "<>\x7f\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Half a surrogate pair is no text: it cannot be sent unless escaped.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
