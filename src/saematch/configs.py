"""What each command is asked to do, as one value: the Python API, the command line's flags and the saved
file."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from saematch._io.files import os_error_in_words, user_path
from saematch.errors import UsageError
from saematch.matching.matchers import (
    MAIN,
    RANDOM,
    data_free,
    matchers,
    registered_names,
    usual_fitted,
    usual_for_judges,
    usual_in_runs,
)
from saematch.settings import (
    Config,
    as_text,
    config_from,
    expecting,
    flag_of,
    parse_names,
    plain,
    setting,
    settings_of,
    unusable,
)
from saematch.types import DEGENERATE, PARTS, RANDOM_DRAWS, RIDGE, part_weights, parts_slug

SCALES = ("threshold", "decoder_norm", "none")
EXPERIMENTS = ("layers", "mse", "persistence", "examples")
STRATA = 4
"""Strata of equal size by cost, which features are drawn from in equal numbers."""


@expecting("a reference such as bundled:smollm2-135m")
def parse_suite(value: Any) -> str:
    """A reference that is no empty text."""
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


@expecting("layers such as 12-19 or 12,14")
def parse_layers(value: Any) -> tuple[int, ...]:
    """Layers from `12-19`, `12,14`, a number or a sequence of numbers; ascending.

    One that is named twice stays so, and is refused with the suite.
    """
    if isinstance(value, str):
        layers: list[int] = []
        for item in value.split(","):
            match = re.fullmatch(r"\s*(-?\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", item)
            if not match:
                raise ValueError
            layers += range(int(match[1]), int(match[2] or match[1]) + 1)
    else:
        layers = [value] if type(value) is int else list(value)
    if not layers or not all(type(layer) is int for layer in layers):
        raise ValueError
    return tuple(sorted(layers))


@expecting("parts such as decoder,encoder@0.5,bias")
def parse_parts(value: Any) -> dict[str, float]:
    """Weights by part from `decoder,encoder@0.5`, a list of such items or a mapping."""
    if isinstance(value, Mapping):
        weights = dict(value)
    else:
        items = re.split(r"[,+]", value) if isinstance(value, str) else list(value)
        named = [re.fullmatch(r"([^@]*)@?(.*)", item.strip()) for item in items]
        weights = {item[1]: float(item[2] or 1) for item in named if item}
        if len(weights) < len(items):
            raise ValueError
    for part, weight in weights.items():
        weights[part] = _number(weight)
        if isinstance(weight, str) or math.isnan(weights[part]):
            raise unusable(f"the weight of '{part}' in parts", "a number", weight)
    return part_weights(weights)


@expecting("pairs of layers such as 12,14")
def parse_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of SAE keys or layers from `12,14` (several: `12,14;13,15`) or a sequence of pairs."""
    pairs: dict[tuple[str, str], None] = {}
    for item in value.split(";") if isinstance(value, str) else value:
        a, b = item.split(",") if isinstance(item, str) else item
        if not all(type(end) is int or (isinstance(end, str) and end.strip()) for end in (a, b)):
            raise ValueError
        pairs[str(a).strip(), str(b).strip()] = None
    return tuple(pairs)


@expecting("numbers from 0 to 1, with commas between them")
def parse_quantiles(value: Any) -> tuple[float, ...]:
    """Numbers from 0 to 1 from `0,0.5` or a sequence, each once."""
    items = value.split(",") if isinstance(value, str) else value
    numbers = tuple(dict.fromkeys(float(one) for one in items))
    if not all(0 <= one <= 1 for one in numbers):
        raise ValueError
    return numbers


@expecting("a number from 0 on")
def parse_unmatched_cost(value: Any) -> float:
    """A number from 0 on, as such or as text."""
    cost = _number(value)
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError
    return cost


def _number(value: Any) -> float:
    """A number, as such or as text; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def parse_matchers(
    value: Any,
    name: str,
    known: Callable[[], Iterable[str]] = lambda: (one.name for one in matchers()),
    also: Sequence[str] = (),
) -> tuple[str, ...]:
    """Names of matchers; `transport:8` makes that one known before `known` says which there are."""
    return parse_names(registered_names(parse_names(value, name)), name, [*known(), *also])


def parse_strategies(value: Any, name: str) -> tuple[str, ...]:
    """Names of matchers that need no text; in their canonical order."""
    items = parse_matchers(value, name, data_free)
    if MAIN not in items:
        raise UsageError(
            f"expected '{MAIN}' among the strategies, since paths are made of it, got "
            f"{', '.join(items)}; add it"
        )
    return tuple(one for one in data_free() if one in items)


class KeptConfig(Config):
    """A config that a run directory keeps."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and TOML can hold; `config_from` gives the same config back."""
        return plain(vars(self))


@dataclass(frozen=True)
class RunConfig(KeptConfig):
    """The settings of `saematch run`; raises UsageError where one cannot be used."""

    suite: str = setting(
        MISSING, "The SAEs, e.g. bundled:smollm2-135m or a folder of SAEs.", parse=parse_suite
    )
    layers: tuple[int, ...] | None = setting(
        None, "Layers to match, e.g. 12-19 or 12,14.", unset="all", parse=parse_layers
    )
    strategies: tuple[str, ...] = setting(
        usual_in_runs,
        f"How adjacent SAEs are matched; {MAIN} must be among them, since paths are made of it.",
        parse=parse_strategies,
    )
    parts: Mapping[str, float] = setting(
        lambda: dict.fromkeys(PARTS, 1.0),
        "Parts of the cost, with a weight where it is not 1: decoder,encoder@0.5,bias.",
        parse=parse_parts,
    )
    scale: str | None = setting(
        None,
        "What to fold into the weights.",
        unset="threshold, if the SAEs have thresholds",
        choices=SCALES,
    )
    unmatched_cost: float | None = setting(
        None,
        f"Cost of leaving a feature unmatched, in the units of the folded cost, for {MAIN} alone.",
        unset="every feature of the smaller SAE gets a partner",
        parse=parse_unmatched_cost,
    )
    degenerate: str = setting(
        "apart",
        "apart: match degenerate features after the others, without a proof; together: all in one problem, "
        "as in the paper.",
        choices=DEGENERATE,
    )
    far: tuple[tuple[str, str], ...] = setting(
        (),
        "Non-adjacent pairs of layers to match too, e.g. 12,14 or 12,14;13,16.",
        parse=parse_pairs,
    )
    random_draws: int = setting(
        RANDOM_DRAWS,
        f"Draws of the {RANDOM} strategy, for its mean, least and greatest value.",
        least=1,
    )
    seed: int = setting(0, f"Seed of the {RANDOM} strategy; draw n has seed + n.", least=0)
    candidates: int = setting(5, "Nearest live features to list for each feature.", least=1)

    @property
    def slug(self) -> str:
        """The parts and weights as a folder's name, e.g. `decoder+encoder@0.5`."""
        return parts_slug(self.parts)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the config") -> "RunConfig":
        """A config from plain values; raises UsageError for unknown keys and unusable values."""
        known = list(settings_of(cls))
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            raise UsageError(
                f"expected keys among {', '.join(known)} in {where}, got '{unknown[0]}'"
            )
        if "suite" not in values:
            raise UsageError(f"expected a suite in {where}, got none; try bundled:smollm2-135m")
        return config_from(cls, values)

    @classmethod
    def from_toml(cls, path: str | Path) -> "RunConfig":
        """A config from a TOML file whose keys are the fields' names."""
        import tomllib

        try:
            with user_path(path).open("rb") as file:
                values = tomllib.load(file)
        except OSError as error:
            raise UsageError(str(os_error_in_words(error, "read the config", path))) from error
        except (ValueError, RecursionError) as error:  # not TOML or UTF-8, a number of 5000 digits
            raise UsageError(f"{path} is not valid TOML: {error}") from error
        return cls.from_dict(values, str(path))


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """The flags of `saematch run` that say what a run's saved settings say, the usual ones left out."""
    usual = RunConfig("any").to_dict()
    changed = {
        name: as_text(value)
        for name, value in settings.items()
        if name == "suite" or value != usual.get(name)
    }
    return [word for name, text in changed.items() for word in (flag_of(name), text)]


@dataclass(frozen=True)
class ModelSettings(Config):
    """What every stage's config says of its model and of the text that it reads."""

    model: str | None = setting(
        None, "Language model: name on the Hub, path or smollm2.", unset="the one the SAEs record"
    )
    device: str | None = setting(None, "cpu or cuda.", unset="cuda if available")
    dtype: str = setting(
        "float32", "Precision of the language model.", choices=("float32", "bfloat16")
    )
    attention: str | None = setting(
        None,
        "Attention implementation of transformers, e.g. sdpa.",
        unset="what transformers chooses",
    )
    any_model: bool = setting(False, "Accept a model of another name than the SAEs record.")
    batch_tokens: int = setting(2048, "Tokens in one pass of the model, padding included.", least=1)
    corpora: tuple[str, ...] = setting(
        ("web", "wiki", "code"),
        "Text: any of web,wiki,code, or files and folders of your own.",
        parse=parse_names,
    )


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
        parse=partial(parse_matchers, also=(RIDGE,)),
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


@dataclass(frozen=True)
class CalibrationConfig(ModelSettings):
    """The settings of `saematch calibrate`; raises UsageError where one cannot be used."""

    documents: int = setting(40, "Documents of each corpus.", least=1)
    tokens: int = setting(512, "Tokens of each document, BOS included.", least=3)
    fit_pairs: tuple[tuple[str, str], ...] | None = setting(
        None,
        "Adjacent layer pairs to fit to, e.g. 12,13;13,14; it is judged on the others.",
        unset="every second",
        parse=parse_pairs,
    )
    fresh: bool = setting(False, "Fit from nothing, not from the calibration that ships.")
    seed: int = setting(0, "Seed of documents.", least=0)
    offline: bool = setting(False, "Use bundled stand-ins for the corpora; do not contact the Hub.")


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
        names = ("corpora", "documents", "tokens", "examples", "seed")
        return any(getattr(self, name) != getattr(type(self), name) for name in names)


@dataclass(frozen=True)
class JudgeConfig(KeptConfig):
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
        parse=parse_matchers,
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
