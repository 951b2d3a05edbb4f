"""An OpenAI-compatible server on 127.0.0.1 that says what a test's script tells it to."""

import asyncio
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

PROMPT_TOKENS, COMPLETION_TOKENS = 700, 30


@dataclass(frozen=True)
class Asked:
    """One request, as the server saw it."""

    body: dict[str, Any]
    key: str
    times: int
    """How often these same descriptions came, this time among them."""

    @property
    def user(self) -> str:
        return self.body["messages"][-1]["content"]

    @property
    def pair(self) -> dict[str, str]:
        """The two descriptions."""
        return json.loads(re.findall(r"<descriptions>\n(.*?)\n</descriptions>", self.user)[-1])

    @property
    def structured(self) -> bool:
        return "response_format" in self.body


@dataclass(frozen=True)
class Say:
    """What the server does with a request."""

    text: str | None = ""
    status: int = 200
    delay: float = 0.0
    """Seconds before it answers."""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """The body itself, in place of a completion."""
    error: str = "scripted"
    error_form: Any = field(default_factory=lambda: {"error": {"message": "SAID", "code": None}})
    """The body of an error, with SAID in the place of its words."""
    endless: bool = False
    """The text again and again, until the client leaves."""
    breaks_off: bool = False
    """The connection closes in the middle of the body."""
    usage: bool = True
    finish: str = "stop"


Script = Callable[[Asked], Say]

# The least pause that the client accepts: tests need not wait for its own.
SOON = {"retry-after-ms": "5"}


def label(word: str, reason: str = "scripted") -> Say:
    return Say(json.dumps({"reason": reason, "label": word}))


@dataclass
class ScriptedServer:
    """Its address, and what it saw."""

    script: Script
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answered: list[Asked] = field(default_factory=list)
    """Those that were given a reply, with status 200 and to its end."""
    under_way: int = 0
    most_under_way: int = 0
    left: int = 0
    """Streams that the client left before their end."""
    _times: Counter[str] = field(default_factory=Counter)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        data = b""
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = json.loads(data)
        keys = [value.decode() for name, value in scope["headers"] if name == b"authorization"]
        task = re.sub(
            r"\n\nThe answer before.*", "", body["messages"][-1]["content"], flags=re.DOTALL
        )
        self._times[task] += 1
        asked = Asked(body, keys[0] if keys else "", self._times[task])
        self.asked.append(asked)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        gone = asyncio.ensure_future(receive())  # says so when the client leaves
        try:
            await self._answer(asked, send, gone)
        finally:
            gone.cancel()
            self.under_way -= 1

    async def _answer(self, asked: Asked, send: Any, gone: asyncio.Future[Any]) -> None:
        say = self.script(asked)
        if say.delay:
            await asyncio.sleep(say.delay)
        stream = bool(asked.body.get("stream")) and say.status == 200 and say.raw is None
        kind = "text/event-stream" if stream else "application/json"
        headers = {"content-type": kind, **say.headers}
        if say.breaks_off and not stream:
            headers["content-length"] = "100000"
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": say.status, "headers": listed})
        if stream:
            async for piece in _events(asked, say):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if gone.done():
                    self.left += 1
                    return
                if say.breaks_off and b"content" in piece:
                    return
            await send({"type": "http.response.body", "body": b""})
        elif say.breaks_off:
            await send({"type": "http.response.body", "body": _completion(asked, say)[:40]})
        else:
            await send({"type": "http.response.body", "body": _body(asked, say)})
        if say.status == 200:
            self.answered.append(asked)


def _body(asked: Asked, say: Say) -> bytes:
    if say.raw is not None:
        return say.raw
    if say.status != 200:
        return json.dumps(say.error_form).replace("SAID", say.error).encode()
    return _completion(asked, say)


def _usage(say: Say) -> dict[str, Any]:
    counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    return {"usage": counts} if say.usage else {}


def _completion(asked: Asked, say: Say) -> bytes:
    message = {"role": "assistant", "content": say.text}
    choice = {"index": 0, "message": message, "finish_reason": say.finish}
    model = f"{asked.body['model']}-2024"
    return json.dumps({"model": model, "choices": [choice], **_usage(say)}).encode()


async def _events(asked: Asked, say: Say) -> AsyncIterator[bytes]:
    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        value = {"model": f"{asked.body['model']}-2024", "choices": [choice], **more}
        return b"data: " + json.dumps(value).encode() + b"\n\n"

    yield b": a comment\n\n" + event({"role": "assistant", "content": ""})
    text = say.text or ""
    while True:
        for start in range(0, len(text), 7):
            yield event({"content": text[start : start + 7]})
            await asyncio.sleep(0)  # for the loop to notice that the client has left
        if not say.endless:
            break
    yield event({}, say.finish, **_usage(say))
    yield b"data: [DONE]\n\n"


@contextmanager
def serving(script: Script) -> Iterator[ScriptedServer]:
    """Run a server in a thread for as long as the block lasts."""
    server = ScriptedServer(script)
    config = uvicorn.Config(server, log_level="critical", lifespan="off", access_log=False)
    running = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            running.should_exit = running.force_exit = True
            thread.join(10)
