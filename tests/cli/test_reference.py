"""The reference pages are what the code says, and leave nothing out."""

from pathlib import Path
from typing import Any

import pytest
import typer

from saematch.cli import app, reference
from saematch.store.schema import SEMANTIC_TABLES, TABLES

FOLDER = Path(__file__).parents[2] / reference.FOLDER
GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("name", reference.pages())
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.pages()[name], f"out of date; run: {reference.COMMAND}"


def test_there_is_no_other_page() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(reference.pages())


@pytest.mark.parametrize("verb", GROUP.commands)
def test_every_flag_and_argument_of_a_verb_is_there(verb: str) -> None:
    section = reference.commands().partition(f"## `saematch {verb}`")[2].partition("\n## ")[0]
    flags = GROUP.commands[verb].params
    assert flags
    for one in flags:
        for name in (*one.opts, *one.secondary_opts):
            assert (name if name.startswith("-") else one.help) in section, (verb, name)


def test_every_column_of_every_table_is_there() -> None:
    text = reference.tables()
    for table in (*TABLES, *SEMANTIC_TABLES):
        section = text.partition(f"## `{table.path}`\n")[2].partition("\n## ")[0]
        assert f"A row: {table.row}." in section
        shared = "The columns of" in section
        assert shared or all(f"| `{name}` |" in section for name in table.names)
