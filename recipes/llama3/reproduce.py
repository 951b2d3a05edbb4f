"""SAE Match on Llama 3.1 8B with Llama Scope, 8x, in one command; see README.md next to this file.

python recipes/llama3/reproduce.py --out llama3-run
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

BLOCKS = 32
FIGURES = (
    "1", "3", "4", "5", "6", "7", "8", "10", "12", "13", "15", "16", "17", "19",
)  # fmt: skip
"""All but 14: Llama Scope has one SAE per layer of this width."""


def plan(settings: Settings) -> list[PlannedRun]:
    layers = layers_of(settings, BLOCKS)
    return [
        PlannedRun(
            "main",
            "the residual SAEs of all layers",
            tuple(Sae(layer, f"Llama3_1-8B-Base-L{layer}R-8x") for layer in layers),
            suite=settings.saes or "llama-scope-8b/8x",
            far=far_pairs(settings, layers),
            fitted=True,
            quantiles=settings.quantiles,
            other_parts=True,
            described=("activations", *(["neuronpedia"] if settings.neuronpedia else [])),
            judged_on="activations",
            figures=FIGURES,
        )
    ]


RECIPE = Recipe(
    title="SAE Match on Llama 3.1 8B (Llama Scope, 8x)",
    model=ModelFacts("meta-llama/Llama-3.1-8B", 8_030_261_248, 2, 128_256, BLOCKS),
    saes=SaeFacts(
        "hf://fnlp/Llama3_1-8B-Base-LXR-8x",
        ("hyperparams.json", "checkpoints/final.safetensors"),
        4096,
        32_768,
    ),
    plan=plan,
    notes=(
        "Llama Scope has one SAE per layer of this width: there is no figure 14, and figure 15 has nothing "
        "to choose from.",
    ),
)

if __name__ == "__main__":
    sys.exit(main(RECIPE, __doc__))
