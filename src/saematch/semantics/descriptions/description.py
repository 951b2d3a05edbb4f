"""What a feature is said to mean, and who says so; and a description that lists tokens, as text and back:

`fires on ' Paris', ' London' amid ' capital', ' city'; promotes ' France', ' England'`
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Description:
    """One text about one feature."""

    feature: int
    text: str
    """Not empty; written by a stranger or a model: to be escaped wherever it is shown."""
    source: str
    """Where it comes from: `activations`, `model` or `neuronpedia`."""
    explainer: str
    """Who or what wrote it: a model, a method, with its version where known; '' where nobody knows."""
    licence: str
    """Under which it may be passed on; '' where nobody says."""


def first_texts(descriptions: Iterable[Description]) -> Mapping[int, str]:
    """The text that stands for each feature: the first of its descriptions."""
    found: dict[int, str] = {}
    for one in descriptions:
        found.setdefault(one.feature, one.text)
    return found


# As repr writes a token, and nothing that Python would not read as a string.
_ESCAPE = r"""\\(?:[\\'"nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})"""
_TOKEN = rf"""(?:'(?:[^'\\\n\r\0]|{_ESCAPE})*'|"(?:[^"\\\n\r\0]|{_ESCAPE})*")"""
_BLANKS = {"\n": "newline", "\t": "tab", " ": "space", "\r": "carriage return"}
_LIST = rf"{_TOKEN}(?:, {_TOKEN})*"
_DESCRIPTION = re.compile(rf"fires on ({_LIST})(?: amid ({_LIST}))?(?:; promotes ({_LIST}))?")


def describe_tokens(
    activates_on: Sequence[str], amid: Sequence[str] = (), top_logits: Sequence[str] = ()
) -> str:
    """The description; '' if the feature was never seen active."""
    if not activates_on:
        return ""
    text = f"fires on {_listed(activates_on)}"
    if amid:
        text += f" amid {_listed(amid)}"
    if top_logits:
        text += f"; promotes {_listed(top_logits)}"
    return text


def words_in(description: str) -> str:
    """The tokens of such a description, blanks between them; any other text as it is.

    What every description of this kind shares (quotes, commas, "fires on") makes all of them alike.  Of
    blank tokens, which no embedding sees, those that the feature activates on are named; around it they stand
    everywhere, and are left out.
    """
    found = _DESCRIPTION.fullmatch(description)
    if not found:
        return description
    activates_on, around = _tokens(found[1]), _tokens(found[2] or "") + _tokens(found[3] or "")
    words = [_named(token) for token in activates_on if token]
    words += [" ".join(token.split()) for token in around if token.strip()]
    return " ".join(words) or description


def _tokens(listed: str) -> list[str]:
    return [ast.literal_eval(literal) for literal in re.findall(_TOKEN, listed)]


def _named(token: str) -> str:
    """A token without the blanks around it, or these blanks in words."""
    if token.strip():
        return " ".join(token.split())
    runs = [(_BLANKS.get(one, "blank"), len(list(run))) for one, run in groupby(token)]
    return " ".join(name if count == 1 else f"{count} {name}s" for name, count in runs)


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in tokens)
