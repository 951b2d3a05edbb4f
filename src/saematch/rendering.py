"""The report and the paper's figures written into a run directory, kept like any other output.

Either is made again where anything that it is made from, or its code, has changed since; a figure also with
another matplotlib.  What a run lacks the data of is said, with the command that makes them; files of it that
an earlier call left, from data that are gone, are taken away.  An altered file keeps back those figures alone
that need it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saematch._io import files
from saematch.errors import InputError, SaematchError
from saematch.matching.matchers import matchers
from saematch.report.page import render_report
from saematch.store.build import Progress, code_of, hash_of, silent
from saematch.store.directory import KeptFile, RunDirectory
from saematch.store.manifest import made_with
from saematch.store.names import FIGURES, REPORT_NAME
from saematch.store.reader import Run, holding_run, open_run

if TYPE_CHECKING:
    from saematch.figures.paper import PaperFigure


def write_report(directory: str | Path) -> bool:
    """Render `report.html` from everything else that is finished; whether it was made again."""
    with holding_run(directory) as held:
        reads = _tables(held)
        inputs = hash_of(
            code=report_code(), notes=held.manifest["notes"], packages=made_with(held.manifest),
            **_shown(held, reads),
        )  # fmt: skip
        if held.is_finished(REPORT_NAME, inputs):
            return False
        held.keep(REPORT_NAME, render_report(open_run(held.path)).encode(), inputs, reads)
        return True


@contextmanager
def reported(directory: str | Path) -> Iterator[None]:
    """Write the report after what is done within, also where an error ended it: what was answered is kept."""
    try:
        yield
    except SaematchError:
        with suppress(SaematchError):
            write_report(directory)
        raise
    write_report(directory)


def report_code() -> list[str]:
    """sha256 of the files that make the page: a page of another version is rendered again."""
    return code_of("report/*.*", "pipelines/evaluation/summary.py", *_FIGURES_CODE)


_FIGURES_CODE = ("figures/*.py", "store/following.py", "store/becoming.py")
"""What draws figures, those of the report among them, and what they say of steps."""


def _shown(held: RunDirectory, reads: Sequence[KeptFile]) -> dict[str, Any]:
    """What decides the page and the figures, but for their code."""
    return {
        # How each strategy is named and drawn: its matcher says that, which need not be one of ours.
        "looks": [[one.name, one.label, one.color, one.marker, one.dashes] for one in matchers()],
        "config": held.manifest["config"],
        "saes": held.manifest["saes"],
        "reads": [[file.name, file.sha256] for file in reads],
    }


FORMATS = ("svg", "png")


@dataclass(frozen=True)
class Drawn:
    """What became of one figure."""

    numbers: tuple[str, ...]
    name: str
    shows: str
    files: tuple[str, ...]
    """Names in the run directory; none where it could not be drawn."""
    needed: str = ""
    """What the run lacks."""
    command: str = ""
    """What makes it."""
    altered: str = ""
    """Why it could not be drawn though the run has its data: a file is not what was written."""


def draw_figures(
    directory: str | Path, wanted: Sequence[str] = (), progress: Progress | None = None
) -> list[Drawn]:
    """Draw figures of these names or numbers, all where none are named, into `figures/`.

    Those that an altered file keeps back say so in `altered`, and the others are drawn.  Raises UsageError
    for a figure that there is not, InputError for a directory without a run, one that another process
    holds, and where none of the figures can be drawn.
    """
    from saematch.figures.paper import chosen_figures

    chosen, tell = chosen_figures(wanted), progress or silent
    with holding_run(directory) as held:
        run, reads = open_run(directory), _tables(held)
        found = []
        for number, figure in enumerate(chosen):
            tell(number, len(chosen), figure.name)
            found.append(_keep(held, run, figure, reads))
    if not any(one.files for one in found):
        first = found[0]
        raise InputError(
            next((one.altered for one in found if one.altered), "")
            or f"expected {first.needed} in {directory} to draw {first.name}, got none; try: {first.command}"
        )
    return found


def _tables(held: RunDirectory) -> list[KeptFile]:
    """Everything that the report and figures are made from."""
    return [
        held.kept(name)
        for name in held.names()
        if name != REPORT_NAME and not name.startswith(FIGURES)
    ]


def _keep(held: RunDirectory, run: Run, figure: "PaperFigure", reads: Sequence[KeptFile]) -> Drawn:
    import matplotlib

    from saematch.figures.data import NotInRunError
    from saematch.figures.style import to_png, to_svg

    names = tuple(f"{FIGURES}{figure.name}.{kind}" for kind in FORMATS)
    inputs = hash_of(
        figure=figure.name, code=code_of(*_FIGURES_CODE), matplotlib=matplotlib.__version__,
        **_shown(held, reads),
    )  # fmt: skip
    said = figure.numbers, figure.name, figure.shows
    try:
        if all(held.is_finished(name, inputs) for name in names):
            return Drawn(*said, names)
        drawn = figure.draw(run)
    except NotInRunError as error:
        outputs = held.manifest["outputs"]
        held.update(outputs={name: one for name, one in outputs.items() if name not in names})
        for path in map(held.file, names):
            if path.exists():
                files.remove(path)
        return Drawn(*said, (), error.needed, error.command)
    except InputError as error:
        return Drawn(*said, (), altered=str(error))
    for name, data in zip(names, (to_svg(drawn).encode(), to_png(drawn)), strict=True):
        # Which tables they were is in `inputs`; named for every file they would swell the manifest.
        held.keep(name, data, inputs)
    return Drawn(*said, names)
