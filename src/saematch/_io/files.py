"""Files that appear whole or not at all, and the folder of what can be made or downloaded again.

1. Write the bytes to a temporary file in the same folder (`.NAME.partial`, which must not be there yet).
2. fsync it, so that its bytes are on the disk before its name is.
3. Rename it over the final name, and fsync the folder, so that the name is on the disk too.

Every effect on the disk goes through the small functions at the top, by their names in this module:
tests replace them to fail or to be killed before and after each one.
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from saematch.errors import InputError

PARTIAL_SUFFIX = ".partial"
SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was looked at may change again without its times telling:
clocks of file systems tick every 2 s at worst."""
EARLIEST_NS = 10 * 365 * 24 * 3600 * 1_000_000_000
"""Times before 1980 are no times of change: container layers and package stores write 0 or 1."""
FOLDER_FSYNC_REFUSED = {
    errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP,
    errno.EBADF, errno.EISDIR,
}  # fmt: skip
"""What file systems answer that cannot force the names of a folder to the disk."""


@contextmanager
def os_errors_in_words(what: str, path: str | Path | None = None) -> Iterator[None]:
    """Turn the system's errors, those of `what` is done here, into InputError with path and reason.

    `what`: as in "could not {what}"; `path`: named where the system's error names none.
    """
    try:
        yield
    except OSError as error:
        raise os_error_in_words(error, what, path) from error


def os_error_in_words(
    error: OSError, what: str = "use the file", path: str | Path | None = None
) -> InputError:
    """The InputError that says what an error of the system says."""
    named = error.filename if isinstance(error.filename, str | Path) else path
    where = f" {named}" if named is not None and str(named) else ""
    reason = error.strerror or str(error) or type(error).__name__
    return InputError(
        f"could not {what}{where}: {reason}; {_REMEDIES.get(error.errno or 0, 'try another path')}"
    )


_REMEDIES = {
    errno.EACCES: "allow it, or give another path",
    errno.EPERM: "allow it, or give another path",
    errno.EROFS: "give a path that can be written to",
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EMFILE: "raise the limit of open files (ulimit -n) and run the same command again",
    errno.ENFILE: "close other programs and run the same command again",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ELOOP: "mend the links that lead to each other",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "name a path whose folders are folders",
}


def user_path(path: str | Path) -> Path:
    """A path as a user wrote it, with `~` and `~name` as their home folders.

    Raises InputError if there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"expected the home folder of a user, got '{str(path)[:200]}' and no such user; for a "
            f"folder of that name write ./{str(path)[:200]}"
        ) from None


@dataclass(frozen=True)
class Stamp:
    """What tells that a file is still the one that was looked at.

    A program can set a file's time of modification, but not its time of change (`ctime`).
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """The stamp of what is at `path` now; raises OSError where nothing is."""
        now = path.stat()
        return cls(now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev)

    def is_settled(self, looked_ns: int) -> bool:
        """Whether any change after `looked_ns` must give the file another stamp: its clock has ticked
        since the last one."""
        return max(self.modified_ns, self.changed_ns) + SETTLED_NS < looked_ns

    def is_trusted(self, looked_ns: int) -> bool:
        """Whether the same stamp at another time, or in another process, means the same bytes."""
        if os.name == "nt":
            return False  # its "time of change" is that of creation
        return (
            self.is_settled(looked_ns)
            and min(self.modified_ns, self.changed_ns) > EARLIEST_NS
            # Images (squashfs, erofs) hold times of the build, in whole seconds, not of the change.
            and self.changed_ns % 1_000_000_000 != 0
        )


def now_ns() -> int:
    """The time, to be compared with times of files; take it before a file is looked at."""
    return time.time_ns()


def write(path: Path, data: bytes) -> None:
    """Create a file that is not there yet and write all of `data`."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o644)) as file:
        file.write(data)


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to the disk."""
    folder = path.is_dir()
    if os.name == "nt" and folder:
        return  # Windows cannot open a folder, and keeps its names safe by itself
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some mounts (FUSE, SMB) cannot do it for folders: nothing can be done, and nothing is wrong.
        if not folder or error.errno not in FOLDER_FSYNC_REFUSED:
            raise


def rename(source: Path, target: Path) -> None:
    """Give a file its final name, replacing what has that name."""
    os.replace(source, target)


def remove(path: Path) -> None:
    os.unlink(path)


def make_folder(path: Path) -> None:
    os.mkdir(path)


def make_folders(path: Path) -> None:
    """Make a folder and those above it that are missing, each one's name forced to the disk."""
    missing = []
    with os_errors_in_words("make the folder", path):
        while not path.is_dir() and path.parent != path:
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
        with suppress(OSError):  # the next holder of the folder removes it
            if partial.is_symlink() or partial.exists():
                remove(partial)
        raise _not_written(path, error, len(data)) from error


def remove_partials(folder: Path) -> None:
    """Remove the temporary files that a killed writer left; its only holder may call this."""
    for path in sorted(folder.rglob(f".*{PARTIAL_SUFFIX}")):
        if path.is_symlink() or path.is_file():
            remove(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_plain_file(path: Path) -> bool:
    """Whether there is a file at `path` that is not a link to somewhere else."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _not_written(path: Path, error: OSError, size: int | None = None) -> InputError:
    what = f"write {size:,} bytes to {path}" if size is not None else f"make {path}"
    return InputError(
        f"could not {what}: {error.strerror or error}; what was finished before is "
        "kept: make room (or allow writing there) and run the same command again"
    )


def cache_directory() -> Path:
    """The folder for converted models, downloads and indexes: `$SAEMATCH_CACHE`, else
    `~/.cache/saematch`."""
    configured = os.environ.get("SAEMATCH_CACHE")
    return user_path(configured) if configured else Path.home() / ".cache" / "saematch"
