"""The command that asks whether matched features mean the same: parse, call, print."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from saematch.cli.evaluation import Directory, Json, quiet_libraries
from saematch.cli.judge_flags import (
    BaseUrl,
    CompletionPrice,
    Concurrency,
    Controls,
    Experiment,
    KeyVariable,
    MaxCalls,
    MaxCost,
    MaxTokens,
    Pairs,
    PromptPrice,
    Samples,
    Seed,
    Starts,
    Strategies,
    Stream,
    Timeout,
    Yes,
    chat_of,
    sample_of,
)
from saematch.errors import MissingDependencyError, UsageError
from saematch.text import to_json

BY_HAND = 50
"""Pairs that a person is asked about in one sitting."""


def judge(
    directory: Directory,
    experiment: Experiment = "layers",
    judge: Annotated[
        Literal["embedding", "llm", "human"] | None,
        typer.Option(
            help="embedding: sentence embeddings; llm: a language model, named by --model; human: you, in "
            "this terminal.  Default: llm with --model, else embedding."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The language model that judges, as its endpoint names it.")
    ] = None,
    base_url: BaseUrl = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    concurrency: Concurrency = 16,
    timeout: Timeout = 60.0,
    prompt_price: PromptPrice = None,
    completion_price: CompletionPrice = None,
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    stream: Stream = False,
    max_tokens: MaxTokens = 500,
    yes: Yes = False,
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="The same as --judge human --at-most 50.")
    ] = False,
    descriptions: Annotated[
        Literal["activations", "model", "neuronpedia"] | None,
        typer.Option(
            help="Whose descriptions.  Default: those of the sample drawn before, else activations."
        ),
    ] = None,
    samples: Samples = None,
    controls: Controls = None,
    strategies: Strategies = None,
    pairs: Pairs = None,
    starts: Starts = None,
    embedding_model: Annotated[
        str, typer.Option(help="A model of sentence-transformers: name, path, or minilm.")
    ] = "minilm",
    redraw: Annotated[
        bool,
        typer.Option(
            "--redraw",
            help="Draw another sample in place of the one that other judges had; their results are then "
            "of what they answered of it.",
        ),
    ] = False,
    at_most: Annotated[
        int | None, typer.Option(help="Questions to ask in this call; default: all.")
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Ask a judge whether matched features mean the same, controls mixed in."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import intent_shown, judged_json, judged_summary
    from saematch.pipelines.judging.judge import judge as judge_run
    from saematch.rendering.report import reported
    from saematch.semantics.judges.embedding import EmbeddingJudge
    from saematch.semantics.judges.human import HumanJudge
    from saematch.semantics.judges.llm import LLMJudge
    from saematch.semantics.judges.protocol import Judge
    from saematch.store.judge_results import name_in

    config = sample_of(
        directory, experiment, samples, controls, strategies, pairs, starts, seed, descriptions
    )
    human = by_hand or judge == "human"
    chosen: Judge = HumanJudge(input) if human else EmbeddingJudge(embedding_model)
    if judge == "llm" or model is not None or base_url is not None:
        if human or judge == "embedding":
            other = "--by-hand" if by_hand else f"--judge {judge}"
            raise UsageError(f"needed one judge, found a language model and {other}; take one away")
        chosen = LLMJudge(
            chat_of(
                model,
                base_url,
                key_variable,
                concurrency,
                timeout,
                (prompt_price, completion_price),
                max_calls,
                max_cost,
                stream,
                max_tokens,
            )
        )
    if human and at_most is None:
        at_most = BY_HAND
    quiet_libraries()
    quiet = as_json or human  # a person's terminal is the judge's
    with display.steps(quiet=quiet) as tell, reported(directory):
        run = judge_run(
            directory,
            config,
            chosen,
            tell,
            agree=lambda intent: intent_shown(intent, chosen, at_most, yes, tell, quiet=as_json),
            at_most=at_most,
            redraw=redraw,
        )
    name = name_in(run, experiment, chosen)
    if name is None:
        return  # nothing was asked
    if as_json:
        typer.echo(to_json(judged_json(run, experiment, name), indent=1))
    else:
        judged_summary(run, experiment, name)


def demo(directory: Path, as_json: bool) -> None:
    """The demo's features described, and judged on a small sample; says so where a package is missing."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import judged_summary
    from saematch.configs.describing import DescribeConfig
    from saematch.configs.judging import JudgeConfig
    from saematch.pipelines.describing.describe import describe as describe_run
    from saematch.pipelines.judging.judge import judge as judge_run
    from saematch.rendering.report import reported
    from saematch.semantics.judges.embedding import EmbeddingJudge
    from saematch.store.directory import RunDirectory
    from saematch.store.judgements import kept_config

    chosen = EmbeddingJudge()
    quiet_libraries()
    try:
        with display.steps(quiet=as_json) as tell, reported(directory):
            describe_run(directory, DescribeConfig(model="smollm2", offline=True), tell)
            before = kept_config(RunDirectory(directory), "layers")
            sample = before or JudgeConfig(samples=24, controls=70)
            run = judge_run(directory, sample, chosen, tell)
    except MissingDependencyError as error:
        typer.echo(f"saematch: the judge was left out: {error}", err=True)
        return
    if not as_json:
        judged_summary(run, "layers", chosen.name)
