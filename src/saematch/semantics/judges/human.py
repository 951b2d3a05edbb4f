"""A judge who reads: pairs shown one by one in a terminal, blind to the strategy."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question
from saematch.text import printable

KEYS = {"d": Label.DIFFERENT, "m": Label.MAYBE, "s": Label.SAME, "1": Label.DIFFERENT,
        "2": Label.MAYBE, "3": Label.SAME}  # fmt: skip
QUIT = "q"
SHOWN = 2_000
"""Characters of a description; they are a line long."""


@dataclass(frozen=True)
class HumanJudge:
    """Asks the person at the terminal; stopping early keeps what was answered."""

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
            keep(
                number,
                Judgement(
                    Outcome.JUDGED,
                    KEYS[answer],
                    attempts=attempts,
                    reply=answer,
                    seconds=time.monotonic() - started,
                    time=datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )
