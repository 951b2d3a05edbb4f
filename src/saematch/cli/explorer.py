"""The command that opens the explorer: parse, call, print."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from saematch.cli.evaluation import Directory, Json, split
from saematch.errors import UsageError
from saematch.text import plural, to_json

PATHS = 100
"""How many an exported page holds where nothing is said."""


def explore(
    directory: Directory,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[OTHER]", help="A second run of the same SAEs to compare with."),
    ] = None,
    port: Annotated[
        int, typer.Option(help="On 127.0.0.1; 0: any that is free.", min=0, max=65535)
    ] = 8321,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write one file that opens without a server, and stop."
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(help="Whose paths that file holds, e.g. 12/345,14/7.")
    ] = "",
    paths: Annotated[
        int | None,
        typer.Option(
            help=f"Where none is named: how many of least mean cost. Default: {PATHS}.",
            min=1,
            max=5000,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find and follow features in a web page over a run (on this machine alone)."""
    from saematch.cli.display import terminal as display
    from saematch.explorer.explorer import Explorer
    from saematch.explorer.one_file import export_page
    from saematch.explorer.server import serve

    def tell(address: str) -> None:
        shown = f"{address}  (on this machine only; Ctrl-C stops it)"
        typer.echo(to_json({"address": address}) if as_json else shown)

    if export is None and (features or paths):
        given = "--features" if features else "--paths"
        raise UsageError(
            f"needed --export FILE.html with {given}, found none; the page itself has every feature"
        )
    explorer = Explorer(directory, other)
    try:
        if export is None:
            serve(explorer, port, browser, tell)
            return
        with display.progress(quiet=as_json) as progress:
            written = export_page(explorer, export, split(features), paths or PATHS, progress)
    finally:
        explorer.close()
    if as_json:
        typer.echo(to_json({**dataclasses.asdict(written), "path": str(written.path)}))
    else:
        typer.echo(
            f"{written.path}: {plural(written.paths, 'path')}, "
            f"{plural(written.features, 'feature')}, "
            f"{written.bytes / 1e6:.1f} MB"
        )
