"""A small run with everything in it, a page over it, and a browser that fails on any error."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from described_runs import SMALL
from explored_pages import serving
from playwright.sync_api import Page, sync_playwright
from tiny_models import tiny_model
from tiny_suites import write_suite

from saematch.explorer.index import Index
from saematch.run import RunConfig, run
from saematch.run.describing import describe
from saematch.run.evaluating import evaluate
from saematch.run.evaluation_config import EvaluationConfig
from saematch.run.judge_config import JudgeConfig
from saematch.run.judging import judge
from saematch.semantics.judging import Judgement, Keep, Label, Outcome, Question


class Lengths:
    """A judge with a rule that needs no model."""

    name = "llm-lengths"

    @property
    def identity(self) -> dict[str, str]:
        return {"kind": "lengths"}

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, one in enumerate(questions):
            apart = abs(len(one.first) - len(one.second))
            label = Label.SAME if apart < 5 else Label.MAYBE if apart < 20 else Label.DIFFERENT
            keep(number, Judgement(Outcome.JUDGED, label))


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, the last one narrower; matched, evaluated, described and judged."""
    folder = tmp_path_factory.mktemp("explored")
    suite = write_suite(folder / "suite", (40, 40, 40, 30), seed=3)
    model = tiny_model(width=8, blocks=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        run(RunConfig(str(suite), random_draws=2), folder / "run")
        config = EvaluationConfig(
            corpora=("web",), documents=3, tokens=40, causal_pairs=0, other_parts=False
        )
        evaluate(folder / "run", config, model=model)
        describe(folder / "run", SMALL, model=model)
    judge(folder / "run", JudgeConfig(samples=16, controls=8), Lengths())
    return folder / "run"


@pytest.fixture
def copied_run(whole_run: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def index(whole_run: Path) -> Iterator[Index]:
    opened = Index.of(whole_run)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def address(whole_run: Path) -> Iterator[str]:
    with serving(whole_run) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's; where it is missing the browser tests fail: make test installs it.

    Closed with its module: while it is open an event loop runs, and other tests start their own.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path is not None, "needed chromium, found none; try: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[..., Page]]:
    """Pages that must not report an error nor ask anything of another machine."""
    problems: list[str] = []
    contexts = []

    def make(allowed: Sequence[str] = (), **settings: Any) -> Page:
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)

        def note(message: Any) -> None:
            if message.type == "error" and not any(one in message.text for one in allowed):
                problems.append(f"console: {message.text}")

        def request(made: Any) -> None:
            if not made.url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:")):
                problems.append(f"request: {made.url}")

        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", request)
        return page

    yield make
    for context in contexts:
        context.close()
    assert problems == []
