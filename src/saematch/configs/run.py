"""What a run does, as one value: the Python API, the command line's flags and the saved file."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from saematch._io.files import os_error_in_words, user_path
from saematch.errors import UsageError
from saematch.matching.registry import MAIN, data_free, usual_in_runs
from saematch.types import DEGENERATE, part_weights, parts_slug

SCALES = ("threshold", "decoder_norm", "none")


def _all_parts() -> dict[str, float]:
    return {"decoder": 1.0, "encoder": 1.0, "bias": 1.0}


@dataclass(frozen=True)
class RunConfig:
    """The settings of `saematch run`; raises UsageError where one cannot be used."""

    suite: str
    """Reference of the suite, e.g. `bundled:smollm2-135m` or a folder of SAEs."""
    layers: tuple[int, ...] | None = None
    """Layers to take of it, such as `12-19` or `12,14`; all of them where none are named."""
    strategies: tuple[str, ...] = field(default_factory=usual_in_runs)
    """How adjacent SAEs are matched; `folded` must be among them, since paths are made of it."""
    parts: Mapping[str, float] = field(default_factory=_all_parts)
    """Weight in the cost of each part: decoder, encoder, bias."""
    scale: str | None = None
    """What is folded in: threshold, decoder_norm or none; unnamed: threshold, if SAEs have one."""
    unmatched_cost: float | str | None = None
    """Price of leaving a feature unmatched, in the units of the folded cost, or `auto`; none: every
    feature of the smaller side has a partner.  A number is for `folded` alone, `auto` for `unfolded` too."""
    degenerate: str = "apart"
    """`apart`: degenerate features are matched after the others, and no proof is about them; `together`: all
    features in one problem, as in the paper."""
    far: tuple[tuple[str, str], ...] = ()
    """Pairs of SAEs further apart, by key or layer, matched exactly beside the adjacent ones."""
    random_draws: int = 20
    """Seeded draws that the `random` strategy's mean, least and greatest are taken over."""
    seed: int = 0
    """Seed of the first draw; draw n has seed + n."""
    candidates: int = 5
    """How many nearest features are kept for each feature."""

    def __post_init__(self) -> None:
        for name, parse in _PARSERS.items():
            object.__setattr__(self, name, parse(getattr(self, name)))

    @property
    def slug(self) -> str:
        """The parts and weights as a folder's name, e.g. `decoder+encoder@0.5`."""
        return parts_slug(self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON and TOML can hold; `from_dict` gives the same config back."""
        return {
            "suite": self.suite,
            "layers": None if self.layers is None else list(self.layers),
            "strategies": list(self.strategies),
            "parts": dict(self.parts),
            "scale": self.scale,
            "unmatched_cost": self.unmatched_cost,
            "degenerate": self.degenerate,
            "far": [list(pair) for pair in self.far],
            "random_draws": self.random_draws,
            "seed": self.seed,
            "candidates": self.candidates,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the config") -> "RunConfig":
        """A config from plain values; raises UsageError for unknown keys and unusable values."""
        known = [field.name for field in fields(cls)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            raise UsageError(
                f"needed keys among {', '.join(known)} in {where}, found '{unknown[0]}'"
            )
        if "suite" not in values:
            raise UsageError(f"needed a suite in {where}, found none; try bundled:smollm2-135m")
        return cls(**{name: _PARSERS[name](value) for name, value in values.items()})

    @classmethod
    def from_toml(cls, path: str | Path) -> "RunConfig":
        """A config from a TOML file whose keys are the fields' names."""
        import tomllib

        try:
            with user_path(path).open("rb") as file:
                values = tomllib.load(file)
        except OSError as error:
            raise UsageError(str(os_error_in_words(error, "read a config at", path))) from error
        except (
            ValueError,
            RecursionError,
        ) as error:  # not TOML, not UTF-8, a number of 5000 digits
            raise UsageError(f"needed TOML in {path}, found: {error}") from error
        return cls.from_dict(values, str(path))


def flags_of(settings: Mapping[str, Any]) -> list[str]:
    """The flags of `saematch run` that say what a run's saved settings say, the usual ones left out."""
    usual = RunConfig("any").to_dict()
    flags = []
    for name, value in settings.items():
        if name != "suite" and value == usual.get(name):
            continue
        if name == "parts":
            value = [
                part if weight == 1 else f"{part}@{weight!r}" for part, weight in value.items()
            ]
        if name == "far":
            value = ";".join(",".join(pair) for pair in value)
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        flags += [f"--{name.replace('_', '-')}", text]
    return flags


def parse_layers(value: Any) -> tuple[int, ...] | None:
    """Layers from `12-19`, `12,14`, a number or a sequence of numbers; ascending.

    One that is named twice stays so, and is refused with the suite.
    """
    if value is None:
        return None
    if isinstance(value, str):
        layers: list[int] = []
        for item in value.split(","):
            match = re.fullmatch(r"\s*(-?\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", item)
            if not match:
                raise _unusable("layers", "layers such as 12-19 or 12,14", value)
            first = int(match[1])
            layers += range(first, int(match[2]) + 1) if match[2] else [first]
    elif isinstance(value, int) and not isinstance(value, bool):
        layers = [value]
    elif isinstance(value, Sequence) and all(type(layer) is int for layer in value):
        layers = list(value)
    else:
        raise _unusable("layers", "layers such as 12-19 or 12,14", value)
    if not layers:
        raise _unusable("layers", "layers such as 12-19 or 12,14", value)
    return tuple(sorted(layers))


def parse_parts(value: Any) -> dict[str, float]:
    """Weights by part from `decoder,encoder@0.5`, a list of such items or a mapping."""
    if isinstance(value, Mapping):
        weights = dict(value)
    else:
        items = re.split(r"[,+]", value) if isinstance(value, str) else value
        if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
            raise _unusable("parts", "parts such as decoder,encoder@0.5,bias", value)
        weights = {}
        for item in items:
            part, _, weight = item.strip().partition("@")
            try:
                if part in weights:
                    raise ValueError
                weights[part] = float(weight) if weight else 1.0
            except ValueError:
                raise _unusable("parts", "parts such as decoder,encoder@0.5,bias", value) from None
    for part, weight in weights.items():
        weights[part] = _number(weight)
        if isinstance(weight, str) or math.isnan(weights[part]):
            raise _unusable(f"the weight of '{part}' in parts", "a number", weight)
    return part_weights(weights)


def parse_pairs(value: Any, setting: str = "far") -> tuple[tuple[str, str], ...]:
    """Pairs of SAE keys or layers from `12,14` (several: `12,14;13,15`) or a sequence of pairs."""
    expected = "pairs of layers such as 12,14"
    items: Sequence[Any] = value.split(";") if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise _unusable(setting, expected, value)
    pairs = []
    for item in items:
        pair = item.split(",") if isinstance(item, str) else item
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise _unusable(setting, expected, item)
        if not all(type(end) is int or (isinstance(end, str) and end.strip()) for end in pair):
            raise _unusable(setting, expected, item)
        pairs.append((str(pair[0]).strip(), str(pair[1]).strip()))
    return tuple(dict.fromkeys(pairs))


def parse_strategies(value: Any) -> tuple[str, ...]:
    """Strategies from `folded,cosine` or a sequence of names; in their canonical order."""
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    known = data_free()
    expected = f"names among {', '.join(known)}"
    if not isinstance(items, Sequence) or not items:
        raise _unusable("strategies", expected, value)
    for item in items:
        if item not in known:
            raise _unusable("strategies", expected, item)
    if MAIN not in items:
        raise UsageError(
            f"needed '{MAIN}' among the strategies, since paths are made of it, found "
            f"{', '.join(items)}; add it"
        )
    return tuple(name for name in known if name in items)


def _scale(value: Any) -> str | None:
    if value is not None and value not in SCALES:
        raise _unusable("scale", f"one of {', '.join(SCALES)}", value)
    return value


def parse_unmatched_cost(value: Any) -> float | str | None:
    """`auto`, or a number from 0 on, as such or as text."""
    if value is None or value == "auto":
        return value
    price = _number(value)
    if not (math.isfinite(price) and price >= 0):
        raise _unusable("unmatched_cost", "auto or a number from 0 on", value)
    return price


def parse_degenerate(value: Any) -> str:
    """`apart` or `together`."""
    if value not in DEGENERATE:
        raise _unusable("degenerate", "apart or together", value)
    return value


def _suite(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _unusable("suite", "a reference such as bundled:smollm2-135m", value)
    return value


def _count(name: str, least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if type(value) is not int or value < least:
            raise _unusable(name, f"a whole number from {least}", value)
        return value

    return parse


def _number(value: Any) -> float:
    """A number, as such or as text; NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


_KINDS = {bool: "a truth value", int: "a whole number", float: "a decimal number", str: "a text",
          list: "a list", tuple: "a list", dict: "a table", type(None): "nothing"}  # fmt: skip
"""What a value is, for people who write TOML and not Python."""


def _unusable(name: str, expected: str, value: object) -> UsageError:
    kind = _KINDS.get(type(value), "a date or time")
    return UsageError(f"expected {name} to be {expected}, got {kind}: {_as_toml(value)}")


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, Mapping):
        items = (f"{name} = {_as_toml(one)}" for name, one in value.items())
        return f"{{{', '.join(items)}}}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value)


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "suite": _suite,
    "layers": parse_layers,
    "strategies": parse_strategies,
    "parts": parse_parts,
    "scale": _scale,
    "unmatched_cost": parse_unmatched_cost,
    "degenerate": parse_degenerate,
    "far": parse_pairs,
    "random_draws": _count("random_draws", least=1),
    "seed": _count("seed", least=0),
    "candidates": _count("candidates", least=1),
}
"""Turns what a flag or a file says of each field into its value, or raises UsageError."""
