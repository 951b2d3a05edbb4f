"""Text that others wrote: one way in, one way onto a line, one way into JSON, one into a cell of CSV.

1. `clean` and `read_json` stand at the boundary: whatever they return can be written anywhere, to UTF-8,
   to XML, to a table.  Nothing that comes from outside is kept without them.
2. `printable` is for one line of a terminal, a log or an error: what could move a cursor, colour a screen or
   reorder what stands around it is spelled out, and its length is bounded.
3. `to_json` writes JSON that every reader accepts: no NaN, no Infinity, no half characters.
4. `csv_cell` is for a cell of a CSV file: no spreadsheet runs it as a formula.

And of our own: `first_line` of an error, `plural`, a count with its word.
"""

import codecs
import json
import math
import re
from typing import TYPE_CHECKING, Any, no_type_check

if TYPE_CHECKING:
    import pandas as pd

REPLACEMENT = "\ufffd"
"""U+FFFD, which Unicode provides for what cannot be represented."""
LINE_CHARACTERS = 200
"""Characters of one outside text within a message, unless another limit is given."""

FORMULA = r"^(?:[=+@\t\r]|-(?:[0-9]*[^0-9]|$))"
"""How a text begins that a spreadsheet would run as a formula, for `re` and DuckDB alike.  A whole number
below zero, such as the layer of an embedding, is none."""

MOST_DEPTH = 100
"""Depth of nested lists and objects in JSON: nothing in this field has ten."""

# The line breaks of the Unicode standard (section 5.8), and the controls that some tools take for one.
_LINE_BREAKS = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
# C0 and C1 controls but tab and newline, surrogates, and noncharacters: what XML 1.0 or UTF-8 lacks.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
_NONCHARACTERS = "".join(
    f"{chr(plane * 0x10000 + 0xFFFE)}{chr(plane * 0x10000 + 0xFFFF)}" for plane in range(1, 17)
)
_UNWRITABLE = re.compile(f"[{_CONTROLS}{_NONCHARACTERS}]")
_UNCLEAN = re.compile(f"[{_CONTROLS}{_NONCHARACTERS}\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HARMLESS = "\u00a0\u3000\u200c\u200d"
"""Spaces, and the joiners of emoji and of several scripts, which `isprintable` counts out."""


def clean(text: str | bytes) -> str:
    r"""Text from outside as this program keeps it; never raises.

    - Bytes are read by their byte order mark, else as UTF-8.
    - Two surrogates that are one character are joined; half a character becomes U+FFFD.
    - Every line break becomes `\n`; other control characters, NUL and terminal escapes among them, and
      noncharacters become U+FFFD.  Tabs stay.
    - A byte order mark at the start goes.
    - Marks of writing direction stay: Arabic and Hebrew need them.  `printable` spells them out.

    The result encodes to UTF-8, may stand in XML, and cleaned again it is the same.
    """
    if isinstance(text, bytes):
        text = _decoded(text)
    text = text.lstrip("\ufeff")
    if _UNCLEAN.search(text) is None:
        return text
    if _SURROGATE.search(text) is not None:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = _LINE_BREAKS.sub("\n", text)
    return _UNWRITABLE.sub(REPLACEMENT, text)


@no_type_check  # the tests' shape checks would take most of their time here
def cleaned(value: Any, depth: int = MOST_DEPTH, finite: bool = False) -> Any:
    """A value as JSON has it with every text and every key in it clean.

    `finite`: NaN and infinities as None.  Raises ValueError for lists and objects within each other more
    than `depth` times.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float):
        return None if finite and not math.isfinite(value) else value
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        raise ValueError(f"nested more than {MOST_DEPTH} times")
    if isinstance(value, dict):
        return {
            cleaned(key, depth - 1): cleaned(one, depth - 1, finite) for key, one in value.items()
        }
    return [cleaned(one, depth - 1, finite) for one in value]


def read_json(data: str | bytes) -> Any:
    """The value of JSON from outside, its texts clean.

    Raises ValueError for what is not JSON, whatever is wrong with it: also nested without end, or a number
    of a million digits.
    """
    try:
        return cleaned(
            json.loads(_decoded(data) if isinstance(data, bytes) else data.lstrip("\ufeff"))
        )
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} times") from None


def printable(text: object, limit: int | None = LINE_CHARACTERS) -> str:
    """A text for one line: nothing in it can move a cursor, and it has at most `limit` characters.

    What cannot be shown is spelled as in Python (`\\x1b`); of a longer text the middle gives way to an
    ellipsis.  None sets no limit.  Printed again, the result is the same.
    """
    text = str(text)
    if limit is not None and len(text) > 2 * limit:  # of a text of gigabytes the ends suffice
        text = text[:limit] + text[-limit:]
    shown = "".join(
        one if one.isprintable() or one in _HARMLESS else repr(one)[1:-1] for one in text
    )
    return shown if limit is None else shortened(shown, limit)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a text: its beginning and its end, an ellipsis between them."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - head - 1) :]}"


def first_line(error: BaseException, limit: int = 160) -> str:
    """What an error of a library says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:limit]


def plural(count: int, word: str, words: str = "") -> str:
    """A count with its word, such as `1 path` and `2,000 paths`; `words`: the plural, if not with an s."""
    return f"{count:,} {word if count == 1 else words or f'{word}s'}"


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file: an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if re.search(FORMULA, text) else text


def markdown_cell(text: str) -> str:
    """A text for a cell of a Markdown table, which a bar would end."""
    return text.replace("|", "\\|")


def to_json(
    value: Any, *, indent: int | None = None, sort_keys: bool = False, compact: bool = False
) -> str:
    """A value as JSON in ASCII, for a file or a program: NaN and infinities as null, texts clean.

    `compact`: without blanks.
    """
    return json.dumps(
        cleaned(value, finite=True),
        indent=indent,
        sort_keys=sort_keys,
        separators=(",", ":") if compact else None,
        allow_nan=False,
    )


def records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """The rows of a table for `to_json`, every number in full: pandas' own JSON keeps 10 decimal places, and
    so makes 0 of a cost of 1e-12."""
    columns = [[_plain(value) for value in frame[name].tolist()] for name in frame]
    return [dict(zip(map(str, frame), row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A table's value as JSON knows it; what is missing is null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    missing = value is None or str(value) in ("<NA>", "NaT", "nan")
    return None if missing and not isinstance(value, str) else value


def _decoded(data: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "replace")
