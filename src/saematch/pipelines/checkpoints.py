"""The first stage of a run: which SAEs, what their files hash to, and what they are.

Hashing a large checkpoint takes seconds, so a file of the same path, size, times, inode and device as one
hashed before is taken to be the same, but only where these can be trusted (`files.Stamp.is_trusted`):
otherwise it is hashed again.  Whatever a program does to its times, a change of its bytes is noticed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch._io import files
from saematch.errors import InputError
from saematch.pipelines.suite import Member
from saematch.store.schema import canonical_json

if TYPE_CHECKING:
    from saematch.loading import SuiteEntry

FileTimes = Mapping[str, Mapping[str, Any]]
"""By path: size in bytes, mtime_ns, ctime_ns, inode, device, whether these are to be trusted, and sha256."""


def hash_sources(entry: "SuiteEntry", known: FileTimes) -> tuple[dict[str, str], dict[str, Any]]:
    """sha256 of an SAE's files by name, and what to remember of them so as not to hash again.

    Raises InputError where a file cannot be read.
    """
    from saematch.loading import source_files

    hashes: dict[str, str] = {}
    times: dict[str, Any] = {}
    for number, path in enumerate(source_files(entry.reference)):
        path = Path(path).absolute()
        with files.os_errors_in_words("read", path):
            looked = files.now_ns()
            stamp = files.Stamp.of(path)
            trusted = stamp.is_trusted(looked)
            seen = _seen(stamp, trusted)
            before = dict(known.get(str(path), {}))
            digest = before.pop("sha256", None)
            if digest is None or before != seen or not trusted:
                digest = files.sha256_of_file(path)
        name = path.name if path.name not in hashes else f"{number}-{path.name}"
        hashes[name] = digest
        times[str(path)] = {**seen, "sha256": digest}
    return hashes, times


def _seen(stamp: files.Stamp, trusted: bool) -> dict[str, Any]:
    return {
        "bytes": stamp.size,
        "mtime_ns": stamp.modified_ns,
        "ctime_ns": stamp.changed_ns,
        "inode": stamp.inode,
        "device": stamp.device,
        "trusted": trusted,
    }


def member_of(entry: "SuiteEntry", hashes: Mapping[str, str]) -> Member:
    """The picklable value that stages load the SAE from."""
    return Member(entry, files.sha256(canonical_json(dict(hashes)).encode()))


def describe(member: Member, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest says of an SAE."""
    sae = member.load()
    kinds, counts = np.unique(np.array(sae.status), return_counts=True)
    return {
        "reference": member.entry.reference,
        "layer": sae.layer,
        "name": sae.name,
        "d_sae": sae.d_sae,
        "d_model": sae.d_model,
        "activation": sae.activation,
        "k": sae.k,
        "features": {str(kind): int(count) for kind, count in zip(kinds, counts, strict=True)},
        "dead_decided_on": None if sae.firing is None else sae.firing.corpus,
        "dead_decided_on_tokens": None if sae.firing is None else int(sae.firing.tokens),
        "model_name": sae.model_name,
        "model_weights_sha256": _text(sae.metadata.get("model_weights_sha256")),
        "hook_name": sae.hook_name,
        "checkpoint_format": sae.checkpoint_format,
        "conversions": list(sae.conversions),
        "centred": sae.centred,
        "files": dict(hashes),
        "sha256": member.sha256,
    }


def examine(
    entries: "tuple[SuiteEntry, ...]",
    manifest: Mapping[str, Any],
    starting: Callable[[str], None],
) -> tuple[dict[str, Member], dict[str, Any], dict[str, Any]]:
    """Members by key, the manifest's `saes` by key, and its `timing.files`.

    SAEs whose files hash as the manifest says are not loaded.  `starting` is told each key.
    Raises InputError for SAEs of different d_model.
    """
    members: dict[str, Member] = {}
    saes: dict[str, Any] = {}
    times: dict[str, Any] = {}
    for entry in entries:
        starting(entry.key)
        hashes, found = hash_sources(entry, manifest["timing"]["files"])
        times |= found
        member = members[entry.key] = member_of(entry, hashes)
        before = manifest["saes"].get(entry.key)
        if before and (before["sha256"], before["reference"]) == (member.sha256, entry.reference):
            saes[entry.key] = before
        else:
            saes[entry.key] = describe(member, hashes)
    first = next(iter(saes))
    for key, sae in saes.items():
        if sae["d_model"] != saes[first]["d_model"]:
            raise InputError(
                f"expected SAEs of one model, got d_model {saes[first]['d_model']} at {first} and "
                f"{sae['d_model']} at {key}; choose layers of one model"
            )
    return members, saes, times


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
