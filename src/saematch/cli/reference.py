"""The pages of docs/reference/, made from the code: every flag, every column of a table, every measure.

    python -m saematch.cli.reference

writes them again; a test fails where a page says something else than the code.
"""

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from typer.models import ArgumentInfo, OptionInfo

from saematch.cli import app
from saematch.settings import flag_of
from saematch.store.schema import (
    DATA_MEASURES,
    JUDGED_MEASURES,
    SEMANTIC_TABLES,
    TABLES,
    WEIGHT_MEASURES,
)

COMMAND = "python -m saematch.cli.reference"
FOLDER = Path("docs/reference")
_MADE = f"Made from the code by `{COMMAND}`.\n"
_KINDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_MEASURES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "From the weights alone": WEIGHT_MEASURES,
    "On a corpus": DATA_MEASURES,
    "Of labels": JUDGED_MEASURES,
}


def pages() -> dict[str, str]:
    return {"commands.md": commands(), "tables.md": tables(), "measures.md": measures()}


def commands() -> str:
    parts = ["# The command line\n", _MADE]
    for command in app.registered_commands:
        parameters = inspect.signature(command.callback or commands).parameters.values()
        both = [(one, *get_args(one.annotation)) for one in parameters if one.name != "context"]
        arguments = {
            (info.metavar or one.name).strip("[]"): info.help
            for one, _, info in both
            if isinstance(info, ArgumentInfo)
        }
        parts += [f"## `saematch {command.name}`\n", f"{command.help}\n"]
        parts += [f"- `{name}`: {meaning}" for name, meaning in arguments.items()]
        rows = [
            (f"`{_flags(one, info)}`", _values(kind, info), _default(one, info), info.help)
            for one, kind, info in both
            if isinstance(info, OptionInfo)
        ]
        parts += [""] * bool(arguments) + [_table(("flag", "value", "default", "meaning"), rows)]
    return "\n".join(parts)


def tables() -> str:
    parts = ["# Tables of a run directory\n", _MADE]
    parts.append("[The run directory](../run-directory.md) says what each is for.\n")
    shown: dict[object, str] = {}
    for table in (*TABLES, *SEMANTIC_TABLES):
        parts += [f"## `{table.path}`\n", f"A row: {table.row}.\n"]
        if table.columns in shown:
            parts.append(f"The columns of `{shown[table.columns]}`.\n")
            continue
        shown[table.columns] = table.path
        rows = [
            (f"`{c.name}`", f"{c.type}{' or null' * c.nullable}", c.unit, c.meaning)
            for c in table.columns
        ]
        parts.append(_table(("column", "type", "unit", "meaning"), rows))
    return "\n".join(parts)


def measures() -> str:
    parts = ["# Measures\n", _MADE]
    for title, of in _MEASURES.items():
        rows = [(f"`{name}`", unit, meaning) for name, (unit, meaning) in of.items()]
        parts += [f"## {title}\n", _table(("measure", "unit", "meaning"), rows)]
    return "\n".join(parts)


def _flags(one: inspect.Parameter, info: OptionInfo) -> str:
    # Within Annotated, typer holds the first flag as the default.
    first = info.default if isinstance(info.default, str) else flag_of(one.name)
    return ", ".join([first, *(info.param_decls or ())])


def _values(kind: Any, info: OptionInfo) -> str:
    choices = [
        one for each in (kind, *get_args(kind)) for one in get_args(each) if isinstance(one, str)
    ]
    kinds = [one for one in (kind, *get_args(kind)) if one in _KINDS]
    named = info.metavar or " or ".join(choices) or (_KINDS[kinds[0]] if kinds else "")
    return f"`{named}`" if named else ""


def _default(one: inspect.Parameter, info: OptionInfo) -> str:
    if one.default is inspect.Parameter.empty:
        return "required"
    if isinstance(info.show_default, str):
        return info.show_default
    if one.default is None or one.default is False:
        return ""
    return f"`{'on' if one.default is True else one.default}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [
        [re.sub(r"\s+", " ", cell or "-").replace("|", r"\|") for cell in row] for row in lines
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
