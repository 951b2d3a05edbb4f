"""The verbs that say what features mean: describe, explain, judge."""

from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saematch.cli.evaluation import quiet_libraries
from saematch.cli.options import Directory, Given, print_json, verb
from saematch.configs import DescribeConfig, JudgeConfig
from saematch.errors import MissingDependencyError, UsageError
from saematch.semantics.chat.endpoint import Endpoint, Prices
from saematch.settings import config_from, setting

if TYPE_CHECKING:
    from saematch.semantics.chat.chat import Chat

BY_HAND = 50
"""Pairs that a person is asked about in one sitting."""
KEPT = "that of the earlier sample"
Experiment = Annotated[dict[str, Any], Given(JudgeConfig, only=("experiment",))]
ChatSettings = Annotated[dict[str, Any], Given(Endpoint)]
PRICES = (
    setting(None, "Price of a million prompt tokens, to estimate and limit the cost."),
    setting(None, "Price of a million completion tokens."),
)
YES = setting(False, "Start without asking you to confirm.", short="-y")


@verb
def describe(
    directory: Directory,
    config: DescribeConfig,
    as_json: bool = False,
) -> None:
    """Describe a run's features by what they activate on.

    Max-activating examples, top logits, and descriptions made of them or downloaded.
    """
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import described_json, described_summary
    from saematch.pipelines.describe import describe as describe_run
    from saematch.rendering import write_report

    quiet_libraries()
    with display.steps(quiet=as_json) as tell:
        run = describe_run(directory, config, tell)
        write_report(directory)
    if as_json:
        print_json(described_json(run))
    else:
        described_summary(run)


@verb
def explain(
    directory: Directory,
    model: str = setting(MISSING, "The language model that writes, as its endpoint names it."),
    *,
    which: Experiment,
    sample: Annotated[
        dict[str, Any], Given(JudgeConfig, without=("experiment", "descriptions"), otherwise=KEPT)
    ],
    chat: ChatSettings,
    prompt_price: float | None = PRICES[0],
    completion_price: float | None = PRICES[1],
    for_embedding: bool = setting(
        False,
        "Also describe the features that the embedding judge sets its thresholds on: some hundreds more.",
    ),
    yes: bool = YES,
    as_json: bool = False,
) -> None:
    """Let a language model describe the features to be judged."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import described_json, described_summary, explaining_shown
    from saematch.pipelines.explain import MODEL, explain_features
    from saematch.rendering import reported

    config = _sample(directory, which, sample)
    asked = _chat(model, chat, prompt_price, completion_price)
    with display.steps(quiet=as_json) as tell, reported(directory):
        run = explain_features(
            directory,
            config,
            asked,
            tell,
            agree=lambda intent: explaining_shown(intent, yes, tell, quiet=as_json),
            calibration=for_embedding,
        )
    if as_json:
        print_json(described_json(run))
        return
    of = f" --experiment {config.experiment} --descriptions {MODEL}"
    described_summary(run, of + ("" if for_embedding else " --model MODEL"))


@verb
def judge(
    directory: Directory,
    *,
    which: Experiment,
    judge: str | None = setting(
        None,
        "embedding: sentence embeddings; llm: a language model, named by --model; human: you, in this "
        "terminal.",
        unset="llm with --model, else embedding",
        choices=("embedding", "llm", "human"),
    ),
    model: str | None = setting(None, "The language model that judges, as its endpoint names it."),
    chat: ChatSettings,
    prompt_price: float | None = PRICES[0],
    completion_price: float | None = PRICES[1],
    yes: bool = YES,
    sample: Annotated[dict[str, Any], Given(JudgeConfig, without=("experiment",), otherwise=KEPT)],
    by_hand: bool = setting(False, "The same as --judge human --at-most 50."),
    embedding_model: str = setting(
        "minilm", "A model of sentence-transformers: name, path, or minilm."
    ),
    redraw: bool = setting(
        False,
        "Draw a new sample, in place of the one that other judges were asked about; their results then cover "
        "only what they answered of it.",
    ),
    at_most: int | None = setting(None, "Questions to ask in this call.", unset="all"),
    as_json: bool = False,
) -> None:
    """Ask a judge whether matched features mean the same.

    Controls are mixed in, so that the judge is judged too.
    """
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import intent_shown, judged_json, judged_summary
    from saematch.pipelines.judge import judge as judge_run
    from saematch.rendering import reported
    from saematch.semantics.judges.embedding import EmbeddingJudge
    from saematch.semantics.judges.judge import HumanJudge, Judge
    from saematch.semantics.judges.llm import LLMJudge
    from saematch.store.judge_results import name_in

    config = _sample(directory, which, sample)
    human = by_hand or judge == "human"
    chosen: Judge = HumanJudge(input) if human else EmbeddingJudge(embedding_model)
    if judge == "llm" or model is not None or "base_url" in chat:
        if human or judge == "embedding":
            other = "--by-hand" if by_hand else f"--judge {judge}"
            raise UsageError(f"expected one judge, got a language model and {other}; take one away")
        chosen = LLMJudge(_chat(model, chat, prompt_price, completion_price))
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
    name = name_in(run, config.experiment, chosen)  # None: nothing was asked
    if as_json:
        print_json(None if name is None else judged_json(run, config.experiment, name))
    elif name is not None:
        judged_summary(run, config.experiment, name)


def demo(directory: Path, as_json: bool) -> None:
    """The demo's features described, and judged on a small sample; says so where a package is missing."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import judged_summary
    from saematch.pipelines.describe import describe as describe_run
    from saematch.pipelines.judge import judge as judge_run
    from saematch.rendering import reported
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


def _sample(directory: Path, experiment: dict[str, Any], sample: dict[str, Any]) -> JudgeConfig:
    """The sample that the flags name; what they leave open is as the run's sample was drawn before."""
    from saematch.store.directory import RunDirectory
    from saematch.store.judgements import kept_config

    usual = config_from(JudgeConfig, experiment)
    before = kept_config(RunDirectory(directory), usual.experiment) or usual
    return config_from(JudgeConfig, {**vars(before), **sample})


def _chat(
    model: str | None, chat: dict[str, Any], prompt: float | None, completion: float | None
) -> "Chat":
    """The model behind an endpoint that the flags name; raises UsageError where they contradict."""
    from saematch.semantics.chat.chat import Chat

    if model is None:
        raise UsageError(
            "expected the name of a language model, got none; try --model gpt-4o-mini, or what your "
            "endpoint serves"
        )
    if prompt is None and completion is None:
        return Chat(model, **chat)
    if prompt is None or completion is None:
        raise UsageError("expected both --prompt-price and --completion-price, got one; give both")
    return Chat(model, prices=Prices(prompt, completion), **chat)
