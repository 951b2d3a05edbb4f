"""Files that appear whole or not at all.

1. Write the bytes to a temporary file in the same folder (`.NAME.partial`, created anew).
2. fsync it, so that its bytes are on the disk before its name is.
3. Rename it over the final name, and fsync the folder, so that the name is on the disk too.

Every effect on the disk goes through the small functions at the top, by their names in this module:
tests replace them to fail or to be killed before and after each one.
"""

import hashlib
import os
import stat
from pathlib import Path

from saematch.errors import InputError

PARTIAL_SUFFIX = ".partial"
HASH_BLOCK = 1 << 22


def write(path: Path, data: bytes) -> None:
    """Create a file that is not there yet and write all of `data`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and keeps its names safe by itself
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file its final name, replacing what has that name."""
    os.replace(source, target)


def remove(path: Path) -> None:
    """Remove a file."""
    os.unlink(path)


def make_folder(path: Path) -> None:
    """Make one folder."""
    os.mkdir(path)


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, each one's name forced to the disk."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        try:
            make_folder(folder)
            fsync(folder.parent)
        except OSError as error:
            raise _not_written(folder, error) from error


def write_atomically(path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`; a kill at any moment leaves the old file or the new one.

    Raises InputError where the disk is full or does not let us write; the old file is then as it
    was and no temporary file is left.
    """
    make_folders(path.parent)
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    try:
        if partial.is_symlink() or partial.exists():
            remove(partial)
        write(partial, data)
        fsync(partial)
        rename(partial, path)
        fsync(path.parent)
    except OSError as error:
        try:
            if partial.is_symlink() or partial.exists():
                remove(partial)
        except OSError:
            pass  # the next holder of the folder removes it
        raise _not_written(path, error, len(data)) from error


def remove_partials(folder: Path) -> None:
    """Remove the temporary files that a killed writer left; its only holder may call this."""
    for path in sorted(folder.rglob(f".*{PARTIAL_SUFFIX}")):
        if path.is_symlink() or path.is_file():
            remove(path)


def sha256(data: bytes) -> str:
    """Hexadecimal sha256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_plain_file(path: Path) -> bool:
    """Whether there is a file at `path` that is not a link to somewhere else."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _not_written(path: Path, error: OSError, size: int | None = None) -> InputError:
    what = f"{size:,} bytes for {path}" if size is not None else f"to make {path}"
    return InputError(
        f"needed to write {what}, found: {error.strerror or error}; what was finished before is "
        "kept: make room (or allow writing there) and run the same command again"
    )
