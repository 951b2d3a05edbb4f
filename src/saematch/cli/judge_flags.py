"""Flags that `saematch explain` and `saematch judge` share, and what they add up to."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saematch.cli.evaluation import split
from saematch.errors import UsageError

if TYPE_CHECKING:
    from saematch.configs.judging import JudgeConfig
    from saematch.semantics.chat.chat import Chat

Experiment = Annotated[
    Literal["layers", "mse", "persistence", "examples"],
    typer.Option(
        help="layers: every two layers, by strategy; mse: by decoder MSE; persistence: from a layer "
        "to each later one; examples: from low to high MSE."
    ),
]
_KEPT = "Default: as the sample was drawn before, else "
Samples = Annotated[
    int | None,
    typer.Option(help=f"Features of each pair of layers, from 4.  {_KEPT}100."),
]
Controls = Annotated[int | None, typer.Option(help=f"Controls of each kind, from 1.  {_KEPT}100.")]
Strategies = Annotated[
    str | None,
    typer.Option(
        help=f"Compared by layers, where the run has them.  {_KEPT}folded,unfolded,cosine,random."
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(help=f"Layer pairs, 12,13 or 12,13;13,14.  {_KEPT}by experiment."),
]
Starts = Annotated[
    str | None, typer.Option(help="Layers that persistence starts from, e.g. 12,14.")
]
Seed = Annotated[int | None, typer.Option(help=f"Of the sample.  {_KEPT}0.")]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="Endpoint that speaks OpenAI's protocol, e.g. http://localhost:8000/v1."),
]
KeyVariable = Annotated[
    str, typer.Option(help="Environment variable that holds the API key; never the key itself.")
]
Concurrency = Annotated[int, typer.Option(help="Calls under way at once.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for a reply.")]
PromptPrice = Annotated[
    float | None,
    typer.Option(help="Money per million tokens read, to show and bound what it costs."),
]
CompletionPrice = Annotated[float | None, typer.Option(help="The same of tokens written.")]
MaxCalls = Annotated[int | None, typer.Option(help="Budget in calls.")]
MaxCost = Annotated[float | None, typer.Option(help="Budget in money; needs both prices.")]
MaxTokens = Annotated[
    int, typer.Option(help="Of one reply; a model that thinks first needs some thousands.")
]
Stream = Annotated[bool, typer.Option("--stream", help="Let replies come in pieces.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask without asking you first.")]


def sample_of(
    directory: Path,
    experiment: str,
    samples: int | None,
    controls: int | None,
    strategies: str | None,
    pairs: str | None,
    starts: str | None,
    seed: int | None,
    descriptions: str | None = None,
) -> "JudgeConfig":
    """The sample that the flags name; what they leave open is as the run's sample was drawn before."""
    from saematch.configs.judging import JudgeConfig
    from saematch.configs.run import parse_pairs
    from saematch.store.directory import RunDirectory
    from saematch.store.judgements import kept_config

    given = {
        "descriptions": descriptions,
        "samples": samples,
        "controls": controls,
        "strategies": None if strategies is None else split(strategies),
        "pairs": None if pairs is None else parse_pairs(pairs, "pairs"),
        "starts": None if starts is None else split(starts),
        "seed": seed,
    }
    before = kept_config(RunDirectory(directory), experiment) or JudgeConfig(experiment)
    return replace(before, **{name: one for name, one in given.items() if one is not None})


def chat_of(
    model: str | None,
    base_url: str | None,
    key_variable: str,
    concurrency: int,
    timeout: float,
    prices: tuple[float | None, float | None],
    max_calls: int | None,
    max_cost: float | None,
    stream: bool,
    max_tokens: int,
) -> "Chat":
    """The model behind an endpoint that the flags name; raises UsageError where they contradict."""
    from saematch.semantics.chat.chat import Chat
    from saematch.semantics.chat.endpoint import OPENAI
    from saematch.semantics.chat.spending import Prices

    if model is None:
        raise UsageError(
            "needed the name of a language model, found none; try --model gpt-4o-mini, or what your "
            "endpoint serves"
        )
    prompt, completion = prices
    if (prompt is None) != (completion is None):
        raise UsageError("needed both --prompt-price and --completion-price, found one; give both")
    known = None if prompt is None or completion is None else Prices(prompt, completion)
    return Chat(
        model,
        base_url or OPENAI,
        key_variable=key_variable,
        concurrency=concurrency,
        timeout=timeout,
        prices=known,
        max_calls=max_calls,
        max_cost=max_cost,
        stream=stream,
        max_tokens=max_tokens,
    )
