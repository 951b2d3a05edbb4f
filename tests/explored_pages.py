"""The explorer's page over a run, served from a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saematch.explorer.index import Index
from saematch.explorer.server import application


@contextmanager
def serving(directory: Path, other: Path | None = None) -> Iterator[str]:
    """The address of a page over a run."""
    import uvicorn

    opened = [Index.of(one) for one in (directory, other) if one is not None]
    server = uvicorn.Server(
        uvicorn.Config(application(*opened), host="127.0.0.1", port=0, log_level="warning")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()
        for one in opened:
            one.close()
