"""What an OpenAI-compatible endpoint sends back, read up to a limit whatever its length.

1. A JSON body is read until it is complete or longer than any reply within the limit can be.
2. A stream of events is read line by line and its pieces joined, until it ends or they are longer than
   the limit; lines that were read are let go.
3. Everything in it comes from a stranger: whatever has another type than it should counts as absent.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

BYTES_AROUND = 1 << 16
"""What a body may hold beside the reply's text."""
BYTES_A_CHARACTER = 12
"""The longest form of one character in JSON: two escaped surrogates."""
MOST_TOKENS = 1 << 40
"""A count above this is not believed."""
MODEL_CHARACTERS = 200


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


async def read_body(chunks: AsyncIterator[bytes], events: bool, most_characters: int) -> Body:
    """Read a reply; `events`: it is a stream of server-sent events."""
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
    text = message.get("content")
    text = text if isinstance(text, str) else ""
    ended = _at(value, "choices", 0, "finish_reason") != "length"
    whole = ended and len(text) <= most_characters
    return _with_counts(Body(text[:most_characters], whole), value)


async def _read_events(chunks: AsyncIterator[bytes], most_bytes: int, most_characters: int) -> Body:
    body = Body(failure="a stream without a reply")
    pieces: list[str] = []
    characters = 0
    ended = False
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
            piece = _at(event, "choices", 0, "delta", "content")
            if isinstance(piece, str):
                pieces.append(piece)
                characters += len(piece)
            if characters > most_characters:
                break
            reason = _at(event, "choices", 0, "finish_reason")
            if reason is not None:
                ended = reason != "length"
    whole = ended and characters <= most_characters
    return replace(body, text="".join(pieces)[:most_characters], whole=whole)


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
    """The part of a JSON value at a path; None where there is no such part."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value
