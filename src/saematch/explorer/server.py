"""The page and its answers over HTTP, on 127.0.0.1 alone, to be read and never to be written.

Only requests that name this machine as their host are answered (a page elsewhere could otherwise have its
name point here), only the page's own files and the questions below, and nothing that the page shows can
run: the content security policy allows scripts and styles of these files and nothing else.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from saematch.errors import MissingDependencyError, SaematchError, UsageError
from saematch.explorer import questions
from saematch.explorer.index import Index

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "find.js": "text/javascript; charset=utf-8",
    "follow.js": "text/javascript; charset=utf-8",
    "whole.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "source.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
FORMATS = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}


def static(name: str) -> str:
    """One of the page's own files."""
    return files("saematch.explorer").joinpath("static", name).read_text(encoding="utf-8")


def about(index: Index, other: Index | None = None) -> dict[str, Any]:
    """What the page needs to know before anything is asked."""
    run = index.run
    return {
        "suite": run.config.suite,
        "directory": run.path.name,
        "keys": list(index.keys),
        "pairs": [list(pair) for pair in index.adjacent],
        "strategies": list(index.strategies),
        "source": index.source,
        "judge": index.judge,
        "neuronpedia": index.neuronpedia,
        "problems": index.problems,
        "other": None if other is None else other.run.path.name,
        "evaluated": index.file("evaluation/pairs.parquet") is not None,
        "contexts": bool(run.directory.names("contexts/")),
    }


def answers(index: Index, other: Index | None) -> dict[str, Callable[[Mapping[str, str]], Any]]:
    """What can be asked, by name."""

    def find(asked: Mapping[str, str]) -> dict[str, Any]:
        page = questions.find(index, asked)
        return {"rows": page.rows, "total": page.total, "page_size": questions.PAGE}

    def compare_runs(asked: Mapping[str, str]) -> Any:
        if other is None:
            raise UsageError("needed a second run, found one; try: saematch explore DIR OTHER")
        return questions.compare_runs(index, other, asked)

    return {
        "about": lambda _: about(index, other),
        "find": find,
        "follow": lambda asked: questions.follow(index, *place_of(asked)),
        "contexts": lambda asked: questions.contexts(index, *place_of(asked)),
        "whole": lambda _: questions.whole(index),
        "compare": partial(questions.compare, index),
        "runs": compare_runs,
    }


def place_of(asked: Mapping[str, str]) -> tuple[str, int]:
    """The feature that is asked about."""
    feature = asked.get("feature", "")
    if not feature.isdecimal() or len(feature) > 9:
        raise UsageError(f"needed the number of a feature, found '{feature[:40]}'")
    return asked.get("key", ""), int(feature)


def taken_away(index: Index, asked: Mapping[str, str], form: str) -> bytes:
    """A selection of features as a file."""
    rows = questions.find(index, {**asked, "page": "1"}, questions.MOST).rows
    if form == "json":
        return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False).encode()
    import pandas as pd

    frame = pd.DataFrame(rows, columns=pd.Index(questions.COLUMNS.split(", ")))
    if form == "csv":
        for name in ("fires_on", "promotes"):
            frame[name] = [None if one is None else json.dumps(one) for one in frame[name]]
        return frame.to_csv(index=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "selection.parquet"
        frame.to_parquet(path, index=False)
        return path.read_bytes()


def application(index: Index, other: Index | None = None) -> Any:
    """The ASGI application; raises MissingDependencyError without starlette."""
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise MissingDependencyError("starlette", "explorer", "saematch explore") from None
    known = answers(index, other)

    async def page(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        if name not in STATIC:
            return JSONResponse({"error": "there is no such page"}, 404)
        return Response(static(name), media_type=STATIC[name])

    async def answer(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in known:
            return JSONResponse({"error": f"there is no question '{name[:40]}'"}, 404)
        return await guarded(known[name], request, lambda value: JSONResponse(value))

    async def take(request: Request) -> Response:
        form = request.path_params["form"]
        if form not in FORMATS:
            return JSONResponse({"error": f"needed one of {', '.join(FORMATS)}"}, 404)
        disposition = {"Content-Disposition": f'attachment; filename="features.{form}"'}
        return await guarded(
            lambda asked: taken_away(index, asked, form),
            request,
            lambda data: Response(data, media_type=FORMATS[form], headers=disposition),
        )

    async def guarded(
        ask: Callable[[Mapping[str, str]], Any], request: Request, made: Callable[[Any], Response]
    ) -> Response:
        try:
            return made(await run_in_threadpool(ask, dict(request.query_params)))
        except SaematchError as error:
            return JSONResponse({"error": str(error)}, 400)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            said = f"the run's tables could not be read: {first[:200]}"
            return JSONResponse({"error": said}, 500)

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/api/{name}", answer, methods=["GET"]),
        Route("/take/{form}", take, methods=["GET"]),
        Route("/{name}", page, methods=["GET"]),
    ]
    return _Guard(Starlette(routes=routes))


class _Guard:
    """Refuses requests for another host, and puts the headers on every answer."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if host.rpartition(":")[0] not in (HOST, "localhost") and host not in (HOST, "localhost"):
            from starlette.responses import PlainTextResponse

            refused = PlainTextResponse(
                f"needed a request for {HOST}, found one for another host", 403
            )
            await refused(scope, receive, send_with_headers)
            return
        await self.inner(scope, receive, send_with_headers)


def serve(index: Index, other: Index | None, port: int, started: Callable[[str], None]) -> None:
    """Serve until interrupted; `started` is told the address.

    `port` 0: any that is free.  Raises UsageError for a port that is taken.
    """
    import socket

    app = application(index, other)
    try:
        import uvicorn
    except ImportError:
        raise MissingDependencyError("uvicorn", "explorer", "saematch explore") from None
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise UsageError(
            f"needed a free port, found {port} taken ({error.strerror}); try --port 0"
        ) from None
    with listening:
        started(f"http://{HOST}:{listening.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
