"""What may be chosen when the paper is repeated, and the facts of the models that it is repeated on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from saematch.errors import UsageError
from saematch.matching.matchers import usual_in_runs
from saematch.settings import setting


@dataclass(frozen=True)
class Settings:
    """Every flag of a recipe; the defaults are the paper's settings where it names any."""

    out: str = setting("", "folder for everything that is made")
    saes: str | None = setting(None, "folder with the SAEs as on the Hub; default: the Hub")
    model: str | None = setting(None, "name or path of the language model; default: the paper's")
    layers: tuple[int, ...] | None = setting(None, "layers to take; default: all")
    starts: tuple[int, ...] = setting((10, 12, 20), "layers that figure 8 starts from")
    first_third: int | None = setting(None, "last layer of the first third; default: by depth")
    documents: int = setting(100, "documents of each corpus")
    tokens: int = setting(1024, "tokens that each is cut to, BOS included")
    described_tokens: int = setting(256, "the same where features are described")
    offline: bool = setting(
        False, "bundled stand-ins for the corpora; the Hub is not asked for text"
    )
    quantiles: tuple[float, ...] = setting((0.0, 0.25, 0.5, 0.75, 1.0), "MSE quantiles mixed in")
    ablated: int = setting(12, "feature pairs that are ablated for each pair of SAEs")
    random_draws: int = setting(20, "draws of random matchings")
    random_draws_on_text: int = setting(5, "of them measured on text")
    device: str | None = setting(None, "cpu or cuda; default: cuda if there is one")
    dtype: str = setting("bfloat16", "of the language model: bfloat16 or float32")
    batch_tokens: int = setting(2048, "tokens in one pass of the language model")
    neuronpedia: bool = setting(True, "take Neuronpedia's descriptions")
    neuronpedia_url: str | None = setting(None, "a mirror of its exports, up to and with /v1")
    judge_model: str | None = setting(None, "language model that judges; default: embeddings judge")
    base_url: str | None = setting(None, "its endpoint, which speaks OpenAI's protocol")
    key_variable: str = setting("OPENAI_API_KEY", "environment variable that holds its key")
    concurrency: int = setting(16, "calls under way at once")
    prompt_price: float | None = setting(None, "money per million tokens that it reads")
    completion_price: float | None = setting(None, "money per million tokens that it writes")
    max_calls: int | None = setting(None, "budget in calls")
    max_cost: float | None = setting(None, "budget in money; needs both prices")
    embedding_model: str = setting("minilm", "of the judge without a language model")
    samples: int = setting(100, "features of each pair of layers that are judged")
    controls: int = setting(100, "controls of each kind")
    seed: int = setting(0, "of every sample, draw and order")


@dataclass(frozen=True)
class ModelFacts:
    """A language model, as far as needs follow from it."""

    name: str
    """On the Hub."""
    parameters: int
    stored_bytes: int
    """A parameter, in the Hub's files."""
    vocabulary: int
    blocks: int


@dataclass(frozen=True)
class SaeFacts:
    """SAEs of one width, likewise."""

    root: str
    """Where they lie on the Hub: hf://owner/name."""
    files: tuple[str, ...]
    """Files of one SAE, below its path."""
    d_model: int
    d_sae: int

    @property
    def bytes(self) -> int:
        """Bytes of one SAE in float32: both matrices, two biases, thresholds."""
        return 4 * (2 * self.d_sae * self.d_model + 2 * self.d_sae + self.d_model)


@dataclass(frozen=True)
class Sae:
    """One SAE that a run takes."""

    layer: int
    path: str
    """Below the root."""
    name: str = ""
    """What tells it from the others of its layer."""


@dataclass(frozen=True)
class PlannedRun:
    """One run directory: what is matched, measured, described, judged and drawn in it."""

    name: str
    purpose: str
    saes: tuple[Sae, ...]
    suite: str | None = None
    """A preset, or a folder that holds exactly these SAEs; none: links to them make a folder."""
    strategies: tuple[str, ...] = field(default_factory=usual_in_runs)
    far: tuple[tuple[str, str], ...] = ()
    evaluated: bool = True
    fitted: bool = False
    """Whether `ridge` and `correlation`, which are fitted to other text, are measured too."""
    quantiles: tuple[float, ...] = ()
    other_parts: bool = False
    """Whether decoder and encoder alone are matched too (figure 12)."""
    described: tuple[str, ...] = ()
    """Sources of descriptions: activations, neuronpedia."""
    judged_on: str | None = None
    """Whose descriptions a judge compares; none: nothing is judged."""
    llm_alone: bool = False
    """Judged, and so made at all, only where a language model judges."""
    figures: tuple[str, ...] = ()
    """Numbers in the paper of those that must come out."""

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({sae.layer for sae in self.saes}))

    @property
    def chains(self) -> int:
        """SAEs of one name are matched through the layers."""
        return len({sae.name for sae in self.saes})

    @property
    def pairs(self) -> int:
        """Adjacent ones."""
        return len(self.saes) - self.chains


@dataclass(frozen=True)
class Recipe:
    """The paper on one language model."""

    title: str
    model: ModelFacts
    saes: SaeFacts
    plan: Callable[[Settings], Sequence[PlannedRun]]
    notes: tuple[str, ...] = ()
    """What a reader of the results should know."""

    def name_of_model(self, settings: Settings) -> str:
        return settings.model or self.model.name

    def root(self, settings: Settings) -> str:
        return settings.saes or self.saes.root

    def first_third(self, settings: Settings) -> int:
        """Its last layer."""
        return settings.first_third or self.model.blocks // 3


def far_pairs(settings: Settings, layers: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """From each start to every later layer but the next, which is matched anyway."""
    return tuple(
        (str(start), str(later))
        for start in starts_in(settings, layers)
        for later in layers[layers.index(start) + 2 :]
    )


def starts_in(settings: Settings, layers: Sequence[int]) -> list[int]:
    """The starts of figure 8; raises UsageError for one that is no layer, or the last."""
    unknown = [start for start in settings.starts if start not in layers[:-1]]
    if unknown or not settings.starts:
        raise UsageError(
            f"expected --starts among the layers {', '.join(map(str, layers[:-1]))}, got "
            f"{unknown[0] if unknown else 'none'}"
        )
    return list(settings.starts)


def layers_of(settings: Settings, blocks: int) -> tuple[int, ...]:
    """All layers, or those that were chosen."""
    if settings.layers is None:
        return tuple(range(blocks))
    chosen = tuple(sorted(set(settings.layers)))
    if len(chosen) < 3 or not 0 <= chosen[0] <= chosen[-1] < blocks:
        raise UsageError(
            f"expected at least three --layers from 0 to {blocks - 1}, got "
            f"{', '.join(map(str, settings.layers))}"
        )
    return chosen
