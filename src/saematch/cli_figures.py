"""The command that draws figures: parse, call, print."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from saematch.cli_evaluation import Directory, Json, split


def figures(
    directory: Directory,
    only: Annotated[
        str | None, typer.Option(help="Numbers in the paper or names, e.g. 3,5 or mse,paths.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the SAE Match paper's figures from a run's tables, as SVG and PNG."""
    from saematch import display
    from saematch.display_figures import figures_drawn
    from saematch.run.drawing import draw_figures

    with display.progress(quiet=as_json) as progress:
        drawn = draw_figures(directory, split(only or ""), progress)
    if as_json:
        value = [
            {**dataclasses.asdict(one), "files": [str(directory / name) for name in one.files]}
            for one in drawn
        ]
        typer.echo(json.dumps(value, indent=1))
    else:
        figures_drawn(drawn, Path(directory))
