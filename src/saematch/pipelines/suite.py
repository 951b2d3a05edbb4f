"""Which SAEs a run takes, which pairs it matches, and loading them without holding many.

Adjacent pairs are consecutive entries of the suite in order of layer.  Where a suite has several
SAEs per layer there is one chain for each name that recurs in at least two layers; names that do not
recur are left out, and the run's notes say so.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from saematch.errors import UsageError
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
        if self in _LOADED:
            _LOADED.move_to_end(self)
            return _LOADED[self]
        while len(_LOADED) >= SAES_AT_A_TIME:  # before loading, so that there are never three
            evicted, _ = _LOADED.popitem(last=False)
            for stale in [kept for kept in _FOLDED if kept[0] == evicted]:
                del _FOLDED[stale]
        _LOADED[self] = self.entry.load()
        return _LOADED[self]

    def folded(self, scale: str | None) -> "FoldedSAE":
        """The SAE with a scale folded in; kept likewise."""
        from saematch.sae import fold_thresholds

        sae = self.load()
        if (self, scale) not in _FOLDED:
            _FOLDED[self, scale] = fold_thresholds(sae, scale)  # pyright: ignore[reportArgumentType]
        return _FOLDED[self, scale]


_LOADED: "OrderedDict[Member, SAE]" = OrderedDict()
_FOLDED: "dict[tuple[Member, str | None], FoldedSAE]" = {}


def forget_loaded() -> None:
    """Let go of the SAEs that this process keeps."""
    _LOADED.clear()
    _FOLDED.clear()


@runtime_checkable
class Placed(Protocol):
    """What it takes to be put on a chain."""

    @property
    def key(self) -> str: ...
    @property
    def layer(self) -> int: ...
    @property
    def name(self) -> str: ...


def chains(entries: Sequence[Placed]) -> tuple[list[list[str]], list[str]]:
    """Keys of the SAEs to chain, in order of layer, and notes on what was left out.

    Raises UsageError if there are not two SAEs of different layers to match.
    """
    ordered = sorted(entries, key=lambda entry: (entry.layer, entry.name))
    layers = [entry.layer for entry in ordered]
    if len(set(layers)) == len(layers):
        found = [[entry.key for entry in ordered]]
        left_out: list[str] = []
    else:
        names = list(dict.fromkeys(entry.name for entry in ordered))
        groups = {name: [e.key for e in ordered if e.name == name] for name in names}
        found = [keys for keys in groups.values() if len(keys) > 1]
        left_out = [key for keys in groups.values() if len(keys) == 1 for key in keys]
    found = [keys for keys in found if len(keys) > 1]
    if not found:
        raise UsageError(
            "expected SAEs of at least two layers to match (with one name, where a layer has "
            f"several), got {', '.join(entry.key for entry in ordered) or 'none'}"
        )
    notes = []
    if left_out:
        notes.append(
            "left out, since a layer has several SAEs and these names are in one layer only: "
            + ", ".join(left_out)
        )
    return found, notes


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
