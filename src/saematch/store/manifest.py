"""The manifest: what a run directory was made of, and the sha256 of every file in it; and the commands that
make those files, as one would type them.

schema_version   version of the tables
packages         by a short name: versions of what computed outputs
config           the run's settings
references       what was asked for, by SAE
saes             what was found: sha256 of its files, shape, features by status, model's sha256
notes            what a reader of the numbers should know
plan             outputs that the settings call for, of `run` and of other verbs, each with the sha256
                 of its inputs where it reads no other output; what is not named here is of other settings
outputs          for every file: sha256 of its inputs, files it was made from, its own sha256, and
                 which of `packages` made it
timing           when and how long; sizes and times of input files.  Two runs of one config
                 over the same files differ in nothing but this
sha256           of all the above
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch.configs import flags_of
from saematch.errors import InputError
from saematch.store.names import (
    CALIBRATION_NAME,
    COMPARED,
    DESCRIPTIONS,
    JUDGING,
    MEASURES_NAME,
    SOURCES,
    WEIGHTS_NAME,
    split_descriptions_name,
)
from saematch.store.schema import SCHEMA_VERSION, canonical_json
from saematch.text import to_json

MANIFEST = "manifest.json"
CHECKSUM = "sha256"


@dataclass(frozen=True)
class Record:
    """What the manifest says of one output."""

    inputs: str
    """sha256 of everything that decides the output."""
    depends: dict[str, str]
    """Outputs it was made from, with their sha256 at the time."""
    sha256: str
    bytes: int
    packages: str
    """Which of the manifest's `packages` made it."""


def empty_manifest() -> dict[str, Any]:
    """The manifest of a directory in which nothing has been done."""
    return {
        "schema_version": SCHEMA_VERSION,
        "packages": {},
        "config": None,
        "references": {},
        "saes": {},
        "notes": [],
        "plan": {"run": {}, "others": {}},
        "outputs": {},
        "timing": {"outputs": {}, "files": {}},
    }


def encode_manifest(content: dict[str, Any]) -> bytes:
    """The manifest as a file for people and machines, with its own checksum."""
    content = {**content, CHECKSUM: _checksum(content)}
    return (to_json(content, indent=1) + "\n").encode()


def decode_manifest(data: bytes, path: Path) -> dict[str, Any]:
    """The manifest from its file; raises InputError where it was altered, cut short or is newer."""
    try:
        content = json.loads(data)
        checksum = content.pop(CHECKSUM)
        version = content["schema_version"]
        altered = checksum != _checksum(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise altered_error(path) from None
    if altered:
        raise altered_error(path)
    if version != SCHEMA_VERSION:
        raise InputError(
            f"expected a run directory of schema {SCHEMA_VERSION}, got schema {version} in {path}; "
            "open it with the saematch that wrote it, or run into another directory"
        )
    if set(content) != set(empty_manifest()) or encode_manifest(content) != data:
        raise altered_error(path)
    return content


def record_of(content: Mapping[str, Any], name: str) -> Record | None:
    """What the manifest says of an output; None where it is not (or no longer) finished."""
    found = content["outputs"].get(name)
    return None if found is None else Record(**found)


@cache
def package_versions() -> dict[str, str]:
    """Versions of what computes the tables."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from saematch import __version__

    versions = {"saematch": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "pyarrow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def packages_name() -> str:
    """What the present versions are called in a manifest: the same versions, the same name."""
    return files.sha256(canonical_json(package_versions()).encode())[:12]


def made_with(content: dict[str, Any]) -> list[dict[str, str]]:
    """The versions that computed the tables of a run directory, different ones apart."""
    outputs = content["outputs"].items()
    names = dict.fromkeys(one["packages"] for name, one in outputs if name.endswith(".parquet"))
    return [content["packages"][name] for name in names]


class AlteredError(InputError):
    """A file of a run directory is not what was written."""


def altered_error(path: Path) -> AlteredError:
    """The error for a file whose bytes are not those that were written; names what makes it again."""
    what, command = "it alone", made_by
    if path.name == MANIFEST:
        what, command = "everything in the directory", lambda _: makes(path.parent, MANIFEST, None)
    return AlteredError(
        f"{path} was altered or cut short after it was written; delete that file, and {what} "
        f"is made again by: {command(path)}"
    )


def made_by(path: Path) -> str:
    """The command that makes a file of a run directory, with the run's settings if they can be read."""
    directory = next((folder for folder in path.parents if (folder / MANIFEST).is_file()), None)
    if directory is None:
        return "the same saematch command"
    try:
        file = directory / MANIFEST
        settings = decode_manifest(file.read_bytes(), file)["config"]
    except (OSError, InputError):
        settings = None
    return makes(directory, path.relative_to(directory).as_posix(), settings)


def _checksum(content: dict[str, Any]) -> str:
    return files.sha256(canonical_json(content).encode())


DESCRIBING = {
    "activations": ("describe",),
    "neuronpedia": ("describe", "--source neuronpedia"),
    "model": ("explain", "--model MODEL"),
}
"""Verb and flags of what makes descriptions, by their source."""
_VERBS = {
    "features": "describe",
    "examples": "describe",
    "descriptions": "describe",
    "judging": "judge",
    "judgements.parquet": "judge",
    "evaluation": "evaluate",
    "leaderboard.parquet": "benchmark",
    "figures": "figures",
    CALIBRATION_NAME: "calibrate",
}
"""What makes an output, by its first folder; the rest `saematch run` makes."""
_FROM_WEIGHTS = (WEIGHTS_NAME, COMPARED, f"{SOURCES}consistency-", f"{SOURCES}norms-")


def on_directory(directory: str | Path, verb: str, flags: str = "") -> str:
    """A command on a run directory."""
    return " ".join(filter(None, ("saematch", verb, shlex.quote(str(directory)), flags)))


def run_again(directory: str | Path, settings: Mapping[str, Any]) -> str:
    """The `saematch run` of these settings, which goes on from what is finished."""
    return shlex.join(["saematch", "run", *flags_of(settings), "--out", str(directory)])


def describing(directory: str | Path, source: str) -> str:
    """What makes descriptions from this source, or from a half of it (`activations-0`)."""
    whole = source if source in DESCRIBING else source.rpartition("-")[0]
    return on_directory(directory, *DESCRIBING.get(whole, DESCRIBING["activations"]))


def makes(directory: str | Path, name: str, settings: Mapping[str, Any] | None) -> str:
    """The command that makes an output again; `settings`: the run's, None if they are not known."""
    verb = _VERBS.get(name.split("/")[0], "run")
    if verb == "run" or name == MEASURES_NAME or name.startswith(_FROM_WEIGHTS):
        if settings is not None:
            return run_again(directory, settings)
        return f"saematch run --out {shlex.quote(str(directory))} (with its settings)"
    if name.startswith(DESCRIPTIONS):
        command = describing(directory, split_descriptions_name(name)[0])
    else:
        flags = f"--experiment {name.split('/')[1]}" if name.startswith(JUDGING) else ""
        command = on_directory(directory, verb, flags)
    return command if verb == "figures" else f"{command} (with the flags it was made with)"
