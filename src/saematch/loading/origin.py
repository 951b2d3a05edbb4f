"""Where a checkpoint was published, as far as the reference that loads it tells.

Nothing is listed or downloaded: this only reads the text.
"""

import re
from dataclasses import dataclass

from saematch._io.files import user_path
from saematch.loading import registry
from saematch.loading.checkpoint import WEIGHTS
from saematch.loading.references import HUB_REFERENCE

_HUB_CACHE = re.compile(r".*/models--([^/]+?)--([^/]+)/snapshots/([^/]+)/(.*)")


@dataclass(frozen=True)
class Origin:
    """A repository at the Hub and the checkpoint's folder in it; or a folder alone."""

    repository: str | None
    """`owner/name`; None: a local path does not say."""
    path: str
    """The checkpoint's folder in the repository, or on this machine from its root: the name of the
    weights is left out where a known format gives it."""
    revision: str | None = None
    """Revision of the repository, if the reference pins one."""
    registered: registry.Registered | None = None
    """The registry's line, where the reference is `release:sae_id`."""

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}" if self.repository else self.path

    def is_at(self, repository: str, path: str) -> bool:
        """Whether this is the checkpoint at `path` of `repository`, as far as can be known.

        Where the repository is unknown, `path` need only be how ours ends.
        """
        path = without_weights(path)
        if self.repository is None:
            return f"/{self.path}".endswith(f"/{path}")
        # The Hub does not tell the case of owner and name apart.
        return self.repository.casefold() == repository.casefold() and self.path == path


def origin_of(reference: str) -> Origin | None:
    """The origin that a reference names; None for bundled SAEs and those made in memory.

    Raises UsageError for a `release:sae_id` whose release has no such id.
    """
    reference = reference.strip()
    if not reference or reference.startswith("bundled:"):
        return None
    if match := HUB_REFERENCE.fullmatch(reference):
        path = without_weights((match[3] or "").strip("/"))
        return Origin(match[1], path, match[2])
    local = user_path(reference)
    release, colon, sae_id = reference.partition(":")
    if colon and not local.exists() and release in registry.read_registry():
        line = registry.find(release, sae_id)
        return Origin(line.repository, without_weights(line.path), registered=line)
    # Absolute, but links not followed: the Hub's cache links every file to a blob without a name.
    path = without_weights(local.absolute().as_posix())
    if match := _HUB_CACHE.fullmatch(path):
        return Origin(f"{match[1]}/{match[2]}", match[4])
    return Origin(None, path)


def without_weights(path: str) -> str:
    """A path without the file name that a known format gives its weights."""
    for name in WEIGHTS:
        if path == name or path.endswith(f"/{name}"):
            return path[: -len(name)].rstrip("/")
    return path
