"""What `saematch evaluate` does, as one value."""

from dataclasses import dataclass
from typing import Any

from saematch.configs.model import ModelSettings
from saematch.configs.run import parse_matchers, parse_pairs
from saematch.matching.matchers import MAIN, RANDOM, matchers, usual_fitted
from saematch.settings import setting, unusable
from saematch.types import RIDGE


def parse_strategies(value: Any, name: str) -> tuple[str, ...]:
    """Names of matchers, those that are fitted to text among them, and of the ridge map."""
    return parse_matchers(value, name, lambda: (*(one.name for one in matchers()), RIDGE))


def parse_quantiles(value: Any, name: str) -> tuple[float, ...]:
    """Numbers from 0 to 1 from `0,0.5` or a sequence, each once."""
    items = value.split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(dict.fromkeys(float(one) for one in items))
    except (TypeError, ValueError):
        numbers = (-1.0,)
    if not all(0 <= one <= 1 for one in numbers):
        raise unusable(name, "numbers from 0 to 1, with commas between them", value)
    return numbers


@dataclass(frozen=True)
class EvaluationConfig(ModelSettings):
    """The settings of `saematch evaluate`; raises UsageError where one cannot be used."""

    documents: int = setting(12, "Documents of each corpus; the paper takes 100.", least=1)
    tokens: int = setting(
        256, "Tokens of each document, BOS included; the paper takes 1024.", least=3
    )
    strategies: tuple[str, ...] | None = setting(
        None,
        f"The run's, and {','.join((*usual_fitted(), RIDGE))}, which are fitted to text; {MAIN} is always "
        "measured.",
        unset="all",
        parse=parse_strategies,
    )
    pairs: tuple[tuple[str, str], ...] | None = setting(
        None, "Layer pairs, e.g. 12,13 or 12,13;13,14.", unset="all", parse=parse_pairs
    )
    quantiles: tuple[float, ...] = setting(
        (),
        "Shares of pairs, by MSE, to decode with the matched feature (eq. 6), e.g. 0,0.5,1.",
        parse=parse_quantiles,
    )
    causal_pairs: int = setting(
        12, "Feature pairs to ablate for each layer pair, on the first corpus; 0: none.", least=0
    )
    causal_tokens: int = setting(
        64, "Tokens of each document where features are ablated.", least=3, flag=False
    )
    other_parts: bool = setting(
        True, "Also measure decoder-only and encoder-only matchings, without losses."
    )
    random_draws: int = setting(
        20, f"Draws of the {RANDOM} strategy; the loss is that of the first.", least=1, flag=False
    )
    seed: int = setting(0, "Seed of documents, draws, intervals and ablations.", least=0)
    offline: bool = setting(False, "Use bundled stand-ins for the corpora; do not contact the Hub.")

    def takes(self, strategy: str) -> bool:
        """Whether a strategy is to be measured; `folded` always is."""
        return self.strategies is None or strategy == MAIN or strategy in self.strategies
