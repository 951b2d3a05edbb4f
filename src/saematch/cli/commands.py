"""The command line: parse, call, print.  No logic lives here.

Heavy modules are imported inside the commands, so that `saematch --help` answers at once.
"""

import dataclasses
import io
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saematch import __version__
from saematch._io.files import os_error_in_words, user_path
from saematch.cli import describing as cli_describing
from saematch.cli import evaluation as cli_evaluation
from saematch.cli import explorer as cli_explorer
from saematch.cli import figures as cli_figures
from saematch.cli import judging as cli_judging
from saematch.errors import MESSAGE_CHARACTERS, SaematchError, UsageError
from saematch.text import printable, records, to_json

if TYPE_CHECKING:
    from saematch.store.reader import Run

app = typer.Typer(
    name="saematch",
    help="Follow the features of sparse autoencoders through the layers of a neural network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
Parts = Annotated[
    str,
    typer.Option(help="Parts of the cost, with weights where not 1: decoder,encoder@0.5,bias."),
]
Scale = Annotated[
    Literal["threshold", "decoder_norm", "none"] | None,
    typer.Option(help="What to fold into the weights.  Default: threshold."),
]
Out = Annotated[Path, typer.Option("--out", help="The run directory.")]
UnmatchedCost = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|auto",
        help="Price of leaving a feature unmatched; auto: what 1 in 100 random live pairs stays below.",
    ),
]
Degenerate = Annotated[
    Literal["apart", "together"] | None,
    typer.Option(
        help="Match degenerate features after the others, or all in one problem, as in the paper.  "
        "Default: apart."
    ),
]
ALL_PARTS = "decoder,encoder,bias"
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""
CLOSED_PIPE = 141
"""The exit code where nobody reads the output any more, as shells have it."""
KEEPING = {"run", "demo", "evaluate", "describe", "explain", "judge", "figures"}
"""Commands that go on from what an interrupted one finished."""


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    del debug  # read from the arguments by `main`, where errors end
    if version:
        typer.echo(f"saematch {__version__}")
        raise typer.Exit


@app.command()
def demo(out: Out = Path("saematch-demo"), as_json: Json = False) -> None:
    """Run the whole main job on the bundled suite of real SAEs (SmolLM2-135M, blocks 12 to 19)."""
    run("bundled:smollm2-135m", out=out, far="12,14", as_json=as_json)
    cli_evaluation.demo(out, as_json)
    cli_judging.demo(out, as_json)
    if not as_json:
        from saematch.cli.display import terminal as display

        display.next_steps(out)


@app.command()
def inspect(
    reference: Annotated[str, typer.Argument(help="An SAE, e.g. bundled:smollm2-135m/12.")],
    layer: Annotated[
        int | None, typer.Option(help="The layer, where neither config nor path says it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a checkpoint, and what loading it converts."""
    from saematch.cli.display import terminal as display
    from saematch.loading import inspect_sae

    with display.working(f"reading {reference}", quiet=as_json):
        inspection = inspect_sae(reference, layer=layer)
    if as_json:
        _print_json(inspection.to_dict())
    else:
        display.inspection(inspection)


@app.command()
def match(
    reference_a: Annotated[str, typer.Argument(metavar="REF_A", help="The earlier SAE.")],
    reference_b: Annotated[str, typer.Argument(metavar="REF_B", help="The later SAE.")],
    parts: Parts = ALL_PARTS,
    fold: Annotated[
        bool, typer.Option("--fold/--no-fold", help="Fold thresholds into the weights first.")
    ] = True,
    scale: Scale = None,
    unmatched_cost: UnmatchedCost = None,
    degenerate: Degenerate = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show every data-free strategy side by side.")
    ] = False,
    price_curve: Annotated[
        bool, typer.Option("--price-curve", help="Show the share matched against the price.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the proof from scratch: every pair, in float64.")
    ] = False,
    time_budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop the solver then, with the best pairs so far."),
    ] = None,
    memory_budget: Annotated[
        float | None, typer.Option(metavar="GIB", help="What the solver may take.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the pairs to FILE.parquet.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Match the features of two SAEs, with a proof of how good the matching is."""
    from saematch.assignment import Certified
    from saematch.cli.display import terminal as display
    from saematch.configs.run import parse_parts, parse_unmatched_cost
    from saematch.loading import load_sae
    from saematch.matching.match import match as match_saes
    from saematch.matching.match import verify_matching
    from saematch.matching.matchers import UNFOLDED
    from saematch.matching.price_curve import price_curve as curve_of
    from saematch.matching.registry import MAIN, data_free, matcher
    from saematch.pipelines.exporting import write_matching
    from saematch.pipelines.matching.measures import compared_measures, measure_records
    from saematch.sae import fold_thresholds

    weights = parse_parts(parts)
    price: Any = parse_unmatched_cost(unmatched_cost)
    solver = None
    if time_budget is not None or memory_budget is not None:
        if memory_budget is not None and not 0 < memory_budget < 2**20:
            raise UsageError(f"needed a memory budget in GiB above 0, found {memory_budget}")
        memory = None if memory_budget is None else int(memory_budget * 2**30)
        solver = Certified(seconds=time_budget, memory=memory)
    if price_curve and not fold:
        raise UsageError("needed folded weights for --price-curve, found --no-fold; leave one out")
    output = None if output is None else user_path(output)
    if output is not None and (output.suffix != ".parquet" or not output.parent.is_dir()):
        raise UsageError(
            f"needed a file that ends in .parquet in a folder that is there, found '{output}'; "
            "CSV and JSON come from saematch run and saematch export"
        )
    chosen = MAIN if fold else UNFOLDED
    with display.working(f"matching {reference_a} to {reference_b}", quiet=as_json):
        a, b = load_sae(reference_a), load_sae(reference_b)
        if not fold and scale is None and not (a.has_thresholds and b.has_thresholds):
            scale = "none"  # raw weights need no scale, neither to match nor to measure
        folded = fold_thresholds(a, scale), fold_thresholds(b, scale)
        matching = match_saes(
            *folded,
            parts=weights,
            strategy=chosen,
            unmatched_cost=price,
            degenerate=degenerate or "apart",
            solver=solver,
        )
        matchings = {chosen: matching}
        for strategy in data_free() if compare else ():
            fits = a.d_sae == b.d_sae or not matcher(strategy).needs_equal_widths
            if strategy not in matchings and fits:
                matchings[strategy] = match_saes(
                    *folded, parts=weights, strategy=strategy, degenerate=degenerate or "apart"
                )
        rows = compared_measures(*folded, matchings)
        checked = verify_matching(*folded, matching) if verify else None
        curve = curve_of(*folded, parts=weights) if price_curve else None
    if output is not None:
        write_matching(matching, output)
    if as_json:
        extra: dict[str, Any] = {}
        if checked is not None:
            extra["verification"] = dataclasses.asdict(checked)
        if curve is not None:
            extra["price_curve"] = records(curve)
        _print_json({"matchings": measure_records(rows), "notes": list(matching.notes), **extra})
    else:
        display.matchings(matching, rows, output)
        if checked is not None:
            display.verification(checked)
        if curve is not None:
            display.curve(curve)
    if checked is not None and not checked.ok:
        raise SaematchError(f"the proof does not hold: {'; '.join(checked.faults)}")


@app.command()
def run(
    suite: Annotated[
        str, typer.Option(help="A suite, e.g. bundled:smollm2-135m or a folder of SAEs.")
    ] = "",
    out: Out = Path("saematch-run"),
    layers: Annotated[str | None, typer.Option(help="Layers to take: 12-19 or 12,14.")] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Among folded,unfolded,naive,random,cosine; default: all.")
    ] = None,
    parts: Annotated[
        str | None, typer.Option(help="Among decoder,encoder,bias; default: all.")
    ] = None,
    scale: Scale = None,
    unmatched_cost: UnmatchedCost = None,
    degenerate: Degenerate = None,
    far: Annotated[
        str | None, typer.Option(help="Distant pairs to match exactly too: 12,14 or 12,14;13,16.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random strategy.")] = None,
    random_draws: Annotated[
        int | None, typer.Option(help="Draws of the random strategy; default: 20.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Nearest live features kept for each; default: 5.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A run.toml with the same settings; flags win over it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Match a whole suite layer by layer; write the run directory and its report."""
    from saematch.cli.display import terminal as display
    from saematch.configs.run import RunConfig
    from saematch.pipelines.matching.run import run as run_suite
    from saematch.rendering.report import write_report

    flags = {
        "suite": suite or None,
        "layers": layers,
        "strategies": strategies,
        "parts": parts,
        "scale": scale,
        "unmatched_cost": unmatched_cost,
        "degenerate": degenerate,
        "far": far,
        "seed": seed,
        "random_draws": random_draws,
        "candidates": candidates,
    }
    saved = RunConfig.from_toml(config).to_dict() if config is not None else {}
    given = {name: value for name, value in flags.items() if value is not None}
    settings = RunConfig.from_dict({**saved, **given}, "the command line")
    with display.progress(quiet=as_json) as progress:
        finished = run_suite(settings, out, progress)
        if progress is not None:
            progress(0, 1, "the report")
        write_report(out)
    if as_json:
        _print_json({"directory": str(out), "measures": _records(finished)})
    else:
        display.run_summary(finished, out)


app.command()(cli_evaluation.evaluate)
app.command()(cli_evaluation.findings)
app.command()(cli_describing.describe)
app.command()(cli_describing.explain)
app.command()(cli_judging.judge)
app.command()(cli_figures.figures)
app.command()(cli_explorer.explore)


@app.command()
def paths(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    feature: Annotated[str, typer.Option(help="A feature as LAYER/INDEX, e.g. 12/345.")],
    as_json: Json = False,
) -> None:
    """Follow one feature through the layers."""
    from saematch.cli.display import terminal as display
    from saematch.store.reader import open_run

    opened = open_run(directory)
    key, index = opened.feature(feature)
    steps = opened.follow(key, index)
    if as_json:
        _print_json(records(steps))
    else:
        display.path(steps, key, index)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    file_format: Annotated[str, typer.Option("--format", help="csv, parquet or json.")] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: DIR-export.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's tables as CSV, Parquet or JSON."""
    from saematch.pipelines.exporting import export as export_run
    from saematch.store.reader import open_run

    opened = open_run(directory)
    destination = out or Path(f"{os.path.abspath(opened.path)}-export")
    written = export_run(opened, file_format, destination)
    if as_json:
        _print_json([str(path) for path in written])
    else:
        for path in written:
            typer.echo(path)


def _records(finished: "Run") -> list[dict[str, Any]]:
    return records(finished.measures())


def _print_json(value: Any) -> None:
    typer.echo(to_json(value, indent=1))


def main() -> None:
    """The entry point: runs the command and turns errors into one or two lines and an exit code."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        # Of a terminal or pipe in any encoding: what it lacks is spelled out, and stops nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Who reads the output has seen enough (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        raise SystemExit(_report(error)) from None
    # Typer hands back the code of an Exit, and makes one of an interrupt.
    if code == INTERRUPTED:
        command = next((one for one in sys.argv[1:] if not one.startswith("-")), "")
        kept = "; what was finished is kept" if command in KEEPING else ""
        typer.echo(f"saematch: interrupted{kept}", err=True)
    if code:
        raise SystemExit(code)


def _report(error: Exception) -> int:
    """Print an error on stderr and return the exit code that belongs to it."""
    if isinstance(error, OSError):
        error = os_error_in_words(error)
    if isinstance(error, SaematchError):
        typer.echo(f"saematch: {error}", err=True)
        return error.exit_code
    # Which package's exceptions these are depends on typer's version; their shape does not.
    describe = getattr(error, "format_message", None)
    if describe is not None:
        problem = printable(describe().rstrip("."), MESSAGE_CHARACTERS)
        if problem:  # else the help was shown, because nothing was asked
            typer.echo(f"saematch: {problem}; try: saematch --help", err=True)
        return UsageError.exit_code
    kind = type(error).__name__
    said = printable(error, MESSAGE_CHARACTERS)
    typer.echo(f"saematch: {kind}: {said}; for the traceback: saematch --debug …", err=True)
    return 1
