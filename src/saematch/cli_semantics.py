"""The commands about what features mean: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saematch.cli_evaluation import Directory, Json, quiet_libraries, split
from saematch.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from saematch.semantics.chat import Chat

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
Stream = Annotated[bool, typer.Option("--stream", help="Let replies come in pieces.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask without asking you first.")]
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
        allow_other_sae=allow_other_sae,
        neuronpedia_url=neuronpedia_url,
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
        Literal["embedding", "llm", "human"] | None,
        typer.Option(
            help="embedding: sentence embeddings; llm: a language model, named by --model; human: you, in "
            "this terminal.  [default: llm with --model, else embedding]"
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
    yes: Yes = False,
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
    from saematch.display_semantics import intent_shown, judged_json, judged_names, judged_summary
    from saematch.run.config import parse_far
    from saematch.run.judge_config import JudgeConfig
    from saematch.run.judging import judge as judge_run
    from saematch.semantics.embedding_judge import EmbeddingJudge
    from saematch.semantics.human_judge import HumanJudge
    from saematch.semantics.judging import Judge
    from saematch.semantics.llm_judge import LLMJudge

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
    if judge == "llm" or model is not None or base_url is not None:
        if human or judge == "embedding":
            other = "--by-hand" if by_hand else f"--judge {judge}"
            raise UsageError(f"needed one judge, found a language model and {other}; take one away")
        chosen = LLMJudge(
            _chat(
                model,
                base_url,
                key_variable,
                concurrency,
                timeout,
                (prompt_price, completion_price),
                max_calls,
                max_cost,
                stream,
            )
        )
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
            agree=lambda intent: intent_shown(intent, chosen, at_most, yes, tell, quiet=as_json),
            at_most=at_most,
        )
    if judged_names(run, experiment).count(chosen.name) == 0:
        return  # nothing was asked
    if as_json:
        typer.echo(json.dumps(judged_json(run, experiment, chosen.name), indent=1))
    else:
        judged_summary(run, experiment, chosen.name)


def explain(
    directory: Directory,
    model: Annotated[
        str, typer.Option(help="The language model that describes, as its endpoint names it.")
    ],
    base_url: BaseUrl = None,
    experiment: Annotated[
        Literal["layers", "mse", "persistence", "examples"],
        typer.Option(help="Whose sample of features is described; see saematch judge."),
    ] = "layers",
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
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    key_variable: KeyVariable = "OPENAI_API_KEY",
    concurrency: Concurrency = 16,
    timeout: Timeout = 60.0,
    prompt_price: PromptPrice = None,
    completion_price: CompletionPrice = None,
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    stream: Stream = False,
    yes: Yes = False,
) -> None:
    """Let a language model describe the features that an experiment will ask a judge about."""
    from saematch import display
    from saematch.display_semantics import described_summary, explaining_shown
    from saematch.run.config import parse_far
    from saematch.run.explaining import explain_features
    from saematch.run.judge_config import JudgeConfig

    config = JudgeConfig(
        experiment=experiment,
        samples=samples,
        controls=controls,
        strategies=split(strategies),
        pairs=None if pairs is None else parse_far(pairs),
        starts=None if starts is None else split(starts),
        seed=seed,
    )
    prices = prompt_price, completion_price
    chat = _chat(
        model, base_url, key_variable, concurrency, timeout, prices, max_calls, max_cost, stream
    )
    with display.steps() as tell:
        run = explain_features(
            directory, config, chat, tell, agree=lambda intent: explaining_shown(intent, yes, tell)
        )
    described_summary(run)


def _chat(
    model: str | None,
    base_url: str | None,
    key_variable: str,
    concurrency: int,
    timeout: float,
    prices: tuple[float | None, float | None],
    max_calls: int | None,
    max_cost: float | None,
    stream: bool,
) -> "Chat":
    from saematch.semantics.chat import OPENAI, Chat
    from saematch.semantics.spending import Prices

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
    )


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
