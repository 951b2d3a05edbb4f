"""Judgements survive a kill, and nothing that was cut off is believed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch.errors import InputError
from saematch.semantics.journal import Journal, key_of
from saematch.semantics.judging import Judgement, Label, Outcome, Question

TEXT = st.text(max_size=30)


def judged(reply: str = "") -> Judgement:
    return Judgement(Outcome.JUDGED, Label.SAME, 0.5, reply=reply, prompt_tokens=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), unique_by=lambda t: t[:2]), st.integers(0, 400))
def test_cut_off_anywhere(tmp_path_factory, entries: list[tuple[str, str, str]], cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    questions = [Question(first, second) for first, second, _ in entries]
    with Journal(path) as journal:
        for question, (_, _, reply) in zip(questions, entries, strict=True):
            journal.add("j", question, judged(reply))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut] if cut < len(data) else b"")
    whole = path.read_bytes().count(b"\n")
    with Journal(path) as journal:
        kept = [journal.get("j", question) for question in questions]
        assert [one is not None for one in kept] == [n < whole for n in range(len(entries))]
        for one, (_, _, reply) in zip(kept[:whole], entries, strict=False):
            assert one == judged(reply)
        for question in questions[whole:]:
            journal.add("j", question, judged("again"))
    with Journal(path) as journal:
        assert all(journal.get("j", question) is not None for question in questions)


def test_judges_are_apart(tmp_path: Path) -> None:
    question = Question("a", "b")
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.add(key_of({"kind": "one"}), question, judged())
        assert journal.get(key_of({"kind": "two"}), question) is None
        assert journal.get(key_of({"kind": "one"}), Question("b", "a")) is None


def test_texts_cannot_run_into_each_other() -> None:
    assert key_of(Question("ab", "c")) != key_of(Question("a", "bc"))


@pytest.mark.parametrize("line", ["{}", "nonsense", '{"judge": 1}', "[1]", "null"])
def test_a_foreign_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"line 1 of .*journal\.jsonl"):
        Journal(path)
