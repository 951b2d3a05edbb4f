"""What `saematch judge` asks, as one value."""

from dataclasses import dataclass
from typing import Any

from saematch.configs.run import parse_matchers, parse_pairs
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN, matchers, usual_for_judges
from saematch.settings import Config, parse_names, plain, setting

EXPERIMENTS = ("layers", "mse", "persistence", "examples")
STRATA = 4
"""Strata of equal size by cost, which features are drawn from in equal numbers."""


def parse_strategies(value: Any, name: str) -> tuple[str, ...]:
    """Names of matchers, those that are fitted to text among them."""
    return parse_matchers(value, name, lambda: [one.name for one in matchers()])


@dataclass(frozen=True)
class JudgeConfig(Config):
    """The settings of an experiment; raises UsageError where one cannot be used."""

    experiment: str = setting(
        "layers",
        "layers: strategies compared at every pair of layers; mse: pairs from low to high decoder MSE; "
        "persistence: from some layers to each later one, matched directly and step by step; examples: a "
        "few pairs to read.",
        choices=EXPERIMENTS,
    )
    descriptions: str = setting(
        "activations",
        "Whose descriptions are compared.",
        choices=("activations", "model", "neuronpedia"),
    )
    samples: int = setting(
        100, f"Features to ask about for each pair of layers, at least {STRATA}.", least=STRATA
    )
    controls: int = setting(
        100,
        "Controls of each kind: a feature against itself, and against one drawn at random.",
        least=1,
    )
    strategies: tuple[str, ...] = setting(
        usual_for_judges,
        f"Strategies that layers compares, if the run has them; {MAIN} is always among them.",
        parse=parse_strategies,
    )
    pairs: tuple[tuple[str, str], ...] | None = setting(
        None,
        "Layer pairs, e.g. 12,13 or 12,13;13,14.",
        unset="all for layers, three along the depth for mse, the last for examples",
        parse=parse_pairs,
    )
    starts: tuple[str, ...] | None = setting(
        None,
        "Layers that persistence starts from, e.g. 12,14.",
        unset="the first, and at a quarter and half of the depth",
        parse=parse_names,
    )
    swapped: float = 0.2
    """Share of the folded pairs that are asked the other way round too."""
    seed: int = setting(0, "Seed of the sample.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.experiment == "persistence" and self.pairs is not None:
            raise UsageError("persistence takes starting layers instead of pairs; give starts")
        if self.experiment != "persistence" and self.starts is not None:
            raise UsageError(f"{self.experiment} takes no starting layers; only persistence does")
        if not 0 <= self.swapped <= 1:
            raise UsageError(f"expected a share of swapped pairs from 0 to 1, got {self.swapped:g}")

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `config_from` is the way back."""
        return plain(vars(self))
