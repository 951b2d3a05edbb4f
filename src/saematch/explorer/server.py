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
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saematch.errors import InputError, MissingDependencyError, SaematchError, UsageError
from saematch.explorer.database import BusyError, TooLongError, limited
from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import INDEX, TYPES, page_files
from saematch.text import printable, to_json

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


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


def _refusal(request: "Request", port: int) -> tuple[int, str] | None:
    hosts = [host.lower() for host in request.headers.getlist("host")]
    allowed = {f"{name}:{port}" for name in HOST_NAMES} | set(HOST_NAMES if port == 80 else ())
    if len(hosts) != 1 or hosts[0] not in allowed:
        found = hosts[0][:80] if hosts else "none"
        return 421, f"expected the Host header of this machine, got {found}\n"
    if request.method not in ("GET", "HEAD"):
        return 405, f"expected GET or HEAD, got {request.method[:20]}\n"
    if len(request.scope["query_string"]) > MOST_QUERY_BYTES:
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


def application(explorer: Explorer, port: int) -> "Starlette":
    """The whole site; `port` is what it will be served on, which a Host header must name.

    Raises MissingDependencyError where starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.background import BackgroundTask
        from starlette.middleware import Middleware
        from starlette.middleware.base import BaseHTTPMiddleware
        from starlette.responses import FileResponse, PlainTextResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise MissingDependencyError("starlette", "explorer", "the explorer") from None

    async def guard(
        request: "Request", answer: "Callable[[Request], Awaitable[Response]]"
    ) -> "Response":
        if (refusal := _refusal(request, port)) is not None:
            status, text = refusal
            reply = PlainTextResponse(
                text, status, {"allow": "GET, HEAD"} if status == 405 else None
            )
        else:
            reply = await answer(request)
        reply.headers.update(HEADERS)
        return reply

    def page(request: "Request") -> "Response":
        name = request.path_params.get("name", INDEX)
        if name not in page_files():
            return PlainTextResponse("there is no such page\n", 404)
        return Response(page_files()[name], media_type=TYPES[Path(name).suffix])

    def answer(request: "Request") -> "Response":
        question = request.path_params["question"]
        try:
            with limited(ANSWER_SECONDS):
                if question != "take":
                    return _json(explorer.ask(question, _asked(request)), 200)
                file = explorer.take(_asked(request))
                gone = BackgroundTask(file.path.unlink, missing_ok=True)
                return FileResponse(
                    file.path, filename=file.name, media_type=file.media_type, background=gone
                )
        except SaematchError as error:
            status = next(
                (code for kind, code in _STATUSES.items() if isinstance(error, kind)), 500
            )
            reply = _json({"error": str(error)}, status)
            if isinstance(error, BusyError):
                reply.headers["retry-after"] = str(RETRY_SECONDS)
            return reply
        except Exception as error:
            # A bug of ours; the page shows it in words, the terminal as well.
            kind = type(error).__name__
            print(f"saematch: {kind}: {printable(error)}", file=sys.stderr)
            return _json({"error": f"the explorer failed: {kind}; please report it"}, 500)

    def _json(value: Any, status: int) -> "Response":
        data = to_json(value, compact=True).encode()
        return Response(data, status, media_type="application/json")

    routes = [
        Route("/", page), Route("/static/{name}", page), Route("/api/{question}", answer),
    ]  # fmt: skip
    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)])


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
        server = uvicorn.Server(settings(application(explorer, port), log_level="warning"))
        address = f"http://{ADDRESS}:{port}/"
        tell(address)
        if browser:
            webbrowser.open(address)
        server.run(sockets=[listening])


def settings(site: "Starlette", **more: Any) -> "uvicorn.Config":
    """How a site is served: no connection is held for ever, nor so many that none is left for others."""
    import uvicorn

    return uvicorn.Config(
        site,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        http=impatient_protocol(REQUEST_SECONDS, MOST_CONNECTIONS),
        **more,
    )


def _asked(request: "Request") -> dict[str, str]:
    items = request.query_params.multi_items()
    asked = dict(items)
    if len(asked) < len(items):
        twice = next(name for name in asked if len(request.query_params.getlist(name)) > 1)
        raise UsageError(f"expected each filter once, got '{twice[:80]}' twice")
    return asked


_STATUSES = {UsageError: 400, BusyError: 503, TooLongError: 504, InputError: 409}
"""Of replies, by the first of these that an error is."""


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
