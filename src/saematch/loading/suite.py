"""Suites: the SAEs of one model, in order of depth, loaded one at a time.

A suite is found by listing: a preset, a release of SAELens's registry, or every checkpoint below a
folder (here, at the Hub or bundled).  Listing reads names and small configs, no weights.

Presets are the paper's suites and the canonical ones.  L0s are those of `google/gemma-scope-2b-pt-res`, width
16k.  Table 1 of SAE Match departs from SAELens's canonical ids at five layers; two of its files are not in
SAELens's registry at all, so every file is named by its path at the Hub.

`choose_suite` takes one SAE per layer out of several, so that mean L0 is even along the depth (SAE
Match, appendix A).  Criterion: least Σ_t (ln L0_{t+1} − ln L0_t)², and, with a target, plus Σ_t (ln L0_t
− ln target)². Each layer's term depends on the layer before alone, so the least sum is a shortest path
through the layers, found exactly.  Of equal sums the one that takes earlier candidates at the last
layers wins.
"""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from saematch._io.files import os_errors_in_words, user_path
from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.loading import registry
from saematch.loading.checkpoint import Checkpoint, weights_in
from saematch.loading.references import Place, load_sae, locate
from saematch.loading.site import Site, without_layer
from saematch.sae import SAE
from saematch.types import suite_key

TABLE_1_L0 = (
    102, 108, 141, 59, 125, 68, 70, 69, 71, 73, 77, 80, 82,
    83, 83, 78, 78, 77, 74, 73, 71, 70, 72, 75, 73, 116,
)  # fmt: skip
"""Average L0 of the SAE at layers 0 to 25 in the paper's Table 1."""

CANONICAL_L0 = (
    105, 102, 141, 59, 124, 68, 70, 69, 71, 73, 77, 80, 82,
    84, 84, 78, 78, 77, 74, 73, 71, 70, 72, 75, 73, 116,
)  # fmt: skip
"""The same of SAELens's release gemma-scope-2b-pt-res-canonical, width 16k."""

NOT_IN_REGISTRY = (0, 1)
"""Layers of Table 1 whose file SAELens's registry does not list."""

LLAMA_LAYERS = 32


@dataclass(frozen=True)
class Preset:
    """A named suite: a reference for every layer, and what there is to know about it."""

    name: str
    references: tuple[str, ...]
    """By layer, from 0."""
    notes: tuple[str, ...] = ()


def table1_departures() -> tuple[int, ...]:
    """The layers at which Table 1 does not use the canonical SAE."""
    return tuple(
        layer
        for layer, (paper, canonical) in enumerate(zip(TABLE_1_L0, CANONICAL_L0, strict=True))
        if paper != canonical
    )


def _gemma(l0s: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(
        f"hf://google/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{l0}/params.npz"
        for layer, l0 in enumerate(l0s)
    )


def _table1() -> Preset:
    notes = tuple(
        f"layer {layer}: L0 {TABLE_1_L0[layer]} as in the paper's Table 1, where the canonical SAE "
        f"has L0 {CANONICAL_L0[layer]}; Neuronpedia's descriptions are of the canonical one"
        + ("; not in SAELens's registry, read from the Hub" if layer in NOT_IN_REGISTRY else "")
        for layer in table1_departures()
    )
    return Preset("gemma-scope-2b/table1", _gemma(TABLE_1_L0), notes)


def _canonical() -> Preset:
    return Preset("gemma-scope-2b/canonical", _gemma(CANONICAL_L0))


def _llama() -> Preset:
    folder = "hf://fnlp/Llama3_1-8B-Base-LXR-8x"
    references = tuple(f"{folder}/Llama3_1-8B-Base-L{layer}R-8x" for layer in range(LLAMA_LAYERS))
    return Preset("llama-scope-8b/8x", references)


PRESETS: dict[str, Callable[[], Preset]] = {
    "gemma-scope-2b/table1": _table1,
    "gemma-scope-2b/canonical": _canonical,
    "llama-scope-8b/8x": _llama,
}


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
            f"expected an SAE of suite {self.reference}, got no '{key}'; there are: "
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
    """Open the suite that a reference names: a preset, `release:` with an optional filter, or a folder.

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
    try:
        if colon and not local and "//" not in reference and release in _releases(release):
            place = None
        else:
            place = locate(reference)
    except (InputError, UsageError) as error:
        written = reference.lower().replace(":", "/")
        close = difflib.get_close_matches(written, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean the preset {close[0]}?" if close else f"presets: {', '.join(PRESETS)}"
        raise type(error)(f"{error}; {hint}") from error
    return _registry_suite(reference, release, pattern) if place is None else _folder_suite(place)


def _releases(release: str) -> Sequence[str]:
    """`release` alone where it can be one; reading the registry for a path would be a waste."""
    if release in ("hf", "bundled") or len(release) < 2 or release.startswith((".", "/", "~")):
        return ()
    registry.find_all(release, "")
    return (release,)


@dataclass
class _Listing:
    """What a listing finds: SAEs that can be loaded, and why the others are left out."""

    found: list[tuple[int, str, str]] = field(default_factory=list)
    """(layer, name, reference)."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many for each reason."""

    def add(self, site_of: Callable[[], Site], name: str, reference: str) -> None:
        try:
            site = site_of()
        except UnsupportedError as error:
            self.left_out[str(error).partition("; ")[0]] += 1
            return
        if site.supported and site.layer is not None:
            self.found.append((site.layer, name, reference))
        else:
            self.left_out[site.name] += 1

    def note(self) -> str:
        """`left out 3 that cannot be loaded: the MLP's output (2), a transcoder (1)`."""
        why = ", ".join(f"{what} ({count})" for what, count in self.left_out.most_common(6))
        more = ", …" if len(self.left_out) > 6 else ""
        return f"left out {self.left_out.total()} that cannot be loaded: {why}{more}"


def _registry_suite(reference: str, release: str, pattern: str) -> Suite:
    listing = _Listing()
    for line in registry.find_all(release, pattern):
        listing.add(line.site_or_refusal, without_layer(line.sae_id), line.reference)
    return _assemble(reference, listing)


def _folder_suite(place: Place) -> Suite:
    if place.weights is not None or place.registered is not None:
        raise UsageError(
            f"expected a suite (a folder of SAEs, a preset or 'release:'), got the single SAE "
            f"{place.reference}"
        )
    listing = _Listing()
    for inside, weights in weights_in(place.folder.names):
        exact = weights if _several_weights(place, inside) else ""
        path = "/".join(part for part in (inside, exact) if part)
        checkpoint = Checkpoint(place.folder, inside, weights, "")
        listing.add(checkpoint.site, without_layer(path), place.folder.reference(path))
    if not listing.found and not listing.left_out:
        names = place.folder.names
        hint = registry.hint_for(place.folder.location, names[0]) if names else ""
        raise InputError(
            f"expected a folder of SAEs at {place.reference}, got: "
            f"{', '.join(names[:8]) or 'no files'}{hint}"
        )
    return _assemble(place.reference, listing)


def _several_weights(place: Place, inside: str) -> bool:
    return [folder for folder, _ in weights_in(place.folder.names)].count(inside) > 1


def _assemble(reference: str, listing: _Listing) -> Suite:
    found = listing.found
    if not found:
        raise UnsupportedError(
            f"expected dictionaries of the residual stream in {reference}, got none: "
            f"{listing.note()}"
        )
    repeated = max(Counter(layer for layer, _, _ in found).values()) > 1
    entries = [SuiteEntry(layer, name if repeated else "", text) for layer, name, text in found]
    entries.sort(key=lambda entry: (entry.layer, entry.name))
    counts = Counter(entry.key for entry in entries)
    for entry in entries:
        if counts[entry.key] > 1:
            twice = ", ".join(e.reference for e in entries if e.key == entry.key)
            raise InputError(
                f"expected each layer once, or names that differ, in {reference}; got layer "
                f"{entry.layer} twice: {twice}"
            )
    notes = (listing.note(),) if listing.left_out else ()
    return Suite(reference, tuple(entries), notes)


def _select(suite: Suite, layers: Sequence[int]) -> Suite:
    twice = [layer for layer, count in Counter(layers).items() if count > 1]
    if twice:
        raise UsageError(f"expected each layer once, got layer {twice[0]} twice in {list(layers)}")
    unknown = [layer for layer in layers if layer not in suite.layers]
    if unknown or not layers:
        raise UsageError(
            f"expected layers of suite {suite.reference}, got {unknown or 'none'}; there are: "
            f"{', '.join(map(str, suite.layers))}"
        )
    kept = tuple(entry for entry in suite.entries if entry.layer in layers)
    words = tuple(f"layer {layer}:" for layer in suite.layers if layer not in layers)
    notes = tuple(note for note in suite.notes if not note.startswith(words))
    return replace(suite, entries=kept, notes=notes)


def choose_suite(
    l0: Mapping[int, Mapping[str, float]], target: float | None = None
) -> dict[int, str]:
    """By layer, the key of the SAE to take.

    `l0`: by layer and key, the SAE's mean L0 (measure `l0` of `saematch evaluate`, or what its name says).
    Raises UsageError for layers without candidates and L0s that are not positive.
    """
    if not l0:
        raise UsageError("expected at least one layer to choose SAEs for, got none")
    layers = sorted(l0)
    for layer in layers:
        if not l0[layer]:
            raise UsageError(f"expected at least one SAE at layer {layer}, got none")
        for key, value in l0[layer].items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"expected a positive mean L0 for {key}, got {value}")
    if target is not None and not (math.isfinite(target) and target > 0):
        raise UsageError(f"expected a positive target of L0, got {target}")

    def own(value: float) -> float:
        return 0.0 if target is None else math.log(value / target) ** 2

    best = {key: (own(value), [key]) for key, value in l0[layers[0]].items()}
    for before, layer in pairwise(layers):
        reached = {}
        for key, value in l0[layer].items():
            total, path = min(
                (
                    (total + math.log(value / l0[before][last]) ** 2 + own(value), path)
                    for last, (total, path) in best.items()
                ),
                key=lambda found: found[0],
            )
            reached[key] = (total, [*path, key])
        best = reached
    _, path = min(best.values(), key=lambda found: found[0])
    return dict(zip(layers, path, strict=True))
