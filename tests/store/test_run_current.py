"""After a change of settings nothing of the old ones is shown as this run's, on any surface."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from described_runs import SMALL
from tiny_suites import write_sae

from saematch.configs import EvaluationConfig, JudgeConfig
from saematch.errors import SaematchError
from saematch.explorer.catalogue import sources_of
from saematch.explorer.run_files import RunFiles
from saematch.figures.data import NotInRunError, labelled, results
from saematch.figures.data import described as described_in_figures
from saematch.models import LanguageModel
from saematch.pipelines import Run, RunConfig, open_run, run
from saematch.pipelines.describe import describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.pipelines.evaluation.summary import corpora_of
from saematch.pipelines.exporting import all_matchings
from saematch.pipelines.judge import judge
from saematch.report.findings import OPEN, judged_findings
from saematch.report.page import context
from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question
from saematch.store.directory import RunDirectory
from saematch.store.judge_results import answered_experiments, judged, labels_of_pairs
from saematch.store.names import BY_KEY, FROM_PLAN, JUDGEMENTS_NAME, sample_name
from saematch.store.tables import described

EXPERIMENTS = ("layers", "mse", "persistence")
FIGURES = {
    "figures 4 and 7 left": lambda of: results(of, "layers"),
    "figure 6": lambda of: list(labelled(of, "mse")["label"]),
    "figure 8": lambda of: results(of, "persistence"),
}
"""What they draw."""
SETTINGS = {"random_draws": 2, "far": "3,5"}


class Judges:
    """Says SAME of equal texts, MAYBE of those that begin alike."""

    name = "llm-made-up"

    @property
    def identity(self) -> dict[str, str]:
        return {"kind": "made up", "name": self.name}

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, one in enumerate(questions):
            words = [set(text.split("'")) for text in (one.first, one.second)]
            shared = len(words[0] & words[1]) / max(1, len(words[0] | words[1]))
            label = Label.SAME if shared > 0.3 else Label.MAYBE if shared else Label.DIFFERENT
            keep(number, Judgement(Outcome.JUDGED, label))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def whole(described_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite and a run of it: described, evaluated and judged in every experiment."""
    folder = tmp_path_factory.mktemp("whole")
    for layer in (3, 4, 5, 6):
        write_sae(folder / "suite" / f"layer_{layer}", layer, 40, seed=3, dead=(0,))
    directory = folder / "run"
    run(RunConfig.from_dict({"suite": str(folder / "suite"), **SETTINGS}, "test"), directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        describe(directory, SMALL, model=described_model)
        few = EvaluationConfig(
            corpora=("web",),
            documents=2,
            tokens=20,
            causal_pairs=1,
            causal_tokens=20,
            random_draws=1,
        )
        evaluate(directory, few, model=described_model)
    for experiment in EXPERIMENTS:
        judge(directory, JudgeConfig(experiment=experiment, samples=12), Judges())
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "whole"))


def settings_of(folder: Path, **changes: Any) -> RunConfig:
    return RunConfig.from_dict({"suite": str(folder / "suite"), **SETTINGS, **changes}, "test")


def shown(of: Run) -> dict[str, Any]:
    """What each surface shows of judges and of texts; empty where it shows nothing."""
    files = RunFiles(of.path)
    page = context(of)
    found: dict[str, Any] = {
        "judged": judged(of),
        "labels": labels_of_pairs(of),
        "report, judges": page["judgements"],
        "report, texts": page["evaluations"],
        "findings": [one for one in judged_findings(of) if one.verdict != OPEN],
        "explorer, judges": files.judges,
        "explorer, activations": files.pair_sources,
        "explorer, samples": sources_of(files, of.keys[0]).tables.get("samples", []),
        "corpora": corpora_of(of),
        "measures": of.measures().query("corpus != ''").to_dict("records"),
    }
    for name, read in FIGURES.items():
        try:
            found[name] = read(of)
        except NotInRunError:
            found[name] = []
    return found


def test_the_same_settings_again_change_nothing(folder: Path) -> None:
    before = shown(open_run(folder / "run"))
    assert all(before.values()), [name for name, some in before.items() if not some]
    again = shown(run(settings_of(folder), folder / "run"))
    assert [name for name, some in again.items() if not some] == []
    more = shown(run(settings_of(folder, far="3,5;3,6"), folder / "run"))
    assert [name for name, some in more.items() if not some] == []


CHANGES = {
    "parts": {"parts": "decoder"},
    "scale": {"scale": "decoder_norm"},
    "layers": {"layers": "3,4,5", "far": "3,5"},
    "price": {"unmatched_cost": 9.0},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_settings_show_nothing_of_the_old(folder: Path, change: str) -> None:
    changed = run(settings_of(folder, **CHANGES[change]), folder / "run")
    assert {name: some for name, some in shown(changed).items() if some} == {}
    fresh = run(settings_of(folder, **CHANGES[change]), folder / "fresh")
    assert changed.measures().equals(fresh.measures())
    assert all_matchings(changed).equals(all_matchings(fresh))
    prefixes = ("matchings/", "candidates/", "paths", "evaluation/compared/")
    for prefix in prefixes:
        names = fresh.directory.current_names(prefix)
        for name in names:
            assert changed.directory.read(name) == fresh.directory.read(name)
        for name in set(changed.directory.current_names(prefix)) - set(names):
            # What evaluate or judge made for the settings that are still the same.
            assert change == "layers"
            assert "6" not in Path(name).stem.split("--")
    back = shown(run(settings_of(folder), folder / "run"))
    assert back["judged"]  # what was paid for is still there


def test_fewer_strategies_keep_what_was_judged_of_those_that_are_left(folder: Path) -> None:
    changed = shown(run(settings_of(folder, strategies="folded"), folder / "run"))
    assert {one.experiment for one in changed["judged"]} == {"mse", "persistence"}
    assert not changed["figures 4 and 7 left"]
    assert not changed["corpora"]
    assert set(changed["explorer, judges"]) == {"mse", "persistence"}
    # The answers of the experiments that are left stand on every surface, though `layers` is stale.
    assert changed["labels"]
    assert len(changed["explorer, samples"]) == 2
    assert RunFiles(folder / "run").sha256(JUDGEMENTS_NAME) is not None


def test_answers_to_another_sample_are_no_answers_to_this_one(folder: Path) -> None:
    """A kill after a sample was drawn again, and before its answers were kept."""
    with RunDirectory(folder / "run").holding() as held:
        name = sample_name("mse")
        table = held.read(name)
        held.keep(name, table + b" ", held.kept(name).sha256)
    assert answered_experiments(RunDirectory(folder / "run")) == ["layers", "persistence"]


def test_a_run_that_was_stopped_shows_nothing_of_the_settings_before(folder: Path) -> None:
    def stop(stage: Any, task: Any, files: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings_of(folder, parts="encoder,bias"), folder / "run", execute=stop)
    stopped = open_run(folder / "run")
    assert not judged(stopped)
    assert not RunFiles(stopped.path).pair_sources
    for read in (stopped.measures, stopped.paths, lambda: stopped.pairs):
        with pytest.raises(SaematchError, match="present settings"):
            read()
    with pytest.raises(SaematchError):
        stopped.matching_table("3", "4")


def test_descriptions_of_other_texts_take_their_judgements_along(
    folder: Path, described_model: LanguageModel
) -> None:
    describe(folder / "run", replace(SMALL, documents=4), model=described_model)
    changed = open_run(folder / "run")
    still = shown(changed)
    assert not any(still[name] for name in ("judged", "labels", "report, judges", *FIGURES))
    assert still["corpora"]


def test_another_sae_in_its_place_is_not_described_by_what_was_said_of_the_old(
    folder: Path,
) -> None:
    write_sae(folder / "suite" / "layer_4", 4, 40, seed=9, dead=(0,))
    changed = run(settings_of(folder), folder / "run")
    assert {key for key, _ in described(changed)} == {"3", "5", "6"}
    assert set(described_in_figures(changed).texts) == {"3", "5", "6"}
    for name in ("features/4.parquet", "examples/4.parquet", "descriptions/activations--4.parquet"):
        assert not changed.directory.is_current(name)
        assert RunFiles(changed.path).sha256(name) is None
    assert not judged(changed)


def test_a_layer_that_was_left_out_is_not_described(folder: Path) -> None:
    changed = run(settings_of(folder, layers="3,4,5"), folder / "run")
    assert "6" not in {key for key, _ in described(changed)}
    for prefix in (*BY_KEY, *FROM_PLAN):
        names = changed.directory.current_names(prefix)
        assert not [name for name in names if "6" in Path(name).stem.split("--")]
