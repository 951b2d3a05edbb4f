"""`summary.md`: which figure of the paper lies where, and which of its findings hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from paper.settings import PlannedRun, Recipe, Settings
from saematch._io import files
from saematch.cli.display.evaluation import findings_text
from saematch.rendering import Drawn
from saematch.report.findings import Found

NAME = "summary.md"


def write_summary(
    recipe: Recipe,
    settings: Settings,
    runs: Sequence[PlannedRun],
    drawn: Mapping[str, Sequence[Drawn]],
    found: Found,
) -> None:
    """Write it into the folder of the results."""
    text = [f"# {recipe.title}", ""]
    text += [f"- `{run.name}`: {run.purpose} ([report]({run.name}/report.html))" for run in runs]
    text += ["", *(f"{note}\n" for note in recipe.notes)]
    judge = settings.judge_model or f"sentence embeddings ({settings.embedding_model})"
    text += [f"Judge: {judge}.", "", "## Figures", "", "| paper | shows | where |"]
    text += ["| --- | --- | --- |"]
    for run, some in drawn.items():
        for one in some:
            where = (
                f"[{run}]({run}/{one.files[0]})" if one.files else f"not drawn: needs {one.needed}"
            )
            text.append(f"| {' and '.join(one.numbers)} | {one.shows} | {where} |")
    text += ["", "## Findings", "", findings_text(found.main, found.lines, found.findings)]
    files.write_atomically(Path(settings.out, NAME), "\n".join(text).encode())


def not_drawn(drawn: Mapping[str, Sequence[Drawn]]) -> list[str]:
    """What was planned and could not be drawn, with what is lacking."""
    return [
        f"figure {' and '.join(one.numbers)} of {run} ({one.needed})"
        for run, some in drawn.items()
        for one in some
        if not one.files
    ]
