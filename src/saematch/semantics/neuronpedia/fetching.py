"""Descriptions of features from Neuronpedia: all of an SAE's in bulk, or a few one by one.

Bulk: `{EXPORTS}/{model}/{source}/explanations/batch-{i}.jsonl.gz`, from 0 on.

1. Batches are taken from the cache where a whole one lies there, else downloaded, a few at a time.
2. A downloaded batch is believed once it decompresses to its end, and only then put in the cache.
3. The end is where GAP + 1 batches in a row are not there: numbers are known to be skipped.
4. Every line with a text becomes a description; what has none and what cannot be read is counted.

Records are as strangers and models wrote them.  Bulk exports hold a JSON object a line: `index` (a text),
`description` (may be null), and mostly `explanationModelName` and `typeName`; the answer about one feature
holds such objects, without the index, in `explanations`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saematch._io import locks
from saematch._io.files import is_plain_file, make_folders, remove_partials, write_atomically
from saematch.errors import InputError, UsageError
from saematch.semantics.descriptions.description import Description
from saematch.semantics.neuronpedia.download import PassingError, Patience, Server, gunzip
from saematch.semantics.neuronpedia.sources import NAME, NeuronpediaSource, parse_id, source_of
from saematch.text import plural, read_json

__all__ = [
    "EXPORTS",
    "SITE",
    "FetchedDescriptions",
    "NeuronpediaSource",
    "Patience",
    "fetch_descriptions",
    "fetch_one",
    "page_of",
    "parse_id",
    "source_of",
]

_INDEX = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True)
class Batch:
    """What one file holds."""

    name: str
    descriptions: tuple[Description, ...]
    empty: int
    malformed: tuple[int, ...]
    """Numbers of the lines, from 1."""
    downloaded: bool = False


def parse_batch(lines: bytes, name: str, d_sae: int, downloaded: bool) -> Batch:
    """The descriptions in a batch; InputError for a feature that the SAE has not."""
    descriptions: list[Description] = []
    empty, malformed = 0, []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        if not line.strip():
            continue
        record = read_object(line)
        feature = None if record is None else _feature(record.get("index"))
        if record is None or feature is None or not _has_text_or_none(record):
            malformed.append(number)
            continue
        if not 0 <= feature < d_sae:
            raise InputError(
                f"expected features 0 to {d_sae - 1:,}, got feature {feature:,} in {name}, line "
                f"{number}: these descriptions are another SAE's; check the Neuronpedia id"
            )
        one = describe(feature, record)
        if one is None:
            empty += 1
        else:
            descriptions.append(one)
    return Batch(name, tuple(descriptions), empty, tuple(malformed), downloaded)


def describe(feature: int, record: Mapping[str, Any]) -> Description | None:
    """A record's description; None where it has no text."""
    text = _text(record.get("description"))
    if not text:
        return None
    model, kind = _text(record.get("explanationModelName")), _text(record.get("typeName"))
    explainer = f"{model} ({kind})" if model and kind else model or kind
    licence = _text(record.get("licence")) or _text(record.get("license"))
    return Description(feature, text, "neuronpedia", explainer, licence)


def read_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in some bytes; None if there is none; empty for null."""
    try:
        value = read_json(data)
    except ValueError:
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def _feature(index: object) -> int | None:
    """A feature's number, written as a text or a number."""
    if isinstance(index, str) and _INDEX.fullmatch(index):
        return int(index)
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _has_text_or_none(record: Mapping[str, Any]) -> bool:
    text = record.get("description")
    return text is None or isinstance(text, str)


def _text(value: object) -> str:
    """A text without blanks around it."""
    return value.strip() if isinstance(value, str) else ""


EXPORTS = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com/v1"
SITE = "https://www.neuronpedia.org"
FOLDER = "explanations"
"""Some sources have others next to them, one per explainer: `explanations-gpt-4o-mini`."""
GAP = 3
"""Batches in a row that may be missing before a later one."""
LAST_BATCH = 1 << 16
"""No export has so many; a server that always answers must end somewhere."""
LARGEST_BATCH = 1 << 28
"""Bytes of one batch, decompressed: over a hundred times what a batch with embeddings holds."""
LARGEST_FEATURE = 1 << 26
"""Bytes of the answer about one feature, with all its activations."""


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

    def __iter__(self) -> Iterator[Description]:
        return iter(self.descriptions)

    def __len__(self) -> int:
        return len(self.descriptions)


def page_of(model: str, source: str, index: int, *, base_url: str = SITE) -> str:
    """The address of a feature's page, for people."""
    _check_names(model, source)
    return f"{base_url.rstrip('/')}/{model}/{source}/{index}"


def fetch_descriptions(
    source: NeuronpediaSource,
    d_sae: int,
    cache: Path | None = None,
    *,
    folder: str = FOLDER,
    base_url: str = EXPORTS,
    offline: bool = False,
    patience: Patience = Patience(),
    largest: int = LARGEST_BATCH,
    progress: Callable[[int], None] = lambda _: None,
) -> FetchedDescriptions:
    """Every description that Neuronpedia exports of an SAE with `d_sae` features.

    `cache`: a folder that keeps the files as they came, so that a call that was stopped goes on where
    it was; None keeps nothing.  Batches are asked for until at least four in a row are not there (404),
    because numbers are known to be skipped; which are not there is asked again by every call, because
    they may come.  `offline` reads the cache alone.  `largest`: bytes that a batch may decompress to.
    `progress` is told how many batches are done.

    Raises InputError (no descriptions, a feature that the SAE has not, a server that goes on failing, a
    file that is too large or goes on being cut off, another process that fills the same cache),
    UsageError (an address or a folder that is none) and MissingDependencyError.
    """
    _check_names(source.model, source.source, folder)
    if offline and cache is None:
        raise UsageError("expected a cache to read without a network, got none; give cache=")
    inside = f"{source.model}/{source.source}/{folder}"
    kept = None if cache is None else cache / source.model / source.source / folder
    with (
        nullcontext() if kept is None or offline else _holding(kept, patience),
        nullcontext() if offline else Server(base_url, patience, largest) as server,
    ):
        batches = _Batches(server, inside, kept, largest)
        found = _read_all(batches, d_sae, progress)
    address = f"{base_url.rstrip('/')}/{inside}"
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


def fetch_one(
    model: str,
    source: str,
    index: int,
    *,
    base_url: str = SITE,
    patience: Patience = Patience(),
) -> list[Description]:
    """The descriptions of one feature, in Neuronpedia's order; for a few features, not for thousands.

    Raises InputError (no such feature; the limit of calls, with what is left of it and when to try
    again; a server that goes on failing), UsageError and MissingDependencyError.
    """
    _check_names(model, source)
    if index < 0:
        raise UsageError(f"expected a feature from 0 on, got {index}")
    name = f"feature {index} of {model}/{source}"
    with Server(base_url, patience, LARGEST_FEATURE) as server:
        data = server.get(f"api/feature/{model}/{source}/{index}", bytes)
    record = {} if data is None else read_object(data)
    if record is None or not isinstance(record.get("explanations") or [], list):
        raise InputError(
            f"expected JSON for {name}, got something else; look at {page_of(model, source, index)}"
        )
    if not record:
        raise InputError(f"there is no {name} at Neuronpedia; look at {SITE}/{model}/{source}")
    explanations = [one for one in record.get("explanations") or [] if isinstance(one, dict)]
    found = [describe(index, one) for one in explanations]
    return [one for one in found if one is not None]


class _Batches:
    """The files of one folder, from the cache or the server."""

    def __init__(self, server: Server | None, inside: str, kept: Path | None, largest: int) -> None:
        self.server, self.inside, self.kept, self.largest = server, inside, kept, largest
        self.damaged: list[int] = []
        """Numbers of the cached files that had to be downloaded again."""

    def read(self, number: int) -> tuple[bytes, bool] | None:
        """Lines of a batch and whether they were downloaded; None if there is no such batch."""
        name = f"batch-{number}.jsonl.gz"
        path = None if self.kept is None else self.kept / name
        if path is not None and is_plain_file(path):
            try:
                return gunzip(path.read_bytes(), self.largest, str(path)), False
            except PassingError as error:
                if self.server is None:
                    raise InputError(f"{path} is damaged ({error}); try without offline") from error
                self.damaged.append(number)
        if self.server is None:
            return None
        url = f"{self.server.base_url}/{self.inside}/{name}"

        def read(data: bytes) -> tuple[bytes, bytes]:
            return data, gunzip(data, self.largest, url)

        answer = self.server.get(f"{self.inside}/{name}", read)
        if answer is None:
            return None
        data, lines = answer
        if path is not None:
            write_atomically(path, data)
        return lines, True


def _read_all(batches: _Batches, d_sae: int, progress: Callable[[int], None]) -> dict[int, Batch]:
    """Every batch by its number, up to GAP + 1 numbers in a row that are not there."""
    found: dict[int, Batch] = {}
    with ThreadPoolExecutor(GAP + 1) as pool:
        for start in range(0, LAST_BATCH, GAP + 1):
            window = range(start, start + GAP + 1)
            for number, answer in zip(window, pool.map(batches.read, window), strict=True):
                if answer is not None:
                    lines, downloaded = answer
                    found[number] = parse_batch(lines, f"batch-{number}", d_sae, downloaded)
            progress(len(found))
            if window[-1] - max(found, default=-1) > GAP:
                return found
    raise InputError(
        f"expected fewer than {LAST_BATCH:,} batches of descriptions, got more; is the base_url right?"
    )


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


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise UsageError(
                f"expected names of letters, digits, '.', '_' and '-' for Neuronpedia, got '{name[:80]}'"
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
