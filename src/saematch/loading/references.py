"""References: the text that names an SAE or a suite anywhere, and the format of the checkpoint that it
leads to.

    release:sae_id                   SAELens's registry
    hf://owner/repo[@revision]/path  a file or folder at the Hub
    bundled:smollm2-135m/12          what comes with saematch
    a local path                     a file or folder

A suite is named by the same without the layer, or by a preset.  Where a checkpoint was published is read from
the text alone: nothing is listed or downloaded for it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath
from types import ModuleType

from saematch._io.files import os_errors_in_words, user_path
from saematch.errors import InputError, MissingDependencyError, UnsupportedError, UsageError
from saematch.loading import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    registry,
    saelens,
    sparsify,
)
from saematch.loading.checkpoint import Checkpoint, Folder, LocalFolder, weights_in
from saematch.loading.hub import HubFolder
from saematch.sae import SAE

FORMATS = (gemma_scope_2, sparsify, saelens, llama_scope, dictionary_learning, gemma_scope)
"""Modules with NAME, CONFIGS (files that are read with the weights if they are there), `recognises` (by those
files and the tensors' names) and `load`; the first that recognises a checkpoint reads it."""


def format_of(checkpoint: Checkpoint) -> ModuleType:
    """The format that recognises the checkpoint; InputError with what was found if none does."""
    for known in FORMATS:
        if known.recognises(checkpoint):
            return known
    raise InputError(
        f"expected a checkpoint of a known format ({', '.join(f.NAME for f in FORMATS)}), got "
        f"{checkpoint.location} with tensors {', '.join(sorted(checkpoint.tensors)[:8]) or 'none'} "
        f"next to {', '.join(checkpoint.siblings[:8])}"
        f"{registry.hint_for(checkpoint.location, checkpoint.weights.rpartition('/')[2])}"
    )


KINDS = (
    "release:sae_id (SAELens's registry), hf://owner/repo/path, bundled:smollm2-135m/12, or a "
    "local path"
)

HUB_REFERENCE = re.compile(r"hf://([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?(?:/(.*))?")
_SCHEME_OR_DRIVE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class Place:
    """A folder that a reference names, and the weights file where it names one."""

    folder: Folder
    reference: str
    weights: str | None = None
    registered: registry.Registered | None = None

    @property
    def through_saelens(self) -> registry.Registered | None:
        """The registry's line, where only SAELens itself can read its files."""
        line = self.registered
        return None if line is None or line.loader in registry.OUR_LOADERS else line


@os_errors_in_words("read")
def locate(reference: str) -> Place:
    """The place a reference names; UsageError listing the kinds of reference for any other text."""
    reference = reference.strip()
    if reference.startswith("hf://"):
        return _locate_hub(reference)
    if reference.startswith("bundled:"):
        return Place(LocalFolder(_bundled(reference), reference.rstrip("/")), reference)
    path = user_path(reference)
    if reference and path.is_dir():
        return Place(LocalFolder(path), reference)
    if reference and path.exists():
        return _weights_at(LocalFolder(path.parent), path.name, reference)
    if not reference or _SCHEME_OR_DRIVE.match(reference):
        raise UsageError(f"expected a reference ({KINDS}), got '{reference}'")
    release, colon, sae_id = reference.partition(":")
    if colon and not reference.startswith((".", "/", "~")):
        line = registry.find(release, sae_id)
        return Place(HubFolder(line.repository, line.path), reference, registered=line)
    hint = ""
    with suppress(MissingDependencyError):
        if release := registry.read_registry().get(reference):  # without its colon
            hint = (
                f"; '{reference}' is a release: try '{reference}:' for all of it as a suite, or one SAE "
                f"such as '{reference}:{release['saes'][0]['id']}'"
            )
    raise InputError(
        f"expected a reference ({KINDS}), but nothing is at the path '{reference}'{hint}"
    )


def checkpoint_at(place: Place, layer: int | None = None) -> Checkpoint:
    """The one checkpoint at a place; an error that lists them if there are several or none."""
    checkpoint = Checkpoint(place.folder, "", place.weights or "", place.reference, layer)
    if line := place.registered:
        checkpoint = replace(checkpoint, claims=line.claims, overrides=line.overrides)
    if place.weights:
        return checkpoint
    names = place.folder.names
    found = weights_in(names)
    here = [weights for inside, weights in found if not inside]
    if len(here) == 1:
        return replace(checkpoint, weights=here[0])
    if here:
        raise UsageError(
            f"expected one SAE at {place.reference}, got {' and '.join(here)}; name the file"
        )
    if found:
        inside = ", ".join([name for name, _ in found[:4]] + ["…"] * (len(found) > 4))
        raise UsageError(
            f"expected one SAE at {place.reference}, got a folder of {len(found)} ({inside}); name "
            f"one, or load it as a suite"
        )
    raise InputError(
        f"expected a checkpoint of a known format ({', '.join(f.NAME for f in FORMATS)}) at "
        f"{place.reference}, got: {', '.join(names[:8]) or 'no files'}"
        f"{registry.hint_for(place.folder.location, names[0] if names else '')}"
    )


def load_sae(reference: str, *, layer: int | None = None) -> SAE:
    """Load the SAE that a reference names, in canonical form (docs/formats.md).

    `layer` says the layer where neither config nor path does, and wins over the path's; the config's
    it must not contradict (docs/formats.md).  Weights that need no rewriting stay memory-mapped in
    the file's dtype.

    Raises UsageError (a reference of no known kind, an unknown release or id), InputError (missing,
    truncated, misshapen or non-finite files), UnsupportedError (no canonical form) and
    MissingDependencyError.
    """
    place = locate(reference)
    with _naming(reference):
        if place.registered is not None:
            place.registered.check()
        if line := place.through_saelens:
            checkpoint = Checkpoint(place.folder, "", "", reference, layer, line.claims)
            return registry.load_through_saelens(line, checkpoint)
        checkpoint = checkpoint_at(place, layer)
        return format_of(checkpoint).load(checkpoint)


def source_files(reference: str) -> tuple[Path, ...]:
    """The local files that loading a reference reads: weights first, then configs next to them.

    For a Hub reference these are the downloaded files in the cache.  Raises as `load_sae`.
    """
    place = locate(reference)
    with _naming(reference):
        if line := place.through_saelens:
            # The registry's path is a folder, or one file.
            found = tuple(map(place.folder.fetch, place.folder.names))
            return found or (HubFolder(line.repository).fetch(line.path),)
        checkpoint = checkpoint_at(place)
        return files_read(checkpoint, format_of(checkpoint))


def files_read(checkpoint: Checkpoint, known: ModuleType) -> tuple[Path, ...]:
    names = [checkpoint.weights, *(name for name in known.CONFIGS if checkpoint.has(name))]
    return tuple(checkpoint.fetch(name) for name in names)


def bundled_folder() -> Path:
    return Path(str(files("saematch"))) / "bundled"


def _locate_hub(reference: str) -> Place:
    match = HUB_REFERENCE.fullmatch(reference)
    if not match:
        raise UsageError(f"expected hf://owner/repo[@revision]/path, got '{reference}'")
    repository, revision, path = match[1], match[2], (match[3] or "").strip("/")
    if ".." in PurePosixPath(path).parts:
        raise UsageError(f"expected a path inside {repository}, got '{path}'")
    whole = HubFolder(repository, "", revision)
    if not path or any(name.startswith(f"{path}/") for name in whole.names):
        return Place(HubFolder(repository, path, revision), reference)
    # A single file, there or not: fetching it says what is wrong when it is not.
    parent, _, name = path.rpartition("/")
    folder = HubFolder(repository, parent, revision)
    if name not in folder.names:
        folder.fetch(name)
        raise InputError(f"{repository} has neither a file nor a folder '{path}'")
    return _weights_at(folder, name, reference)


def _weights_at(folder: Folder, name: str, reference: str) -> Place:
    # Llama Scope keeps its weights one folder below its config.
    within = folder.location.rpartition("/")[2]
    if within == "checkpoints" and folder.parent and folder.parent.has("hyperparams.json"):
        return Place(folder.parent, reference, f"{within}/{name}")
    return Place(folder, reference, name)


def _bundled(reference: str) -> Path:
    inside = reference.removeprefix("bundled:").strip("/")
    root = bundled_folder()
    path = root / inside
    if not inside or ".." in PurePosixPath(inside).parts or not path.is_dir():
        present = sorted(p.parent.relative_to(root).as_posix() for p in root.rglob("cfg.json"))
        raise UsageError(
            f"expected a bundled SAE or suite, got no '{inside}'; there are: "
            f"{', '.join(present[:12]) or 'none'}"
        )
    return path


@contextmanager
def _naming(reference: str) -> Iterator[None]:
    """Puts the reference into an error that does not carry it."""
    try:
        with os_errors_in_words("read"):
            yield
    except (UnsupportedError, InputError) as error:
        if reference in str(error):
            raise
        raise type(error)(f"{error} (reference: {reference})") from error.__cause__


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
    return next((folder for folder, _ in weights_in((path,))), path)
