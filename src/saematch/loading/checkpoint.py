"""Where a checkpoint's files are, and one checkpoint among them.

A `Folder` is a list of names and a way to get each as a local file: a local one has them, one at the Hub
downloads what is asked for.  A `Checkpoint` is one weights file in it, with what a format needs to read it.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from saematch.errors import InputError
from saematch.loading.hub import HubFolder
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


@dataclass(frozen=True)
class LocalFolder:
    """A folder of files on this machine; `HubFolder` offers the same of one at the Hub."""

    path: Path
    """As the user wrote it: an absolute path would add folder names that say nothing."""
    known_as: str = ""
    """The reference that names the folder where it is not its path: `bundled:smollm2-135m`."""

    @property
    def location(self) -> str:
        """The folder as people write it: layers and model names are looked for here."""
        return self.path.as_posix()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every file below the folder, relative, with forward slashes, in order."""
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

    def has(self, name: str) -> bool:
        # Without a listing: a single file may lie in a folder of anything.
        return (self.path / name).is_file()

    def fetch(self, name: str) -> Path:
        if not self.has(name):
            raise InputError(f"there is no file {self.path / name}")
        return self.path / name

    @property
    def parent(self) -> "LocalFolder":
        """The folder above, which for '.' and '..' is no part of their own path."""
        named = self.path.name not in ("", "..")
        return LocalFolder(self.path.parent if named else self.path / "..")

    def reference(self, name: str) -> str:
        """The text that names this file or folder anywhere."""
        root = self.known_as or str(self.path)
        return f"{root}/{name}" if name else root


Folder = LocalFolder | HubFolder


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
            above, folder = self.inside.rpartition("/")[0], self.folder
        else:
            above, folder = "", self.folder.parent
        if folder is None:
            return {}
        return Checkpoint(folder, above, "", "").optional_config(name)

    @cached_property
    def siblings(self) -> tuple[str, ...]:
        """The files in the checkpoint's folder and below."""
        prefix = f"{self.inside}/" if self.inside else ""
        return tuple(n.removeprefix(prefix) for n in self.folder.names if n.startswith(prefix))

    def site(self) -> Site:
        """What the dictionary reads and writes, by config, path and registry; loading and listing both ask
        here.  Raises as `site.decide`."""
        return decide(self._claims(), self.location, layer=self.layer)

    def layer_read(self, config: Mapping[str, Any] | None = None) -> int:
        """The layer of a site that can be loaded; UnsupportedError for any other site.

        `config` stands for the small files next to the weights, where somebody else has read them.
        """
        claims = self._claims(config)
        site = decide(claims, self.location, layer=self.layer)
        require_supported(site, claims, self.location)
        assert site.layer is not None  # decide() gives every supported site one
        return site.layer

    def _claims(self, config: Mapping[str, Any] | None = None) -> list[Claim]:
        configs = {"the config": config}
        if config is None:
            configs = {name: self.config(name) for name in CONFIGS if self.has(name)}
        claims: list[Claim] = []
        for name, content in configs.items():
            claims += claims_of_config({**(content or {}), **self.overrides}, name)
        return [*claims, *self.claims, *self._claims_of_path()]

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


def weights_in(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(folder, weights file in it) of every checkpoint that a listing shows, in order."""
    return tuple(
        (name[: -len(weights)].rstrip("/"), weights)
        for name in names
        for weights in WEIGHTS
        if f"/{name}".endswith(f"/{weights}")
    )


def _raise(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    raise error
