"""Suites that have a name: the paper's, and the canonical ones.

L0s are those of `google/gemma-scope-2b-pt-res`, width 16k.  Table 1 of SAE Match departs from
SAELens's canonical ids at five layers; two of its files are not in SAELens's registry at all, so
every file is named by its path at the Hub.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
