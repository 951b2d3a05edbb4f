"""What a run does, as one value: the Python API, the command line's flags and the saved file."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from saematch._io.files import os_error_in_words, user_path
from saematch.errors import UsageError
from saematch.matching.matchers import (
    MAIN,
    RANDOM,
    UNFOLDED,
    data_free,
    registered_names,
    usual_in_runs,
)
from saematch.settings import (
    Config,
    as_text,
    config_from,
    flag_of,
    parse_names,
    plain,
    setting,
    unusable,
)
from saematch.types import DEGENERATE, PARTS, RANDOM_DRAWS, part_weights, parts_slug

SCALES = ("threshold", "decoder_norm", "none")


def parse_suite(value: Any, name: str = "suite") -> str:
    """A reference that is no empty text."""
    if not isinstance(value, str) or not value:
        raise unusable(name, "a reference such as bundled:smollm2-135m", value)
    return value


def parse_layers(value: Any, name: str = "layers") -> tuple[int, ...]:
    """Layers from `12-19`, `12,14`, a number or a sequence of numbers; ascending.

    One that is named twice stays so, and is refused with the suite.
    """
    expected = "layers such as 12-19 or 12,14"
    if isinstance(value, str):
        layers: list[int] = []
        for item in value.split(","):
            match = re.fullmatch(r"\s*(-?\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", item)
            if not match:
                raise unusable(name, expected, value)
            first = int(match[1])
            layers += range(first, int(match[2]) + 1) if match[2] else [first]
    elif isinstance(value, int) and not isinstance(value, bool):
        layers = [value]
    elif isinstance(value, Sequence) and all(type(layer) is int for layer in value):
        layers = list(value)
    else:
        raise unusable(name, expected, value)
    if not layers:
        raise unusable(name, expected, value)
    return tuple(sorted(layers))


def parse_parts(value: Any, name: str = "parts") -> dict[str, float]:
    """Weights by part from `decoder,encoder@0.5`, a list of such items or a mapping."""
    expected = "parts such as decoder,encoder@0.5,bias"
    if isinstance(value, Mapping):
        weights = dict(value)
    else:
        items = re.split(r"[,+]", value) if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise unusable(name, expected, value)
        weights = {}
        for item in items:
            part, _, weight = item.strip().partition("@")
            try:
                if part in weights:
                    raise ValueError
                weights[part] = float(weight) if weight else 1.0
            except ValueError:
                raise unusable(name, expected, value) from None
    for part, weight in weights.items():
        weights[part] = _number(weight)
        if isinstance(weight, str) or math.isnan(weights[part]):
            raise unusable(f"the weight of '{part}' in {name}", "a number", weight)
    return part_weights(weights)


def parse_pairs(value: Any, name: str = "far") -> tuple[tuple[str, str], ...]:
    """Pairs of SAE keys or layers from `12,14` (several: `12,14;13,15`) or a sequence of pairs."""
    expected = "pairs of layers such as 12,14"
    items: Sequence[Any] = value.split(";") if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise unusable(name, expected, value)
    pairs = []
    for item in items:
        pair = item.split(",") if isinstance(item, str) else item
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise unusable(name, expected, item)
        if not all(type(end) is int or (isinstance(end, str) and end.strip()) for end in pair):
            raise unusable(name, expected, item)
        pairs.append((str(pair[0]).strip(), str(pair[1]).strip()))
    return tuple(dict.fromkeys(pairs))


def parse_matchers(value: Any, name: str, known: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    """Names of matchers; `transport:8` makes that one known before `known` says which there are."""
    items = parse_names(value, name)
    return parse_names(registered_names(items), name, known())


def parse_strategies(value: Any, name: str = "strategies") -> tuple[str, ...]:
    """Strategies from `folded,cosine` or a sequence of names; in their canonical order."""
    items = parse_matchers(value, name, data_free)
    known = data_free()
    if MAIN not in items:
        raise UsageError(
            f"expected '{MAIN}' among the strategies, since paths are made of it, got "
            f"{', '.join(items)}; add it"
        )
    return tuple(one for one in known if one in items)


def parse_unmatched_cost(value: Any, name: str = "unmatched_cost") -> float | str:
    """`auto`, or a number from 0 on, as such or as text."""
    if value == "auto":
        return value
    cost = _number(value)
    if not (math.isfinite(cost) and cost >= 0):
        raise unusable(name, "auto or a number from 0 on", value)
    return cost


def _number(value: Any) -> float:
    """A number, as such or as text; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True)
class RunConfig(Config):
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
    unmatched_cost: float | str | None = setting(
        None,
        "Cost of leaving a feature unmatched, in the units of the folded cost, or auto: the lowest 1% of "
        f"costs of random live pairs.  A number applies to {MAIN} alone, auto to {UNFOLDED} too.",
        unset="every feature of the smaller SAE gets a partner",
        metavar="NUMBER|auto",
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and TOML can hold; `from_dict` gives the same config back."""
        return plain(vars(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the config") -> "RunConfig":
        """A config from plain values; raises UsageError for unknown keys and unusable values."""
        known = [field.name for field in fields(cls)]
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
        except (
            ValueError,
            RecursionError,
        ) as error:  # not TOML, not UTF-8, a number of 5000 digits
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
