"""What people see of drawn figures on the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from saematch.display import CONSOLE, new_table

if TYPE_CHECKING:
    from saematch.run.drawing import Drawn


def figures_drawn(drawn: "Sequence[Drawn]", directory: Path) -> None:
    """A row a figure that was drawn; for the others what they lack, and the command that makes it."""
    table = new_table("figure", "file")
    for one in drawn:
        if one.files:
            table.add_row(" and ".join(one.numbers), one.files[0])
    table.columns[1].justify = "left"
    CONSOLE.print(table)
    CONSOLE.print(
        f"In {escape(str(directory))}, each as .svg and .png; their captions say on what."
    )
    missing = [one for one in drawn if not one.files]
    if missing:
        CONSOLE.print("\nNot drawn:")
    for one in missing:
        numbers = " and ".join(one.numbers)
        CONSOLE.print(
            f"  {numbers} ({one.name}) needs {one.needed}:\n    {one.command}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
