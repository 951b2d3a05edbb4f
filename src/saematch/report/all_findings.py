"""What `saematch findings` says of run directories, before it is shown."""

from dataclasses import dataclass
from pathlib import Path

from saematch.errors import UsageError
from saematch.pipelines.evaluation.results import Evaluated
from saematch.report.findings import Finding, findings
from saematch.report.headline import Line, headline
from saematch.report.judge_findings import judged_findings
from saematch.store.reader import open_run


@dataclass(frozen=True)
class Found:
    """An evaluated run, its headline and the paper's findings on it."""

    main: Evaluated
    lines: list[Line]
    findings: list[Finding]


def find(
    directory: str | Path,
    early: str | Path | None = None,
    l0_series: str | Path | None = None,
    early_layers: int | None = None,
) -> Found:
    """The paper's findings on an evaluated run, by name.

    `early`: a run over the first blocks; `early_layers`: the last of them, where the run itself has them;
    `l0_series`: a run over SAEs of several L0s at two adjacent layers.

    Raises InputError for runs that were not evaluated, UsageError where both kinds of first blocks are
    given, or the run has none on either side of `early_layers`.
    """
    main = Evaluated(open_run(directory))
    first = None if early is None else Evaluated(open_run(early))
    late = None
    if early_layers is not None:
        if early is not None:
            raise UsageError(
                "expected the first blocks once, got both early and early_layers (in the command line "
                "--early and --early-layers); take one away"
            )
        layers = [sae["layer"] for sae in main.run.manifest["saes"].values()]
        first, late = (
            main.within(min(layers), early_layers),
            main.within(early_layers, max(layers)),
        )
    series = None if l0_series is None else Evaluated(open_run(l0_series))
    found = [*findings(main, first, series, late), *judged_findings(main.run)]
    return Found(main, headline(main), sorted(found, key=lambda one: one.name))
