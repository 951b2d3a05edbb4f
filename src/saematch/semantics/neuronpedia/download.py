"""Bytes from a server that may fail, stall, set limits, send elsewhere or cut off.

1. Ask for one address.  A redirect is refused by name and never followed: what is trusted is the host
   that was given.
2. What may pass is asked again, a bounded number of times with growing waits: no connection, silence,
   5xx, a limit that ends soon, bytes that end too early.
3. What will not pass is an InputError at once: every other status, more bytes than a stated limit.
"""

import gzip
import io
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from types import TracebackType
from typing import Any, TypeVar

from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.text import printable

T = TypeVar("T")

LIMIT = "25,000 calls an hour"
"""Neuronpedia's, of single features."""


@dataclass(frozen=True)
class Patience:
    """How often and how long a server is waited for; all times in seconds."""

    attempts: int = 5
    """Times that one address is asked for before giving up."""
    silence: float = 30.0
    """Without a byte, after which an attempt has failed."""
    whole: float = 600.0
    """For one answer from its first byte to its last."""
    first_wait: float = 0.5
    """Before the second attempt; doubled before each further one."""
    longest_wait: float = 60.0
    """Before any attempt; a server that asks for more is an error that says for how much."""
    sleep: Callable[[float], None] = time.sleep


class PassingError(Exception):
    """Something that may be otherwise at the next attempt."""

    def __init__(self, found: str, wait: float | None = None) -> None:
        super().__init__(found)
        self.wait = wait
        """Seconds that the server asks for; None: it does not say."""


class Server:
    """One base address, asked over connections that stay open; usable from several threads."""

    def __init__(self, base_url: str, patience: Patience, largest: int) -> None:
        """`largest`: bytes that one answer may have.  Raises UsageError (no http address) and
        MissingDependencyError."""
        self.base_url = base_url.rstrip("/")
        self.patience = patience
        self.largest = largest
        self._httpx, self._tenacity = _libraries()
        try:
            url = self._httpx.URL(self.base_url)
        except self._httpx.InvalidURL as error:
            raise _no_address(base_url) from error
        if url.scheme not in ("https", "http") or not url.host:
            raise _no_address(base_url)
        self._client = self._httpx.Client(
            timeout=patience.silence,
            verify=_certificates(),
            follow_redirects=False,
            # The bytes as they are stored: a second, hidden compression would escape the limits.
            headers={"user-agent": "saematch", "accept-encoding": "identity"},
        )

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def get(self, path: str, read: Callable[[bytes], T]) -> T | None:
        """What `read` makes of the bytes at `path`; None if there is nothing (404).

        `read` raises PassingError where the bytes are not whole: they are then asked for again.  Raises
        InputError naming the address.
        """
        url = f"{self.base_url}/{path}"
        tenacity, patience = self._tenacity, self.patience
        growing = tenacity.wait_exponential(patience.first_wait, max=patience.longest_wait)

        def wait(state: Any) -> float:
            asked = state.outcome.exception().wait
            return growing(state) if asked is None else asked

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(patience.attempts),
            wait=wait,
            retry=tenacity.retry_if_exception_type(PassingError),
            sleep=patience.sleep,
            reraise=True,
        )
        try:
            return retrying(self._attempt, url, read)
        except PassingError as error:
            raise InputError(
                f"{url}: {error}, {patience.attempts} times in a row; try again later"
            ) from error

    def _attempt(self, url: str, read: Callable[[bytes], T]) -> T | None:
        httpx = self._httpx
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code == 404:
                    return None
                self._check(url, response)
                data = self._bytes(url, response)
        except httpx.TimeoutException as error:
            raise PassingError(f"no answer within {self.patience.silence:g} s") from error
        except httpx.TransportError as error:
            raise PassingError(f"no connection ({_line(error)})") from error
        return read(data)

    def _check(self, url: str, response: Any) -> None:
        """Raises unless the status is 200."""
        status = response.status_code
        if status == 200:
            return
        if status == 429:
            raise self._limited(url, response.headers)
        if status in (408, 425) or status >= 500:
            raise PassingError(f"the server fails with status {status}")
        if 300 <= status < 400:
            target = printable(response.headers.get("location", "nowhere"), 200)
            raise InputError(
                f"{url} redirects to {target}, which is not followed; if you trust "
                "that address, give it as base_url"
            )
        raise InputError(f"{url} answered with status {status}; look at the address in a browser")

    def _limited(self, url: str, headers: Any) -> Exception:
        """The limit of calls: waited for where the server says that it ends soon."""
        left = printable(headers.get("x-limit-remaining", "an unknown number of"), 40)
        found = f"the limit of calls reached (status 429, {left} calls left)"
        wait = _seconds(headers.get("retry-after"))
        if wait is not None and wait <= self.patience.longest_wait:
            return PassingError(found, wait)
        when = f"in {wait:,.0f} s" if wait is not None else f"within the hour ({LIMIT})"
        return InputError(
            f"expected {url}, got {found}; try again {when}, or take the bulk exports"
        )

    def _bytes(self, url: str, response: Any) -> bytes:
        data = bytearray()
        end = time.monotonic() + self.patience.whole
        for block in response.iter_raw():
            data += block
            if len(data) > self.largest:
                raise _too_large(url, self.largest)
            if time.monotonic() > end:
                raise PassingError(f"no end of the answer within {self.patience.whole:g} s")
        return bytes(data)


def gunzip(data: bytes, largest: int, name: str) -> bytes:
    """What a whole gzip file holds, of at most `largest` bytes; no more than that is ever in memory.

    Raises PassingError where it is cut off or damaged and InputError where it holds more.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            held = file.read(largest + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PassingError(f"a gzip file that is cut off or damaged ({_line(error)})") from error
    if len(held) > largest:
        raise _too_large(name, largest)
    if not data:
        raise PassingError("an empty file where a gzip file should be")
    return held


def _too_large(name: str, largest: int) -> InputError:
    return InputError(
        f"expected at most {largest:,} bytes in {name}, got more; descriptions of one batch are never "
        "so large: it is not what it says, or give a larger limit (largest=)"
    )


def _no_address(base_url: str) -> UsageError:
    return UsageError(f"expected an https address as base_url, got '{base_url[:80]}'")


def _seconds(retry_after: str | None) -> float | None:
    """Seconds from now that a retry-after header asks for: a number or a date; None: it says none."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        # A date without a zone is in UTC by the standard.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _line(error: BaseException) -> str:
    return printable((str(error).splitlines() or [""])[0] or type(error).__name__, 160)


@cache
def _certificates() -> Any:
    """Whom to trust: reading them takes longer than a small answer."""
    return _libraries()[0].create_ssl_context()


def _libraries() -> tuple[Any, Any]:
    try:
        import httpx
    except ImportError as error:
        raise _missing("httpx") from error
    try:
        import tenacity
    except ImportError as error:
        raise _missing("tenacity") from error
    return httpx, tenacity


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(package, "neuronpedia", "downloading from Neuronpedia")
