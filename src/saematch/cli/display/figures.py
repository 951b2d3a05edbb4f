"""What people see of drawn figures on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saematch.cli.display.terminal import CONSOLE, new_table

if TYPE_CHECKING:
    from saematch.rendering import Drawn


def figures_drawn(drawn: "Sequence[Drawn]", directory: Path) -> None:
    """A row per figure that was drawn; for the others what they lack, and the command that makes it, or
    the altered file that keeps them back."""
    table = new_table("figure", "file")
    for one in drawn:
        if one.files:
            table.add_row(" and ".join(one.numbers), one.files[0])
    table.columns[1].justify = "left"
    CONSOLE.print(table)
    CONSOLE.print(f"In {directory}, each as .svg and .png; their captions say on what.")
    missing = [one for one in drawn if not one.files]
    if missing:
        CONSOLE.print("\nNot drawn:")
    for one in missing:
        if not one.altered:
            _say(f"  {_named(one)} needs {one.needed}:\n    {one.command}")
    for why in dict.fromkeys(one.altered for one in missing if one.altered):
        names = ", ".join(_named(one) for one in missing if one.altered == why)
        _say(f"  {names}:\n    {why}")


def _named(one: "Drawn") -> str:
    return f"{' and '.join(one.numbers)} ({one.name})"


def _say(text: str) -> None:
    CONSOLE.print(text, highlight=False, soft_wrap=True)
