"""A lock on a folder that is free when its holder has ended, however it ended.

1. The lock is the operating system's (`flock`, through filelock) on the file `.lock`.  Nothing is written
   into it.
2. Where the file system has none (some network and FUSE mounts), it is filelock's marker `.lock-marker`,
   which names the holder's process, when that began, and its machine.  The marker of a process of this
   machine that has ended is broken; that of another machine is not, since nothing here can know.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".lock"
MARKER_NAME = ".lock-marker"
NAMES = (LOCK_NAME, MARKER_NAME)
NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What `flock` answers on a file system without it."""
UNREADABLE_SECONDS = 3.0
"""How long to wait for a marker: one that was cut off by a kill is broken once it was looked at for 2 s."""


class HeldError(Exception):
    """Another process holds the folder."""


@contextmanager
def holding(folder: Path, timeout: float = 0) -> Iterator[None]:
    """Hold a folder, waiting `timeout` seconds for it.

    Raises HeldError where another holds it even then, OSError where it cannot be locked at all.
    """
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

    lock: BaseFileLock = FileLock(folder / LOCK_NAME, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=timeout)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
                raise
            lock = SoftFileLock(folder / MARKER_NAME)
            lock.acquire(timeout=max(timeout, UNREADABLE_SECONDS))
    except Timeout:
        raise HeldError from None
    try:
        yield
    finally:
        lock.release()
