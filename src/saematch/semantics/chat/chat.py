"""Conversations with a language model behind any OpenAI-compatible endpoint (endpoint.py): how many are
held at once, and what is made of everything that can go wrong.

1. `concurrency` workers take conversations in turn.  A call starts when the budget covers it; where
   calls under way may still give money back, it waits for them.
2. A request that is refused for a while or does not get through is repeated by the client.  One that is
   refused for what the endpoint does not know (a parameter, a system role, a JSON schema) is made again
   in the dialect that it knows, which the chat keeps.  That is for nothing, unless the model may have
   replied before (a reply that did not follow the schema): then it counts as a call, paid in full.
3. A reply that cannot be read, or breaks off, is asked for again, up to so many attempts.
4. Where going on makes no sense all is stopped: key refused, no such model, nothing left to pay with, or
   `FAILURES_IN_A_ROW` conversations without any reply.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from saematch.errors import MissingDependencyError, SaematchError, UsageError
from saematch.semantics.chat.endpoint import (
    NO_KEY,
    BudgetError,
    Conversation,
    Endpoint,
    Estimate,
    Keep,
    Readable,
    Reply,
    Tokens,
    about_tokens,
    most_tokens,
)
from saematch.text import clean, printable, read_json

FAILURES_IN_A_ROW = 10
SECRET_CHARACTERS = 8
"""A shorter key is none that could be told from ordinary text."""
SEARCHED_OF_ERROR = 4_000
"""Characters of an endpoint's own words that are looked at."""
BYTES_AROUND = 1 << 16
"""What a body may hold besides the reply's text."""
BYTES_A_CHARACTER = 12
"""The longest form of one character in JSON: two escaped surrogates."""
MOST_TOKENS = 1 << 40
"""A count above this is not believed."""
MODEL_CHARACTERS = 200
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


@dataclass(frozen=True)
class Body:
    """A reply as it came, or why there is none."""

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
    final: SaematchError | None = None
    """Where going on makes no sense."""
    lost: bool = False
    """The model may have replied, and be paid for it, though nothing arrived."""
    again: bool = False
    """Made again: a parameter was refused, and is left out from now on."""

    @property
    def counts(self) -> Tokens | None:
        """Tokens, where the endpoint counts them."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return Tokens(self.prompt_tokens, self.completion_tokens)


@dataclass
class _Asking:
    """One run over some conversations."""

    chat: Endpoint
    client: Any
    conversations: Sequence[Conversation]
    keep: Keep
    readable: Readable
    attempts: int
    schema: dict[str, Any] | None
    used_up: BudgetError | None = None
    failures: int = 0
    """In a row."""

    async def run(self) -> None:
        self.settled = asyncio.Event()
        self.waiting = iter(enumerate(self.conversations))
        self.schema_text = json.dumps(self.schema) if self.schema is not None else ""
        workers = min(self.chat.concurrency, len(self.conversations))
        async with self.client:
            tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        if self.used_up is not None:
            raise self.used_up

    async def _work(self) -> None:
        for number, conversation in self.waiting:
            reply = await self._converse(number, conversation)
            if reply is None:
                return
            self.failures = self.failures + 1 if reply.failure else 0
            self.keep(number, reply)
            if self.failures >= FAILURES_IN_A_ROW:
                raise SaematchError(
                    f"expected replies from {self.chat.endpoint}, got {self.failures} failures in a "
                    f"row, the last: {reply.failure}; what was answered is kept: run the same command "
                    "again when the endpoint is well"
                )

    async def _converse(self, number: int, conversation: Conversation) -> Reply | None:
        """All attempts of one conversation; None where the budget ended before a last reply."""
        began = time.perf_counter()
        used, counts, body, prompt = Tokens(), None, Body(), ""
        read = again = False
        attempts = 0
        while attempts < self.attempts:
            prompt = conversation.text(again)
            most = Tokens(most_tokens(prompt, self.schema_text), self.chat.max_tokens)
            if not await self._may_start(most):
                return None
            body, paid = await self._call(conversation, again, most)
            used += paid
            if body.final is not None:
                raise body.final
            if body.again:
                continue
            attempts += 1
            if body.counts is not None:
                counts = body.counts + (counts or Tokens())
            read = not body.failure and body.whole and self.readable(number, body.text)
            if read or (body.failure and not body.lost):
                break
            again = again or not body.failure
        prices = self.chat.prices
        return Reply(
            text=body.text,
            trouble="" if read or body.failure else body.trouble or "the reply could not be read",
            read=read,
            failure=body.failure,
            prompt=prompt,
            model=body.model,
            attempts=attempts,
            seconds=time.perf_counter() - began,
            prompt_tokens=counts and counts.prompt,
            completion_tokens=counts and counts.completion,
            cost=prices and prices.of(used),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    async def _may_start(self, most: Tokens) -> bool:
        """Wait until the budget covers a call, and start it; False where it never will."""
        spent = self.chat.spent
        while self.used_up is None:
            if spent.may_call() and spent.may_pay(most):
                spent.start(most)
                return True
            if not spent.may_call() or not spent.in_flight:
                self.used_up = spent.used_up()
                self.settled.set()
                break
            self.settled.clear()
            await self.settled.wait()
        return False

    async def _call(
        self, conversation: Conversation, again: bool, most: Tokens
    ) -> tuple[Body, Tokens]:
        """One reply asked for, and the tokens that it counts for."""
        used = most  # what an interrupted call counts for
        try:
            body = Body(again=True)
            while body.again and not body.lost:
                body = await self._request(conversation, again)
            refused = body.failure or body.again or body.final is not None
            used = body.counts or (Tokens() if refused and not body.lost else most)
            return body, used
        finally:
            self.chat.spent.end(most, used)
            self.settled.set()

    async def _request(self, conversation: Conversation, again: bool) -> Body:
        import openai

        chat = self.chat
        sent = self._parameters()
        system_role = "system" not in chat.refused
        messages = conversation.messages(again, system_role)
        error: Any = None
        try:
            async with self.client.chat.completions.with_streaming_response.create(
                # In `extra_body`: whatever is not, the client walks type by type, which costs a fifth more.
                model=chat.model,
                messages=[],
                extra_body={"messages": messages, **sent},
            ) as response:
                return await self._read(response)
        except openai.APIStatusError as refusal:
            # Judged below: an error raised here would carry this one, and with it the key.
            error = refusal
        except openai.APITimeoutError:
            return Body(failure=f"no reply within {chat.timeout:g} s", lost=True)
        except openai.OpenAIError as refusal:
            return Body(failure=f"no connection to {chat.endpoint} ({type(refusal).__name__})")
        form = sent.get("response_format", {}).get("type")
        known = {*sent, *(["system"] * system_role), *({form} & {"json_schema"})}
        return self._refusal(error, known)

    def _parameters(self) -> dict[str, Any]:
        chat = self.chat
        sent: dict[str, Any] = {}
        if chat.temperature is not None and "temperature" not in chat.refused:
            sent["temperature"] = chat.temperature
        # Newer models of OpenAI know the second name alone, many other endpoints the first.
        limit = "max_completion_tokens" if "max_tokens" in chat.refused else "max_tokens"
        sent[limit] = chat.max_tokens
        if self.schema is not None and "response_format" not in chat.refused:
            form = {"name": "reply", "strict": True, "schema": self.schema}
            sent["response_format"] = {"type": "json_schema", "json_schema": form}
            if "json_schema" in chat.refused:
                sent["response_format"] = {"type": "json_object"}
        if chat.stream:
            sent["stream"] = True
            if "stream_options" not in chat.refused:
                sent["stream_options"] = {"include_usage": True}
        return sent

    async def _read(self, response: Any) -> Body:
        events = response.headers.get("content-type", "").startswith("text/event-stream")
        limit = self.chat.max_reply_characters
        try:
            async with asyncio.timeout(self.chat.timeout):
                body = await read_body(response.iter_bytes(), events, limit)
        except TimeoutError:
            return Body(failure=f"no whole reply within {self.chat.timeout:g} s", lost=True)
        except Exception as error:  # of httpx or httpx2, whichever the client brought
            return Body(failure=f"a reply that broke off ({type(error).__name__})", lost=True)
        texts = {
            name: self._without_key(getattr(body, name)) for name in ("text", "model", "failure")
        }
        return replace(body, **texts, lost=bool(body.failure))

    def _refusal(self, error: Any, sent: Set[str]) -> Body:
        """What an HTTP status that is an error means."""
        status = int(error.status_code)
        # Not the client's message: of bodies in another form than OpenAI's it says nothing.
        words = self._without_key(words_of(error.response.content))[:SEARCHED_OF_ERROR]
        if final := end_of_it_all(self.chat, status, words):
            return Body(final=final)
        if refused := refused_parameters(status, words, sent):
            # Made again even where another call has just found the same.
            self.chat.refused.update(refused)
            generated = any(one in words.lower() for one in GENERATED)
            return Body(again=True, lost=status >= 500 or generated)
        return Body(failure=f"refused with {status}: {printable(words, WORDS_SHOWN)}")

    def _without_key(self, text: str) -> str:
        key = self.client.api_key
        if key == NO_KEY or len(key) < SECRET_CHARACTERS:
            return text
        return text.replace(key, "[key]")


def _client(chat: Endpoint) -> Any:
    try:
        import openai
    except ImportError:
        raise MissingDependencyError("openai", "judge", "a language model as judge") from None

    async def look(response: Any) -> None:
        """Let the client not repeat a request that is refused for what it says, whatever the status."""
        if response.status_code >= 500:
            await response.aread()
            words = words_of(response.content)[:SEARCHED_OF_ERROR]
            if refused_parameters(response.status_code, words, PARAMETERS.keys() - chat.refused):
                response.headers["x-should-retry"] = "false"

    return openai.AsyncOpenAI(
        http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [look]}),
        api_key=chat.key(),
        base_url=chat.base_url,
        timeout=chat.timeout,
        max_retries=chat.retries,
        # Compressed replies could grow past any limit while they are unpacked.
        default_headers={"Accept-Encoding": "identity"},
    )


REPLY_TOKENS = 80
"""Tokens of a short reason and a label, about."""


@dataclass(frozen=True)
class Chat(Endpoint):
    """A model behind an endpoint, how to ask it and how much.

    Raises UsageError for impossible settings.
    """

    def ask(
        self,
        conversations: Sequence[Conversation],
        keep: Keep,
        readable: Readable = lambda _number, _text: True,
        attempts: int = 1,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Hold all conversations, telling `keep` of each reply as it comes, in any order.

        `readable`: a reply that is not is asked for again, `attempts` times in all.  `schema`: the JSON
        schema of the reply, for endpoints that can hold a model to one; others are asked without.

        Raises UsageError where the endpoint refuses the key or knows no such model, BudgetError where
        the budget is used up (calls under way are waited for and kept), and SaematchError where the
        endpoint has stopped answering.  What `keep` was told before stands; a conversation that was cut
        short between two attempts is not kept, though it is counted in `spent`.  An interrupt ends the
        calls under way.
        """
        if attempts < 1:
            raise UsageError(f"expected attempts of 1 or more, got {attempts}")
        if conversations:
            form = None if schema is None else dict(schema)
            asking = _Asking(self, _client(self), conversations, keep, readable, attempts, form)
            from anyio.from_thread import start_blocking_portal  # openai brings it

            # A thread with a loop of its own: that of a notebook is running already.
            with start_blocking_portal() as portal:
                portal.call(asking.run)

    def estimate(
        self, conversations: Sequence[Conversation], reply_tokens: int = REPLY_TOKENS
    ) -> Estimate:
        """What these conversations will take, about, with replies of `reply_tokens` each."""
        prompt = sum(about_tokens(conversation.text()) for conversation in conversations)
        completion = len(conversations) * min(reply_tokens, self.max_tokens)
        cost = None if self.prices is None else self.prices.of(Tokens(prompt, completion))
        return Estimate(len(conversations), prompt, completion, cost)


async def read_body(chunks: AsyncIterator[bytes], events: bool, most_characters: int) -> Body:
    """A reply read up to a limit, whatever its length; `events`: it is a stream of server-sent events.

    A JSON body is read until it is complete or longer than any reply within the limit can be; of a stream the
    pieces are joined until it ends or they are longer than the limit.  Everything in it comes from a
    stranger: whatever has another type than it should counts as absent.
    """
    most_bytes = BYTES_AROUND + BYTES_A_CHARACTER * most_characters
    body = await (_read_events if events else _read_whole)(chunks, most_bytes, most_characters)
    # Only now: a character may come in two halves, one a piece.
    texts = {name: clean(getattr(body, name)) for name in ("text", "model", "failure", "trouble")}
    return replace(body, **texts)


async def _read_whole(chunks: AsyncIterator[bytes], most_bytes: int, most_characters: int) -> Body:
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > most_bytes:
            return Body(data[:most_bytes].decode("utf-8", "replace")[:most_characters])
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
        return f"the model declined: {message['refusal'][:WORDS_SHOWN]}"
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
    return f"an error in place of a reply: {str(message or error)[:WORDS_SHOWN]}"


def _at(value: Any, *path: str | int) -> Any:
    """The part of a JSON value at a path; None if there is no such part."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


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


def end_of_it_all(chat: Endpoint, status: int, words: str) -> SaematchError | None:
    """The error to stop with, where every other request would be refused as well."""
    lower, shown = words.lower(), printable(" ".join(words.split()), WORDS_SHOWN)
    if status in (401, 403):
        # Without its own words: endpoints repeat parts of the key.
        return UsageError(
            f"{chat.endpoint} refused the API key in the environment variable {chat.key_variable} "
            f"({status}); check it, the base URL, and that the key may use the model '{chat.model}'"
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
