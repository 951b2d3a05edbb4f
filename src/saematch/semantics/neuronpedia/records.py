"""Records of Neuronpedia, as strangers and models wrote them, to descriptions.

Bulk exports hold a JSON object a line: `index` (a text), `description` (may be null), and mostly
`explanationModelName` and `typeName`; the answer about one feature holds such objects, without the
index, in `explanations`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saematch.errors import InputError
from saematch.semantics.descriptions.description import Description
from saematch.text import read_json

_INDEX = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Batch:
    """What one file holds."""

    name: str
    descriptions: tuple[Description, ...]
    empty: int
    malformed: tuple[int, ...]
    """Numbers of the lines, from 1."""
    downloaded: bool = False


def parse_batch(lines: bytes, name: str, d_sae: int, downloaded: bool) -> Batch:
    """The descriptions in a batch; InputError for a feature that the SAE has not."""
    descriptions: list[Description] = []
    empty, malformed = 0, []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = read_object(line)
        feature = None if record is None else _feature(record.get("index"))
        if record is None or feature is None or not _has_text_or_none(record):
            malformed.append(number)
            continue
        if not 0 <= feature < d_sae:
            raise InputError(
                f"expected features 0 to {d_sae - 1:,}, got feature {feature:,} in {name}, line "
                f"{number}: these descriptions are another SAE's; check the Neuronpedia id"
            )
        one = describe(feature, record)
        if one is None:
            empty += 1
        else:
            descriptions.append(one)
    return Batch(name, tuple(descriptions), empty, tuple(malformed), downloaded)


def describe(feature: int, record: Mapping[str, Any]) -> Description | None:
    """A record's description; None where it has no text."""
    text = _text(record.get("description"))
    if not text:
        return None
    model, kind = _text(record.get("explanationModelName")), _text(record.get("typeName"))
    explainer = f"{model} ({kind})" if model and kind else model or kind
    licence = _text(record.get("licence")) or _text(record.get("license"))
    return Description(feature, text, "neuronpedia", explainer, licence)


def read_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in some bytes; None if there is none; empty for null."""
    try:
        value = read_json(data)
    except ValueError:
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _feature(index: object) -> int | None:
    """A feature's number, written as a text or a number."""
    if isinstance(index, str) and _INDEX.fullmatch(index):
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _has_text_or_none(record: Mapping[str, Any]) -> bool:
    text = record.get("description")
    return text is None or isinstance(text, str)


def _text(value: object) -> str:
    """A text without blanks around it."""
    return value.strip() if isinstance(value, str) else ""
