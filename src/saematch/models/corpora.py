"""Texts to evaluate on: three corpora by name, or a user's own file or folder.

`web`, `wiki` and `code` are those of SAE Match (OpenWebText, WikiText, GitHub code) where the Hub is
within reach, and small openly licensed stand-ins that ship with saematch where it is not; the result
says which.  Documents come in a seeded order.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from saematch._io.files import os_errors_in_words, user_path
from saematch.errors import InputError, UsageError
from saematch.loading.hub import hub_is_reachable
from saematch.text import BYTE_ORDER_MARKS, clean, printable, read_json

HUB_DATASETS: dict[str, tuple[str, str | None, str]] = {
    "web": ("Skylion007/openwebtext", None, "text"),
    "wiki": ("Salesforce/wikitext", "wikitext-103-raw-v1", "text"),
    "code": ("loubnabnl/github-small-near-dedup", None, "content"),
}
"""Dataset, configuration, and the field that holds the text."""
STAND_INS = {
    "web": "bundled stand-in for web text: speeches, documentation, recipes, essays; no news, no blogs",
    "wiki": "bundled stand-in: articles of the English Wikipedia",
    "code": "bundled stand-in for GitHub code: six languages, from published packages",
}
CORPORA = tuple(HUB_DATASETS)
SHUFFLE_BUFFER = 10_000
SHORTEST_TEXT = 200
"""Characters below which a record of a dataset is a heading or a stub, and not a document."""
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".js", ".c", ".go", ".rs", ".java", ".tex", ".html")
RECORD_SUFFIXES = (".jsonl", ".ndjson")
NOT_TEXT_SUFFIXES = (".json", ".csv", ".tsv", ".parquet")
"""Files of records that would be read as one long text, punctuation of the format included."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts in the order in which they are taken.  Texts are what intervals resample."""

    name: str
    origin: str
    """Where they really come from, for people."""
    texts: tuple[str, ...]
    cut: tuple[bool, ...] = ()
    """For each text: whether what exceeds the token limit may make further documents (a user's plain
    text), or is cut off (a record); empty: all are cut off."""
    notes: tuple[str, ...] = ()
    """What of it could not be read."""

    def first(self, count: int) -> "Corpus":
        """The same with its first texts alone."""
        return dataclasses.replace(self, texts=self.texts[:count], cut=self.cut[:count])

    def without(self, count: int) -> "Corpus":
        """The same without its first texts."""
        return dataclasses.replace(self, texts=self.texts[count:], cut=self.cut[count:])

    @property
    def sha256(self) -> str:
        """Hash of the texts in their order, and of which of them may be cut into pieces."""
        digest = hashlib.sha256()
        for text in self.texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        if any(self.cut):
            digest.update(bytes(self.cut))
        return digest.hexdigest()


@os_errors_in_words("read text")
def load_corpus(name: str, count: int, seed: int = 0, offline: bool | None = None) -> Corpus:
    """At most `count` texts of `web`, `wiki` or `code`, of a file or of a folder.

    A file is plain text (one text, or several with form feeds between them) or JSONL, plain or
    .gz, with a `text` field (each record one text); of a folder every such file is taken.  UTF-8, or UTF-16
    and UTF-32 with a byte order mark.  Records, and files of a folder, that cannot be read are left out and
    counted in `notes`.  `offline`: do not try the Hub; default: `$HF_HUB_OFFLINE`.

    Raises UsageError for a name that is none of these, InputError where no text at all can be read.
    """
    if name in HUB_DATASETS:
        corpus = None if _offline(offline) else _from_hub(name, count, seed)
        return corpus or _bundled(name, count, seed)
    path = user_path(name)
    if not path.exists():
        raise UsageError(
            f"expected a corpus of {', '.join(CORPORA)}, or a file or folder of text, got '{name}'"
        )
    found: list[tuple[str, bool]] = []
    faults: list[str] = []
    for file in _text_files(path):
        found += _read_texts(file, faults)
    if not found:
        why = f": {faults[0]}" if faults else ""
        raise InputError(
            f"expected text in {path} (plain text, or JSONL with `text`), got none{why}"
        )
    random.Random(seed).shuffle(found)
    texts, cut = zip(*found[:count])
    name = printable(path.stem)
    notes = (f"{name}: left out {_counted(faults)}",) if faults else ()
    return Corpus(name, f"your text: {printable(path.name)}", texts, cut, notes)


def _counted(faults: list[str]) -> str:
    return faults[0] if len(faults) == 1 else f"{len(faults)} records or files; first {faults[0]}"


def _offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def _bundled(name: str, count: int, seed: int) -> Corpus:
    path = files("saematch").joinpath("bundled", "corpora", f"{name}.jsonl")
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(texts)
    return Corpus(name, STAND_INS[name], tuple(texts[:count]))


def _from_hub(name: str, count: int, seed: int) -> Corpus | None:
    """A seeded sample of the dataset, streamed; None where the Hub or `datasets` is not there."""
    if not hub_is_reachable():
        return None
    try:
        from datasets import load_dataset
    except ImportError:
        return None
    dataset, configuration, text_field = HUB_DATASETS[name]
    try:
        stream: Any = load_dataset(dataset, configuration, split="train", streaming=True)
        stream = stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        texts = []
        for record in stream:
            text = record[text_field]
            if isinstance(text, str) and len(text) >= SHORTEST_TEXT:
                texts.append(clean(text))
            if len(texts) == count:
                break
    except Exception as error:
        raise InputError(
            f"expected {count} documents of {dataset} from the Hub, got: {str(error)[:200]}; "
            "try again, or set HF_HUB_OFFLINE=1 for the bundled stand-in"
        ) from error
    return Corpus(name, f"{dataset} (Hub), seeded sample", tuple(texts))


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and (file.suffix in TEXT_SUFFIXES or _has_records(file))
    ]
    if not found:
        raise InputError(f"expected text files in {path}, got none ({', '.join(TEXT_SUFFIXES)})")
    return found


def _has_records(path: Path) -> bool:
    return Path(path.name.removesuffix(".gz")).suffix in RECORD_SUFFIXES


def _read_texts(path: Path, faults: list[str]) -> Iterator[tuple[str, bool]]:
    """Texts that are not empty, and whether they may be cut into pieces; `faults` gains what is left out."""
    try:
        text = _decoded(path)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        faults.append(f"{path}: {error}")
        return
    if not _has_records(path):
        for part in text.split("\f"):
            if part.strip():
                yield clean(part), True
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip("\ufeff \t\r"):
            continue
        try:
            record = read_json(line)
            value = record["text"]
        except (ValueError, KeyError, TypeError):
            value = None
        if not isinstance(value, str):
            faults.append(
                f"{path}, line {number}: expected a JSON object with a text in `text`, got "
                f"{printable(line, 60)}"
            )
        elif value.strip():
            yield value, False


def _decoded(path: Path) -> str:
    """The characters of a file, its line breaks as `\\n`; ValueError where they are not text."""
    if path.suffix in NOT_TEXT_SUFFIXES:
        raise ValueError(
            f"expected plain text or JSONL, got a {path.suffix} file; try JSONL with `text`"
        )
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    try:
        text = data.decode(
            next((n for mark, n in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8-sig")
        )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8, or UTF-16 with a byte order mark, got {error.reason}"
        ) from None
    if "\0" in text:
        raise ValueError(
            "expected text, got NUL characters (a binary file, or UTF-16 without a byte order mark); "
            "try saving it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
