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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter

from saematch._io.files import os_errors_in_words, user_path
from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.loading import registry
from saematch.loading.checkpoint import Checkpoint, weights_in
from saematch.loading.references import Place, load_sae, locate
from saematch.loading.site import Site, without_layer
from saematch.sae import SAE
from saematch.types import find_key, suite_key

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
        found = find_key(key, self.keys)
        return next(entry for entry in self.entries if entry.key == found)

    def load(self, key: str | int) -> SAE:
        return self.entry(key).load()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[SAE]:
        return (entry.load() for entry in self.entries)


def table1_departures() -> tuple[int, ...]:
    """The layers at which Table 1 does not use the canonical SAE."""
    pairs = enumerate(zip(TABLE_1_L0, CANONICAL_L0, strict=True))
    return tuple(layer for layer, (paper, canonical) in pairs if paper != canonical)


def _preset(name: str, reference: str, fill: Iterable[int], notes: Sequence[str] = ()) -> Suite:
    """A suite of one SAE a layer; `fill`: by layer what {} stands for, L0 or the layer itself."""
    entries = (
        SuiteEntry(layer, "", reference.format(layer=layer, l0=value))
        for layer, value in enumerate(fill)
    )
    return Suite(name, tuple(entries), tuple(notes))


_GEMMA = "hf://google/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{l0}/params.npz"
_LLAMA = "hf://fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L{layer}R-8x"
_TABLE_1_NOTES = [
    f"layer {layer}: L0 {TABLE_1_L0[layer]} as in the paper's Table 1, where the canonical SAE "
    f"has L0 {CANONICAL_L0[layer]}; Neuronpedia's descriptions are of the canonical one"
    + ("; not in SAELens's registry, read from the Hub" if layer in NOT_IN_REGISTRY else "")
    for layer in table1_departures()
]
PRESETS = {
    suite.reference: suite
    for suite in (
        _preset("gemma-scope-2b/table1", _GEMMA, TABLE_1_L0, _TABLE_1_NOTES),
        _preset("gemma-scope-2b/canonical", _GEMMA, CANONICAL_L0),
        _preset("llama-scope-8b/8x", _LLAMA, range(LLAMA_LAYERS)),
    )
}


@os_errors_in_words("read")
def load_suite(reference: str, *, layers: Sequence[int] | None = None) -> Suite:
    """Open the suite that a reference names: a preset, `release:` with an optional filter, or a folder.

    `layers` selects; the order is always that of depth.  Raises as `load_sae`; UsageError for a
    layer that is not there or is asked for twice, InputError where two SAEs cannot be told apart.
    """
    reference = reference.strip()
    suite = PRESETS.get(reference) or _listed_suite(reference)
    return suite if layers is None else _select(suite, layers)


def _listed_suite(reference: str) -> Suite:
    release, colon, pattern = reference.partition(":")
    path = "//" in reference or release in ("hf", "bundled") or release.startswith((".", "/", "~"))
    place, lines = None, ()
    try:
        # A drive's letter is no release; reading the registry for a path would be a waste.
        if colon and len(release) > 1 and not path and not user_path(reference).exists():
            lines = registry.find_all(release, pattern)
        else:
            place = locate(reference)
    except (InputError, UsageError) as error:
        written = reference.lower().replace(":", "/")
        close = difflib.get_close_matches(written, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean the preset {close[0]}?" if close else f"presets: {', '.join(PRESETS)}"
        raise type(error)(f"{error}; {hint}") from error
    if place is not None:
        return _folder_suite(place)
    return _suite_of(
        reference,
        ((line.site_or_refusal, without_layer(line.sae_id), line.reference) for line in lines),
    )


def _folder_suite(place: Place) -> Suite:
    if place.weights is not None or place.registered is not None:
        raise UsageError(
            f"expected a suite (a folder of SAEs, a preset or 'release:'), got the single SAE "
            f"{place.reference}"
        )
    names = place.folder.names
    checkpoints = weights_in(names)
    if not checkpoints:
        hint = registry.hint_for(place.folder.location, names[0]) if names else ""
        raise InputError(
            f"expected a folder of SAEs at {place.reference}, got: "
            f"{', '.join(names[:8]) or 'no files'}{hint}"
        )
    several = Counter(inside for inside, _ in checkpoints)
    listed = []
    for inside, weights in checkpoints:
        exact = weights if several[inside] > 1 else ""
        path = "/".join(part for part in (inside, exact) if part)
        site_of = Checkpoint(place.folder, inside, weights, "").site
        listed.append((site_of, without_layer(path), place.folder.reference(path)))
    return _suite_of(place.reference, listed)


def _suite_of(reference: str, listed: Iterable[tuple[Callable[[], Site], str, str]]) -> Suite:
    """The suite of those of (what says its site or refuses, name, reference) that can be loaded."""
    found: list[tuple[int, str, str]] = []
    left_out: Counter[str] = Counter()
    for site_of, name, text in listed:
        try:
            site = site_of()
        except UnsupportedError as error:
            left_out[str(error).partition("; ")[0]] += 1
            continue
        if site.supported and site.layer is not None:
            found.append((site.layer, name, text))
        else:
            left_out[site.name] += 1
    why = [f"{what} ({count})" for what, count in left_out.most_common(6)]
    why += ["…"] * (len(left_out) > 6)
    note = f"left out {left_out.total()} that cannot be loaded: {', '.join(why)}"
    if not found:
        raise UnsupportedError(
            f"expected dictionaries of the residual stream in {reference}, got none: {note}"
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
    return Suite(reference, tuple(entries), (note,) if left_out else ())


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
    stated = {f"mean L0 for {key}": value for one in l0.values() for key, value in one.items()}
    for name, value in {**stated, "target of L0": 1.0 if target is None else target}.items():
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"expected a positive {name}, got {value}")

    def own(value: float) -> float:
        return 0.0 if target is None else math.log(value / target) ** 2

    best = {key: (own(value), (key,)) for key, value in l0[layers[0]].items()}
    for before, layer in pairwise(layers):
        best = {
            key: min(
                (
                    (total + math.log(value / l0[before][path[-1]]) ** 2 + own(value), (*path, key))
                    for total, path in best.values()
                ),
                key=itemgetter(0),
            )
            for key, value in l0[layer].items()
        }
    _, path = min(best.values(), key=itemgetter(0))
    return dict(zip(layers, path, strict=True))
