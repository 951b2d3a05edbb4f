"""The verbs that load and match: demo, inspect, match, run."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from saematch._io.files import user_path
from saematch.cli.options import Given, print_json, verb
from saematch.configs import RunConfig
from saematch.errors import MissingDependencyError, SaematchError, UsageError
from saematch.settings import config_from, setting
from saematch.text import records

OF_MATCH = ("parts", "scale", "unmatched_cost", "degenerate")


@verb
def demo(
    out: Path = setting(Path("saematch-demo"), "The run directory."), as_json: bool = False
) -> None:
    """Run everything on the bundled suite of real SAEs.

    They are of SmolLM2-135M, blocks 12 to 19; it takes some minutes on two cores.
    """
    from saematch.cli import evaluation, semantics
    from saematch.cli.display import terminal as display

    run({"suite": "bundled:smollm2-135m", "far": "12,14"}, out, config=None, as_json=as_json)
    for part, made in (("language model", evaluation.demo), ("judge", semantics.demo)):
        try:
            made(out, as_json)
        except MissingDependencyError as error:
            typer.echo(f"saematch: the {part} was left out: {error}", err=True)
    if not as_json:
        display.next_steps(out)


@verb
def inspect(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="An SAE, e.g. bundled:smollm2-135m/12.")
    ],
    layer: int | None = setting(
        None, "The SAE's layer, if neither its config nor its path says it."
    ),
    as_json: bool = False,
) -> None:
    """Show what a checkpoint holds and what loading converts."""
    from saematch.cli.display import terminal as display
    from saematch.loading import inspect_sae

    with display.steps(as_json, f"reading {reference}"):
        inspection = inspect_sae(reference, layer=layer)
    if as_json:
        print_json(inspection.to_dict())
    else:
        display.inspection(inspection)


@verb
def match(
    reference_a: Annotated[str, typer.Argument(metavar="REF_A", help="The earlier SAE.")],
    reference_b: Annotated[str, typer.Argument(metavar="REF_B", help="The later SAE.")],
    given: Annotated[dict[str, Any], Given(RunConfig, only=OF_MATCH)],
    matcher: str | None = setting(
        None, "How to match, e.g. cosine, or transport:4 for a few partners each."
    ),
    fold: bool = setting(True, "Fold thresholds into the weights first."),
    compare: bool = setting(False, "Compare with the strategies that a run has."),
    price_curve: bool = setting(
        False, "Show the share of features matched at each unmatched cost."
    ),
    verify: bool = setting(False, "Check the proof from scratch, over every pair, in float64."),
    time_budget: float | None = setting(
        None, "Stop the solver after so long and keep the best pairs found.", metavar="SECONDS"
    ),
    memory_budget: float | None = setting(None, "Memory that the solver may use.", metavar="GIB"),
    output: Path | None = setting(None, "Write the pairs to FILE.parquet.", short="-o"),
    as_json: bool = False,
) -> None:
    """Match two SAEs' features and prove how good the pairs are."""
    from saematch.assignment import Certified
    from saematch.cli.display import terminal as display
    from saematch.loading import load_sae
    from saematch.matching.match import match as match_saes
    from saematch.matching.match import price_curve as curve_of
    from saematch.matching.match import verify_matching
    from saematch.matching.matchers import MAIN, UNFOLDED, usual_in_runs
    from saematch.matching.matchers import matcher as matcher_of
    from saematch.pipelines.exporting import write_matching
    from saematch.pipelines.matching.measures import compared_measures, measure_records
    from saematch.sae import fold_thresholds

    settings: Any = config_from(RunConfig, {"suite": reference_a, **given})
    scale = settings.scale
    if memory_budget is not None and not 0 < memory_budget < 2**20:
        raise UsageError(f"expected a memory budget in GiB above 0, got {memory_budget}")
    memory = None if memory_budget is None else int(memory_budget * 2**30)
    limited = time_budget is not None or memory is not None
    solver = Certified(seconds=time_budget, memory=memory) if limited else None
    if price_curve and not fold:
        raise UsageError("--price-curve needs folded weights; leave out --no-fold")
    if matcher is not None and not fold:
        raise UsageError("--matcher says whether weights are folded; leave out --no-fold")
    output = None if output is None else user_path(output)
    if output is not None and (output.suffix != ".parquet" or not output.parent.is_dir()):
        raise UsageError(
            f"expected a .parquet file in an existing folder, got '{output}'; "
            "CSV and JSON come from saematch run and saematch export"
        )
    way = matcher_of(matcher or (MAIN if fold else UNFOLDED))
    chosen = way.name
    with display.steps(as_json, f"matching {reference_a} to {reference_b}"):
        a, b = load_sae(reference_a), load_sae(reference_b)
        if not way.needs_scale and scale is None and not (a.has_thresholds and b.has_thresholds):
            scale = "none"  # nor does measuring need one
        folded = fold_thresholds(a, scale), fold_thresholds(b, scale)
        matching = match_saes(
            *folded,
            parts=settings.parts,
            strategy=chosen,
            unmatched_cost=settings.unmatched_cost,
            degenerate=settings.degenerate,
            solver=solver,
        )
        matchings = {chosen: matching}
        for strategy in usual_in_runs() if compare else ():
            fits = a.d_sae == b.d_sae or not matcher_of(strategy).needs_equal_widths
            if strategy not in matchings and fits:
                matchings[strategy] = match_saes(
                    *folded, parts=settings.parts, strategy=strategy, degenerate=settings.degenerate
                )
        rows = compared_measures(*folded, matchings)
        checked = verify_matching(*folded, matching) if verify else None
        curve = curve_of(*folded, parts=settings.parts) if price_curve else None
    if output is not None:
        write_matching(matching, output)
    if as_json:
        extra: dict[str, Any] = {}
        if checked is not None:
            extra["verification"] = dataclasses.asdict(checked)
        if curve is not None:
            extra["price_curve"] = records(curve)
        print_json({"matchings": measure_records(rows), "notes": list(matching.notes), **extra})
    else:
        display.matchings(matching, rows, output)
        if checked is not None:
            display.verification(checked)
        if curve is not None:
            display.curve(curve)
    if checked is not None and not checked.ok:
        raise SaematchError(f"the proof does not hold: {'; '.join(checked.faults)}")


@verb
def run(
    given: Annotated[dict[str, Any], Given(RunConfig)],
    out: Path = setting(Path("saematch-run"), "The run directory."),
    config: Path | None = setting(None, "A TOML file of the same settings; flags override it."),
    as_json: bool = False,
) -> None:
    """Match a suite of SAEs layer by layer; write a run directory.

    It holds tables, a manifest and report.html.
    """
    from saematch.cli.display import terminal as display
    from saematch.pipelines.matching.run import run as run_suite
    from saematch.rendering import write_report

    saved = RunConfig.from_toml(config).to_dict() if config is not None else {}
    settings = RunConfig.from_dict({**saved, **given}, "the command line")
    with display.progress(quiet=as_json) as progress:
        finished = run_suite(settings, out, progress)
        if progress is not None:
            progress(0, 1, "the report")
        write_report(out)
    if as_json:
        print_json({"directory": str(out), "measures": records(finished.measures())})
    else:
        display.run_summary(finished, out)
