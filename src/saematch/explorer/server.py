"""The explorer's web server: the page's files and its questions, on this machine alone.

What every request passes and every reply carries, whatever the page does:

1. Only GET and HEAD; anything else would change something, and there is nothing to change.
2. Only a Host header of this machine: a name of somebody's own that points at 127.0.0.1 would make
   their page and ours one origin (DNS rebinding).
3. No reply is read by another site, framed, guessed to be of another type, or runs a script that is not
   ours.

Connections that ask nothing are closed: uvicorn alone waits for the end of a request for ever.
"""

import asyncio
import socket
import sys
import time
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from saematch.errors import InputError, MissingDependencyError, SaematchError, UsageError
from saematch.explorer.database import BusyError, TooLongError, limited
from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import INDEX, page_files, type_of
from saematch.text import printable, to_json

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
HOST_NAMES = ("127.0.0.1", "localhost", "[::1]")
MOST_QUERY_BYTES = 8192


class Guard:
    """An ASGI application around another."""

    def __init__(self, application: Application, port: int) -> None:
        """`port`: the one that is served, which a Host header must name."""
        self._application = application
        self._hosts = {f"{name}:{port}" for name in HOST_NAMES}
        if port == 80:
            self._hosts |= set(HOST_NAMES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket, which is left without an answer

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name.encode() for name in HEADERS}
                kept = [(name, value) for name, value in message["headers"] if name not in names]
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*kept, *ours]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._application(scope, receive, guarded)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else text.encode()
        await guarded({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = [
            value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"
        ]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            found = hosts[0][:80] if hosts else "none"
            return 421, f"expected the Host header of this machine, got {found}\n"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, f"expected GET or HEAD, got {scope['method'][:20]}\n"
        if len(scope["query_string"]) > MOST_QUERY_BYTES:
            return 414, f"expected an address of at most {MOST_QUERY_BYTES} bytes\n"
        return None


ADDRESS = "127.0.0.1"
ANSWER_SECONDS = 60.0
"""For one answer, waiting for others included; an index that it needs first is made to its end."""
REQUEST_SECONDS = 10.0
"""For a connection to ask something whole."""
IDLE_SECONDS = 5
"""Until a connection that was answered and asks nothing more is closed."""
MOST_CONNECTIONS = 128
"""Beyond them the one that has been silent for longest is closed."""
RETRY_SECONDS = 2


def application(explorer: Explorer, port: int) -> Application:
    """The whole site as an ASGI application; `port` is what it will be served on.

    Raises MissingDependencyError where starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.background import BackgroundTask
        from starlette.responses import FileResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise MissingDependencyError("starlette", "explorer", "the explorer") from None

    def page(request: "Request") -> "Response":
        name = request.path_params.get("name", INDEX)
        if name not in page_files():
            return Response("there is no such page\n", 404, media_type="text/plain")
        return Response(page_files()[name], media_type=type_of(name))

    def question(request: "Request") -> "Response":
        name = request.path_params["question"]
        return _answered(lambda: _json(explorer.ask(name, _asked(request)), 200))

    def take(request: "Request") -> "Response":
        def taken() -> "Response":
            file = explorer.take(_asked(request))
            gone = BackgroundTask(file.path.unlink, missing_ok=True)
            return FileResponse(
                file.path, filename=file.name, media_type=file.media_type, background=gone
            )

        return _answered(taken)

    def _answered(make: "Callable[[], Response]") -> "Response":
        try:
            with limited(ANSWER_SECONDS):
                return make()
        except SaematchError as error:
            reply = _json({"error": str(error)}, _status(error))
            if isinstance(error, BusyError):
                reply.headers["retry-after"] = str(RETRY_SECONDS)
            return reply
        except (
            Exception
        ) as error:  # a bug of ours; the page shows it in words, the terminal as well
            kind = type(error).__name__
            print(f"saematch: {kind}: {printable(error)}", file=sys.stderr)
            return _json({"error": f"the explorer failed: {kind}; please report it"}, 500)

    def _json(value: Any, status: int) -> "Response":
        data = to_json(value, compact=True).encode()
        return Response(data, status, media_type="application/json")

    return Guard(
        Starlette(
            routes=[
                Route("/", page),
                Route("/static/{name}", page),
                Route("/api/take", take),
                Route("/api/{question}", question),
            ]
        ),
        port,
    )


def serve(
    explorer: Explorer, port: int, browser: bool, tell: Callable[[str], None]
) -> None:  # fmt: skip
    """Serve until interrupted; `port` 0: one that is free.

    Raises UsageError where the port is taken, MissingDependencyError where uvicorn is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingDependencyError("uvicorn", "explorer", "the explorer") from None
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((ADDRESS, port))
        except OSError as error:
            raise UsageError(
                f"expected a free port, got {port}, which is in use ({error.strerror}); try port 0 "
                "(on the command line --port 0), which stands for any free one"
            ) from error
        listening.listen()  # who is told the address may ask at once, and waits
        port = listening.getsockname()[1]
        site: Any = application(explorer, port)
        server = uvicorn.Server(settings(site, log_level="warning"))
        address = f"http://{ADDRESS}:{port}/"
        tell(address)
        if browser:
            webbrowser.open(address)
        server.run(sockets=[listening])


def settings(site: Application, **more: Any) -> "uvicorn.Config":
    """How a site is served: no connection is held for ever, nor so many that none is left for others."""
    import uvicorn

    return uvicorn.Config(
        site,  # pyright: ignore[reportArgumentType]
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        http=impatient_protocol(REQUEST_SECONDS, MOST_CONNECTIONS),
        **more,
    )


def _asked(request: "Request") -> dict[str, str]:
    items = request.query_params.multi_items()
    names = [name for name, _ in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"expected each filter once, got '{twice[0][:80]}' twice")
    return dict(items)


def _status(error: SaematchError) -> int:
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, TooLongError):
        return 503 if isinstance(error, BusyError) else 504
    return 409 if isinstance(error, InputError) else 500


def impatient_protocol(seconds: float, most: int) -> Any:
    """uvicorn's protocol, which closes a connection that has no whole request after `seconds`, and, where
    there are more than `most`, that which has waited for longest."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    protocol: Any = AutoHTTPProtocol  # one of two classes, by what is installed

    class Impatient(protocol):
        waiting: asyncio.TimerHandle | None = None
        since = 0.0

        @property
        def asks(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.wait()
            if len(self.connections) > most:
                silent = [one for one in self.connections if not one.asks]
                min(silent or [self], key=lambda one: one.since).transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.asks:
                self.stop_waiting()
            elif self.waiting is None:
                self.wait()  # bytes that come one by one win no time

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_waiting()
            super().connection_lost(exc)

        def wait(self) -> None:
            self.since = time.monotonic()
            self.waiting = self.loop.call_later(seconds, self.give_up)

        def stop_waiting(self) -> None:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None

        def give_up(self) -> None:
            self.waiting = None
            if not self.asks and not self.transport.is_closing():
                self.transport.close()

    return Impatient
