"""A person at a terminal: answers are kept one by one, and the strategy is never shown."""

from saematch.semantics.judges.judge import HumanJudge, Judgement, Label, Question

QUESTIONS = [Question(f"first {n}", f"second {n}") for n in range(4)]


def sitting(*typed: str) -> tuple[dict[int, Judgement], list[str]]:
    shown: list[str] = []
    answers = iter(typed)

    def ask(text: str) -> str:
        shown.append(text)
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    found: dict[int, Judgement] = {}
    HumanJudge(ask).judge(QUESTIONS, found.__setitem__)
    return found, shown


def test_answers() -> None:
    found, shown = sitting("s", "2", "what?", "D ", "m")
    assert [found[n].label for n in range(4)] == [
        Label.SAME, Label.MAYBE, Label.DIFFERENT, Label.MAYBE,
    ]  # fmt: skip
    assert found[2].attempts == 2
    assert "first 0" in shown[0]
    assert "second 0" in shown[0]


def test_stopping_keeps_what_was_answered() -> None:
    for typed in (("s", "q"), ("s",)):
        found, _ = sitting(*typed)
        assert list(found) == [0]


def test_a_description_cannot_move_the_cursor() -> None:
    evil = Question("\x1b[2J gone", "back\rwards \u202e turned")
    shown: list[str] = []

    def ask(text: str) -> str:
        shown.append(text)
        return "q"

    HumanJudge(ask).judge([evil], lambda *_: None)
    assert "\\x1b[2J gone" in shown[0]
    assert not {"\x1b", "\r", "\u202e"} & set(shown[0])
