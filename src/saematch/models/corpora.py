"""Texts to evaluate on: three corpora by name, or a user's own file or folder.

`web`, `wiki` and `code` are those of SAE Match (OpenWebText, WikiText, GitHub code) where the Hub is
within reach, and small openly licensed stand-ins that ship with saematch where it is not; the result
says which.  Texts come in a seeded order; `Documents` are what a model reads of them, and `batches` takes
documents by a budget of tokens.
"""

import dataclasses
import gzip
import hashlib
import itertools
import json
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from saematch._io.files import os_errors_in_words, user_path
from saematch.errors import InputError, UsageError
from saematch.loading.hub import hub_is_reachable
from saematch.models.language_model import LanguageModel
from saematch.text import BYTE_ORDER_MARKS, clean, plural, printable, read_json

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


SHORTEST = 3
"""Tokens, BOS included: one prediction that is not made from BOS."""


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
        return dataclasses.replace(self, texts=self.texts[:count], cut=self.cut[:count])

    def without(self, count: int) -> "Corpus":
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
def load_corpus(name: str, count: int, seed: int = 0, offline: bool | None = False) -> Corpus:
    """At most `count` texts of `web`, `wiki` or `code`, of a file or of a folder.

    A file is plain text (one text, or several with form feeds between them) or JSONL, plain or
    .gz, with a `text` field (each record one text); of a folder every such file is taken.  UTF-8, or UTF-16
    and UTF-32 with a byte order mark.  Records, and files of a folder, that cannot be read are left out and
    counted in `notes`.  `offline`: do not try the Hub, as with `$HF_HUB_OFFLINE`.

    Raises UsageError for a name that is none of these, InputError where no text at all can be read.
    """
    if name in HUB_DATASETS:
        return (not offline and _from_hub(name, count, seed)) or _bundled(name, count, seed)
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
    left_out = faults if len(faults) < 2 else [f"{len(faults)} records or files; first {faults[0]}"]
    notes = tuple(f"{name}: left out {what}" for what in left_out)
    return Corpus(name, f"your text: {printable(path.name)}", texts, cut, notes)


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
        stream = (one[text_field] for one in stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER))
        long = (text for text in stream if isinstance(text, str) and len(text) >= SHORTEST_TEXT)
        texts = tuple(clean(text) for text in itertools.islice(long, count))
    except Exception as error:
        raise InputError(
            f"expected {count} documents of {dataset} from the Hub, got: {str(error)[:200]}; "
            "try again, or set HF_HUB_OFFLINE=1 for the bundled stand-in"
        ) from error
    return Corpus(name, f"{dataset} (Hub), seeded sample", texts)


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


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents of one corpus as a model reads them."""

    corpus: str
    origin: str
    token_ids: tuple[tuple[int, ...], ...]
    """BOS first; where the tokenizer has none, the first token takes its part."""
    too_short: int
    """Texts, and ends of texts, that were left out: fewer than two tokens besides BOS."""
    has_bos: bool
    text_of: tuple[int, ...]
    """For each document the number of the text that it is, or is a piece of."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def tokens(self) -> int:
        """Those that statistics are over: all but BOS."""
        return sum(len(ids) - 1 for ids in self.token_ids)

    def __getitem__(self, part: slice) -> "Documents":
        return dataclasses.replace(self, token_ids=self.token_ids[part], text_of=self.text_of[part])

    @property
    def texts(self) -> int:
        """How many texts the documents are of: pieces of one text are not independent."""
        return len(set(self.text_of))

    def notes(self, wanted: int) -> list[str]:
        """What a reader should know, where `wanted` documents were asked for."""
        notes: list[str] = []
        if len(self) < wanted:
            notes.append(
                f"{self.corpus} has {plural(len(self), 'document')} that can be used, not {wanted}"
            )
        if self.texts < len(self):
            notes.append(
                f"{self.corpus}: the {len(self)} documents are pieces of "
                f"{plural(self.texts, 'text')}; intervals are over texts"
                + ("" if self.texts > 1 else ": of one text there is none")
            )
        return notes

    def up_to(self, tokens: int) -> "Documents":
        """As many of the first documents as hold so many tokens, BOS left out, or all."""
        count = held = 0
        while held < tokens and count < len(self):
            held += len(self.token_ids[count]) - 1
            count += 1
        return self[:count]

    @classmethod
    def of(cls, corpus: Corpus, model: LanguageModel, tokens: int, count: int) -> "Documents":
        """At most `count` documents of a corpus, each of at most `tokens` tokens, BOS included.

        Every text gives one document, its beginning, in the corpus's order.  Where these are fewer than
        `count`, texts that may be cut give their next pieces, each text one before any gives another, so
        that documents come from as many texts as there are.  Pieces of a text follow each other.

        Raises InputError where not one text is long enough.
        """
        if model.context is not None:
            tokens = min(tokens, model.context)
        bos = model.bos_token_id
        start = () if bos is None else (bos,)
        step = tokens - len(start)
        if step < SHORTEST - len(start):
            raise UsageError(
                f"expected documents of at least {SHORTEST} tokens, got {tokens} (the model reads at "
                f"most {model.context})"
            )
        read: dict[int, list[int]] = {}

        def pieces() -> Iterator[tuple[int, int, list[int]]]:
            for number, text in enumerate(corpus.texts):
                read[number] = model.token_ids(text)
                yield number, 0, read[number][:step]
            longer = [text for text in read if corpus.cut and corpus.cut[text]]
            for piece in itertools.count(1):
                longer = [text for text in longer if len(read[text]) > piece * step]
                if not longer:
                    return
                for text in longer:
                    yield text, piece, read[text][piece * step : (piece + 1) * step]

        found: dict[tuple[int, int], tuple[int, ...]] = {}
        short = 0
        for text, piece, ids in pieces():
            if len(start) + len(ids) >= SHORTEST:
                found[text, piece] = (*start, *ids)
            else:
                short += 1
            if len(found) >= count:
                break
        if not found:
            raise InputError(
                f"expected documents of at least two tokens in {corpus.name} ({corpus.origin}), got "
                "none; try another corpus"
            )
        ordered = sorted(found)
        return cls(
            corpus.name,
            corpus.origin,
            tuple(found[at] for at in ordered),
            short,
            bos is not None,
            tuple(text for text, _ in ordered),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Some documents, padded on the right: a causal model's earlier positions never see it."""

    documents: tuple[int, ...]
    """Their numbers."""
    token_ids: Int[Tensor, "batch sequence"]
    lengths: tuple[int, ...]

    @property
    def counted(self) -> Tensor:
        """[batch, sequence] bool: positions that are neither BOS nor padding."""
        position = torch.arange(self.token_ids.shape[1])[None]
        return (position > 0) & (position < torch.tensor(self.lengths)[:, None])

    @property
    def document_of_row(self) -> Tensor:
        """[tokens]: for every counted position, in order, which document of the batch it is in."""
        return self.counted.nonzero()[:, 0]


def batches(documents: Documents, tokens: int, chosen: Sequence[int]) -> Iterator[Batch]:
    """The chosen documents, longest first, in batches of at most `tokens` padded tokens.

    A document longer than that makes a batch of its own.
    """
    waiting = sorted(chosen, key=lambda number: -len(documents.token_ids[number]))
    while waiting:
        longest = len(documents.token_ids[waiting[0]])
        rows = max(1, tokens // longest)
        taken, waiting = waiting[:rows], waiting[rows:]
        ids = torch.zeros(len(taken), longest, dtype=torch.int64)
        for row, number in enumerate(taken):
            ids[row, : len(documents.token_ids[number])] = torch.tensor(documents.token_ids[number])
        yield Batch(tuple(taken), ids, tuple(len(documents.token_ids[n]) for n in taken))
