"""What an endpoint's refusals mean: a parameter that it does not know, the end of it all, or one failure."""

import json
from collections.abc import Set

from saematch.errors import SaematchError, UsageError
from saematch.semantics.chat.endpoint import Endpoint
from saematch.text import clean, printable, read_json

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
