"""A small synthetic run, and the explorer over it.

All but the run is a module's: the cache is named by the environment, which other tests must not see.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from explored_runs import SHAPE, client_of, write_run
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
