"""Laws of text at the boundary: what comes in can be written anywhere, what goes out moves no cursor."""

import json
import pickle
import re
from xml.dom import minidom

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from saematch.errors import (
    MESSAGE_CHARACTERS,
    MESSAGE_LINES,
    InputError,
    MissingDependencyError,
    SaematchError,
    UsageError,
)
from saematch.text import clean, cleaned, plural, printable, read_json, shortened, to_json

# Of all characters, half of them where the trouble is.
CHARACTERS = st.one_of(
    st.characters(),
    st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Cn"]),
    st.sampled_from("\ud83d\ude00\ufeff\r\n\t\x00\x1b\u202e\ufffe\U0001fffe'\"\\"),
)
TEXTS = st.text(CHARACTERS, max_size=40)
VALUES = st.recursive(
    st.one_of(TEXTS, st.floats(), st.integers(), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(TEXTS)
@example("\ud83d\ude00")
@example("\ufeff\ufeffa")
def test_clean_text_can_be_written_anywhere(text: str) -> None:
    kept = clean(text)
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert clean(kept) == kept
    assert not kept.startswith("\ufeff")
    parsed = minidom.parseString(f"<a>{re.sub('[<&>]', '', kept)}</a>".encode())
    assert "".join(one.data for one in parsed.documentElement.childNodes) == re.sub(  # pyright: ignore
        "[<&>]", "", kept
    )


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=40))
def test_what_is_clean_already_stays_as_it_is(text: str) -> None:
    assert clean(text) == text.lstrip("\ufeff")


@given(TEXTS)
def test_clean_joins_the_halves_of_characters_and_loses_no_others(text: str) -> None:
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert clean(text) == clean(joined)
    letters = [one for one in joined if one.isalnum()]
    assert [one for one in clean(text) if one.isalnum()] == letters


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a\ud83d\ude00b", "a\U0001f600b"),
        ("half \ud83d", "half \ufffd"),
        ("\udcff of a file name", "\ufffd of a file name"),
        ("a\x00b\x1b[31mred\x9b0m", "a\ufffdb\ufffd[31mred\ufffd0m"),
        ("one\r\ntwo\rthree\x85four\u2028five\x0csix", "one\ntwo\nthree\nfour\nfive\nsix"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\ufeffword \ufeff", "word \ufeff"),
        ("\u0627\u200f \u202b\u05d0\u202c", "\u0627\u200f \u202b\u05d0\u202c"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        ("two bytes".encode("utf-16"), "two bytes"),
        ("four bytes".encode("utf-32"), "four bytes"),
        (b"caf\xe9", "caf\ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\U0001f600"),
        (b"", ""),
    ],
)
def test_clean_by_example(given: str | bytes, kept: str) -> None:
    assert clean(given) == kept


@given(st.binary(max_size=60))
def test_bytes_never_raise(data: bytes) -> None:
    assert clean(clean(data)) == clean(data)


@given(TEXTS, st.integers(3, 60))
def test_a_printable_text_is_one_bounded_line_without_a_control(text: str, limit: int) -> None:
    line = printable(text, limit)
    assert len(line) <= limit
    assert line.splitlines() in ([line], [])
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", line)
    assert printable(line, limit) == line


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=40))
def test_plain_words_are_printed_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_a_gigantic_text_keeps_its_ends() -> None:
    line = printable("first" + "x" * 10_000_000 + "last", 40)
    assert line.startswith("first")
    assert line.endswith("last")
    assert "…" in line
    assert len(line) == 40
    assert shortened("abcdefghij", 5) == "ab…ij"


@given(VALUES)
def test_json_is_ascii_and_strict_and_reads_back_clean(value: object) -> None:
    data = to_json(value)
    assert data.isascii()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    back = json.loads(data, parse_constant=refuse)
    assert cleaned(back) == back
    assert read_json(data) == back


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\x00",
        '{"a": "\\ud83d',
        "[" * 100_000,
        "[" * 150 + "]" * 150,
        '{"a":' * 5000,
        "9" * 10_000,
        "nonsense",
    ],
)
def test_what_is_no_json_is_a_value_error(data: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_json(data)


@given(st.binary(max_size=30))
def test_any_bytes_are_json_or_a_value_error(data: bytes) -> None:
    try:
        value = read_json(data)
    except ValueError:
        return
    to_json(value).encode("ascii")


def test_json_is_read_with_a_mark_and_with_half_characters() -> None:
    assert read_json('\ufeff{"a": "\\ud83d"}'.encode()) == {"a": "\ufffd"}
    assert read_json('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert read_json(b'{"a": "caf\xe9"}') == {"a": "caf\ufffd"}


@given(st.one_of(TEXTS, st.text(CHARACTERS, min_size=500, max_size=3000)))
@example("\n" * 5000)
@example("\x1b" * 5000)
def test_no_message_of_an_error_is_without_bounds(text: str) -> None:
    for kind in (SaematchError, UsageError, InputError):
        message = str(kind(f"expected a name, got {text}; try another"))
        assert len(message) <= MESSAGE_CHARACTERS
        assert len(message.split("\n")) <= MESSAGE_LINES
        assert message.startswith("expected a name, got")
        assert message.endswith("; try another")
        assert all(
            one.isprintable()
            for one in message.replace("\n", "")
            if one not in "\xa0\u3000\u200c\u200d"
        )


def test_one_is_no_plural() -> None:
    counted = [plural(count, "path") for count in (0, 1, 2, 2000)]
    assert counted == ["0 paths", "1 path", "2 paths", "2,000 paths"]
    assert [plural(count, "batch", "batches") for count in (1, 2)] == ["1 batch", "2 batches"]


def test_errors_stay_what_they_are_after_pickling_and_without_a_message() -> None:
    error = InputError("expected\nx\x1b[2J")
    assert str(error) == "expected\nx\\x1b[2J"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(SaematchError()) == ""
    assert "pip install 'saematch[eval]'" in str(MissingDependencyError("torch", "eval", "this"))
