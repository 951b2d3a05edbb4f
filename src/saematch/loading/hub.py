"""Folders at the Hugging Face Hub: list once, download what is asked for, say why when it fails.

Whether the Hub answers at all is asked with little patience, so that nothing waits through a wall of retries.
"""

import difflib
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from saematch.errors import InputError, MissingDependencyError
from saematch.text import first_line, plural

BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses after which huggingface_hub waits and asks again, for minutes if `Retry-After` says so."""


@dataclass(frozen=True)
class HubFolder:
    """A folder of a model repository at the Hub: what `LocalFolder` is on this machine."""

    repository: str
    """`owner/name`."""
    path: str = ""
    """The folder inside the repository; empty: the whole repository."""
    revision: str | None = None

    @property
    def location(self) -> str:
        return "/".join(part for part in (self.repository, self.path) if part)

    @cached_property
    def names(self) -> tuple[str, ...]:
        prefix = f"{self.path}/" if self.path else ""
        return tuple(
            name.removeprefix(prefix)
            for name in list_files(self.repository, self.revision)
            if name.startswith(prefix)
        )

    @property
    def parent(self) -> "HubFolder | None":
        return replace(self, path=self.path.rpartition("/")[0]) if self.path else None

    def has(self, name: str) -> bool:
        return name in self.names

    def fetch(self, name: str) -> Path:
        inside = "/".join(part for part in (self.path, name) if part)
        return download(self.repository, inside, self.revision)

    def reference(self, name: str) -> str:
        root = f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")
        return "/".join(part for part in (root, self.path, name) if part)


@lru_cache(maxsize=64)
def list_files(repository: str, revision: str | None = None) -> tuple[str, ...]:
    """Every file of a repository; what is in the local cache where the Hub cannot be reached."""
    try:
        with _explained(repository, None, revision):
            return tuple(sorted(one.rfilename for one in _asked(repository, revision).siblings))
    except InputError as error:
        cached = _cached_files(repository, revision)
        if not cached or _says_it_is_not_there(error.__cause__):
            raise
        return cached


def download(repository: str, name: str, revision: str | None = None) -> Path:
    """One file of a repository as a local file.

    The copy in the cache where the Hub is out of reach, refuses or fails, and a warning says so.  Raises
    InputError if there is none, where the Hub says that the file is not there, and for an HTML page (of a
    proxy, of a login) in its place.
    """
    hub = _huggingface_hub()
    try:
        with _explained(repository, name, revision):
            _asked(repository, revision)
            if not isinstance(hub.try_to_load_from_cache(repository, name, revision=revision), str):
                _check_served(repository, name, revision)
            found = Path(hub.hf_hub_download(repository, name, revision=revision))
    except InputError as error:
        cached = hub.try_to_load_from_cache(repository, name, revision=revision)
        if _says_it_is_not_there(error.__cause__) or not isinstance(cached, str):
            raise
        found = Path(cached)
        if status := _status(error.__cause__):
            warnings.warn(
                f"took '{name}' of {repository} from the cache: the Hub answers {status}",
                stacklevel=2,
            )
    _check_no_page(found, repository, name)
    return found


def repository_is_reachable(repository: str) -> bool:
    """Whether the Hub serves a repository, or says that it is not there; else the cache remains."""
    try:
        _asked(repository, None)
        _check_served(repository, "config.json", None)
    except Exception as error:
        return _says_it_is_not_there(error)
    return True


@lru_cache(maxsize=64)
def _asked(repository: str, revision: str | None) -> Any:
    """What the Hub says of a repository, asked once and not repeated as huggingface_hub would (`BUSY`).

    Raises OSError where the Hub is out of reach, and errors of huggingface_hub and of its client.
    """
    if not hub_is_reachable():
        raise OSError(f"no answer within {REACH_SECONDS:.0f} seconds, or offline mode")
    try:
        return _huggingface_hub().model_info(repository, revision=revision, timeout=REACH_SECONDS)
    except Exception as error:
        if _status(error) is None and not isinstance(error, ValueError):
            # It answered and then hung: nothing else is to wait for it again.
            _answered[_endpoint()] = time.monotonic(), False
        raise


def _check_served(repository: str, name: str, revision: str | None) -> None:
    """Raises what `_asked` does where the Hub is too busy to serve a file; any other answer is left to
    huggingface_hub."""
    hub = _huggingface_hub()
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hub.hf_hub_url(repository, name, revision=revision)
    answer = hub.get_session().head(url, headers=build_hf_headers(), timeout=REACH_SECONDS)
    if answer.status_code in BUSY:
        hf_raise_for_status(answer)


def _says_it_is_not_there(error: BaseException | None) -> bool:
    """Whether the Hub answered that a file or revision does not exist; a 401 of a repository may mean any of
    private, gated and missing."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) or error is None:
        return False
    missing = (errors.EntryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)
    return isinstance(error, missing) or _status(error) == 404


def _check_no_page(path: Path, repository: str, name: str) -> None:
    if path.suffix in (".html", ".htm", ".md"):
        return
    with path.open("rb") as file:
        head = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        raise InputError(
            f"expected '{name}' of {repository}, got an HTML page (of a proxy, or of a login); remove "
            f"{path} and try from a network that reaches {_endpoint()}"
        )


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


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
    _huggingface_hub()  # or say what to install
    try:
        yield
    except Exception as error:
        said = _explanation(error, repository, name, revision)
        if said is None:
            raise
        raise InputError(said) from error


def _explanation(
    error: Exception, repository: str, name: str | None, revision: str | None
) -> str | None:
    """What to tell of an error, most special kinds first; None for one that is not the Hub's."""
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repository}"
    what = f"'{name}' of {repository}" if name else f"the files of {repository}"
    log_in = f"accept its licence at {page} and log in (hf auth login, or HF_TOKEN)"
    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return f"{what} is gated: {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{what}: there is no such repository, or it is private or gated; {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what} has no revision '{revision}'; look at {page}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{what} is not in the cache and the Hub is out of reach; connect, or give a local path"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"there is no file '{name}' in {page}" + _near(repository, name, revision)
    if isinstance(error, errors.HfHubHTTPError):
        if status in (401, 403):
            return f"access to {what} was refused ({status}): {log_in}"
        if status not in BUSY:
            return f"{what}: the Hub answers {first_line(error)}"
        after = error.response.headers.get("retry-after", "")
        seconds = re.fullmatch("[0-9]{1,6}", after)
        when = plural(int(after), "second") if seconds else "some minutes"
        return f"{what}: the Hub answers {status} for now; try again in {when}"
    if isinstance(error, errors.HFValidationError):
        return f"expected owner/name of a repository, got '{repository}'"
    if isinstance(error, ValueError):  # HTML with status 200 where JSON should be
        return (
            f"expected {what}, got an answer that is not the Hub's (a proxy's or a login's page?); "
            f"try from a network that reaches {_endpoint()}"
        )
    # Offline mode, no network, no name server: OSErrors with a message of their own, or the client's.
    client = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests", "httpcore")
    if client or isinstance(error, OSError):
        return (
            f"{what}: the Hub is out of reach ({first_line(error)}); connect, or give a local path"
        )
    return None


def _near(repository: str, name: str | None, revision: str | None) -> str:
    """What is there that looks like the file that is not."""
    try:
        names = list_files(repository, revision)
    except InputError:
        return ""
    close = difflib.get_close_matches(name or "", names, n=3, cutoff=0.8)
    return f"; near it: {', '.join(close)}" if close else ""


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _huggingface_hub():
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError("huggingface_hub", "hub", "a Hub reference") from error
    return huggingface_hub


REACH_SECONDS = 3.0
"""How long to wait for the Hub before it counts as out of reach."""
AGAIN_SECONDS = 30.0
"""How long one answer stands."""
_answered: dict[str, tuple[float, bool]] = {}
"""By endpoint: when it was asked, and whether it answered."""


def hub_is_reachable() -> bool:
    """Whether the Hub (or what `$HF_ENDPOINT` names) answers at all, whatever it says.

    False at once with `$HF_HUB_OFFLINE`; else after `REACH_SECONDS` at the latest.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        from huggingface_hub import constants
    except ImportError:
        return False
    if constants.HF_HUB_OFFLINE:
        return False
    asked, answered = _answered.get(constants.ENDPOINT, (-AGAIN_SECONDS, False))
    if time.monotonic() - asked > AGAIN_SECONDS:
        answered = _answers(constants.ENDPOINT)
        _answered[constants.ENDPOINT] = time.monotonic(), answered
    return answered


def _answers(endpoint: str) -> bool:
    import huggingface_hub

    found: list[object] = []

    def ask() -> None:
        with suppress(Exception):
            found.append(huggingface_hub.get_session().head(endpoint, timeout=REACH_SECONDS))

    # In a thread of its own: timeouts of a socket bound neither name lookup nor several addresses together.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(found)
