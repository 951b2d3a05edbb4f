"""Judgements survive a kill, and nothing that was cut off is believed."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch.semantics.judges.journal import Journal, key_of
from saematch.semantics.judges.judge import Judgement, Label, Outcome, Question
from saematch.text import clean

TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc"]), max_size=30)


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
    left = path.read_bytes()
    # A last line that lacks its newline alone was paid for, and can be read.
    lacks_newline = data[len(left) : len(left) + 1] == b"\n"
    whole = left.count(b"\n") + (lacks_newline and left != b"")
    with Journal(path) as journal:
        kept = [journal.get("j", question) for question in questions]
        assert [one is not None for one in kept] == [n < whole for n in range(len(entries))]
        for one, (_, _, reply) in zip(kept[:whole], entries, strict=False):
            assert one == judged(clean(reply))
        for question in questions[whole:]:
            journal.add("j", question, judged("again"))
    with Journal(path) as journal:
        assert journal.unreadable == []
        assert all(journal.get("j", question) is not None for question in questions)


def test_judges_are_apart(tmp_path: Path) -> None:
    question = Question("a", "b")
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.add(key_of({"kind": "one"}), question, judged())
        assert journal.get(key_of({"kind": "two"}), question) is None
        assert journal.get(key_of({"kind": "one"}), Question("b", "a")) is None


def test_texts_cannot_run_into_each_other() -> None:
    assert key_of(Question("ab", "c")) != key_of(Question("a", "bc"))


POISON = [
    b"nonsense",
    b"{}",
    b"null",
    b"[1]",
    b'{"judge": 1}',
    b"\xff\xfe\x00",
    b'{"judge": "j", "question": "x", "outcome": "judged", "label": "SAME", "score": "high"}',
    b'{"judge": "j", "question"',
    b"[" * 100_000,
    b"\x00" * 4096,
]


@pytest.mark.parametrize("line", POISON, ids=range(len(POISON)))
def test_a_line_that_cannot_be_read_blocks_no_other(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    questions = [Question(f"a{n}", "b") for n in range(3)]
    with Journal(path) as journal:
        for question in questions:
            journal.add("j", question, judged("paid for"))
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second + line + third)
    with Journal(path) as journal:
        assert [journal.get("j", one) for one in questions] == [judged("paid for")] * 3
        assert journal.unreadable == [2]
        journal.add("j", Question("new", "b"), judged())
    assert path.read_bytes().startswith(first + line + b"\n")  # nothing is taken away
    with Journal(path) as journal:
        assert journal.get("j", Question("new", "b")) == judged()
        assert journal.unreadable == [2]


@pytest.mark.parametrize(
    "raw",
    [
        rb"half \ud83d of it",
        b"half \xed\xa0\xbd of it",
        b"caf\xe9",
        rb"\u0000\u001b[2J",
        rb"\ud83d\ude00",
    ],
)
def test_a_poisoned_log_is_read_and_its_answer_not_lost(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("j", Question("a", "b"), judged("REPLY"))
    path.write_bytes(path.read_bytes().replace(b"REPLY", raw))
    with Journal(path) as journal:
        found = journal.get("j", Question("a", "b"))
        assert journal.unreadable == []
    assert found is not None
    assert found.label is Label.SAME
    assert found.reply.encode() == clean(found.reply).encode()


@pytest.mark.parametrize(
    ("field", "value"),
    [("seconds", "NaN"), ("cost", "Infinity"), ("attempts", "1e3"), ("prompt", "7"),
     ("prompt_tokens", "9" * 30), ("label", "null, \"outcome\": \"unheard of\"")],
)  # fmt: skip
def test_a_value_that_no_table_holds_is_no_answer(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.add("j", Question("a", "b"), judged())
        journal.add("j", Question("c", "d"), judged())
    first, second = path.read_text().splitlines()
    broken = re.sub(rf'"{field}": ("[^"]*"|[^,}}]*)', lambda _: f'"{field}": {value}', first)
    assert broken != first
    path.write_text(f"{broken}\n{second}\n")
    with Journal(path) as journal:
        assert journal.unreadable == [1]
        assert journal.get("j", Question("c", "d")) == judged()


@settings(max_examples=30, deadline=None)
@given(TEXT)
def test_any_text_is_kept_as_clean_text(tmp_path_factory, reply: str) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    one = Judgement(Outcome.JUDGED, Label.SAME, 0.5, reason=reply, reply=reply, model=reply)
    with Journal(path) as journal:
        journal.add("j", Question(reply, reply), one)
        kept = journal.get("j", Question(reply, reply))
    with Journal(path) as journal:
        assert journal.get("j", Question(reply, reply)) == kept
    assert kept is not None
    assert kept.reason == clean(reply)
