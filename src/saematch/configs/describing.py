"""What `saematch describe` does, as one value."""

from dataclasses import dataclass

from saematch.configs.model import ModelSettings
from saematch.errors import UsageError

SOURCES = ("auto", "activations", "neuronpedia")


@dataclass(frozen=True)
class DescribeConfig(ModelSettings):
    """The settings of `saematch describe`; raises UsageError where one cannot be used."""

    source: str = "auto"
    """`activations`: from where features fire; `neuronpedia`; `auto`: what ships with the SAEs, else
    activations."""
    corpora: tuple[str, ...] = ("web", "wiki", "code")
    """`web`, `wiki`, `code`, or files and folders of text."""
    documents: int = 100
    """Documents of each corpus."""
    tokens: int = 256
    """Tokens that each is cut to, BOS included."""
    contexts: int = 5
    """Contexts kept of a feature, from either half of the documents."""
    seed: int = 0
    """Of the documents' order."""
    offline: bool = False
    """Take the bundled stand-ins of `web`, `wiki` and `code`, and what was downloaded from Neuronpedia
    before, without trying the network."""
    allow_other_sae: bool = False
    """Take Neuronpedia's descriptions of another SAE of the same layer."""
    neuronpedia_url: str | None = None
    """Where its exports lie; none: Neuronpedia's own."""

    @property
    def asks_for_texts(self) -> bool:
        """Whether the texts are others than usual: what ships was made of texts of its own."""
        usual = type(self)
        names = ("corpora", "documents", "tokens", "contexts", "seed")
        return any(getattr(self, name) != getattr(usual, name) for name in names)

    def __post_init__(self) -> None:
        for name, lowest in {"documents": 1, "tokens": 3, "contexts": 1, "batch_tokens": 1}.items():
            if getattr(self, name) < lowest:
                raise UsageError(f"needed {name} from {lowest}, found {getattr(self, name)}")
        if self.source not in SOURCES:
            raise UsageError(f"needed a source among {', '.join(SOURCES)}, found '{self.source}'")
        if not self.corpora:
            raise UsageError("needed at least one corpus, found none; try web")
