"""The commands that say what features mean: parse, call, print."""

from typing import Annotated, Literal

import typer

from saematch.cli.evaluation import Directory, Json, quiet_libraries, split
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
from saematch.text import to_json


def describe(
    directory: Directory,
    source: Annotated[
        Literal["auto", "activations", "neuronpedia"],
        typer.Option(help="auto: what ships with the SAEs, else from activations."),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(help="Name on the Hub, path, or smollm2.  Default: what the SAEs record."),
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
        typer.Option(
            "--offline", help="Bundled stand-ins of the corpora, downloads of before; no network."
        ),
    ] = False,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Take a model of another name than SAEs record.")
    ] = False,
    allow_other_sae: Annotated[
        bool,
        typer.Option(
            "--allow-other-sae", help="Take Neuronpedia's descriptions of another SAE of the layer."
        ),
    ] = False,
    neuronpedia_url: Annotated[
        str | None, typer.Option(help="A mirror of Neuronpedia's exports, up to and with /v1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Describe the features of a run: what they fire on, where, what they promote."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import described_json, described_summary
    from saematch.configs.describing import DescribeConfig
    from saematch.pipelines.describing.describe import describe as describe_run
    from saematch.rendering.report import write_report

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
        allow_other_sae=allow_other_sae,
        neuronpedia_url=neuronpedia_url,
    )
    quiet_libraries()
    with display.steps(quiet=as_json) as tell:
        run = describe_run(directory, config, tell)
        write_report(directory)
    if as_json:
        typer.echo(to_json(described_json(run), indent=1))
    else:
        described_summary(run)


def explain(
    directory: Directory,
    model: Annotated[
        str, typer.Option(help="The language model that describes, as its endpoint names it.")
    ],
    base_url: BaseUrl = None,
    experiment: Experiment = "layers",
    samples: Samples = None,
    controls: Controls = None,
    strategies: Strategies = None,
    pairs: Pairs = None,
    starts: Starts = None,
    seed: Seed = None,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    concurrency: Concurrency = 16,
    timeout: Timeout = 60.0,
    prompt_price: PromptPrice = None,
    completion_price: CompletionPrice = None,
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    stream: Stream = False,
    max_tokens: MaxTokens = 500,
    for_embedding: Annotated[
        bool,
        typer.Option(
            "--for-embedding",
            help="Also the features that the embedding judge sets its thresholds on: some hundreds more.",
        ),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Let a language model describe the features that an experiment will ask a judge about."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import described_json, described_summary, explaining_shown
    from saematch.pipelines.describing.explain import MODEL, explain_features
    from saematch.rendering.report import reported

    config = sample_of(directory, experiment, samples, controls, strategies, pairs, starts, seed)
    prices = prompt_price, completion_price
    chat = chat_of(
        model,
        base_url,
        key_variable,
        concurrency,
        timeout,
        prices,
        max_calls,
        max_cost,
        stream,
        max_tokens,
    )
    with display.steps(quiet=as_json) as tell, reported(directory):
        run = explain_features(
            directory,
            config,
            chat,
            tell,
            agree=lambda intent: explaining_shown(intent, yes, tell, quiet=as_json),
            calibration=for_embedding,
        )
    if as_json:
        typer.echo(to_json(described_json(run), indent=1))
        return
    of = f" --experiment {experiment} --descriptions {MODEL}"
    described_summary(run, of + ("" if for_embedding else " --model MODEL"))
