"""A run directory: outputs that are whole or not there, each recorded with what it was made from.

1. One process at a time holds the directory to write in it; readers need no lock.  The lock is that of
   _io/locks.py.  A note, `.holder`, tells who holds the directory, and decides nothing.
2. An output is *finished* when the manifest records the sha256 of its inputs and of its bytes.
3. To make one again its record is taken out first, then the file is replaced, then recorded: a kill
   in between leaves a file without a record, which is made again.
4. A finished file whose bytes differ from its record was altered by someone else: an error.

A directory keeps what was made under other settings, so that coming back to them costs nothing.  Whoever
shows something reads only what is *current*: of the run's settings, its SAEs and its files as they are now.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from saematch._io import files, locks
from saematch.errors import InputError, UsageError
from saematch.store.manifest import (
    MANIFEST,
    AlteredError,
    Record,
    altered_error,
    decode_manifest,
    empty_manifest,
    encode_manifest,
    made_by,
    makes,
    package_versions,
    packages_name,
    record_of,
)
from saematch.store.names import (
    BY_KEY,
    CALIBRATION_NAME,
    FIGURES,
    FROM_PLAN,
    JUDGEMENTS_NAME,
    REPORT_NAME,
    SAE,
    key_in,
)
from saematch.store.schema import SEMANTIC_TABLES, TABLES, decode

if TYPE_CHECKING:
    import pyarrow as pa


KNOWN_NAMES = {
    MANIFEST, FIGURES.rstrip("/"), REPORT_NAME, CALIBRATION_NAME, "run.toml", "findings.md", "export",
    *(table.path.split("/")[0] for table in (*TABLES, *SEMANTIC_TABLES)),
}  # fmt: skip
"""What may stand in a run directory; anything else in a folder without a manifest is not ours."""


@dataclass(frozen=True)
class KeptFile:
    """A finished output and the sha256 it must have; picklable, for stages."""

    name: str
    path: Path
    sha256: str

    def read(self) -> bytes:
        """Its bytes; raises InputError naming it where they are not what was written."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            raise AlteredError(
                f"there is no file {self.path}; make it again with {made_by(self.path)}"
            ) from None
        except OSError as error:
            raise files.os_error_in_words(error, "read", self.path) from error
        if files.sha256(data) != self.sha256:
            raise altered_error(self.path)
        return data

    def table(self) -> "tuple[pa.Table, dict[str, Any]]":
        """Its rows, and what it says next to them; raises as `read`."""
        return decode(self.read())


def sae_file(directory: Path, key: str, sha256: str) -> KeptFile:
    """An SAE as what an output is made from: an output of another SAE in its place is not current."""
    return KeptFile(f"{SAE}{key}", directory, sha256)


class RunDirectory:
    """The files of one run and their manifest; see the module's docstring."""

    def __init__(self, path: str | Path) -> None:
        """The run directory at `path`, which may not be there yet; nothing is read or written."""
        self.path = files.user_path(path)
        self._manifest: dict[str, Any] | None = None
        self._held = False

    def __repr__(self) -> str:
        return f"RunDirectory({str(self.path)!r})"

    @contextmanager
    def holding(self) -> Iterator["RunDirectory"]:
        """Make the directory if need be, and be its only writer.

        Raises InputError naming the process that holds it already, where the manifest was altered
        or where the directory cannot be written; UsageError where it is a folder of something else.
        An error of the system that ends what is done meanwhile becomes an InputError too.
        """
        with files.os_errors_in_words("use", self.path):
            self._check_ours()
            files.make_folders(self.path)
            with holding(self.path):
                files.remove_partials(self.path)
                self._manifest = None
                self._held = True
                try:
                    yield self
                finally:
                    self._held = False

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest says (manifest.py); treat it as read-only."""
        if self._manifest is None:
            self._manifest = self._read_manifest()
        return self._manifest

    def file(self, name: str) -> Path:
        """The path of an output; InputError for a name that leads out of the directory."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in name:
            raise InputError(f"expected the name of a file in {self.path}, got '{name}'")
        return self.path.joinpath(*pure.parts)

    def record(self, name: str) -> Record | None:
        """What is recorded of a finished output; None where it is not finished."""
        return record_of(self.manifest, name)

    def names(self, prefix: str = "") -> list[str]:
        """The finished outputs whose names start so, sorted."""
        return sorted(name for name in self.manifest["outputs"] if name.startswith(prefix))

    def is_current(self, name: str) -> bool:
        """Whether an output is there and of the run as it is now (`is_current`)."""
        return is_current(self.manifest, name)

    def current_names(self, prefix: str = "") -> list[str]:
        """The current outputs whose names start so, sorted."""
        return [name for name in self.names(prefix) if self.is_current(name)]

    def table(self, name: str) -> "tuple[pa.Table, dict[str, Any]]":
        """The rows of a table, and what it says next to them.

        Raises InputError where it is not finished, not current, or altered.
        """
        if self.record(name) is not None and not self.is_current(name):
            raise InputError(
                f"expected {self.file(name)} of the run's present settings, got one of other settings or "
                "of files that were made again since; try: "
                f"{makes(self.path, name, self.manifest['config'])}"
            )
        return decode(self.read(name))

    def kept(self, name: str) -> KeptFile:
        """A finished output; raises InputError where it is not finished."""
        record = self.record(name)
        if record is None and not self._held:
            self._manifest = None  # a run may have finished it since this process read the manifest
            record = self.record(name)
        if record is None:
            raise InputError(
                f"{self.file(name)} is not finished; run the same saematch command again"
            )
        return KeptFile(name, self.file(name), record.sha256)

    def read(self, name: str) -> bytes:
        """The bytes of a finished output, checked against the manifest."""
        kept = self.kept(name)
        try:
            return kept.read()
        except InputError:
            if self._held:
                raise
            # A run may have replaced it since this process read the manifest.
            self._manifest = None
            return self.kept(name).read()

    def is_finished(self, name: str, inputs: str) -> bool:
        """Whether an output is there and was made from inputs of this sha256.

        Raises InputError where its bytes are not those that were written.
        """
        record = self.record(name)
        if record is None or record.inputs != inputs or not self.file(name).exists():
            return False
        KeptFile(name, self.file(name), record.sha256).read()
        return True

    def keep(
        self,
        name: str,
        data: bytes,
        inputs: str,
        depends: Sequence[KeptFile] = (),
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Write an output and record it (steps 2 and 3 above)."""
        outputs, timing = self.manifest["outputs"], self.manifest["timing"]
        if name in outputs:
            self.update(outputs={key: value for key, value in outputs.items() if key != name})
        files.write_atomically(self.file(name), data)
        record = {
            "inputs": inputs,
            "depends": {file.name: file.sha256 for file in depends},
            "sha256": files.sha256(data),
            "bytes": len(data),
            "packages": packages_name(),
        }
        finished = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"finished": finished, "seconds": dict(seconds or {})}
        kept = dict(sorted({**self.manifest["outputs"], name: record}.items()))
        known = {**self.manifest["packages"], record["packages"]: package_versions()}
        used = {one["packages"] for one in kept.values()}
        self.update(
            packages={one: known[one] for one in sorted(used)},
            outputs=kept,
            timing={**timing, "outputs": {**timing["outputs"], name: entry}},
        )

    def update(self, **sections: Any) -> None:
        """Replace sections of the manifest; writes nothing where nothing changes."""
        assert self._held, "only the holder of a run directory writes in it"
        assert set(sections) <= set(empty_manifest()), sections.keys()
        before = self.manifest
        after = {**before, **sections}
        if after != before or not self.file(MANIFEST).exists():
            files.write_atomically(self.file(MANIFEST), encode_manifest(after))
            self._manifest = after

    def _read_manifest(self) -> dict[str, Any]:
        path = self.file(MANIFEST)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            if self._held:
                return empty_manifest()
            raise InputError(
                f"expected a run directory, got no {MANIFEST} in {self.path}; "
                "make one with saematch run"
            ) from None
        except OSError as error:
            raise files.os_error_in_words(error, "read", path) from error
        return decode_manifest(data, path)

    def _check_ours(self) -> None:
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise UsageError(f"expected a folder for the run, got a file at {self.path}")
        if self.file(MANIFEST).exists():
            return
        foreign = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.name not in KNOWN_NAMES
            and entry.name not in LOCK_NAMES
            and not entry.name.endswith(files.PARTIAL_SUFFIX)
        )
        if foreign:
            raise UsageError(
                f"expected an empty folder or a run directory, got '{foreign[0]}' and no "
                f"{MANIFEST} in {self.path}; give another directory"
            )


HOLDER_NAME = ".holder"
LOCK_NAMES = (*locks.NAMES, HOLDER_NAME)
"""Files of a run directory that are no results."""


def write_holder(path: Path, text: str) -> None:
    """Say who holds the directory."""
    if path.is_symlink():
        path.unlink()  # a stranger's link is not written through
    path.write_text(text)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the run directory `folder`; raises InputError naming the process that already does."""
    with ExitStack() as held:
        try:
            held.enter_context(locks.holding(folder))
        except locks.HeldError:
            raise InputError(
                f"expected {folder} to be free, got one that is held by {_holder(folder)}"
            ) from None
        except OSError as error:
            raise InputError(
                f"could not lock {folder}: {error.strerror or error}; "
                "try a directory that you may write to"
            ) from error
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with suppress(OSError):  # on a full disk the lock still holds, it only does not say by whom
            write_holder(folder / HOLDER_NAME, json.dumps(holder))
        yield


def _holder(folder: Path) -> str:
    marker, wait = folder / locks.MARKER_NAME, "wait for it to end, or give another directory"
    with suppress(OSError):
        if not marker.stat().st_size:  # filelock breaks any other that is not whole
            return (
                f"a process that was cut off while it took it; if none works in it, delete {marker}"
            )
    for _ in range(5):
        try:
            holder = json.loads((folder / HOLDER_NAME).read_text())
            process, host = int(holder["pid"]), str(holder["host"])[:80]
            who = f"process {process} on {host} since {str(holder['since'])[:40]}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)  # it has only just taken the lock and not yet said its name
            continue
        if host != socket.gethostname() and marker.exists():
            ended = f"if you know that it has ended, delete {marker}"
            return f"{who}, which is another machine; {wait}; {ended}"
        return f"{who}; {wait}"
    return f"another process; {wait}"


def is_current(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether an output is there, is one that the present settings call for, and all that it was made
    from is current too and still the same."""
    record = record_of(manifest, name)
    if record is None:
        return False
    if name.startswith(FROM_PLAN):
        plan = manifest["plan"]
        planned = plan["run"].get(name, plan["others"].get(name))
        if planned is None or planned not in ("", record.inputs):
            return False
    if name.startswith(BY_KEY) and key_in(name) not in manifest["saes"]:
        return False
    of_now = [
        _sha256(manifest, other) == sha256
        and (other.startswith(SAE) or is_current(manifest, other))
        for other, sha256 in record.depends.items()
    ]
    # Answers stand with the sample of their own experiment (judge_results.answered_experiments).
    return all(of_now) or (name == JUDGEMENTS_NAME and any(of_now))


def _sha256(manifest: Mapping[str, Any], name: str) -> str | None:
    """Of an output or an SAE as it is now; None where it is not there."""
    if name.startswith(SAE):
        return manifest["saes"].get(name.removeprefix(SAE), {}).get("sha256")
    return manifest["outputs"].get(name, {}).get("sha256")
