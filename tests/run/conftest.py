"""A tiny suite for all tests of runs, and stand-ins for what is slow and tested elsewhere."""

import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from killing import Memory
from tiny_suites import write_suite

import saematch.run.pipeline
from saematch import files
from saematch.run.suite import forget_loaded

real_fsync = files.fsync


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
    """A folder in memory where there is one: hundreds of runs are made in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def plain_report() -> Iterator[None]:
    """A report in one line: the real one is slow to make some hundred times."""
    report = types.ModuleType("saematch.run.report")
    report.render_report = lambda run: f"<p>{len(run.measures())} measures</p>"  # type: ignore
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "saematch.run.report", report)
        patch.setattr(saematch.run, "report", report, raising=False)
        patch.setattr(saematch.run.pipeline, "report_code", lambda: ["plain"])
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
