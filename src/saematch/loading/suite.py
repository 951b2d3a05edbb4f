"""Suites: the SAEs of one model, in order of depth, loaded one at a time.

A suite is found by listing: a preset, a release of SAELens's registry, or every checkpoint below a
folder (here, at the Hub or bundled).  Listing reads names and small configs, no weights.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.files import os_errors_in_words, user_path
from saematch.loading import registry
from saematch.loading.checkpoint import Checkpoint, weights_in
from saematch.loading.layers import resolve_layer, without_layer
from saematch.loading.presets import PRESETS, Preset
from saematch.loading.references import Place, load_sae, locate
from saematch.sae import SAE, suite_key

HOOKS = {
    "cfg.json": ("hook_name", "hook_point"),
    "hyperparams.json": ("hook_point_in",),
    "config.json": ("hf_hook_point_in",),
}
"""Where the configs of the formats keep the hook's name."""


@dataclass(frozen=True)
class SuiteEntry:
    """One SAE of a suite: plain values, so that a stage can be sent to another process."""

    layer: int
    name: str
    """What tells it from the other SAEs of its layer; empty where it is the only one."""
    reference: str

    @property
    def key(self) -> str:
        """`layer`, or `layer.name`: the key of the SAE that it loads."""
        return suite_key(self.layer, self.name)

    def load(self) -> SAE:
        """The SAE, with this entry's layer and name."""
        return replace(load_sae(self.reference, layer=self.layer), name=self.name)


@dataclass(frozen=True)
class Suite:
    """SAEs of one model, in order of depth; iterating loads one at a time."""

    reference: str
    entries: tuple[SuiteEntry, ...]
    notes: tuple[str, ...] = ()
    """What there is to know, e.g. where a preset departs from the registry."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(entry.key for entry in self.entries)

    @property
    def layers(self) -> tuple[int, ...]:
        """The different layers, from the first."""
        return tuple(dict.fromkeys(entry.layer for entry in self.entries))

    def entry(self, key: str | int) -> SuiteEntry:
        """The entry of a key; a layer's number will do where the layer has one SAE."""
        for entry in self.entries:
            if entry.key == str(key):
                return entry
        alone = [entry for entry in self.entries if str(entry.layer) == str(key)]
        if len(alone) == 1:
            return alone[0]
        close = difflib.get_close_matches(str(key), self.keys, n=4, cutoff=0.3) or self.keys[:8]
        raise UsageError(
            f"needed an SAE of suite {self.reference}, found no '{key}'; there are: "
            f"{', '.join(close)}"
        )

    def load(self, key: str | int) -> SAE:
        """The SAE of a key."""
        return self.entry(key).load()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[SAE]:
        for entry in self.entries:
            yield entry.load()


@os_errors_in_words("read")
def load_suite(reference: str, *, layers: Sequence[int] | None = None) -> Suite:
    """The suite that a reference names: a preset, `release:` with an optional filter, or a folder.

    `layers` selects; the order is always that of depth.  Raises as `load_sae`; UsageError for a
    layer that is not there or is asked for twice, InputError where two SAEs cannot be told apart.
    """
    reference = reference.strip()
    suite = (
        _preset_suite(PRESETS[reference]()) if reference in PRESETS else _listed_suite(reference)
    )
    return suite if layers is None else _select(suite, layers)


def _preset_suite(preset: Preset) -> Suite:
    entries = tuple(
        SuiteEntry(layer, "", reference) for layer, reference in enumerate(preset.references)
    )
    return Suite(preset.name, entries, preset.notes)


def _listed_suite(reference: str) -> Suite:
    release, colon, pattern = reference.partition(":")
    local = user_path(reference).exists()
    if colon and not local and "//" not in reference and release in _releases(release):
        return _registry_suite(reference, release, pattern)
    try:
        place = locate(reference)
    except InputError as error:
        close = difflib.get_close_matches(reference, PRESETS, n=2, cutoff=0.5)
        hint = f"presets: {', '.join(close or PRESETS)}"
        raise type(error)(f"{error}; {hint}") from error
    return _folder_suite(place)


def _releases(release: str) -> Sequence[str]:
    """`release` alone where it can be one; reading the registry for a path would be a waste."""
    if release in ("hf", "bundled") or len(release) < 2 or release.startswith((".", "/", "~")):
        return ()
    registry.find_all(release, "")
    return (release,)


def _registry_suite(reference: str, release: str, pattern: str) -> Suite:
    found: list[tuple[int, str, str]] = []
    left_out = 0
    for line in registry.find_all(release, pattern):
        try:
            found.append((line.layer, without_layer(line.sae_id), line.reference))
        except UnsupportedError:
            left_out += 1
    return _assemble(reference, found, left_out)


def _folder_suite(place: Place) -> Suite:
    if place.weights is not None or place.registered is not None:
        raise UsageError(
            f"needed a suite (a folder of SAEs, a preset or 'release:'), found the single SAE "
            f"{place.reference}"
        )
    found: list[tuple[int, str, str]] = []
    left_out = 0
    for inside, weights in weights_in(place.folder.names):
        checkpoint = Checkpoint(place.folder, inside, weights, "")
        try:
            layer = _layer_of(checkpoint)
        except UnsupportedError:
            left_out += 1
            continue
        exact = weights if _several_weights(place, inside) else ""
        path = "/".join(part for part in (inside, exact) if part)
        found.append((layer, without_layer(path), place.folder.reference(path)))
    if not found and not left_out:
        raise InputError(
            f"needed a folder of SAEs at {place.reference}, found: "
            f"{', '.join(place.folder.names[:8]) or 'no files'}"
        )
    return _assemble(place.reference, found, left_out)


def _several_weights(place: Place, inside: str) -> bool:
    return [folder for folder, _ in weights_in(place.folder.names)].count(inside) > 1


def _layer_of(checkpoint: Checkpoint) -> int:
    """The layer of a checkpoint from its small files, else from its path inside the suite.

    Only if both are mute does the whole path speak: a folder inside a suite names its layer better
    than the path of the suite, which may be called after another one.
    """
    for name, keys in HOOKS.items():
        if not checkpoint.has(name):
            continue
        config = checkpoint.config(name)
        trainer = config.get("trainer")
        if isinstance(trainer, dict) and isinstance(trainer.get("layer"), int):
            return trainer["layer"]
        metadata = config.get("metadata")
        for source in (metadata if isinstance(metadata, dict) else {}, config):
            for key in keys:
                if source.get(key):
                    return resolve_layer(checkpoint.location, str(source[key]), None)
    inside = f"{checkpoint.inside}/{checkpoint.weights}"
    try:
        return resolve_layer(inside, None, None)
    except UnsupportedError:
        raise
    except InputError:
        return resolve_layer(checkpoint.location, None, None)


def _assemble(reference: str, found: list[tuple[int, str, str]], left_out: int) -> Suite:
    if not found:
        raise UnsupportedError(
            f"needed SAEs of the residual stream in {reference}, found {left_out} that read "
            f"something else"
        )
    repeated = max(Counter(layer for layer, _, _ in found).values()) > 1
    entries = [SuiteEntry(layer, name if repeated else "", text) for layer, name, text in found]
    entries.sort(key=lambda entry: (entry.layer, entry.name))
    counts = Counter(entry.key for entry in entries)
    for entry in entries:
        if counts[entry.key] > 1:
            twice = ", ".join(e.reference for e in entries if e.key == entry.key)
            raise InputError(
                f"needed each layer once, or names that differ, in {reference}; found layer "
                f"{entry.layer} twice: {twice}"
            )
    notes = (
        (f"left out {left_out} that do not read the residual stream between blocks",)
        if left_out
        else ()
    )
    return Suite(reference, tuple(entries), notes)


def _select(suite: Suite, layers: Sequence[int]) -> Suite:
    twice = [layer for layer, count in Counter(layers).items() if count > 1]
    if twice:
        raise UsageError(f"needed each layer once, found layer {twice[0]} twice in {list(layers)}")
    unknown = [layer for layer in layers if layer not in suite.layers]
    if unknown or not layers:
        raise UsageError(
            f"needed layers of suite {suite.reference}, found {unknown or 'none'}; there are: "
            f"{', '.join(map(str, suite.layers))}"
        )
    kept = tuple(entry for entry in suite.entries if entry.layer in layers)
    words = tuple(f"layer {layer}:" for layer in suite.layers if layer not in layers)
    notes = tuple(note for note in suite.notes if not note.startswith(words))
    return replace(suite, entries=kept, notes=notes)
