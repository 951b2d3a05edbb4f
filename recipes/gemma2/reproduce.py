"""SAE Match on Gemma 2 2B with Gemma Scope, width 16k, in one command; see README.md next to this file.

python recipes/gemma2/reproduce.py --out gemma2-run
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paper.command import main
from paper.settings import (
    ModelFacts,
    PlannedRun,
    Recipe,
    Sae,
    SaeFacts,
    Settings,
    far_pairs,
    layers_of,
)
from saematch.loading.suite import CANONICAL_L0, TABLE_1_L0, choose_suite
from saematch.matching.matchers import FOLDED, UNFOLDED

BLOCKS = 26
PUBLISHED_L0 = (
    (13, 25, 46, 105, 226), (10, 20, 40, 102, 250), (13, 24, 53, 141, 142, 304),
    (14, 28, 59, 142, 315), (17, 31, 60, 124, 125, 281), (18, 34, 68, 143, 309),
    (19, 36, 70, 144, 301), (20, 36, 69, 137, 285), (20, 37, 71, 142, 301),
    (21, 37, 73, 151, 340), (21, 39, 77, 166, 395), (22, 41, 80, 168, 393),
    (22, 41, 82, 176, 445), (23, 43, 83, 84, 173, 403), (23, 43, 83, 84, 173, 388),
    (23, 41, 78, 150, 308), (23, 42, 78, 154, 335), (23, 42, 77, 150, 304),
    (23, 40, 74, 138, 280), (23, 40, 73, 137, 279), (22, 38, 71, 139, 294),
    (22, 38, 70, 139, 301), (21, 38, 72, 147, 349), (21, 38, 74, 75, 157, 404),
    (20, 38, 73, 158, 457), (16, 28, 55, 116, 285),
)  # fmt: skip
"""Average L0 of the SAEs of width 16k at layers 0 to 25, as SAELens's registry lists them."""
SERIES_LAYERS = (20, 21)
"""Layers of figure 14."""
EVEN_L0 = 70.0
"""That the even choice stays near: where the paper finds the matched decode to explain most."""
PRUNING = ("10", "11", "12", "16", "17")


def path(layer: int, l0: int) -> str:
    return f"layer_{layer}/width_16k/average_l0_{l0}"


def even_l0(layers: tuple[int, ...]) -> dict[int, int]:
    """By layer the SAE that makes L0 most even along the depth (appendix A), by its published L0."""
    candidates = {
        layer: {str(l0): float(l0) for l0 in (*PUBLISHED_L0[layer], TABLE_1_L0[layer])}
        for layer in layers
    }
    return {layer: int(l0) for layer, l0 in choose_suite(candidates, EVEN_L0).items()}


def plan(settings: Settings) -> list[PlannedRun]:
    layers = layers_of(settings, BLOCKS)
    at_hub = settings.saes is None
    table_1 = {layer: TABLE_1_L0[layer] for layer in layers}
    chosen = even_l0(layers)
    series = [layer for layer in SERIES_LAYERS if layer in layers]
    if len(series) < 2:
        series = list(layers[-2:])
    runs = [
        PlannedRun(
            "main",
            "the SAEs of Table 1: everything but what needs other SAEs",
            tuple(Sae(layer, path(layer, l0)) for layer, l0 in table_1.items()),
            suite="gemma-scope-2b/table1" if at_hub else None,
            far=far_pairs(settings, layers),
            fitted=True,
            quantiles=settings.quantiles,
            other_parts=True,
            described=("activations",),
            judged_on="activations",
            figures=("1", "3", "4", "5", "6", "7", "8", *PRUNING, "18"),
        ),
        PlannedRun(
            "even-l0",
            "the SAEs of Table 1 and those of most even L0 (appendix A)",
            tuple(
                Sae(layer, path(layer, l0[layer]), name)
                for name, l0 in (("table-1", table_1), ("even", chosen))
                for layer in layers
            ),
            strategies=(FOLDED,),
            figures=("15",),
        ),
        PlannedRun(
            "l0-series",
            f"SAEs of five L0s at layers {series[0]} and {series[1]}",
            tuple(
                Sae(layer, path(layer, l0), f"rank-{rank}")
                for layer in series
                for rank, l0 in enumerate(_five(PUBLISHED_L0[layer]), start=1)
            ),
            strategies=(FOLDED, UNFOLDED),
            figures=("14",),
        ),
    ]
    if settings.neuronpedia:
        canonical = PlannedRun(
            "canonical",
            "the SAEs that Neuronpedia describes, judged by its descriptions",
            tuple(Sae(layer, path(layer, CANONICAL_L0[layer])) for layer in layers),
            suite="gemma-scope-2b/canonical" if at_hub else None,
            evaluated=False,
            described=("neuronpedia",),
            judged_on="neuronpedia",
            llm_alone=True,
            figures=("4", "5", "6", "8", "18"),
        )
        runs.append(canonical)
    return runs


def _five(l0s: tuple[int, ...]) -> tuple[int, ...]:
    """Where a layer has two of nearly the same L0, the higher of them is left out."""
    apart = tuple(l0 for n, l0 in enumerate(l0s) if n == 0 or l0 > 1.1 * l0s[n - 1])
    return apart[:5]


RECIPE = Recipe(
    title="SAE Match on Gemma 2 2B (Gemma Scope, width 16k)",
    model=ModelFacts("google/gemma-2-2b", 2_614_341_888, 4, 256_000, BLOCKS),
    saes=SaeFacts("hf://google/gemma-scope-2b-pt-res", ("params.npz",), 2304, 16_384),
    plan=plan,
    notes=(
        "Neuronpedia describes the canonical SAEs, which at layers 0, 1, 4, 13 and 14 are not those of "
        "Table 1. So `main` is judged on descriptions from its own SAEs' activations, and `canonical`, "
        "where a language model judges, on Neuronpedia's.",
    ),
)

if __name__ == "__main__":
    sys.exit(main(RECIPE, __doc__))
