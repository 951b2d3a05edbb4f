"""The stages of the library, one run directory after another, in the paper's settings.

1. Match the suite: adjacent pairs by every strategy, non-adjacent pairs for figure 8.
2. Measure it on the language model, over the three corpora.
3. Describe its features.
4. Put the four experiments to a judge.
5. The findings of the first run, the figures of all, a summary.

Every stage keeps what it finished and passes over it when it runs again, so a recipe that was killed
goes on where it was with the same command.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from paper.settings import PlannedRun, Recipe, Settings, layers_of, starts_in
from paper.suites import suite_of
from paper.summary import write_summary
from saematch._io import files
from saematch.cli.display.evaluation import findings_text
from saematch.configs import EXPERIMENTS, DescribeConfig, EvaluationConfig, JudgeConfig
from saematch.pipelines import RunConfig, open_run
from saematch.pipelines import run as match_suite
from saematch.pipelines.describe import NEURONPEDIA, describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.pipelines.judge import judge
from saematch.rendering import Drawn, draw_figures, write_report
from saematch.report.findings import Found, find
from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import OPENAI, Prices
from saematch.semantics.judges.embedding import EmbeddingJudge
from saematch.semantics.judges.judge import Judge
from saematch.semantics.judges.llm import LLMJudge

SERIES = "l0-series"
"""The run whose findings are of several L0s."""


@dataclass(frozen=True)
class Reproduction:
    """A recipe with its settings; `tell` is told what is being done."""

    recipe: Recipe
    settings: Settings
    tell: Callable[[str], None]

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """Those that are made: without a language model to judge, some are of no use."""
        planned = self.recipe.plan(self.settings)
        return [run for run in planned if self.settings.judge_model or not run.llm_alone]

    def directory(self, planned: PlannedRun) -> Path:
        return Path(self.settings.out, planned.name)

    def run(self) -> dict[str, list[Drawn]]:
        """Everything; the figures of each run by its name."""
        for planned in self.runs:
            self._match(planned)
            if planned.evaluated:
                self._evaluate(planned)
            for source in planned.described:
                self._describe(planned, source)
            if planned.judged_on is not None:
                self._judge(planned, planned.judged_on)
            write_report(self.directory(planned))
        found = self._findings()
        drawn = {planned.name: self._draw(planned) for planned in self.runs}
        write_summary(self.recipe, self.settings, self.runs, drawn, found)
        return drawn

    def _match(self, planned: PlannedRun) -> None:
        settings = self.settings
        config = RunConfig(
            suite_of(planned, self.recipe, settings, self._telling(planned, "SAEs")),
            layers=None if planned.suite is None else settings.layers,
            strategies=planned.strategies,
            far=planned.far,
            random_draws=settings.random_draws,
            seed=settings.seed,
        )
        tell = self._telling(planned, "matching")
        match_suite(
            config,
            self.directory(planned),
            lambda done, total, what: tell(f"{done} of {total}: {what}"),
        )

    def _evaluate(self, planned: PlannedRun) -> None:
        settings, directory = self.settings, self.directory(planned)
        # Non-adjacent pairs are matched for figure 8 alone.
        adjacent = tuple(pair for keys in open_run(directory).chains for pair in pairwise(keys))
        config = EvaluationConfig(
            **self._model(),
            documents=settings.documents,
            tokens=settings.tokens,
            strategies=None if planned.fitted else planned.strategies,
            pairs=adjacent,
            quantiles=planned.quantiles,
            causal_pairs=settings.ablated,
            other_parts=planned.other_parts,
            random_draws=settings.random_draws_on_text,
        )
        evaluate(directory, config, self._progress(planned, "evaluating"))

    def _describe(self, planned: PlannedRun, source: str) -> None:
        model = self._model()
        if source == NEURONPEDIA:
            model["offline"] = False  # the setting is of the corpora
        config = DescribeConfig(
            **model,
            source=source,
            documents=self.settings.documents,
            tokens=self.settings.described_tokens,
            neuronpedia_url=self.settings.neuronpedia_url,
        )
        describe(self.directory(planned), config, self._progress(planned, f"describing ({source})"))

    def _judge(self, planned: PlannedRun, descriptions: str) -> None:
        settings = self.settings
        starts = starts_in(settings, layers_of(settings, self.recipe.model.blocks))
        for experiment in EXPERIMENTS:
            config = JudgeConfig(
                experiment=experiment,
                descriptions=descriptions,
                samples=settings.samples,
                controls=settings.controls,
                starts=tuple(map(str, starts)) if experiment == "persistence" else None,
                seed=settings.seed,
            )
            progress = self._progress(planned, f"judging ({experiment})")
            judge(self.directory(planned), config, self.judge, progress)

    @cached_property
    def judge(self) -> Judge:
        """One for all experiments, so that a budget is of all of them."""
        settings = self.settings
        if settings.judge_model is None:
            return EmbeddingJudge(settings.embedding_model)
        prices = settings.prompt_price, settings.completion_price
        known = None if prices[0] is None or prices[1] is None else Prices(prices[0], prices[1])
        return LLMJudge(
            Chat(
                settings.judge_model,
                settings.base_url or OPENAI,
                key_variable=settings.key_variable,
                concurrency=settings.concurrency,
                prices=known,
                max_calls=settings.max_calls,
                max_cost=settings.max_cost,
            )
        )

    def _findings(self) -> Found:
        """The findings of the first run; kept in its directory as `saematch findings` keeps them."""
        main = self.directory(self.runs[0])
        series = next((self.directory(run) for run in self.runs if run.name == SERIES), None)
        self.tell("the paper's findings")
        found = find(main, l0_series=series, early_layers=self.recipe.first_third(self.settings))
        text = findings_text(found.main, found.lines, found.findings)
        files.write_atomically(main / "findings.md", text.encode())
        return found

    def _draw(self, planned: PlannedRun) -> list[Drawn]:
        progress = self._progress(planned, "drawing")
        return draw_figures(self.directory(planned), planned.figures, progress)

    def _model(self) -> dict[str, Any]:
        """What every stage is told of the language model and its texts."""
        settings = self.settings
        return {
            "model": self.recipe.name_of_model(settings),
            "device": settings.device,
            "dtype": settings.dtype,
            "batch_tokens": settings.batch_tokens,
            "offline": settings.offline,
            "seed": settings.seed,
        }

    def _telling(self, planned: PlannedRun, stage: str) -> Callable[[str], None]:
        return lambda what: self.tell(f"{planned.name}: {stage}: {what}")

    def _progress(self, planned: PlannedRun, stage: str) -> Callable[[int, int, str], None]:
        tell = self._telling(planned, stage)
        return lambda _done, _total, what: tell(what)
