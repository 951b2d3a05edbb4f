"""What `saematch evaluate` does, as one value."""

from dataclasses import dataclass

from saematch.configs.model import ModelSettings
from saematch.errors import UsageError
from saematch.evaluation.names import RIDGE
from saematch.matching.registry import MAIN, matchers


@dataclass(frozen=True)
class EvaluationConfig(ModelSettings):
    """The settings of `saematch evaluate`; raises UsageError where one cannot be used."""

    corpora: tuple[str, ...] = ("web", "wiki", "code")
    """`web`, `wiki`, `code`, or files and folders of text."""
    documents: int = 12
    """Documents of each corpus; the paper takes 100."""
    tokens: int = 256
    """Tokens that each is cut to, BOS included; the paper takes 1,024."""
    strategies: tuple[str, ...] | None = None
    """Of the run's and `correlation` and `ridge`; none: all of them.  `folded` is always among them."""
    pairs: tuple[tuple[str, str], ...] | None = None
    """Pairs of SAEs by key or layer; none: all of the run."""
    quantiles: tuple[float, ...] = ()
    """Shares of pairs, by MSE, that go through the matched decoder (SAE Match, eq. 6)."""
    causal_pairs: int = 12
    """Feature pairs that are ablated for each pair of SAEs, on the first corpus; 0: none."""
    causal_tokens: int = 64
    """Tokens that documents are cut to where features are ablated."""
    other_parts: bool = True
    """Whether `folded` of the decoder alone and of the encoder alone is measured too (without losses)."""
    random_draws: int = 20
    """Draws of `random`; the loss is taken of the first."""
    seed: int = 0
    """Of the documents' order, the draws, the bootstrap and the features that are ablated."""
    offline: bool = False
    """Take the bundled stand-ins of `web`, `wiki` and `code` without trying the Hub."""

    def __post_init__(self) -> None:
        least = {
            "documents": 1, "tokens": 3, "causal_pairs": 0, "causal_tokens": 3, "random_draws": 1,
            "batch_tokens": 1, "seed": 0,
        }  # fmt: skip
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise UsageError(f"needed {name} from {lowest}, found {getattr(self, name)}")
        known = (*(one.name for one in matchers()), RIDGE)
        for strategy in self.strategies or ():
            if strategy not in known:
                raise UsageError(f"needed strategies among {', '.join(known)}, found '{strategy}'")
        object.__setattr__(self, "quantiles", tuple(dict.fromkeys(self.quantiles)))
        if not self.corpora:
            raise UsageError("needed at least one corpus, found none; try web")
        for q in self.quantiles:
            if not 0 <= q <= 1:
                raise UsageError(f"needed quantiles from 0 to 1, found {q:g}")

    def takes(self, strategy: str) -> bool:
        """Whether a strategy is to be measured; `folded` always is."""
        return self.strategies is None or strategy == MAIN or strategy in self.strategies
