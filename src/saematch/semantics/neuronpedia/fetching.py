"""All descriptions of an SAE's features from Neuronpedia's bulk exports.

They are in `{EXPORTS}/{model}/{source}/explanations/batch-{i}.jsonl.gz`, from 0 on.

1. Batches are taken from the cache where a whole one lies there, else downloaded, a few at a time.
2. A redirect is refused by name and never followed: what is trusted is the host that was given.  What may
   pass is asked again, a bounded number of times with growing waits: no connection, silence, 5xx, a limit
   that ends soon, bytes that end too early.  What will not pass is an InputError at once: every other status,
   more bytes than a stated limit.
3. A downloaded batch is believed once it decompresses to its end, and only then put in the cache.
4. The end is where GAP + 1 batches in a row are not there: numbers are known to be skipped.
5. Every line with a text becomes a description; what has none and what cannot be read is counted.

Records are as strangers and models wrote them: a JSON object a line with `index` (a text), `description` (may
be null), and mostly `explanationModelName` and `typeName`.
"""

import gzip
import io
import math
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from saematch._io import locks
from saematch._io.files import is_plain_file, make_folders, remove_partials, write_atomically
from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.semantics.descriptions.description import Description
from saematch.semantics.neuronpedia.sources import NAME, NeuronpediaSource
from saematch.text import plural, printable, read_json

EXPORTS = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com/v1"
SITE = "https://www.neuronpedia.org"
FOLDER = "explanations"
"""Some sources have others next to it, one per explainer: `explanations-gpt-4o-mini`."""
GAP = 3
"""Batches in a row that may be missing before a later one."""
LAST_BATCH = 1 << 16
"""No export has so many; a server that always answers must end somewhere."""
LARGEST_BATCH = 1 << 28
"""Bytes of one batch, decompressed: over a hundred times what a batch with embeddings holds."""
_INDEX = re.compile(r"-?[0-9]{1,18}")


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


@dataclass(frozen=True)
class FetchedDescriptions:
    """All descriptions of one SAE, and how the download went."""

    source: NeuronpediaSource
    address: str
    """Address of the folder that they come from."""
    descriptions: tuple[Description, ...]
    """By feature, then in the order of the files; a feature may have none or several."""
    batches: int
    """Files read."""
    downloaded: int
    """How many of these did not come from the cache."""
    empty: int
    """Lines without a text: null or blank."""
    malformed: int
    """Lines that could not be read."""
    notes: tuple[str, ...]
    """For people: what was left out and why."""

    @property
    def explainers(self) -> Mapping[str, int]:
        """Descriptions by who wrote them: layers of one SAE suite can differ in this."""
        return dict(Counter(one.explainer for one in self.descriptions))


def fetch_descriptions(
    source: NeuronpediaSource,
    d_sae: int,
    cache: Path | None = None,
    *,
    base_url: str = EXPORTS,
    offline: bool = False,
    patience: Patience = Patience(),
    largest: int = LARGEST_BATCH,
) -> FetchedDescriptions:
    """Every description that Neuronpedia exports of an SAE with `d_sae` features.

    `cache`: a folder that keeps the files as they came, so that a call that was stopped goes on where
    it was; None keeps nothing.  Batches are asked for until at least four in a row are not there (404),
    because numbers are known to be skipped; which are not there is asked again by every call, because
    they may come.  `offline` reads the cache alone.  `largest`: bytes that a batch may decompress to.

    Raises InputError (no descriptions, a feature that the SAE has not, a server that goes on failing, a
    file that is too large or goes on being cut off, another process that fills the same cache),
    UsageError (an address that is none) and MissingDependencyError.
    """
    for name in (source.model, source.source):
        if not NAME.fullmatch(name):
            raise UsageError(
                f"expected names of letters, digits, '.', '_' and '-' for Neuronpedia, got '{name[:80]}'"
            )
    if offline and cache is None:
        raise UsageError("expected a cache to read without a network, got none; give cache=")
    address = f"{base_url.rstrip('/')}/{source.model}/{source.source}/{FOLDER}"
    kept = None if cache is None else cache / source.model / source.source / FOLDER
    with (
        nullcontext() if kept is None or offline else _holding(kept, patience),
        nullcontext() if offline else _Server(address, patience, largest) as server,
    ):
        batches = _Batches(server, kept, largest, d_sae)
        found = batches.all()
    if not found:
        raise InputError(
            f"expected descriptions of {source.id}, got none "
            + (f"in the cache {kept}; try without offline" if offline else f"at {address}")
            + f"; look at {SITE}/{source.id}, or describe the features from their activations"
        )
    descriptions = [one for batch in found.values() for one in batch.descriptions]
    descriptions.sort(key=lambda one: one.feature)  # stable: the order of the files stays
    notes = _notes(found, batches.damaged)
    if offline:
        notes.append("read from the cache alone: batches that were never downloaded are missing")
    return FetchedDescriptions(
        source=source,
        address=address,
        descriptions=tuple(descriptions),
        batches=len(found),
        downloaded=sum(batch.downloaded for batch in found.values()),
        empty=sum(batch.empty for batch in found.values()),
        malformed=sum(len(batch.malformed) for batch in found.values()),
        notes=tuple(notes),
    )


@contextmanager
def _holding(kept: Path, patience: Patience) -> Iterator[None]:
    """Fill a folder of the cache alone: a second process waits, and then finds it filled."""
    make_folders(kept)
    try:
        with locks.holding(kept, patience.longest_wait):
            remove_partials(kept)
            yield
    except locks.HeldError as error:
        raise InputError(
            f"another process has been filling the cache {kept} for longer than "
            f"{patience.longest_wait:g} s; wait for it to end, or give another cache"
        ) from error
    except OSError as error:
        raise InputError(
            f"could not lock {kept}: {error.strerror or error}; try a cache that you may write to"
        ) from error


@dataclass(frozen=True)
class Batch:
    name: str
    descriptions: tuple[Description, ...]
    empty: int
    malformed: tuple[int, ...]
    """Numbers of the lines, from 1."""
    downloaded: bool = False


@dataclass
class _Batches:
    """The files of one folder, from the cache or the server."""

    server: "_Server | None"
    kept: Path | None
    largest: int
    d_sae: int
    damaged: list[int] = field(default_factory=list)
    """Numbers of the cached files that had to be downloaded again."""

    def all(self) -> dict[int, Batch]:
        """Every batch by its number, up to GAP + 1 numbers in a row that are not there."""
        found: dict[int, Batch] = {}
        with ThreadPoolExecutor(GAP + 1) as pool:
            for start in range(0, LAST_BATCH, GAP + 1):
                window = range(start, start + GAP + 1)
                some = zip(window, pool.map(self.read, window), strict=True)
                found.update((number, batch) for number, batch in some if batch is not None)
                if window[-1] - max(found, default=-1) > GAP:
                    return found
        raise InputError(
            f"expected fewer than {LAST_BATCH:,} batches of descriptions, got more; is the base_url right?"
        )

    def read(self, number: int) -> Batch | None:
        """A batch; None if there is no such one."""
        name = f"batch-{number}"
        path = None if self.kept is None else self.kept / f"{name}.jsonl.gz"
        if path is not None and is_plain_file(path):
            try:
                lines = _gunzip(path.read_bytes(), self.largest, str(path))
                return parse_batch(lines, name, self.d_sae, downloaded=False)
            except _PassingError as error:
                if self.server is None:
                    raise InputError(f"{path} is damaged ({error}); try without offline") from error
                self.damaged.append(number)
        answer = None if self.server is None else self.server.get(f"{name}.jsonl.gz")
        if answer is None:
            return None
        data, lines = answer
        if path is not None:
            write_atomically(path, data)
        return parse_batch(lines, name, self.d_sae, downloaded=True)


def parse_batch(lines: bytes, name: str, d_sae: int, downloaded: bool) -> Batch:
    """The descriptions in a batch; InputError for a feature that the SAE has not."""
    descriptions: list[Description] = []
    empty, malformed = 0, []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        if not line.strip():
            continue
        record: Any = None
        with suppress(ValueError):
            record = read_json(line)
        feature = _feature(record.get("index")) if isinstance(record, dict) else None
        if feature is None or not isinstance(record.get("description"), str | None):
            malformed.append(number)
            continue
        if not 0 <= feature < d_sae:
            raise InputError(
                f"expected features 0 to {d_sae - 1:,}, got feature {feature:,} in {name}, line "
                f"{number}: these descriptions are another SAE's; check the Neuronpedia id"
            )
        fields = ("description", "explanationModelName", "typeName", "licence", "license")
        text, model, kind, *licences = (_text(record.get(field)) for field in fields)
        if not text:
            empty += 1
            continue
        explainer = f"{model} ({kind})" if model and kind else model or kind
        licence = licences[0] or licences[1]
        descriptions.append(Description(feature, text, "neuronpedia", explainer, licence))
    return Batch(name, tuple(descriptions), empty, tuple(malformed), downloaded)


def _feature(index: object) -> int | None:
    """A feature's number, written as a text or a number."""
    if isinstance(index, str) and _INDEX.fullmatch(index):
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _notes(found: Mapping[int, Batch], damaged: list[int]) -> list[str]:
    notes = [
        f"batch-{number} was damaged in the cache and downloaded again"
        for number in sorted(damaged)
    ]
    missing = [number for number in range(max(found)) if number not in found]
    if missing:
        few = ", ".join(f"batch-{number}" for number in missing[:4])
        notes.append(
            f"{plural(len(missing), 'batch', 'batches')} missing, though later ones are there: {few}"
        )
    bad = [batch for batch in found.values() if batch.malformed]
    if bad:
        total = sum(len(batch.malformed) for batch in bad)
        notes.append(
            f"{plural(total, 'line')} left out that could not be read, the first is {bad[0].name}, line "
            f"{bad[0].malformed[0]}"
        )
    return notes


class _PassingError(Exception):
    """Something that may be otherwise at the next attempt."""

    def __init__(self, found: str, wait: float | None = None) -> None:
        super().__init__(found)
        self.wait = wait
        """Seconds that the server asks for; None: it does not say."""


class _Server:
    """One folder, asked over connections that stay open; usable from several threads."""

    def __init__(self, address: str, patience: Patience, largest: int) -> None:
        """Raises UsageError (no http address) and MissingDependencyError."""
        self.address, self.patience, self.largest = address, patience, largest
        try:
            import httpx
        except ImportError as error:
            purpose = "downloading from Neuronpedia"
            raise MissingDependencyError("httpx", "neuronpedia", purpose) from error
        self.httpx: Any = httpx
        try:
            url = self.httpx.URL(address)
        except self.httpx.InvalidURL:
            url = self.httpx.URL()
        if url.scheme not in ("https", "http") or not url.host:
            raise UsageError(f"expected an https address as base_url, got '{address[:80]}'")
        self.client = self.httpx.Client(
            timeout=patience.silence,
            verify=_certificates(),
            follow_redirects=False,
            # The bytes as they are stored: a second, hidden compression would escape the limits.
            headers={"user-agent": "saematch", "accept-encoding": "identity"},
        )

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def get(self, name: str) -> tuple[bytes, bytes] | None:
        """A gzip file and what it holds; None if there is none (404)."""
        url, patience = f"{self.address}/{name}", self.patience
        growing, attempt = patience.first_wait, 1
        while True:
            try:
                return self._attempt(url)
            except _PassingError as error:
                if attempt == patience.attempts:
                    said = f"{error}, {attempt} times in a row; try again later"
                    raise InputError(f"{url}: {said}") from error
                patience.sleep(growing if error.wait is None else error.wait)
            growing, attempt = min(2 * growing, patience.longest_wait), attempt + 1

    def _attempt(self, url: str) -> tuple[bytes, bytes] | None:
        data = bytearray()
        try:
            with self.client.stream("GET", url) as response:
                if response.status_code == 404:
                    return None
                if response.status_code != 200:
                    raise self._refusal(url, response.status_code, response.headers)
                end = time.monotonic() + self.patience.whole
                for block in response.iter_raw():
                    data += block
                    if len(data) > self.largest:
                        raise _too_large(url, self.largest)
                    if time.monotonic() > end:
                        raise _PassingError(
                            f"no end of the answer within {self.patience.whole:g} s"
                        )
        except self.httpx.TimeoutException as error:
            raise _PassingError(f"no answer within {self.patience.silence:g} s") from error
        except self.httpx.TransportError as error:
            raise _PassingError(f"no connection ({_line(error)})") from error
        return bytes(data), _gunzip(bytes(data), self.largest, url)

    def _refusal(self, url: str, status: int, headers: Mapping[str, str]) -> Exception:
        """What a status other than 200 means; a limit that is said to end soon passes."""
        if status == 429:
            wait = _seconds(headers.get("retry-after"))
            if wait is not None and wait <= self.patience.longest_wait:
                return _PassingError("the limit of calls reached (status 429)", wait)
            when = "later" if wait is None else f"in {wait:,.0f} s"
            return InputError(
                f"expected {url}, got the limit of calls (status 429); try again {when}"
            )
        if status in (408, 425) or status >= 500:
            return _PassingError(f"the server fails with status {status}")
        if 300 <= status < 400:
            target = printable(headers.get("location", "nowhere"), 200)
            return InputError(
                f"{url} redirects to {target}, which is not followed; if you trust "
                "that address, give it as base_url"
            )
        return InputError(f"{url} answered with status {status}; look at the address in a browser")


def _gunzip(data: bytes, largest: int, name: str) -> bytes:
    """What a whole gzip file holds, of at most `largest` bytes; no more than that is ever in memory.

    Raises _PassingError where it is cut off or damaged and InputError where it holds more.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            held = file.read(largest + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _PassingError(f"a gzip file that is cut off or damaged ({_line(error)})") from error
    if len(held) > largest:
        raise _too_large(name, largest)
    if not data:
        raise _PassingError("an empty file where a gzip file should be")
    return held


def _too_large(name: str, largest: int) -> InputError:
    return InputError(
        f"expected at most {largest:,} bytes in {name}, got more; descriptions of one batch are never "
        "so large: it is not what it says, or give a larger limit (largest=)"
    )


def _seconds(retry_after: str | None) -> float | None:
    """Seconds from now that a retry-after header asks for: a number or a date; None: it says none."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after or "")
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
    import httpx

    return httpx.create_ssl_context()
