"""The commands that run a language model: parse, call, print."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saematch.errors import MissingDependencyError, UsageError
from saematch.text import records, to_json

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
_QUIET = {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


def evaluate(
    directory: Directory,
    model: Annotated[
        str | None,
        typer.Option(help="Name on the Hub, path, or smollm2.  Default: what the SAEs record."),
    ] = None,
    corpora: Annotated[
        str, typer.Option(help="Among web,wiki,code, or files and folders of your own text.")
    ] = "web,wiki,code",
    documents: Annotated[
        int, typer.Option(help="Documents of each corpus; the paper takes 100.")
    ] = 12,
    tokens: Annotated[
        int, typer.Option(help="Tokens each is cut to, BOS included; the paper takes 1024.")
    ] = 256,
    strategies: Annotated[
        str | None,
        typer.Option(help="Of the run's, and correlation,ridge (need text to fit); default: all."),
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Layer pairs, 12,13 or 12,13;13,14; default: all.")
    ] = None,
    quantiles: Annotated[
        str | None,
        typer.Option(help="Shares of pairs to mix in by MSE (eq. 6), e.g. 0,0.25,0.5,0.75,1."),
    ] = None,
    causal_pairs: Annotated[
        int, typer.Option(help="Feature pairs to ablate for each layer pair; 0: none.")
    ] = 12,
    other_parts: Annotated[
        bool, typer.Option(help="Measure decoder-only and encoder-only matchings too.")
    ] = True,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one pass of the model.")] = 2048,
    seed: Annotated[int, typer.Option(help="Of documents, draws, intervals, ablations.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default: cuda where there is one.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the language model.")
    ] = "float32",
    attention: Annotated[
        str | None, typer.Option(help="Attention implementation of transformers, e.g. sdpa.")
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Bundled stand-ins of the corpora; do not try the Hub."),
    ] = False,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Take a model of another name than SAEs record.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure a run's matchings on its language model: explained variance, loss, joint firings."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.evaluation import evaluation_summary
    from saematch.configs.evaluation import EvaluationConfig
    from saematch.configs.run import parse_pairs
    from saematch.pipelines.evaluation.evaluate import evaluate as evaluate_run
    from saematch.pipelines.evaluation.summary import corpora_of
    from saematch.rendering.report import write_report

    config = EvaluationConfig(
        model=model,
        corpora=split(corpora),
        documents=documents,
        tokens=tokens,
        strategies=split(strategies) or None if strategies is not None else None,
        pairs=None if pairs is None else parse_pairs(pairs, "pairs"),
        quantiles=() if quantiles is None else tuple(_number(one) for one in split(quantiles)),
        causal_pairs=causal_pairs,
        other_parts=other_parts,
        batch_tokens=batch_tokens,
        seed=seed,
        device=device,
        dtype=dtype,
        attention=attention,
        offline=offline,
        any_model=any_model,
    )
    quiet_libraries()
    with display.steps(quiet=as_json) as tell:
        run = evaluate_run(directory, config, tell)
        if tell is not None:
            tell(0, 1, "the report")
        write_report(directory)
    if as_json:
        measures = run.measures()
        measures = measures[measures["corpus"] != ""]
        value: Any = {
            "corpora": corpora_of(run),
            "measures": records(measures),
        }
        typer.echo(to_json(value, indent=1))
    else:
        evaluation_summary(run)


def demo(directory: Path, as_json: bool) -> None:
    """A small evaluation of the demo's run; says so where the language model is not installed."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.evaluation import evaluation_summary
    from saematch.configs.evaluation import EvaluationConfig
    from saematch.matching.registry import usual_for_judges
    from saematch.pipelines.evaluation.evaluate import evaluate as evaluate_run
    from saematch.rendering.report import write_report

    config = EvaluationConfig(
        model="smollm2",
        corpora=("web",),
        documents=6,
        tokens=128,
        strategies=usual_for_judges(),
        pairs=(("12", "13"), ("13", "14")),
        causal_pairs=8,
        other_parts=False,
        offline=True,
    )
    quiet_libraries()
    try:
        with display.steps(quiet=as_json) as tell:
            run = evaluate_run(directory, config, tell)
        if tell is not None:
            tell(0, 1, "the report")
        write_report(directory)
    except MissingDependencyError as error:
        typer.echo(f"saematch: the language model was left out: {error}", err=True)
        return
    if not as_json:
        evaluation_summary(run)


def split(text: str) -> tuple[str, ...]:
    """The items of a list with commas between."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def quiet_libraries() -> None:
    """transformers and tokenizers report their own progress on stderr; ours is enough."""
    import os

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        from transformers.utils import logging
    except ImportError:
        return  # loading the model says what is missing
    logging.disable_progress_bar()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"needed numbers from 0 to 1 as quantiles, found '{text}'") from None


def findings(
    directory: Directory,
    early: Annotated[
        Path | None, typer.Option(help="An evaluated run over the first blocks, for (c) and (e).")
    ] = None,
    early_layers: Annotated[
        int | None,
        typer.Option(help="The last of the first blocks, where the run itself has them."),
    ] = None,
    l0_series: Annotated[
        Path | None,
        typer.Option(help="An evaluated run over SAEs of several L0s at two layers, for (g)."),
    ] = None,
    second_seed: Annotated[
        str | None, typer.Option(help="An SAE of another seed of a layer of the run: a ceiling.")
    ] = None,
    untrained: Annotated[
        str | None, typer.Option(help="An untrained SAE of a layer of the run: a floor.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For the two SAEs: name, path or smollm2.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which findings of the SAE Match paper hold on an evaluated run, with the numbers."""
    import dataclasses

    from saematch._io import files
    from saematch.cli.display import terminal as display
    from saematch.cli.display.evaluation import findings_shown, findings_text
    from saematch.loading import load_sae
    from saematch.models import load_language_model
    from saematch.report.all_findings import find
    from saematch.report.headline import reference

    quiet_libraries()
    with display.steps(quiet=as_json) as tell:
        say = (lambda what: tell(0, 1, what)) if tell is not None else (lambda _: None)
        say("reading what was evaluated")
        answer = find(directory, early, l0_series, early_layers)
        main, lines, found = answer.main, answer.lines, answer.findings
        references = {
            "ceiling (another seed)": second_seed,
            "floor (untrained)": untrained,
        }
        loaded = None
        for name, given in references.items():
            if given is None:
                continue
            say(f"measuring {given}")
            other = load_sae(given)
            own = load_sae(main.reference_at(other.layer))
            loaded = loaded or load_language_model(model or main.model_name)
            lines.append(reference(name, own, other, main, loaded))
    path = directory / "findings.md"
    files.write_atomically(path, findings_text(main, lines, found).encode())
    if as_json:
        value = {
            "headline": [{"name": one.name, **one.measures} for one in lines],
            "findings": [dataclasses.asdict(one) for one in found],
        }
        typer.echo(to_json(value, indent=1))
        return
    findings_shown(main, lines, found, path)
