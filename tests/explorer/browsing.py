"""Debian's Chromium, a page that notes what must not happen, and an explorer that is really served."""

import asyncio
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from saematch.explorer.explorer import Explorer
from saematch.explorer.server import application, settings


@contextmanager
def served(*directories: Path) -> Iterator[str]:
    """The address at which these runs are explored."""
    explorer = Explorer(*directories)
    for catalogue in explorer.catalogues:
        catalogue.all()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    site = application(explorer, port)
    server = uvicorn.Server(settings(site, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        explorer.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; its absence is a failure, since nothing else shows that the page works.

    Closed with the module that uses it: while it is open an event loop runs, and other tests start their own.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    assert executable, "expected Debian's chromium, got none; try: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console", lambda one: self.errors.append(one.text) if one.type == "error" else None
        )
        page.on("dialog", lambda dialog: (self.errors.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url))

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("file", "data") and parts.hostname != "127.0.0.1":
            self.foreign.append(url)

    def check(self, allowed: tuple[str, ...] = ()) -> None:
        """No script failed, nothing left the machine; `allowed`: parts of errors that were asked for."""
        assert not self.foreign
        assert [one for one in self.errors if not any(part in one for part in allowed)] == []


def opened(watched: Watched, address: str, heading: str | re.Pattern[str]) -> Page:
    watched.page.goto(address)
    expect(watched.page.locator("h1")).to_have_text(heading)
    return watched.page
