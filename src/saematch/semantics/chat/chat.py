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
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from saematch.errors import MissingDependencyError, SaematchError, UsageError
from saematch.semantics.chat.endpoint import NO_KEY, Conversation, Endpoint, Keep, Readable, Reply
from saematch.semantics.chat.reply_bodies import (
    PARAMETERS,
    WORDS_SHOWN,
    Body,
    end_of_it_all,
    may_be_paid_for,
    read_body,
    refused_parameters,
    words_of,
)
from saematch.semantics.chat.spending import (
    BudgetError,
    Estimate,
    Tokens,
    about_tokens,
    most_tokens,
)
from saematch.text import printable

FAILURES_IN_A_ROW = 10
SECRET_CHARACTERS = 8
"""A shorter key is none that could be told from ordinary text."""
SEARCHED_OF_ERROR = 4_000
"""Characters of an endpoint's own words that are looked at."""


@dataclass(frozen=True)
class _Answer:
    """A body, or why there is none."""

    body: Body | None = None
    failure: str = ""
    final: SaematchError | None = None
    """Where going on makes no sense."""
    lost: bool = False
    """The model may have replied, and be paid for it, though nothing arrived."""
    again: bool = False
    """Made again: a parameter was refused, and is left out from now on."""


class Asking:
    """One run over some conversations."""

    def __init__(
        self,
        chat: Endpoint,
        conversations: Sequence[Conversation],
        keep: Keep,
        readable: Readable,
        attempts: int,
        schema: Mapping[str, Any] | None,
    ) -> None:
        self.chat, self.keep, self.readable, self.attempts = chat, keep, readable, attempts
        self.workers = min(chat.concurrency, len(conversations))
        self.waiting: Iterator[tuple[int, Conversation]] = iter(enumerate(conversations))
        self.schema = None if schema is None else dict(schema)
        self.schema_text = json.dumps(self.schema) if schema is not None else ""
        self.used_up: BudgetError | None = None
        self.failures = 0
        self.settled = asyncio.Event()
        self.client: Any = None

    async def run(self) -> None:
        """Hold them all."""
        self.client = _client(self.chat)
        async with self.client:
            tasks = [asyncio.create_task(self._work()) for _ in range(self.workers)]
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
        used, counts, body, failure = Tokens(), Tokens(), Body(), ""
        counted = read = again = False
        attempts, prompt = 0, ""
        while attempts < self.attempts:
            attempts += 1
            prompt = conversation.text(again)
            most = Tokens(most_tokens(prompt, self.schema_text), self.chat.max_tokens)
            if not await self._may_start(most):
                return None
            answer, paid = await self._call(conversation, again, most)
            used += paid
            if answer.final is not None:
                raise answer.final
            if answer.again:
                attempts -= 1
                continue
            body, failure = answer.body or Body(), answer.failure
            if body.prompt_tokens is not None and body.completion_tokens is not None:
                counted = True
                counts += Tokens(body.prompt_tokens, body.completion_tokens)
            read = not failure and body.whole and self.readable(number, body.text)
            if read or (failure and not answer.lost):
                break
            again = not failure or again
        prices = self.chat.prices
        return Reply(
            text=body.text,
            trouble="" if read or failure else body.trouble or "the reply could not be read",
            read=read,
            failure=failure,
            prompt=prompt,
            model=body.model,
            attempts=attempts,
            seconds=time.perf_counter() - began,
            prompt_tokens=counts.prompt if counted else None,
            completion_tokens=counts.completion if counted else None,
            cost=None if prices is None else prices.of(used),
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
    ) -> tuple[_Answer, Tokens]:
        """One reply asked for, and the tokens that it counts for."""
        used = most  # what an interrupted call counts for
        try:
            answer = _Answer(again=True)
            while answer.again and not answer.lost:
                answer = await self._request(conversation, again)
            body = answer.body
            if body is None:
                used = most if answer.lost else Tokens()
            elif body.prompt_tokens is not None and body.completion_tokens is not None:
                used = Tokens(body.prompt_tokens, body.completion_tokens)
            return answer, used
        finally:
            self.chat.spent.end(most, used)
            self.settled.set()

    async def _request(self, conversation: Conversation, again: bool) -> _Answer:
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
            return _Answer(failure=f"no reply within {chat.timeout:g} s", lost=True)
        except openai.OpenAIError as refusal:
            return _Answer(failure=f"no connection to {chat.endpoint} ({type(refusal).__name__})")
        form = sent.get("response_format", {}).get("type")
        known = {*sent, *({"system"} if system_role else ()), *({form} & {"json_schema"})}
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
            sent["response_format"] = (
                {"type": "json_object"}
                if "json_schema" in chat.refused
                else {"type": "json_schema", "json_schema": form}
            )
        if chat.stream:
            sent["stream"] = True
            if "stream_options" not in chat.refused:
                sent["stream_options"] = {"include_usage": True}
        return sent

    async def _read(self, response: Any) -> _Answer:
        events = response.headers.get("content-type", "").startswith("text/event-stream")
        limit = self.chat.max_reply_characters
        try:
            async with asyncio.timeout(self.chat.timeout):
                body = await read_body(response.iter_bytes(), events, limit)
        except TimeoutError:
            return _Answer(failure=f"no whole reply within {self.chat.timeout:g} s", lost=True)
        except Exception as error:  # of httpx or httpx2, whichever the client brought
            return _Answer(failure=f"a reply that broke off ({type(error).__name__})", lost=True)
        body = replace(
            body,
            text=self._without_key(body.text),
            model=self._without_key(body.model),
            failure=self._without_key(body.failure),
        )
        return _Answer(body, failure=body.failure, lost=bool(body.failure))

    def _refusal(self, error: Any, sent: Set[str]) -> _Answer:
        """What an HTTP status that is an error means."""
        status = int(error.status_code)
        # Not the client's message: of bodies in another form than OpenAI's it says nothing.
        words = self._without_key(words_of(error.response.content))[:SEARCHED_OF_ERROR]
        if final := end_of_it_all(self.chat, status, words):
            return _Answer(final=final)
        if refused := refused_parameters(status, words, sent):
            # Made again even where another call has just found the same.
            self.chat.refused.update(refused)
            return _Answer(again=True, lost=may_be_paid_for(status, words))
        return _Answer(failure=f"refused with {status}: {printable(words, WORDS_SHOWN)}")

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


def run_to_end(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end, also inside a notebook, whose own loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(main())
        return
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def noted() -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        await main()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: asyncio.run(noted()))
        try:
            future.result()
        except BaseException:
            if running and not future.done():  # an interrupt of ours, not an error of its
                loop, task = running[0]
                loop.call_soon_threadsafe(task.cancel)
            raise


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
            asking = Asking(self, conversations, keep, readable, attempts, schema)
            run_to_end(asking.run)

    def estimate(
        self, conversations: Sequence[Conversation], reply_tokens: int = REPLY_TOKENS
    ) -> Estimate:
        """What these conversations will take, about, with replies of `reply_tokens` each."""
        prompt = sum(about_tokens(conversation.text()) for conversation in conversations)
        completion = len(conversations) * min(reply_tokens, self.max_tokens)
        cost = None if self.prices is None else self.prices.of(Tokens(prompt, completion))
        return Estimate(len(conversations), prompt, completion, cost)
