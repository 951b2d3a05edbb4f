"""The commands about what features mean: parse, call, print."""

from typing import Annotated, Literal

import typer

from saematch.cli_evaluation import Directory, Json, quiet_libraries, split


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
