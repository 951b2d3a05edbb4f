"""Where a checkpoint's files are, and one checkpoint among them.

A `Folder` is a list of names and a way to get each as a local file: a local folder has them, a Hub
folder downloads what is asked for.  A `Checkpoint` is one weights file in a folder, with what a
format needs to read it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from saematch.errors import InputError
from saematch.loading.site import (
    CONFIGS,
    Claim,
    Site,
    claims_of_config,
    claims_of_path,
    decide,
    names_layer,
    require_supported,
    without_layer,
)
from saematch.loading.tensors import Container, container_of, read_json, read_tensors

WEIGHTS = (
    "params.npz",
    "params.safetensors",
    "checkpoints/final.safetensors",
    "sae_weights.safetensors",
    "sae.safetensors",
    "ae.pt",
)
"""The names that the known formats give their weights, relative to the checkpoint's folder."""

MAX_FILES = 100_000
"""A folder with more files than this is somebody's disk, not a suite."""


class Folder(ABC):
    """A folder of files, here or at the Hub."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The folder as people write it: layers and model names are looked for here."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Every file below the folder, relative, with forward slashes, in order."""

    def has(self, name: str) -> bool:
        """Whether the named file is there."""
        return name in self.names

    @abstractmethod
    def fetch(self, name: str) -> Path:
        """The named file as a local file."""

    @abstractmethod
    def above(self, name: str) -> Path | None:
        """The named file in the parent folder, or None."""

    @abstractmethod
    def reference(self, name: str) -> str:
        """The text that names this file or folder anywhere."""


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder on this machine."""

    path: Path
    """As the user wrote it: an absolute path would add folder names that say nothing."""
    known_as: str = ""
    """The reference that names the folder where it is not its path: `bundled:smollm2-135m`."""

    @property
    def location(self) -> str:
        return self.path.as_posix()

    @property
    def names(self) -> tuple[str, ...]:
        return self._names

    def has(self, name: str) -> bool:
        # Without a listing: a single file may lie in a folder of anything.
        return (self.path / name).is_file()

    @cached_property
    def _names(self) -> tuple[str, ...]:
        found: list[str] = []
        for folder, folders, files in os.walk(self.path, onerror=_raise, followlinks=True):
            # A link to a folder counts as one; a link to a folder that it lies in would never end.
            real = Path(folder).resolve()
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and not real.is_relative_to((real / name).resolve())
            )
            relative = Path(folder).relative_to(self.path)
            found += [(relative / name).as_posix() for name in sorted(files)]
            if len(found) > MAX_FILES:
                raise InputError(
                    f"expected a folder of SAEs, got more than {MAX_FILES} files below "
                    f"{self.path}; name the folder itself"
                )
        return tuple(found)

    def fetch(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise InputError(f"there is no file {path}")
        return path

    def above(self, name: str) -> Path | None:
        path = self.path / ".." / name
        return path if path.is_file() else None

    def reference(self, name: str) -> str:
        root = self.known_as or str(self.path)
        return f"{root}/{name}" if name else root


@dataclass(frozen=True)
class Checkpoint:
    """One weights file in a folder."""

    folder: Folder
    inside: str
    """The checkpoint's folder, relative to `folder`; empty: `folder` itself."""
    weights: str
    """The weights file, relative to the checkpoint's folder."""
    reference: str
    """The text that loads this checkpoint again."""
    layer: int | None = None
    """The layer as the caller says it; None: the config's hook name, else the path."""
    claims: tuple[Claim, ...] = ()
    """What a registry says of the site, besides what config and path say."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """What a registry says over the config."""

    @property
    def location(self) -> str:
        """The whole path of the weights, for layers, names and messages."""
        return "/".join(p for p in (self.folder.location, self.inside, self.weights) if p)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor by name, memory-mapped where the file allows."""
        return read_tensors(self.fetch(self.weights))

    @cached_property
    def container(self) -> Container:
        """What kind of file the weights are in, by its bytes."""
        return container_of(self.fetch(self.weights))

    def has(self, name: str) -> bool:
        return self.folder.has(self._relative(name))

    def fetch(self, name: str) -> Path:
        return self.folder.fetch(self._relative(name))

    def config(self, name: str) -> dict[str, Any]:
        """The JSON object in a file that must be there."""
        if not self.has(name):
            raise InputError(
                f"expected '{name}' next to {self.location}, got: {', '.join(self.siblings[:8])}"
            )
        return read_json(self.fetch(name))

    def optional_config(self, name: str) -> dict[str, Any]:
        return read_json(self.fetch(name)) if self.has(name) else {}

    def config_above(self, name: str) -> dict[str, Any]:
        """A config that a run keeps one folder above its checkpoints; empty if there is none."""
        if self.inside:
            parent = self.inside.rpartition("/")[0]
            name = f"{parent}/{name}" if parent else name
            return read_json(self.folder.fetch(name)) if self.folder.has(name) else {}
        path = self.folder.above(name)
        return read_json(path) if path is not None else {}

    @cached_property
    def siblings(self) -> tuple[str, ...]:
        """The files in the checkpoint's folder and below."""
        prefix = f"{self.inside}/" if self.inside else ""
        return tuple(n.removeprefix(prefix) for n in self.folder.names if n.startswith(prefix))

    def site(self, config: Mapping[str, Any] | None = None) -> Site:
        """What the dictionary reads and writes, by config, path and registry; loading and listing
        both ask here.

        `config` stands for the small files next to the weights, where somebody else has read them.
        Raises as `site.decide`.
        """
        return self._decide(config)[0]

    def layer_read(self, config: Mapping[str, Any] | None = None) -> int:
        """The layer of a site that can be loaded; UnsupportedError for any other site."""
        site, claims = self._decide(config)
        require_supported(site, claims, self.location)
        assert site.layer is not None  # decide() gives every supported site one
        return site.layer

    def _decide(self, config: Mapping[str, Any] | None) -> tuple[Site, tuple[Claim, ...]]:
        files = (
            {name: self.config(name) for name in CONFIGS if self.has(name)}
            if config is None
            else {"the config": config}
        )
        stated = [
            claims_of_config({**content, **self.overrides}, name) for name, content in files.items()
        ]
        claims = (
            *(claim for one in stated for claim in one.claims),
            *self.claims,
            *self._claims_of_path(),
        )
        of_input = any(one.of_input for one in stated)
        where = self.location
        return decide(claims, where, layer=self.layer, of_input=of_input), claims

    def _claims_of_path(self) -> tuple[Claim, ...]:
        """Inside a suite a folder names its layer better than the path of the suite, which may be
        called after another one; what the path says of the kind always counts."""
        whole = claims_of_path(self.location)
        inside = f"{self.inside}/{self.weights}"
        if not names_layer(inside):
            return whole
        nearer = claims_of_path(inside)
        return (*nearer, *(replace(claim, layer=None, block=None) for claim in whole))

    def name_in_layer(self) -> str:
        """What the path says after its layer, e.g. `width_16k/average_l0_82`; else empty."""
        parts = self.location.split("/")[: -1 - self.weights.count("/")]
        for index, part in enumerate(parts):
            if names_layer(part):
                return without_layer("/".join(parts[index:]))
        return ""

    def _relative(self, name: str) -> str:
        return f"{self.inside}/{name}" if self.inside else name


def weights_in(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(folder, weights file in it) of every checkpoint that a listing shows, in order."""
    found: list[tuple[str, str]] = []
    for name in names:
        for weights in WEIGHTS:
            if name == weights:
                found.append(("", weights))
            elif name.endswith(f"/{weights}"):
                found.append((name[: -len(weights) - 1], weights))
    return tuple(found)


def _raise(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    raise error
