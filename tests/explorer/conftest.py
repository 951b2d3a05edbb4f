"""A small synthetic run, the explorer over it, and a browser.

All but the run is a module's: the cache is named by the environment, which other tests must not see.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Watched, chromium, served
from damage import hostile
from explored_runs import SHAPE, Shape, client_of, write_run
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from saematch.explorer.explorer import Explorer


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def _index_cache(cache_folder: Path) -> Iterator[None]:
    """Indexes go to a folder of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAEMATCH_CACHE", str(cache_folder))
        yield


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it; copy it to change it."""
    return write_run(tmp_path_factory.mktemp("synthetic") / "run", SHAPE)


@pytest.fixture
def changed(synthetic: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(synthetic, tmp_path / "run"))


@pytest.fixture
def opened(changed: Path) -> Iterator[Explorer]:
    explorer = Explorer(changed)
    yield explorer
    explorer.close()


@pytest.fixture(scope="module")
def explorer(synthetic: Path) -> Iterator[Explorer]:
    with_everything = Explorer(synthetic)
    with_everything.first.all()
    yield with_everything
    with_everything.close()


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> TestClient:
    return client_of(explorer)


@pytest.fixture(scope="module")
def ask(client: TestClient) -> Callable[..., dict[str, Any]]:
    """Ask a question that must be answered."""

    def asked(question: str, **parameters: Any) -> dict[str, Any]:
        reply = client.get(f"/api/{question}", params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()

    return asked


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def strange(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic run with hostile texts at layer 1."""
    run = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("strange") / "run"))
    hostile(run)
    return run


@pytest.fixture(scope="module")
def site(strange: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    second = write_run(
        tmp_path_factory.mktemp("second") / "run", Shape(**{**vars(SHAPE), "seed": 9})
    )
    with served(strange, second) as address:
        yield address


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page())
    yield watched
    context.close()
