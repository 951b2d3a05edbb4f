"""The explorer's web server: the page's files and its questions, on this machine alone."""

import socket
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from saematch.errors import InputError, MissingDependencyError, SaematchError, UsageError
from saematch.explorer.database import BusyError, TooLongError, limited
from saematch.explorer.explorer import Explorer
from saematch.explorer.page import INDEX, page_files, type_of
from saematch.explorer.security import Application, Guard
from saematch.text import printable, to_json

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response

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
                "(in the command line --port 0), which stands for any free one"
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

    from saematch.explorer.connections import impatient_protocol

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
