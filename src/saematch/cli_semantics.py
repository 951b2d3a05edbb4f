"""The commands about what features mean: parse, call, print."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from saematch.cli_evaluation import Directory, Json, quiet_libraries, split
from saematch.errors import MissingDependencyError

BY_HAND = 50
"""Pairs that a person is asked about in one sitting."""


def describe(
    directory: Directory,
    source: Annotated[
        Literal["auto", "activations", "neuronpedia"],
        typer.Option(help="auto: what ships with the SAEs, else from activations."),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(help="Name on the Hub, path, or smollm2.  [default: what the SAEs record]"),
    ] = None,
    corpora: Annotated[
        str, typer.Option(help="Among web,wiki,code, or files and folders of your own text.")
    ] = "web,wiki,code",
    documents: Annotated[int, typer.Option(help="Documents of each corpus.")] = 100,
    tokens: Annotated[int, typer.Option(help="Tokens each is cut to, BOS included.")] = 256,
    contexts: Annotated[
        int, typer.Option(help="Contexts kept of a feature, from either half of the documents.")
    ] = 5,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one pass of the model.")] = 2048,
    seed: Annotated[int, typer.Option(help="Of the documents' order.")] = 0,
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
    """Describe the features of a run: what they fire on, where, what they promote."""
    import json

    from saematch import display
    from saematch.display_semantics import described_json, described_summary
    from saematch.run.describe_config import DescribeConfig
    from saematch.run.describing import describe as describe_run

    config = DescribeConfig(
        source=source,
        model=model,
        corpora=split(corpora),
        documents=documents,
        tokens=tokens,
        contexts=contexts,
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
        run = describe_run(directory, config, tell)
    if as_json:
        typer.echo(json.dumps(described_json(run), indent=1))
    else:
        described_summary(run)


def judge(
    directory: Directory,
    experiment: Annotated[
        Literal["layers", "mse", "persistence", "examples"],
        typer.Option(
            help="layers: every two layers, by strategy; mse: by decoder MSE; persistence: from a layer "
            "to each later one; examples: from low to high MSE."
        ),
    ] = "layers",
    judge: Annotated[
        Literal["embedding", "human"],
        typer.Option(help="embedding: sentence embeddings; human: you, in this terminal."),
    ] = "embedding",
    by_hand: Annotated[
        bool, typer.Option("--by-hand", help="The same as --judge human --at-most 50.")
    ] = False,
    descriptions: Annotated[
        Literal["activations", "model", "neuronpedia"], typer.Option(help="Whose descriptions.")
    ] = "activations",
    samples: Annotated[int, typer.Option(help="Features of each pair of layers.")] = 100,
    controls: Annotated[int, typer.Option(help="Controls of each kind.")] = 100,
    strategies: Annotated[
        str, typer.Option(help="Compared by layers, where the run has them.")
    ] = "folded,unfolded,cosine,random",
    pairs: Annotated[
        str | None,
        typer.Option(help="Layer pairs, 12,13 or 12,13;13,14.  [default: by experiment]"),
    ] = None,
    starts: Annotated[
        str | None, typer.Option(help="Layers that persistence starts from, e.g. 12,14.")
    ] = None,
    embedding_model: Annotated[
        str, typer.Option(help="A model of sentence-transformers: name, path, or minilm.")
    ] = "minilm",
    at_most: Annotated[
        int | None, typer.Option(help="Questions to ask in this call; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask a judge whether matched features mean the same, controls mixed in."""
    import json

    from saematch import display
    from saematch.display_semantics import intent_shown, judged_json, judged_summary
    from saematch.run.config import parse_far
    from saematch.run.judge_config import JudgeConfig
    from saematch.run.judging import judge as judge_run
    from saematch.semantics.embedding_judge import EmbeddingJudge
    from saematch.semantics.human_judge import HumanJudge
    from saematch.semantics.judging import Judge

    config = JudgeConfig(
        experiment=experiment,
        descriptions=descriptions,
        samples=samples,
        controls=controls,
        strategies=split(strategies),
        pairs=None if pairs is None else parse_far(pairs),
        starts=None if starts is None else split(starts),
        seed=seed,
    )
    human = by_hand or judge == "human"
    chosen: Judge = HumanJudge(input) if human else EmbeddingJudge(embedding_model)
    if human and at_most is None:
        at_most = BY_HAND
    quiet_libraries()
    quiet = as_json or human  # a person's terminal is the judge's
    with display.steps(quiet=quiet) as tell:
        run = judge_run(
            directory,
            config,
            chosen,
            tell,
            agree=lambda intent: as_json or intent_shown(intent, at_most),
            at_most=at_most,
        )
    if as_json:
        typer.echo(json.dumps(judged_json(run, experiment, chosen.name), indent=1))
    else:
        judged_summary(run, experiment, chosen.name)


def demo(directory: Path, as_json: bool) -> None:
    """The demo's features described, and judged on a small sample; says so where a package is missing."""
    from saematch import display
    from saematch.display_semantics import judged_summary
    from saematch.run.describe_config import DescribeConfig
    from saematch.run.describing import describe as describe_run
    from saematch.run.judge_config import JudgeConfig
    from saematch.run.judging import judge as judge_run
    from saematch.semantics.embedding_judge import EmbeddingJudge

    chosen = EmbeddingJudge()
    quiet_libraries()
    try:
        with display.steps(quiet=as_json) as tell:
            describe_run(directory, DescribeConfig(model="smollm2", offline=True), tell)
            run = judge_run(directory, JudgeConfig(samples=24, controls=70), chosen, tell)
    except MissingDependencyError as error:
        typer.echo(f"saematch: the judge was left out: {error}", err=True)
        return
    if not as_json:
        judged_summary(run, "layers", chosen.name)
