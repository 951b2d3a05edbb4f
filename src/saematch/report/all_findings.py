"""What `saematch findings` says of run directories, before it is shown: the numbers to read first (every
strategy between floor and ceiling, with intervals), then the paper's findings.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saematch.errors import UsageError
from saematch.matching.matchers import MAIN
from saematch.pipelines.evaluation.results import Evaluated
from saematch.pipelines.evaluation.summary import listed
from saematch.report.findings import Finding, findings
from saematch.report.judge_findings import judged_findings
from saematch.stats import Values, interval
from saematch.store.reader import open_run
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.models import LanguageModel
    from saematch.sae import SAE


COLUMNS = ("lift", "phi", "causal_agreement", "explained_variance", "delta_loss")


@dataclass(frozen=True)
class Line:
    """One strategy or reference."""

    name: str
    measures: dict[str, Interval]
    """By name, of those in `COLUMNS` that were measured: the value and its 95% interval."""


def headline(main: Evaluated) -> list[Line]:
    """A line per strategy: means over adjacent pairs and corpora.  Of `random` the first draw."""
    lines = []
    for strategy in listed():
        found: dict[str, Interval] = {}
        for measure in COLUMNS:
            if measure == "causal_agreement":
                values = main.agreements.get(strategy)
            else:
                values = main.mean(measure, strategy)
                if values is None:
                    values = main.mean(measure, strategy, "")
            if values is not None:
                found[measure] = interval(values)
        if found:
            lines.append(Line(strategy, found))
    return lines


def reference(name: str, a: "SAE", b: "SAE", main: Evaluated, model: "LanguageModel") -> Line:
    """`folded` between two SAEs that are not of the run, on the texts that the run was evaluated on:
    a second seed of one layer (a ceiling), an untrained SAE (a floor)."""
    from saematch.evaluation.evaluate import keys_of, measure_pair

    about = next(iter(main.about.values()))
    measured = measure_pair(
        a,
        b,
        model=model,
        corpora=list(main.about),
        documents=about["documents"],
        tokens=about["tokens"],
        strategies=(MAIN,),
        parts=main.run.config.parts,
        scale=main.run.config.scale,  # pyright: ignore[reportArgumentType]
        quantiles=(),
        random_draws=1,
        batch_tokens=2048,
        seed=about["seed"],
        offline=all("bundled" in one["origin"] for one in main.about.values()) or None,
        notes=[],
    )
    pair = keys_of(a, b)
    slug = "+".join(part for part in main.run.config.parts)
    found: dict[str, Interval] = {}
    for measure in COLUMNS:
        each: list[Values] = [
            values[measure]
            for one in measured
            if measure in (values := one.values(pair, MAIN, slug))
        ]
        if each:
            found[measure] = interval(np.mean(each, axis=0))
    return Line(name, found)


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
                "expected the first blocks once, got both early and early_layers (on the command line "
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
