"""Every judgement as soon as there is one, so that a run that is killed never pays for it twice.

One JSON object a line, appended and handed to the system at once; a line that was cut off by a kill has
no newline after it and is dropped when the journal is opened again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saematch import files
from saematch.errors import InputError
from saematch.semantics.judging import Judgement, Label, Outcome, Question

_FIELDS = tuple(Judgement.__dataclass_fields__)


def key_of(value: Mapping[str, Any] | Question) -> str:
    """A short sha256 of a judge's identity, or of a question."""
    if isinstance(value, Question):
        return files.sha256(f"{value.first}\0{value.second}".encode())[:24]
    return files.sha256(json.dumps(dict(value), sort_keys=True).encode())[:16]


class Journal:
    """Judgements by judge and question; the holder of a run directory has it open."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a line that is not ours, naming it."""
        self._path = path
        self._kept: dict[tuple[str, str], Judgement] = {}
        files.make_folders(path.parent)
        whole = 0
        if path.exists():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            for number, line in enumerate(data[:whole].splitlines(), 1):
                judge, question, judgement = _decoded(line, path, number)
                self._kept[judge, question] = judgement
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.truncate(self._file, whole)
        os.lseek(self._file, 0, os.SEEK_END)

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
        values = {name: getattr(judgement, name) for name in _FIELDS}
        entry = {"judge": judge, "question": key_of(question), **values}
        data = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]
        self._kept[judge, key_of(question)] = judgement


def _decoded(line: bytes, path: Path, number: int) -> tuple[str, str, Judgement]:
    try:
        entry = json.loads(line)
        values = {name: entry[name] for name in _FIELDS}
        values["outcome"] = Outcome(values["outcome"])
        values["label"] = None if values["label"] is None else Label(values["label"])
        return str(entry["judge"]), str(entry["question"]), Judgement(**values)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"needed a judgement in line {number} of {path}, found something else ({error}); "
            "delete that line, and it alone is asked again"
        ) from None
