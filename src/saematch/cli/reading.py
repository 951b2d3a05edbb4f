"""The verbs that read a run: figures, explore, paths, export."""

import dataclasses
import os
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Annotated

import typer

from saematch.cli.options import Directory, print_json, verb
from saematch.errors import InputError, UsageError
from saematch.settings import parse_names, setting
from saematch.text import plural, records, to_json
from saematch.types import FOLLOW_WAYS

COMPOSITION = "composition"
PATHS = 100
"""How many an exported page holds where nothing is said."""


@verb
def figures(
    directory: Directory,
    only: str | None = setting(
        None, "Figures by number in the paper or by name, e.g. 3,5 or mse,paths.", unset="all"
    ),
    as_json: bool = False,
) -> None:
    """Draw the SAE Match paper's figures from a run's tables.

    Each as SVG and PNG, with its caption.
    """
    from saematch.cli.display import terminal as display
    from saematch.rendering import draw_figures

    names = (one.strip() for one in (only or "").split(","))
    # A list without a name, such as '', is no wish for all of them.
    wanted = () if only is None else tuple(filter(None, names)) or (only,)
    with display.progress(quiet=as_json) as progress:
        drawn = draw_figures(directory, wanted, progress)
    if as_json:
        value = [
            {**dataclasses.asdict(one), "files": [str(directory / name) for name in one.files]}
            for one in drawn
        ]
        print_json(value)
    else:
        display.figures_drawn(drawn, Path(directory))
    kept_back = [one.name for one in drawn if one.altered]
    if kept_back:
        raise InputError(
            f"some files were altered since they were written; not drawn: {', '.join(kept_back)}; "
            "mend what is named there, and run the same command again"
        )


@verb
def explore(
    directory: Directory,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", help="A second run of the same SAEs to compare with."),
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port on 127.0.0.1; 0: any free one.", min=0, max=65535)
    ] = 8321,
    browser: bool = setting(True, "Open the page in a browser."),
    export: Path | None = setting(
        None, "Write one page that opens without a server, then stop.", metavar="FILE.html"
    ),
    features: str = setting("", "Features whose paths the exported page holds, e.g. 12/345,14/7."),
    paths: Annotated[
        int | None,
        typer.Option(
            help="Without --features: how many paths it holds, those of least mean cost.",
            show_default=str(PATHS),
            min=1,
            max=5000,
        ),
    ] = None,
    as_json: bool = False,
) -> None:
    """Find and follow a run's features in a local web page."""
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
            f"expected --export FILE.html with {given}, got none; the page itself has every feature"
        )
    wanted = parse_names(features, "features") if features else ()
    explorer = Explorer(directory, other)
    try:
        if export is None:
            serve(explorer, port, browser, tell)
            return
        with display.progress(quiet=as_json) as progress:
            written = export_page(explorer, export, wanted, paths or PATHS, progress)
    finally:
        explorer.close()
    if as_json:
        print_json({**dataclasses.asdict(written), "path": str(written.path)})
    else:
        typer.echo(
            f"{written.path}: {plural(written.paths, 'path')}, "
            f"{plural(written.features, 'feature')}, "
            f"{written.bytes / 1e6:.1f} MB"
        )


@verb
def paths(
    directory: Directory,
    feature: str = setting(MISSING, "A feature as LAYER/INDEX, e.g. 12/345."),
    method: str = setting(
        FOLLOW_WAYS[0],
        "How its path is chosen: to agree with its start and step by step, with its start alone, or SAE "
        "Match's matchings one after the other.",
        choices=(*FOLLOW_WAYS, COMPOSITION),
    ),
    as_json: bool = False,
) -> None:
    """Say what becomes of a feature, and follow it."""
    from saematch.cli.display import terminal as display
    from saematch.store.becoming import Becomings
    from saematch.store.reader import open_run

    opened = open_run(directory)
    key, index = opened.feature(feature)
    if method == COMPOSITION:
        steps = opened.follow(key, index)
        if as_json:
            print_json(records(steps))
        else:
            display.path(steps, key, index)
        return
    becomings = Becomings(opened, method)
    found = becomings.of(key, [index])[index]
    along = [becomings.of(one.key, [one.feature])[one.feature] for one in found.path]
    if as_json:
        fates = [dataclasses.asdict(replace(one, path=())) for one in along]
        print_json({"sentence": found.sentence, **dataclasses.asdict(found), "along": fates})
    else:
        display.becoming(found, along)


@verb
def export(
    directory: Directory,
    format: str = setting("csv", "Format of the files.", choices=("csv", "parquet", "json")),
    out: Path | None = setting(None, "Folder to write to.", unset="DIR-export"),
    as_json: bool = False,
) -> None:
    """Write a run's tables as CSV, Parquet or JSON."""
    from saematch.pipelines.exporting import export as export_run
    from saematch.store.reader import open_run

    opened = open_run(directory)
    destination = out or Path(f"{os.path.abspath(opened.path)}-export")
    written = export_run(opened, format, destination)
    if as_json:
        print_json([str(path) for path in written])
    else:
        for path in written:
            typer.echo(path)
