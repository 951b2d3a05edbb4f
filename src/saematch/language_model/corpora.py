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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from saematch.errors import InputError, UsageError
from saematch.files import os_errors_in_words, user_path

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
REACH_SECONDS = 3.0
"""How long to wait for the Hub before the stand-ins are taken."""
SHORTEST_TEXT = 200
"""Characters below which a record of a dataset is a heading or a stub, and not a document."""
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".js", ".c", ".go", ".rs", ".java", ".tex", ".html")


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts in the order in which they are taken."""

    name: str
    origin: str
    """Where they really come from, for people."""
    texts: tuple[str, ...]
    whole: bool = False
    """A user's own: long texts are cut into consecutive documents, not only cut off."""

    def first(self, count: int) -> "Corpus":
        """The same with its first texts alone."""
        return dataclasses.replace(self, texts=self.texts[:count])

    def without(self, count: int) -> "Corpus":
        """The same without its first texts."""
        return dataclasses.replace(self, texts=self.texts[count:])

    @property
    def sha256(self) -> str:
        """Of the texts in their order."""
        digest = hashlib.sha256()
        for text in self.texts:
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


@os_errors_in_words("read text")
def load_corpus(name: str, count: int, seed: int = 0, offline: bool | None = None) -> Corpus:
    """At most `count` texts of `web`, `wiki` or `code`, of a file or of a folder.

    A file is plain text (one document, or several with form feeds between them) or JSONL, plain or
    .gz, with a `text` field; of a folder every such file is taken.  `offline`: do not try the Hub;
    default: `$HF_HUB_OFFLINE`.

    Raises UsageError for a name that is none of these, InputError for a file without text.
    """
    if name in HUB_DATASETS:
        corpus = None if _offline(offline) else _from_hub(name, count, seed)
        return corpus or _bundled(name, count, seed)
    path = user_path(name)
    if not path.exists():
        raise UsageError(
            f"needed a corpus of {', '.join(CORPORA)}, or a file or folder of text, found '{name}'"
        )
    texts = [text for file in _text_files(path) for text in _read_texts(file) if text.strip()]
    if not texts:
        raise InputError(f"needed text in {path}, found none (plain text, or JSONL with `text`)")
    random.Random(seed).shuffle(texts)
    return Corpus(path.stem, f"your text: {path.name}", tuple(texts[:count]), whole=True)


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
            if len(record[text_field]) >= SHORTEST_TEXT:
                texts.append(record[text_field])
            if len(texts) == count:
                break
    except Exception as error:
        raise InputError(
            f"needed {count} documents of {dataset} from the Hub, found: {str(error)[:200]}; "
            "try again, or set HF_HUB_OFFLINE=1 for the bundled stand-in"
        ) from error
    return Corpus(name, f"{dataset} (Hub), seeded sample", tuple(texts))


def hub_is_reachable() -> bool:
    """Whether the Hub answers at all, asked once with little patience."""
    try:
        import httpx
        from huggingface_hub import constants

        httpx.head(constants.ENDPOINT, timeout=REACH_SECONDS, follow_redirects=True)
    except Exception:
        return False
    return True


def _text_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and (file.suffix in TEXT_SUFFIXES or ".jsonl" in file.suffixes[-2:])
    ]
    if not found:
        raise InputError(f"needed text files in {path}, found none ({', '.join(TEXT_SUFFIXES)})")
    return found


def _read_texts(path: Path) -> Iterator[str]:
    packed = path.suffix == ".gz"
    try:
        data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, EOFError) as error:
        raise InputError(f"needed to read {path}, found: {error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"needed UTF-8 text in {path}, found: {error.reason}") from error
    if ".jsonl" not in path.suffixes[-2:]:
        yield from text.split("\f")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            value = record["text"]
        except (ValueError, KeyError, TypeError):
            value = None
        if not isinstance(value, str):
            raise InputError(
                f"needed a JSON object with a text in `text` in {path}, line {number}, found "
                f"{line[:60]!r}"
            )
        yield value
