"""`report.html`, rendered again where anything in the run directory, or the code of the page, changed."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from saematch._io import files
from saematch.errors import SaematchError
from saematch.report.page import render_report
from saematch.store.build import code_of
from saematch.store.directory import RunDirectory
from saematch.store.manifest import made_with
from saematch.store.names import FIGURES, REPORT_NAME
from saematch.store.reader import holding_run, open_run
from saematch.store.schema import canonical_json


def write_report(directory: str | Path) -> bool:
    """Render `report.html` from everything else that is finished; whether it was made again."""
    with holding_run(directory) as held:
        return _write(held)


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


def _write(held: RunDirectory) -> bool:
    reads = [
        held.kept(name)
        for name in held.names()
        if name != REPORT_NAME and not name.startswith(FIGURES)
    ]
    decides = {
        "code": report_code(),
        "config": held.manifest["config"],
        "saes": held.manifest["saes"],
        "notes": held.manifest["notes"],
        "packages": made_with(held.manifest),
        "reads": [[file.name, file.sha256] for file in reads],
    }
    inputs = files.sha256(canonical_json(decides).encode())
    if held.is_finished(REPORT_NAME, inputs):
        return False
    text = render_report(open_run(held.path))
    held.keep(REPORT_NAME, text.encode(), inputs, reads)
    return True


def report_code() -> list[str]:
    """sha256 of the files that make the page: a page of another version is rendered again."""
    return code_of("report/*.*", "store/following.py", "store/warnings.py")
