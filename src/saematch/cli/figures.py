"""The command that draws figures: parse, call, print."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from saematch.cli.evaluation import Directory, Json, split
from saematch.errors import InputError
from saematch.text import to_json


def figures(
    directory: Directory,
    only: Annotated[
        str | None, typer.Option(help="Numbers in the paper or names, e.g. 3,5 or mse,paths.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the SAE Match paper's figures from a run's tables, as SVG and PNG."""
    # A list without a name, such as '', is no wish for all of them.
    wanted = () if only is None else split(only) or (only,)
    from saematch.cli.display import terminal as display
    from saematch.cli.display.figures import figures_drawn
    from saematch.rendering.figures import draw_figures

    with display.progress(quiet=as_json) as progress:
        drawn = draw_figures(directory, wanted, progress)
    if as_json:
        value = [
            {**dataclasses.asdict(one), "files": [str(directory / name) for name in one.files]}
            for one in drawn
        ]
        typer.echo(to_json(value, indent=1))
    else:
        figures_drawn(drawn, Path(directory))
    kept_back = [one.name for one in drawn if one.altered]
    if kept_back:
        raise InputError(
            f"needed every file as it was written, found some altered; not drawn: {', '.join(kept_back)}; "
            "mend what is named there, and run the same command again"
        )
