"""A Hub in a folder, and SAELens imported once."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="session")
def sae_lens() -> ModuleType:
    """Ten seconds to import: ask for it only where SAELens itself is the judge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sae_lens")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `owner/repo/...` served as the Hub."""
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    from saematch.loading.hub import _asked, list_files

    root = tmp_path / "served"

    def hf_hub_download(
        repo_id: str, filename: str, *, subfolder: str | None = None, **_: object
    ) -> str:
        path = root / repo_id / (subfolder or "") / filename
        if not path.is_file():
            raise RemoteEntryNotFoundError("404", response=_response(404))
        return str(path)

    def model_info(repo_id: str, **_: object) -> SimpleNamespace:
        repository = root / repo_id
        names = [p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "model_info", model_info)
    monkeypatch.setattr("saematch.loading.hub.hub_is_reachable", lambda: True)
    served = SimpleNamespace(head=lambda *_, **__: _response(200))
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: served)
    for kept in (list_files, _asked):
        kept.cache_clear()
    yield root
    for kept in (list_files, _asked):
        kept.cache_clear()


def _response(status: int) -> Any:
    request = SimpleNamespace(url="https://huggingface.co", method="GET")
    return SimpleNamespace(
        status_code=status, headers={}, request=request, url="https://huggingface.co", text=""
    )


@pytest.fixture
def response() -> object:
    return _response
