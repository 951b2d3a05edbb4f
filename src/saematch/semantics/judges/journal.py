"""Every judgement as soon as there is one, so that a run that is killed never pays for it twice.

One JSON object a line, appended and handed to the system at once.  An answer was paid for, so that whatever
can be read is read: a last line without its newline, a line behind half of another one, invalid UTF-8 or
half characters within a text.  A line of which nothing can be read is left out, counted and stays in the
file; the others are not touched by it, and what it held is asked again.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch.semantics.judges.judge import Judgement, Label, Outcome, Question
from saematch.text import clean, read_json, to_json

_FIELDS = tuple(Judgement.__dataclass_fields__)
_TEXTS = ("reason", "prompt", "reply", "model", "time")
_COUNTS = ("attempts", "prompt_tokens", "completion_tokens")
_NUMBERS = ("score", "seconds", "cost")
_MOST = 1 << 62
_BEGINNING = b'{"judge":'
"""Beginning of every line."""


def key_of(value: Mapping[str, Any] | Question) -> str:
    """A short sha256 of a judge's identity, or of a question."""
    if isinstance(value, Question):
        text = f"{value.first}\0{value.second}"
        return files.sha256(text.encode("utf-8", "surrogatepass"))[:24]
    return files.sha256(json.dumps(dict(value), sort_keys=True).encode())[:16]


class Journal:
    """Judgements by judge and question; the holder of a run directory has it open."""

    def __init__(self, path: Path) -> None:
        self._kept: dict[tuple[str, str], Judgement] = {}
        self.unreadable: list[int] = []
        """Numbers, from 1, of the lines of which nothing can be read."""
        files.make_folders(path.parent)
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], 1):
            if line.strip() and not self._read(line):
                self.unreadable.append(number)
        complete = self._read(data[whole:])
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.truncate(self._file, len(data) if complete else whole)
        os.lseek(self._file, 0, os.SEEK_END)
        if complete:
            self._write(b"\n")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        os.fsync(self._file)
        os.close(self._file)

    def get(self, judge: str, question: Question) -> Judgement | None:
        """What a judge, by the key of its identity, said of a question; None: not asked yet."""
        return self._kept.get((judge, key_of(question)))

    def has(self, judge: str, question: Question) -> bool:
        """Whether a judge need not be asked again: it replied, in whatever way."""
        kept = self.get(judge, question)
        return kept is not None and kept.outcome is not Outcome.FAILED

    def add(self, judge: str, question: Question, judgement: Judgement) -> None:
        """Keep a judgement; a later one of the same question replaces it."""
        judgement = replace(judgement, **{name: clean(getattr(judgement, name)) for name in _TEXTS})
        values = {name: getattr(judgement, name) for name in _FIELDS}
        entry = {"judge": judge, "question": key_of(question), **values}
        self._write(to_json(entry).encode() + b"\n")
        self._kept[judge, key_of(question)] = judgement

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def _read(self, line: bytes) -> bool:
        """Keep the judgement of a line, or of its end where half of another one stands before it."""
        for start in (line.find(_BEGINNING), line.rfind(_BEGINNING)):
            try:
                judge, question, judgement = _decoded(line[max(start, 0) :])
            except (ValueError, KeyError, TypeError):
                continue
            self._kept[judge, question] = judgement
            return True
        return False


def _decoded(line: bytes) -> tuple[str, str, Judgement]:
    """Raises ValueError, KeyError or TypeError for what is no judgement."""
    entry = read_json(line)
    values = {name: entry[name] for name in _FIELDS}
    values["outcome"] = Outcome(values["outcome"])
    values["label"] = None if values["label"] is None else Label(values["label"])
    texts = all(isinstance(values[name], str) for name in _TEXTS)
    counts, numbers = ([values[name] for name in some] for some in (_COUNTS, _NUMBERS))
    whole = all(one is None or (type(one) is int and one >= 0) for one in counts)
    known = [one for one in (*counts, *numbers) if one is not None]
    finite = all(
        math.isfinite(one) if type(one) is float else type(one) is int and abs(one) < _MOST
        for one in known
    )
    # JUDGED without a label is a description.
    labelled = values["label"] is None or values["outcome"] is Outcome.JUDGED
    if not (texts and whole and finite and labelled):
        raise ValueError("values of other types")
    return str(entry["judge"]), str(entry["question"]), Judgement(**values)
