"""The verbs that say what features mean: describe, explain, judge."""

from dataclasses import MISSING
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from saematch.cli.evaluation import adding_to, quiet_libraries
from saematch.cli.options import Directory, Given, verb
from saematch.configs import DescribeConfig, JudgeConfig
from saematch.errors import UsageError
from saematch.semantics.chat.endpoint import Endpoint, Prices
from saematch.settings import config_from, setting

if TYPE_CHECKING:
    from saematch.pipelines.explain import ExplainingIntent
    from saematch.pipelines.judge import Intent
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
def describe(directory: Directory, config: DescribeConfig, as_json: bool = False) -> None:
    """Describe a run's features by what they activate on.

    Max-activating examples, top logits, and descriptions made of them or downloaded.
    """
    from saematch.cli.display.semantics import show_described
    from saematch.pipelines.describe import describe as describe_run

    with adding_to(directory, quiet=as_json) as tell:
        run = describe_run(directory, config, tell)
    show_described(run, as_json)


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
    from saematch.cli.display.semantics import explaining_shown, show_described
    from saematch.pipelines.explain import MODEL, explain_features
    from saematch.rendering import reported

    config = _sample(directory, which, sample)
    asked = _chat(model, chat, prompt_price, completion_price)
    with display.steps(as_json) as tell, reported(directory):

        def agree(intent: "ExplainingIntent") -> bool:
            return explaining_shown(intent, yes, tell, quiet=as_json)

        run = explain_features(directory, config, asked, tell, agree, calibration=for_embedding)
    of = f" --experiment {config.experiment} --descriptions {MODEL}"
    show_described(run, as_json, of + ("" if for_embedding else " --model MODEL"))


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
    from saematch.cli.display.semantics import intent_shown, show_judged
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
    # A person's terminal is the judge's.
    with display.steps(as_json or human) as tell, reported(directory):

        def agree(intent: "Intent") -> bool:
            return intent_shown(intent, chosen, at_most, yes, tell, quiet=as_json)

        run = judge_run(directory, config, chosen, tell, agree, at_most, redraw)
    # No name: nothing was asked.
    show_judged(run, config.experiment, name_in(run, config.experiment, chosen), as_json)


def demo(directory: Path, as_json: bool) -> None:
    """The demo's features described, and judged on a small sample."""
    from saematch.cli.display import terminal as display
    from saematch.cli.display.semantics import show_judged
    from saematch.pipelines.describe import describe as describe_run
    from saematch.pipelines.judge import judge as judge_run
    from saematch.rendering import reported
    from saematch.semantics.judges.embedding import EmbeddingJudge
    from saematch.store.directory import RunDirectory
    from saematch.store.judgements import kept_config

    chosen = EmbeddingJudge()
    quiet_libraries()
    with display.steps(as_json) as tell, reported(directory):
        describe_run(directory, DescribeConfig(model="smollm2", offline=True), tell)
        before = kept_config(RunDirectory(directory), "layers")
        run = judge_run(directory, before or JudgeConfig(samples=24, controls=70), chosen, tell)
    if not as_json:
        show_judged(run, "layers", chosen.name)


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
    given = [price for price in (prompt, completion) if price is not None]
    if len(given) == 1:
        raise UsageError("expected both --prompt-price and --completion-price, got one; give both")
    return Chat(model, prices=Prices(*given) if given else None, **chat)
