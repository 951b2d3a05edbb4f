"""Which SAEs a run takes, what their files hash to, which pairs it matches, and loading them without
holding many.

Adjacent pairs are consecutive entries of the suite in order of layer.  Where a suite has several
SAEs per layer there is one chain for each name that recurs in at least two layers; names that do not
recur are left out, and the run's notes say so.

Hashing a large checkpoint takes seconds, so a file of the same path, size, times, inode and device as one
hashed before is taken to be the same, but only where these can be trusted (`files.Stamp.is_trusted`):
otherwise it is hashed again.  Whatever a program does to its times, a change of its bytes is noticed.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saematch._io import files
from saematch.errors import InputError, UsageError
from saematch.store.schema import canonical_json
from saematch.types import find_key

if TYPE_CHECKING:
    from saematch.loading import SuiteEntry
    from saematch.sae import SAE, FoldedSAE


SAES_AT_A_TIME = 2


@dataclass(frozen=True)
class Member:
    """One SAE of a suite as a picklable value: how to load it, and what its files hashed to."""

    entry: "SuiteEntry"
    sha256: str
    """Hash of its files: decides, with the key, whether work on it is still good."""

    @property
    def key(self) -> str:
        """`layer`, or `layer.name`."""
        return self.entry.key

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides a result: not where it lies."""
        return {"key": self.key, "sha256": self.sha256}

    def load(self) -> "SAE":
        """The SAE; this process keeps the two it used last."""
        return self._kept[0]

    def folded(self, scale: str | None) -> "FoldedSAE":
        """The SAE with a scale folded in; kept likewise."""
        from saematch.sae import fold_thresholds

        sae, folded = self._kept
        if scale not in folded:
            folded[scale] = fold_thresholds(sae, scale)  # pyright: ignore[reportArgumentType]
        return folded[scale]

    @property
    def _kept(self) -> "tuple[SAE, dict[str | None, FoldedSAE]]":
        while self not in _LOADED and len(_LOADED) >= SAES_AT_A_TIME:
            _LOADED.popitem(last=False)  # before loading, so that there are never three
        if self not in _LOADED:
            _LOADED[self] = self.entry.load(), {}
        _LOADED.move_to_end(self)
        return _LOADED[self]


_LOADED: "OrderedDict[Member, tuple[SAE, dict[str | None, FoldedSAE]]]" = OrderedDict()


@dataclass(frozen=True)
class LoadedInTurn(Sequence["SAE"]):
    """The SAEs of members, each loaded when it is taken; this process keeps the two it used last."""

    members: Sequence[Member]

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, place: int) -> "SAE":  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.members[place].load()


def forget_loaded() -> None:
    """Let go of the SAEs that this process keeps."""
    _LOADED.clear()


def chains(entries: Sequence[Any]) -> tuple[list[list[str]], list[str]]:
    """Keys of the SAEs to chain, in order of layer, and notes on what was left out.

    `entries`: anything with a key, a layer and a name.  Raises UsageError if there are not two SAEs of
    different layers to match.
    """
    ordered = sorted(entries, key=lambda entry: (entry.layer, entry.name))
    groups: dict[str, list[str]] = {}
    one_each = len({entry.layer for entry in ordered}) == len(ordered)
    for entry in ordered:
        groups.setdefault("" if one_each else entry.name, []).append(entry.key)
    found = [keys for keys in groups.values() if len(keys) > 1]
    if not found:
        raise UsageError(
            "expected SAEs of at least two layers to match (with one name, where a layer has "
            f"several), got {', '.join(entry.key for entry in ordered) or 'none'}"
        )
    left_out = ", ".join(keys[0] for keys in groups.values() if len(keys) == 1)
    why = "left out, since a layer has several SAEs and these names are in one layer only: "
    return found, [why + left_out] if left_out else []


def far_pairs(
    wanted: Sequence[tuple[str, str]],
    entries: "Sequence[SuiteEntry]",
    adjacent: Sequence[tuple[str, str]],
) -> list[tuple[str, str]]:
    """Non-adjacent pairs as keys, the earlier layer first; adjacent ones are matched anyway and left out.

    Raises UsageError for a layer or key that the suite lacks, that names several SAEs, and for a
    pair of one SAE with itself.
    """
    order = {entry.key: (entry.layer, entry.name) for entry in entries}
    pairs = []
    for first, second in wanted:
        pair = sorted((find_key(first, order), find_key(second, order)), key=order.__getitem__)
        if pair[0] == pair[1]:
            raise UsageError(
                f"expected two different SAEs for a non-adjacent pair, got {first} twice"
            )
        pairs.append((pair[0], pair[1]))
    return [pair for pair in dict.fromkeys(pairs) if pair not in adjacent]


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
            seen = {
                "bytes": stamp.size,
                "mtime_ns": stamp.modified_ns,
                "ctime_ns": stamp.changed_ns,
                "inode": stamp.inode,
                "device": stamp.device,
                "trusted": stamp.is_trusted(looked),
            }
            before = known.get(str(path), {})
            same = seen["trusted"] and before == {**seen, "sha256": before.get("sha256")}
            digest = before["sha256"] if same else files.sha256_of_file(path)
        name = path.name if path.name not in hashes else f"{number}-{path.name}"
        hashes[name] = digest
        times[str(path)] = {**seen, "sha256": digest}
    return hashes, times


def describe(member: Member, hashes: Mapping[str, str]) -> dict[str, Any]:
    """What the manifest says of an SAE."""
    sae = member.load()
    weights_sha256 = sae.metadata.get("model_weights_sha256")
    return {
        "reference": member.entry.reference,
        "layer": sae.layer,
        "name": sae.name,
        "d_sae": sae.d_sae,
        "d_model": sae.d_model,
        "activation": sae.activation,
        "k": sae.k,
        "features": dict(sorted(Counter(map(str, sae.status)).items())),
        "dead_decided_on": None if sae.firing is None else sae.firing.corpus,
        "dead_decided_on_tokens": None if sae.firing is None else int(sae.firing.tokens),
        "model_name": sae.model_name,
        "model_weights_sha256": None if weights_sha256 is None else str(weights_sha256),
        "hook_name": sae.hook_name,
        "checkpoint_format": sae.checkpoint_format,
        "conversions": list(sae.conversions),
        "centred": sae.centred,
        "files": dict(hashes),
        "sha256": member.sha256,
    }


def examine(
    entries: "tuple[SuiteEntry, ...]", manifest: Mapping[str, Any], starting: Callable[[str], None]
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
        sha256 = files.sha256(canonical_json(hashes).encode())
        member = members[entry.key] = Member(entry, sha256)
        before = manifest["saes"].get(entry.key)
        if before and (before["sha256"], before["reference"]) == (member.sha256, entry.reference):
            saes[entry.key] = before
        else:
            saes[entry.key] = describe(member, hashes)
    (first, sae), *others = saes.items()
    for key, other in others:
        if other["d_model"] != sae["d_model"]:
            raise InputError(
                f"expected SAEs of one model, got d_model {sae['d_model']} at {first} and "
                f"{other['d_model']} at {key}; choose layers of one model"
            )
    return members, saes, times
