"""Settings that say what they are, once.

A config is a dataclass, derived from `Config`, whose fields are made by `setting`; the verbs of the command
line have some of their own as defaults of parameters.  What a setting says of itself is its flag with its
help (`saematch.cli.options`), its line on the reference page, and in a config the check of its value, whether
that comes from Python, a flag or a TOML file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, TypeVar, get_args

from saematch.errors import UsageError

_KEY = "setting"
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Setting:
    """What is known of a field beyond its type and its default."""

    help: str
    """One or two sentences that end with a period; the default is added to them."""
    unset: str = ""
    """What None, as the default, stands for."""
    choices: tuple[str, ...] = ()
    least: int | None = None
    parse: Callable[[Any, str], Any] | None = None
    """Makes the value of what a flag or a file says, given the field's name for errors; raises UsageError."""
    metavar: str | None = None
    short: str = ""
    """Its flag of one letter."""
    flag: bool = True
    """Whether the command line sets it too."""


def setting(default: Any, help: str, **facts: Any) -> Any:
    """A field with what `Setting` knows of it.

    `default`: `dataclasses.MISSING` if there is none; a function makes a new one for each config.
    """
    metadata = {_KEY: Setting(help, **facts)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def setting_of(one: Field[Any]) -> Setting:
    """What a field made by `setting` says of itself."""
    return one.metadata[_KEY]


def settings_of(config: type) -> dict[str, tuple[Field[Any], Setting]]:
    """The settings of a config by name, in the order of its fields."""
    return {one.name: (one, setting_of(one)) for one in fields(config) if _KEY in one.metadata}


def default_of(one: Field[Any]) -> Any:
    """A field's default; None where it has none."""
    if one.default_factory is not MISSING:
        return one.default_factory()
    return None if one.default is MISSING else one.default


def kind_of(one: Field[Any]) -> Any:
    """A field's type, None left out."""
    kinds = get_args(one.type)
    return (
        next(kind for kind in kinds if kind is not type(None)) if type(None) in kinds else one.type
    )


def flag_of(name: str) -> str:
    """The flag that sets a field, e.g. `--random-draws`."""
    return f"--{name.replace('_', '-')}"


def as_text(value: Any) -> str:
    """A value as its flag takes it: `12,14;13,16`, `decoder,encoder@0.5`."""
    if isinstance(value, Mapping):
        return ",".join(
            part if weight == 1 else f"{part}@{weight!r}" for part, weight in value.items()
        )
    if isinstance(value, (list, tuple)):
        nested = bool(value) and isinstance(value[0], (list, tuple))
        return (";" if nested else ",").join(map(as_text, value))
    return str(value)


def plain(value: Any) -> Any:
    """A value as JSON and TOML can hold it: tuples as lists."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


class Config:
    """Base of configs: checks every setting, and puts what it is parsed to in its place."""

    def __post_init__(self) -> None:
        for name, value in _checked(type(self), vars(self)).items():
            object.__setattr__(self, name, value)


Made = TypeVar("Made", bound=Config)


def config_from(config: type[Made], values: Mapping[str, Any]) -> Made:
    """A config from what flags or a file say; raises UsageError for what cannot be used."""
    return config(**{**values, **_checked(config, values)})


def _checked(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings among some values are parsed to; None stays where it is the default."""
    return {
        name: _parsed(name, values[name], kind_of(one), said)
        for name, (one, said) in settings_of(config).items()
        if name in values and (values[name] is not None or default_of(one) is not None)
    }


def _parsed(name: str, value: Any, kind: Any, said: Setting) -> Any:
    if said.parse is not None:
        return said.parse(value, name)
    if said.choices and value not in said.choices:
        raise unusable(name, f"one of {', '.join(said.choices)}", value)
    if said.least is not None:
        expected = f"a {'whole ' * (kind is int)}number from {said.least}"
        if type(value) not in ((int,) if kind is int else (int, float)):
            raise unusable(name, expected, value)
        if not value >= said.least:
            raise UsageError(f"expected {name} to be {expected}, got {value}")
    return value


def expecting(expected: str) -> Callable[[Callable[[Any], Parsed]], Callable[..., Parsed]]:
    """A setting's `parse` from a function that raises where a value is not what is expected."""

    def parser_of(parse: Callable[[Any], Parsed]) -> Callable[..., Parsed]:
        def parser(value: Any, name: str = parse.__name__.removeprefix("parse_")) -> Parsed:
            try:
                return parse(value)
            except (AttributeError, OverflowError, TypeError, ValueError):
                raise unusable(name, expected, value) from None

        return parser

    return parser_of


def parse_names(value: Any, name: str, among: Sequence[str] = ()) -> tuple[str, ...]:
    """Names from `web,wiki` or a sequence of texts, if `among` is given all of them in it."""
    items = [one.strip() for one in value.split(",")] if isinstance(value, str) else value
    expected = f"names among {', '.join(among)}" if among else "names, with commas between them"
    if not isinstance(items, Sequence) or not items:
        raise unusable(name, expected, value)
    for one in items:
        if not isinstance(one, str) or not one or (among and one not in among):
            raise unusable(name, expected, one)
    return tuple(items)


_KINDS = {bool: "a truth value", int: "a whole number", float: "a decimal number",
          list: "a list", tuple: "a list", dict: "a table", type(None): "nothing"}  # fmt: skip
"""What a value is, for people who write TOML and not Python."""


def unusable(name: str, expected: str, value: object) -> UsageError:
    """The error for a setting's value, which is told in the words of TOML."""
    kind = "" if isinstance(value, str) else f"{_KINDS.get(type(value), 'a date or time')}: "
    return UsageError(f"expected {name} to be {expected}, got {kind}{_as_toml(value)}")


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
