"""A Neuronpedia on this machine: the exports' and the API's formats, and their failures on demand."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What one request gets."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds of silence before the first byte."""
    promised: int | None = None
    """The length that the headers speak of, where it is more than comes."""


NOT_THERE = Answer(b"NoSuchKey", 404)


class LocalNeuronpedia:
    """Answers by path; a list of answers is used up one by one, its last one for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[str] = []
        """Paths, in the order of the requests."""
        self.url = ""
        self._lock = threading.Lock()

    def put(self, path: str, *answers: Answer) -> None:
        self.answers[path] = list(answers)

    def put_batch(self, number: int, records: Iterable[Any], source: str = "m/0-res") -> None:
        self.put(batch_path(number, source), Answer(batch_of(records)))

    def answer(self, path: str) -> Answer:
        with self._lock:
            self.asked.append(path)
            waiting = self.answers.get(path, [NOT_THERE])
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def forget_requests(self) -> None:
        self.asked.clear()


def batch_path(number: int, source: str = "m/0-res", folder: str = "explanations") -> str:
    return f"/v1/{source}/{folder}/batch-{number}.jsonl.gz"


def lines_of(records: Iterable[Any]) -> bytes:
    """A JSON object a line; bytes stand as they are."""
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    return b"".join(line + b"\n" for line in lines)


def batch_of(records: Iterable[Any]) -> bytes:
    return gzip.compress(lines_of(records))


def record(index: int | str, description: str | None, **more: Any) -> dict[str, Any]:
    """A line as the exports hold it."""
    return {
        "modelId": "m",
        "layer": "0-res",
        "index": str(index),
        "description": description,
        "explanationModelName": "gpt-4o-mini",
        "typeName": "oai_token-act-pair",
        "embedding": [0.25, -0.5],
        **more,
    }


@contextmanager
def serving() -> Iterator[LocalNeuronpedia]:
    """The server, while it runs; its `url` is the root of both kinds of address."""
    site = LocalNeuronpedia()
    server = _Server(("127.0.0.1", 0), _handler(site))
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed or had enough is part of the tests: no traceback."""


def _handler(site: LocalNeuronpedia) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = site.answer(self.path)
            time.sleep(answer.delay)
            length = len(answer.body) if answer.promised is None else answer.promised
            try:
                self.send_response(answer.status)
                self.send_header("Content-Length", str(length))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except ConnectionError:
                self.close_connection = True  # the other side had enough
            if answer.promised is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
