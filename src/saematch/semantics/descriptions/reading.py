"""A description out of what a language model wrote; nothing rather than a refusal.

1. Leave out thinking that is marked as such.  A JSON object says what its field `description` says.
2. Otherwise a line that begins with "Description:" is it, or else the first that does not only lead up to it.
3. What declines ("I cannot help with that", "unknown") is none.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

DESCRIPTION_CHARACTERS = 300

_PREFIX = re.compile(
    r"(?i)[\s*_#>`-]*(?:(?:feature )?description|answer|explanation)[*_`]* ?:[*_`]*"
)
_CHATTER = re.compile(
    r"(?i)[\s*_#>`-]*(?:(?:sure|certainly|of course|okay|ok|absolutely|great)(?: thing)?"
    r"(?:[!.]\s*|, (?=here|below)))?"
    r"(?:(?:here(?: is|['’]s| are)|below is)\b[^:\n]{0,80}:[*_`]*)?"
)
_LEAD = re.compile(
    r"(?i)[\s*_#>`-]*(?:i['’]d be (?:happy|glad)|i would be (?:happy|glad)|let me|let['’]s)\b|.*:[\s*_`]*$"
)
"""A line that only leads up to what follows."""
_REFUSAL = re.compile(
    r"(?i)(?:(?:i['’]?m|i am) (?:(?:very|really|so) )?(?:sorry|afraid)|sorry)\b[,.!]?(?: but)?"
    r"(?: i\b| no\b|$)"
    r"|(?:unfortunately|as an? (?:ai|language model)\b[^.,]*),? (?:i|the|there|this|these|it)\b"
    r"|(?:i['’]m|i am) (?:not able|unable|not comfortable)\b"
    r"|i (?:can ?not|can['’]t|could ?not|couldn['’]t|do not|don['’]t|won['’]t|will not|must decline"
    r"|apologi[sz]e)\b"
    r"|unable to (?:determine|identify|find|describe|help|provide)\b"
    r"|no (?:clear |obvious |common )?(?:description|pattern)(?: (?:found|available|here))?[.!]?$"
    r"|(?:n/?a|none|unknown|null)[.!]?$"
)
"""How a reply begins that declines: it would stand as a description for good."""
_LISTING = re.compile(r"(?i)\band (?:other|similar|related)\b|\bsuch as\b")
"""A description of words of refusal lists them."""


def read_description(reply: str) -> str:
    """The one line that a reply gives, cut to a sane length; '' where it gives none."""
    text = reply.rpartition("</think>")[2].strip()
    if "<think>" in text:
        return ""
    if "{" in text:
        value = _object_in(text)
        found = value.get("description") if isinstance(value, Mapping) else None
        if isinstance(found, str):
            return _description_in(found)
        if text.lstrip("`json \n").startswith("{"):
            return ""  # half an object, or another one
    lines = [line for line in text.splitlines() if _has_text(line)]
    for line in lines:  # a line that says that it is the description is the description
        if found := _PREFIX.match(line):
            rest = line[found.end() :]
            return _description_in(rest if _has_text(rest) else _after(lines, line))
    for line in lines:
        rest = _CHATTER.sub("", line, count=1)
        if _has_text(rest) and not _LEAD.match(rest):
            return _description_in(rest)
    return ""


def _has_text(line: str) -> bool:
    return bool(line.strip(" `*_#>-\t"))


def _after(lines: Sequence[str], line: str) -> str:
    following = lines[lines.index(line) + 1 :]
    return following[0] if following else ""


def _description_in(text: str) -> str:
    line = _one_line(text)
    return "" if _REFUSAL.match(line) and not _LISTING.search(line) else line


def _object_in(text: str) -> Any:
    try:
        return json.JSONDecoder().raw_decode(text, text.index("{"))[0]
    except (ValueError, RecursionError):
        return None


def _one_line(text: str) -> str:
    kept = "".join(one if one.isprintable() else " " for one in text)
    kept = " ".join(kept.split()).strip("\"'“”` ")
    if len(kept) <= DESCRIPTION_CHARACTERS:
        return kept
    return kept[:DESCRIPTION_CHARACTERS].rsplit(" ", 1)[0] + "…"
