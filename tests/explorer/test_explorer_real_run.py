"""The explorer over a run that was made by every command, as the run's own readers see it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from described_runs import SMALL
from explored_runs import client_of
from starlette.testclient import TestClient
from tiny_models import tiny_model
from tiny_suites import write_suite

from saematch.configs import EvaluationConfig, JudgeConfig
from saematch.explorer.explorer import Explorer
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.describe import describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.pipelines.judge import judge
from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question
from saematch.store.following import followed_steps
from saematch.store.judge_results import labelled_sample
from saematch.store.tables import descriptions_of


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


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, the last one narrower; matched, evaluated, described and judged."""
    folder = tmp_path_factory.mktemp("explored")
    suite = write_suite(folder / "suite", (40, 40, 40, 30), seed=3)
    model = tiny_model(width=8, blocks=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        run(RunConfig(str(suite), random_draws=2), folder / "run")
        config = EvaluationConfig(
            corpora=("web",), documents=2, tokens=20, strategies=("folded",), pairs=(("3", "4"),),
            causal_pairs=0, other_parts=False,
        )  # fmt: skip
        evaluate(folder / "run", config, model=model)
        describe(folder / "run", SMALL, model=model)
        judge(folder / "run", JudgeConfig(samples=16, controls=8), Lengths())
    return folder / "run"


@pytest.fixture(scope="module")
def asking(real: Path) -> Iterator[TestClient]:
    explorer = Explorer(real)
    explorer.first.all()
    yield client_of(explorer)
    explorer.close()


def test_nothing_is_missing_and_nothing_wrong(asking: TestClient, real: Path) -> None:
    said = asking.get("/api/run").json()
    assert (said["missing"], said["problems"]) == ([], [])
    assert [tuple(chain) for chain in said["chains"]] == list(open_run(real).chains)
    assert said["judges"][0]["judge"] == Lengths.name
    assert said["sources"] == ["activations"]


def test_paths_and_warnings_are_those_of_the_report(asking: TestClient, real: Path) -> None:
    for steps in list(followed_steps(open_run(real)).values())[::3]:
        name = f"{steps[-1].key}/{steps[-1].feature}"
        cards = asking.get("/api/path", params={"feature": name}).json()["cards"]
        assert [(card["key"], card["feature"]) for card in cards] == [
            (one.key, one.feature) for one in steps
        ]
        for card, one in zip(cards[1:], steps[1:], strict=True):
            step = card["step"]
            for value in ("cost", "cosine", "margin", "quantile", "extra_cost"):
                expected = getattr(one, value)
                assert step[value] == (None if expected is None else pytest.approx(expected)), value
            assert (step["runner_up"], step["certain"]) == (one.runner_up, one.certain)
            assert tuple(step["warnings"]) == one.warnings


def test_descriptions_and_labels_are_those_of_the_run(asking: TestClient, real: Path) -> None:
    opened = open_run(real)
    described = descriptions_of(opened, "activations", "4")
    assert described is not None
    rows = asking.get("/api/features", params={"layer": "4", "limit": 200}).json()["features"]
    assert {row["feature"]: row["description"] for row in rows if row["description"]} == dict(
        described.texts
    )
    sample = labelled_sample(opened, "layers", Lengths.name)
    sample = sample[(sample["kind"] == "pair") & ~sample["swapped"] & (sample["a"] == "4")]
    folded = sample[(sample["strategy"] == "folded") & sample["label"].notna()]
    assert len(folded)
    shown = {row["feature"]: row["labels"] for row in rows}
    for row in folded.to_dict("records"):
        assert row["label"] in shown[row["feature"]]


def test_nothing_that_computes_is_loaded(real: Path) -> None:
    """A first answer within two seconds leaves no time to import torch or pandas."""
    code = f"""
import sys
from pathlib import Path
from saematch.explorer.server import application
from saematch.explorer.explorer import Explorer
explorer = Explorer(Path({str(real)!r}))
application(explorer, 1)
explorer.ask("run", {{}})
assert explorer.ask("features", {{}})["features"]
explorer.ask("path", {{"feature": "3/1"}})
print([name for name in ("torch", "pandas", "transformers") if name in sys.modules])
explorer.ask("becomes", {{"feature": "3/1"}})  # pyarrow loads pandas to filter by a column
explorer.close()
print([name for name in ("torch", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["[]", "[]"], "")
