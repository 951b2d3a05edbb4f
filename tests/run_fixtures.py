"""A tiny suite for all tests of runs, and stand-ins for what is slow and tested elsewhere."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from described_runs import SMALL
from killing import Memory
from tiny_models import tiny_model
from tiny_suites import write_suite

from saematch._io import files
from saematch.models import LanguageModel
from saematch.pipelines import Run, RunConfig, open_run, run
from saematch.pipelines.describe import describe
from saematch.pipelines.suite import forget_loaded
from saematch.rendering import write_report
from saematch.store.build import Execute, execute_here


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three JumpReLU SAEs of layers 3, 4, 5 with 16, 16 and 24 features."""
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def _memory() -> Memory:
    return Memory()


@pytest.fixture
def memory(_memory: Memory) -> Memory:
    """Executes every stage once a session; `executed` starts empty."""
    _memory.executed.clear()
    return _memory


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if there is one: hundreds of runs are made in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def plain_page(run: Run) -> str:
    return f"<p>{len(run.measures())} measures</p>"


def run_and_report(config: RunConfig, directory: Path, execute: Execute = execute_here) -> Run:
    run(config, directory, execute=execute)
    write_report(directory)
    return open_run(directory)


@pytest.fixture(scope="module")
def plain_report() -> Iterator[None]:
    """A report in one line: the real one is slow to make some hundred times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saematch.rendering.render_report", plain_page)
        yield


@pytest.fixture(autouse=True, scope="session")
def _quick() -> Iterator[None]:
    """No threads for tiny tensors, no waiting for disks that nobody pulls the plug of."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: None)
        yield


@pytest.fixture(autouse=True)
def _nothing_loaded() -> None:
    forget_loaded()


@pytest.fixture(scope="session")
def described_model() -> LanguageModel:
    """A tiny model with a block for every SAE of `chain_of_four`."""
    return tiny_model(width=8, blocks=9)


@pytest.fixture(scope="session")
def chain_of_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four SAEs of layers 3 to 6 with 40 features each."""
    return write_suite(tmp_path_factory.mktemp("four"), (40, 40, 40, 40), seed=3)


@pytest.fixture(scope="module")
def described_run(
    chain_of_four: Path,
    described_model: LanguageModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run whose features are described; copy it to change it."""
    directory = tmp_path_factory.mktemp("described") / "run"
    run(RunConfig(str(chain_of_four), random_draws=2), directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        describe(directory, SMALL, model=described_model)
    return directory
