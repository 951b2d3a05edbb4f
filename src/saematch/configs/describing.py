"""What `saematch describe` does, as one value."""

from dataclasses import dataclass

from saematch.configs.model import ModelSettings
from saematch.settings import setting


@dataclass(frozen=True)
class DescribeConfig(ModelSettings):
    """The settings of `saematch describe`; raises UsageError where one cannot be used."""

    source: str = setting(
        "auto",
        "auto: what ships with the SAEs, else activations.",
        choices=("auto", "activations", "neuronpedia"),
    )
    documents: int = setting(100, "Documents of each corpus.", least=1)
    tokens: int = setting(256, "Tokens of each document, BOS included.", least=3)
    examples: int = setting(
        5, "Max-activating examples of each feature from each half of the documents.", least=1
    )
    seed: int = setting(0, "Seed of the order of the documents.", least=0)
    offline: bool = setting(
        False, "Use bundled stand-ins for the corpora and earlier downloads; no network."
    )
    allow_other_sae: bool = setting(
        False, "Accept Neuronpedia's descriptions of another SAE of the same layer."
    )
    neuronpedia_url: str | None = setting(
        None,
        "A mirror of Neuronpedia's exports, up to and including /v1.",
        unset="Neuronpedia's own",
    )

    @property
    def asks_for_texts(self) -> bool:
        """Whether the texts are others than usual: what ships was made of texts of its own."""
        usual = type(self)
        names = ("corpora", "documents", "tokens", "examples", "seed")
        return any(getattr(self, name) != getattr(usual, name) for name in names)
