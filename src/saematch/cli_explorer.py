"""The command that opens a run in a browser: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from saematch.cli_evaluation import Directory


def explore(
    directory: Directory,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="A second run to compare with.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0: any that is free.")] = 8321,
    export: Annotated[
        Path | None,
        typer.Option(help="Write one HTML file that opens without a server, and stop."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Whose paths the file holds, e.g. 12/345,14/7.  [default: 200 of least MSE]"
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Find and follow features in a web page over a run (on this machine alone)."""
    from saematch import display, files
    from saematch.explorer.index import Index
    from saematch.explorer.page import exported_page
    from saematch.explorer.server import serve

    with display.working("reading the run"):
        index = Index.of(directory)
        second = None if other is None else Index.of(other)
    try:
        for problem in index.problems:
            typer.echo(f"saematch: {problem}", err=True)
        if export is not None:
            page = exported_page(index, [] if features is None else index.places(features))
            files.write_atomically(export, page.encode())
            typer.echo(f"{export}  {len(page.encode()):,} bytes")
            return

        def started(address: str) -> None:
            typer.echo(f"Exploring {directory} at {address}  (Ctrl-C stops)")
            if browser:
                import webbrowser

                webbrowser.open(address)

        serve(index, second, port, started)
    finally:
        index.close()
        if second is not None:
            second.close()
