"""What an OpenAI-compatible endpoint sends back: replies, read up to a limit whatever their length, and
refusals.

1. A JSON body is read until it is complete or longer than any reply within the limit can be.
2. A stream of events is read line by line and its pieces joined, until it ends or they are longer than
   the limit; lines that were read are let go.
3. Everything in it comes from a stranger: whatever has another type than it should counts as absent.
4. A refusal means a parameter that the endpoint does not know, the end of it all, or one failure.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Set
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from saematch.errors import SaematchError, UsageError
from saematch.semantics.chat.endpoint import Endpoint
from saematch.text import clean, printable, read_json

BYTES_AROUND = 1 << 16
"""What a body may hold besides the reply's text."""
BYTES_A_CHARACTER = 12
"""The longest form of one character in JSON: two escaped surrogates."""
MOST_TOKENS = 1 << 40
"""A count above this is not believed."""
MODEL_CHARACTERS = 200
WORDS = 300
"""Characters of an endpoint's own words in a message."""


@dataclass(frozen=True)
class Body:
    """A reply as it came."""

    text: str = ""
    whole: bool = False
    """False where the endpoint or we stopped before its end: such a reply says nothing for certain."""
    failure: str = ""
    """Why this is no chat reply; '' where it is one."""
    model: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    trouble: str = ""
    """What is the matter with a reply that is one: cut off, empty, a call of a tool."""


async def read_body(chunks: AsyncIterator[bytes], events: bool, most_characters: int) -> Body:
    """Read a reply; `events`: it is a stream of server-sent events."""
    body = await _read(chunks, events, most_characters)
    # Only now: a character may come in two halves, one a piece.
    texts = {name: clean(getattr(body, name)) for name in ("text", "model", "failure", "trouble")}
    return replace(body, **texts)


async def _read(chunks: AsyncIterator[bytes], events: bool, most_characters: int) -> Body:
    most_bytes = BYTES_AROUND + BYTES_A_CHARACTER * most_characters
    if events:
        return await _read_events(chunks, most_bytes, most_characters)
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > most_bytes:
            return Body(data[:most_bytes].decode("utf-8", "replace")[:most_characters])
    return _completion(bytes(data), most_characters)


def _completion(data: bytes, most_characters: int) -> Body:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        text = data.decode("utf-8", "replace")
        return Body(text[:most_characters], failure="a body that is not JSON")
    message = _at(value, "choices", 0, "message")
    if not isinstance(message, dict):
        return Body(failure=_error_in(value) or "a body without choices[0].message")
    text = _text_of(message.get("content"))
    reason = _at(value, "choices", 0, "finish_reason")
    whole = reason != "length" and len(text) <= most_characters
    trouble = _trouble(text, reason, message)
    return _with_counts(Body(text[:most_characters], whole, trouble=trouble), value)


async def _read_events(chunks: AsyncIterator[bytes], most_bytes: int, most_characters: int) -> Body:
    body = Body(failure="a stream without a reply")
    pieces: list[str] = []
    characters = 0
    ended = False
    reason: Any = None
    seen: dict[str, Any] = {}
    async with aclosing(_events(chunks, most_bytes)) as events:
        async for event in events:
            if event is None:
                ended, body = False, replace(body, failure="")
                break
            if error := _error_in(event):
                return Body(failure=error)
            body = _with_counts(body, event)
            if _at(event, "choices", 0) is None:
                continue
            body = replace(body, failure="")
            delta = _at(event, "choices", 0, "delta")
            seen.update(delta if isinstance(delta, dict) else {})
            piece = _text_of(_at(delta, "content"))
            pieces.append(piece)
            characters += len(piece)
            if characters > most_characters:
                break
            if (ends := _at(event, "choices", 0, "finish_reason")) is not None:
                reason, ended = ends, ends != "length"
    whole = ended and characters <= most_characters
    text = "".join(pieces)
    trouble = _trouble(text, reason, seen)
    return replace(body, text=text[:most_characters], whole=whole, trouble=trouble)


def _text_of(content: Any) -> str:
    """A content in one piece, or in a list of parts, of which those that are thinking are left out."""
    if isinstance(content, list):
        return "".join(
            _text_of(_at(one, "text") if isinstance(one, dict) else one) for one in content
        )
    return content if isinstance(content, str) else ""


def _trouble(text: str, reason: Any, message: Mapping[str, Any]) -> str:
    if reason == "length":
        thought = not text.rpartition("</think>")[2].strip() or (
            "<think>" in text and "</think>" not in text
        )
        what = "all tokens of the reply went into thinking" if thought else "the reply was cut off"
        return f"{what}; allow more: max_tokens (on the command line --max-tokens)"
    if text.strip():
        return ""
    if reason == "content_filter":
        return "the endpoint's filter left no reply"
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        return f"the model declined: {message['refusal'][:WORDS]}"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool in place of an answer"
    if message.get("reasoning_content") or message.get("reasoning"):
        return (
            "thinking without an answer; allow more: max_tokens (on the command line --max-tokens)"
        )
    return "an empty reply"


async def _events(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncGenerator[Any, None]:
    """The JSON values of a stream's `data:` lines; None for a line that is too long, the last then."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        *lines, rest = waiting.split(b"\n")
        waiting = bytearray(rest)
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            if len(data) == len(line.strip()):  # a comment, an empty line or another field
                continue
            try:
                yield json.loads(data)
            except (ValueError, RecursionError):
                continue
        if len(waiting) > most_bytes:
            yield None
            return


def _with_counts(body: Body, value: Any) -> Body:
    model = _at(value, "model")
    prompt = _count(_at(value, "usage", "prompt_tokens"))
    completion = _count(_at(value, "usage", "completion_tokens"))
    return replace(
        body,
        model=model[:MODEL_CHARACTERS] if isinstance(model, str) else body.model,
        prompt_tokens=body.prompt_tokens if prompt is None else prompt,
        completion_tokens=body.completion_tokens if completion is None else completion,
    )


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= MOST_TOKENS else None


def _error_in(value: Any) -> str:
    """What an endpoint that answers 200 to everything says went wrong."""
    error = _at(value, "error")
    if error is None:
        return ""
    message = _at(error, "message")
    return f"an error in place of a reply: {str(message or error)[:300]}"


def _at(value: Any, *path: str | int) -> Any:
    """The part of a JSON value at a path; None if there is no such part."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


WORDS_SHOWN = 300
"""Characters of an endpoint's own words in a message."""

PARAMETERS = {
    "json_schema": (
        "json_schema", "json schema", "json_validate_failed", "failed_generation",
        "failed to generate json", "guided", "grammar", "structured output", "structured_output",
    ),
    "response_format": ("response_format", "response format", "json_object"),
    "stream_options": ("stream_options",),
    "max_tokens": ("max_tokens",),
    "temperature": ("temperature",),
    "system": (
        "system role", "system message", "role system", "role 'system'", "system instruction",
        "developer instruction", "roles must alternate", "alternate between",
        "alternating between user", "user and assistant roles", "user and model roles",
        "first message must be", "role: system", 'role "system"',
    ),
}  # fmt: skip
"""What can be left out or said otherwise, and the words by which endpoints name it."""
GENERATED = ("json_validate_failed", "failed_generation", "failed to generate json")
"""The model had written a reply, which the endpoint did not hand over: it may be paid for."""
NAMING = (400, 415, 422, 500, 501)
"""Statuses of a refusal that names what it does not know."""
UNNAMED = (400, 422)
"""Statuses of one that may not."""
UNKNOWN = ("unknown", "unexpected", "unrecognized", "unsupported", "not support", "not permitted")
NOTHING_TO_PAY_WITH = ("insufficient_quota", "billing", "insufficient balance")


def words_of(body: bytes) -> str:
    """What an error's body says: its message with code and parameter, or the whole of it."""
    try:
        value = read_json(body)
    except ValueError:
        return clean(body)
    for key in ("error", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        told = [value["message"], value.get("code"), value.get("param")]
        value = " ".join(one for one in told if isinstance(one, str))
    return value if isinstance(value, str) else json.dumps(value)


def refused_parameters(status: int, words: str, sent: Set[str]) -> set[str]:
    """Which of the parameters that were sent the endpoint does not know; `words`: its own."""
    lower = words.lower()
    named = {key for key, said in PARAMETERS.items() if any(one in lower for one in said)}
    if "json_schema" in named and "json_schema" in sent:
        named.discard("response_format")  # the type json_object may be known
    elif "json_schema" in named:
        named.add("response_format")  # it was json_object, and no form is
    if status in NAMING and named & sent:
        return named & sent
    if status in UNNAMED and not named and any(one in lower for one in UNKNOWN):
        return {"json_schema", "response_format", "stream_options"} & sent
    return set()


def may_be_paid_for(status: int, words: str) -> bool:
    """Whether the model may have replied before the endpoint refused."""
    return status >= 500 or any(one in words.lower() for one in GENERATED)


def end_of_it_all(chat: Endpoint, status: int, words: str) -> SaematchError | None:
    """The error to stop with, where every other request would be refused as well."""
    lower, shown = words.lower(), printable(" ".join(words.split()), WORDS_SHOWN)
    if status in (401, 403):
        # Without its own words: endpoints repeat parts of the key.
        return UsageError(
            f"{chat.endpoint} refused the API key in the environment variable "
            f"{chat.key_variable} ({status}); check that variable, the base URL, and "
            f"that the key may use the model '{chat.model}'"
        )
    if status == 404:
        return UsageError(
            f"there is no model '{chat.model}', or no such address, at {chat.endpoint}/chat/completions "
            f"(404: {shown}); check the model's name and that the base URL ends as its endpoint "
            "wants it, often in /v1"
        )
    if status == 402 or (status == 429 and any(one in lower for one in NOTHING_TO_PAY_WITH)):
        return SaematchError(
            f"no credit is left at {chat.endpoint} ({status}: {shown}); what was "
            "answered is kept: pay, and run the same command again"
        )
    return None
