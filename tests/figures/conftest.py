"""One small real run, evaluated by a tiny model, with descriptions and judgements in their schema."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from semantic_tables import calibrate, describe, judge
from tiny_models import tiny_model
from tiny_suites import write_sae, write_suite
from told_runs import CHOSEN, write_fates

from saematch._io import files
from saematch.configs import EvaluationConfig
from saematch.pipelines import Run, RunConfig, open_run, run
from saematch.pipelines.evaluation.evaluate import evaluate

SMALL = EvaluationConfig(
    corpora=("web", "code"),
    documents=3,
    tokens=24,
    strategies=("folded", "unfolded", "cosine"),
    quantiles=(0.0, 0.5, 1.0),
    causal_pairs=0,
    batch_tokens=80,
)
FOUR = (16, 16, 16, 16)


@pytest.fixture(autouse=True, scope="session")
def _quick() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: None)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four SAEs of layers 3 to 6, matched; nothing evaluated."""
    folder = tmp_path_factory.mktemp("figures")
    run(RunConfig(str(write_suite(folder / "suite", FOUR)), random_draws=2), folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def whole(matched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, evaluated on two corpora; its last pair on none; described and judged."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(matched, directory)
    config = EvaluationConfig(**{**vars(SMALL), "pairs": (("3", "4"), ("4", "5"))})
    evaluate(directory, config, model=tiny_model(width=8, blocks=8))
    describe(directory)
    judge(directory, without=("5",))
    for pair in (("3", "4"), ("4", "5"), ("5", "6")):
        write_fates(directory, pair, CHOSEN, born=(1, 2))
    calibrate(directory)
    return directory


@pytest.fixture(scope="session")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two layers with three SAEs each, evaluated on one corpus."""
    folder = tmp_path_factory.mktemp("sparse")
    for layer in (3, 4):
        for number, name in enumerate(("low", "of_a_name_that_is_longer_than_a_panel", "$high$")):
            write_sae(folder / "suite" / f"layer_{layer}" / name, layer, 8 + 8 * number, number)
    run(RunConfig(str(folder / "suite"), strategies=("folded", "unfolded")), folder / "run")
    config = EvaluationConfig(**{**vars(SMALL), "corpora": ("web",)})
    evaluate(folder / "run", config, model=tiny_model(width=8, blocks=8))
    for pair in open_run(folder / "run").adjacent:
        write_fates(folder / "run", pair, CHOSEN, born=(1, 2))
    calibrate(folder / "run")
    return open_run(folder / "run")


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A copy of the whole run to change."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"
