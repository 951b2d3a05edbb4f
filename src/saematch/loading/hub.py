"""Folders at the Hugging Face Hub: list once, download what is asked for, say why when it fails."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from saematch.errors import InputError, MissingDependencyError
from saematch.loading.checkpoint import Folder


@dataclass(frozen=True)
class HubFolder(Folder):
    """A folder of a model repository at the Hub."""

    repository: str
    """`owner/name`."""
    path: str = ""
    """The folder inside the repository; empty: the whole repository."""
    revision: str | None = None

    @property
    def location(self) -> str:
        return "/".join(part for part in (self.repository, self.path) if part)

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    @cached_property
    def _names(self) -> tuple[str, ...]:
        prefix = f"{self.path}/" if self.path else ""
        return tuple(
            name.removeprefix(prefix)
            for name in list_files(self.repository, self.revision)
            if name.startswith(prefix)
        )

    def fetch(self, name: str) -> Path:
        return download(self.repository, self._inside(name), self.revision)

    def above(self, name: str) -> Path | None:
        parent = self.path.rpartition("/")[0]
        inside = f"{parent}/{name}" if parent else name
        if not self.path or inside not in list_files(self.repository, self.revision):
            return None
        return download(self.repository, inside, self.revision)

    def reference(self, name: str) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        inside = self._inside(name)
        return f"hf://{self.repository}{revision}" + (f"/{inside}" if inside else "")

    def _inside(self, name: str) -> str:
        return "/".join(part for part in (self.path, name) if part)


@lru_cache(maxsize=64)
def list_files(repository: str, revision: str | None = None) -> tuple[str, ...]:
    """Every file of a repository; what is in the local cache where the Hub cannot be reached."""
    hub = _huggingface_hub()
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with _explained(repository, None, revision):
            return tuple(sorted(hub.list_repo_files(repository, revision=revision)))
    except InputError as error:
        if isinstance(error.__cause__, HfHubHTTPError) and _status(error.__cause__) is not None:
            raise
        cached = _cached_files(repository, revision)
        if not cached:
            raise
        return cached


def download(repository: str, name: str, revision: str | None = None) -> Path:
    """One file of a repository as a local file."""
    hub = _huggingface_hub()
    with _explained(repository, name, revision):
        return Path(hub.hf_hub_download(repository, name, revision=revision))


def _cached_files(repository: str, revision: str | None) -> tuple[str, ...]:
    hub = _huggingface_hub()
    try:
        root = Path(hub.snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception:
        return ()
    return tuple(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()))


@contextmanager
def _explained(repository: str, name: str | None, revision: str | None) -> Iterator[None]:
    """Turns the Hub's errors into one or two lines that say what to do."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repository}"
    what = f"'{name}' of {repository}" if name else f"the files of {repository}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"needed {what}, found it gated: accept its licence at {page} and log in (hf auth "
            f"login, or HF_TOKEN)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"needed {what}, found no such repository, or a private or gated one: look at {page}, "
            f"accept its licence there and log in (hf auth login, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"needed {what} at revision '{revision}', found no such revision; look at {page}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"needed {what}, found the Hub out of reach and no copy in the cache; connect, or give "
            f"a local path"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"needed the file '{name}' in {page}, found it is not there"
            + _near(repository, name, revision)
        ) from error
    except errors.HfHubHTTPError as error:
        if _status(error) in (401, 403):
            raise InputError(
                f"needed {what}, found access refused ({_status(error)}): accept the licence at "
                f"{page} and log in (hf auth login, or HF_TOKEN)"
            ) from error
        raise InputError(f"needed {what}, found the Hub answers: {_line(error)}") from error
    except errors.HFValidationError as error:
        raise InputError(f"needed owner/name of a repository, found '{repository}'") from error
    except OSError as error:
        # Offline mode, no network, no name server: all are OSErrors with a message of their own.
        raise InputError(
            f"needed {what}, found the Hub out of reach ({_line(error)}); connect, or give a local "
            f"path"
        ) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests", "httpcore"):
            raise InputError(
                f"needed {what}, found the Hub out of reach ({_line(error)}); connect, or give a "
                f"local path"
            ) from error
        raise


def _near(repository: str, name: str | None, revision: str | None) -> str:
    """What is there that looks like the file that is not."""
    if not name:
        return ""
    try:
        names = list_files(repository, revision)
    except InputError:
        return ""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.8)
    return f"; near it: {', '.join(close)}" if close else ""


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def _huggingface_hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "hub", "a Hub reference") from error
    return huggingface_hub
