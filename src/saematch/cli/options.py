"""Verbs from functions: settings, of a config or of a verb's own, become flags."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import typer

from saematch.settings import (
    Config,
    as_text,
    config_from,
    default_of,
    flag_of,
    kind_of,
    setting_of,
    settings_of,
)
from saematch.text import to_json

app = typer.Typer(
    name="saematch",
    help="Follow the features of sparse autoencoders through the layers of a neural network.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its tables cut long words off
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
Verb = TypeVar("Verb", bound=Callable[..., None])
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]


@dataclass(frozen=True)
class Given:
    """The flags of a config that were given, by name: `Annotated[dict[str, Any], Given(RunConfig)]`."""

    config: type[Config]
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    otherwise: str = ""
    """What stands in for a flag that is left out, before its default."""


def verb(function: Verb) -> Verb:
    """Add a function to the command line.

    A parameter whose type is a config gets the config that its flags make; one with `Given` the flags that
    were given.  One whose default is a `setting` is a flag, in place of the config's of its name.  Every verb
    has --json, which `as_json` is told of.
    """
    hints: dict[str, Any] = get_type_hints(function, include_extras=True)
    parameters = {"context": inspect.Parameter("context", _KIND, annotation=typer.Context)}
    configs: dict[str, tuple[type[Config] | None, set[str]]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = _JSON if name == "as_json" else hints[name]
        config = hint if isinstance(hint, type) and issubclass(hint, Config) else None
        wanted = [one for one in get_args(hint) if isinstance(one, Given)]
        if config is not None or wanted:
            options = _options(wanted[0] if config is None else Given(config), set(hints))
            parameters |= options
            configs[name] = config, set(options)
        elif isinstance(parameter.default, Field):
            parameter.default.type = hint
            required = parameter.default.default is MISSING
            parameters[name] = _option(name, parameter.default, required=required)
        else:
            parameters[name] = parameter.replace(annotation=hint, kind=_KIND)

    def call(**values: Any) -> None:
        context = values.pop("context")
        for name, (config, options) in configs.items():
            taken = {one: values.pop(one) for one in options}
            given = {key: one for key, one in taken.items() if _was_given(context, key)}
            values[name] = given if config is None else config_from(config, given)
        function(**values)

    parameters["as_json"] = parameters.pop("as_json").replace(default=False)
    # Where typer looks for the flags of a command.
    call.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]
    call.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    app.command(function.__name__, help=inspect.getdoc(function))(call)
    return function


_KIND = inspect.Parameter.KEYWORD_ONLY


def _was_given(context: Any, name: str) -> bool:
    """Whether a flag stood on the command line; `context` is of typer or of click, by its version."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _options(given: Given, own: set[str]) -> dict[str, inspect.Parameter]:
    """The flags of a config, but for a verb's `own`."""
    return {
        name: _option(name, field, given.otherwise)
        for name, (field, setting) in settings_of(given.config).items()
        if setting.flag and name not in own | set(given.without) and name in (given.only or [name])
    }


def _option(
    name: str, field: Field[Any], otherwise: str = "", required: bool = False
) -> inspect.Parameter:
    """A keyword of `call`, as typer reads it; `otherwise`: what stands in for the default."""
    setting, default = setting_of(field), default_of(field)
    kind, flags = kind_of(field), flag_of(name)
    if setting.parse is not None:
        kind, default = str, None if default is None else as_text(default) or None
    elif setting.choices:
        kind = Literal[setting.choices]
    elif default is True:
        flags += f"/{flag_of('no_' + name)}"
    shown: bool | str = setting.unset or True
    if otherwise:
        shown = f"{otherwise}, else {setting.unset if default is None else default}"
    names = filter(None, (flags, setting.short))
    option = typer.Option(*names, metavar=setting.metavar, help=setting.help, show_default=shown)
    hint = Annotated[kind if required or default is not None else kind | None, option]
    default = inspect.Parameter.empty if required else default
    return inspect.Parameter(name, _KIND, annotation=hint, default=default)


def print_json(value: Any) -> None:
    """What a verb prints with --json."""
    typer.echo(to_json(value, indent=1))
