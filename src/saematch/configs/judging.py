"""What `saematch judge` asks, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saematch.errors import UsageError
from saematch.matching.registry import matcher, usual_for_judges
from saematch.semantics.judges.experiments import STRATA

EXPERIMENTS = ("layers", "mse", "persistence", "examples")


@dataclass(frozen=True)
class JudgeConfig:
    """The settings of an experiment; raises UsageError where one cannot be used."""

    experiment: str = "layers"
    """`layers`: pairs of every two layers, by strategy; `mse`: pairs of three, by their MSE;
    `persistence`: from some layers to each later one, matched directly and step by step; `examples`: pairs
    of one, from low to high MSE."""
    descriptions: str = "activations"
    """Source of the descriptions: activations, model or neuronpedia."""
    samples: int = 100
    """Features of each pair of layers."""
    controls: int = 100
    """Controls of each kind: a feature against itself, and against one drawn at random."""
    strategies: tuple[str, ...] = field(default_factory=usual_for_judges)
    """Compared by `layers`, where the run has them; `folded` is always among them."""
    pairs: tuple[tuple[str, str], ...] | None = None
    """Layer pairs; none: all for `layers`, three along the depth for `mse`, the last for `examples`."""
    starts: tuple[str, ...] | None = None
    """Layers that `persistence` starts from; none: the first, and at a quarter and half of the depth."""
    swapped: float = 0.2
    """Share of the folded pairs that are asked the other way round too."""
    seed: int = 0
    """Of the sample."""

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise UsageError(
                f"needed an experiment among {', '.join(EXPERIMENTS)}, found '{self.experiment}'"
            )
        if self.experiment == "persistence" and self.pairs is not None:
            raise UsageError(
                "needed no pairs for persistence, found some; give the layers that it starts from"
            )
        if self.experiment != "persistence" and self.starts is not None:
            raise UsageError(
                f"needed no layers to start from for {self.experiment}, found some; they are for persistence"
            )
        if self.samples < STRATA:
            raise UsageError(f"needed samples from {STRATA}, found {self.samples}")
        if self.seed < 0:
            raise UsageError(f"needed a seed from 0, found {self.seed}")
        if self.controls < 1:
            raise UsageError(f"needed controls from 1, found {self.controls}")
        if not 0 <= self.swapped <= 1:
            raise UsageError(f"needed a share from 0 to 1 of swapped pairs, found {self.swapped:g}")
        for strategy in self.strategies:
            matcher(strategy)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `of_plain` is the way back."""
        return {name: _changed(value, list) for name, value in vars(self).items()}

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> "JudgeConfig":
        return cls(**{name: _changed(value, tuple) for name, value in values.items()})


def _changed(value: Any, kind: type) -> Any:
    """Sequences within sequences as another kind of sequence."""
    if isinstance(value, (list, tuple)):
        return kind(_changed(one, kind) for one in value)
    return value
