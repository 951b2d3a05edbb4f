"""A run that was killed and taken up again equals the run that was never killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from killing import Effects, Killed, Memory, contents
from run_fixtures import run_and_report

from saematch.configs import RunConfig
from saematch.loading import load_suite

HERE = Path(__file__).parent


def tiny_config(suite: Path) -> RunConfig:
    return RunConfig(
        str(suite),
        strategies=("folded", "random"),
        far=(("3", "5"),),
        random_draws=2,
        candidates=2,
    )


def moments(effects: list[str]) -> list[tuple[int, str]]:
    """Before every effect, which is after the one before it, amid every write, and after the last."""
    amid = [(number, "half") for number, name in enumerate(effects) if name == "write"]
    before = [(number, "before") for number in range(len(effects))]
    return sorted([*before, *amid, (len(effects) - 1, "after")])


@pytest.mark.usefixtures("plain_report")
def test_killed_at_every_effect_and_resumed(
    suite: Path, quick_folder: Path, memory: Memory
) -> None:
    config = tiny_config(suite)
    with Effects().installed() as effects:
        run_and_report(config, quick_folder / "whole", execute=memory)
    expected = contents(quick_folder / "whole")
    counted = Counter(effects.done)
    assert counted["write"] == counted["rename"] >= 25
    assert counted["fsync"] > 2 * counted["write"]

    for number, moment in moments(effects.done):
        directory = quick_folder / "killed"
        with Effects(number, moment).installed(), pytest.raises(Killed):
            run_and_report(config, directory, execute=memory)
        with Effects().installed():
            run_and_report(config, directory, execute=memory)
        assert contents(directory) == expected, (number, moment, effects.done[number])
        shutil.rmtree(directory)


@pytest.mark.usefixtures("plain_report")
def test_killed_while_a_changed_config_replaces_outputs(
    suite: Path, quick_folder: Path, memory: Memory
) -> None:
    """Half way from one config to another, both can still be reached."""
    first = RunConfig(str(suite), strategies=("folded",), candidates=2)
    second = RunConfig(str(suite), strategies=("folded",), candidates=3)
    with Effects().installed():
        run_and_report(first, quick_folder / "first", execute=memory)
        expected_first = contents(quick_folder / "first")
        shutil.copytree(quick_folder / "first", quick_folder / "second")
    with Effects().installed() as effects:
        run_and_report(second, quick_folder / "second", execute=memory)
    expected_second = contents(quick_folder / "second")
    assert expected_second != expected_first

    for number, moment in moments(effects.done):
        killed = shutil.copytree(quick_folder / "first", quick_folder / "killed")
        with Effects(number, moment).installed(), pytest.raises(Killed):
            run_and_report(second, killed, execute=memory)
        back = shutil.copytree(killed, quick_folder / "back")
        with Effects().installed():
            run_and_report(second, killed, execute=memory)
            run_and_report(first, back, execute=memory)
        assert contents(killed) == expected_second, (number, moment)
        assert contents(back) == expected_first, (number, moment)
        shutil.rmtree(killed)
        shutil.rmtree(back)


def test_really_killed_at_some_effects(suite: Path, tmp_path: Path) -> None:
    """The same with SIGKILL: a helper process forks a child for each kill and resumes after it."""
    script = HERE / "kill_for_real.py"
    done = subprocess.run(
        [sys.executable, str(script), str(suite), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 killed by SIGKILL, 8 resumed equal" in done.stdout


PROGRAM = """
import sys
from saematch.pipelines import RunConfig, run
from saematch import rendering
rendering.render_report = lambda run: "<p></p>"
print("ready", flush=True)
run(RunConfig(sys.argv[1], far=((sys.argv[2], sys.argv[3]),)), sys.argv[4])
rendering.write_report(sys.argv[4])
"""
"""A run in a process of its own; what is timed and killed starts at `ready`, after the imports."""


def killed_at_random_moments(reference: str, folder: Path, kills: int, seed: int) -> int:
    """Kill a run again and again, resume it to its end and compare; the kills that hit it."""
    keys = load_suite(reference).keys

    def start(directory: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, reference, keys[0], keys[2], str(directory)]
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    whole = start(folder / "whole")
    began = time.monotonic()
    assert whole.wait() == 0
    seconds = time.monotonic() - began
    generator = random.Random(seed)
    hits = 0
    for _ in range(kills):
        process = start(folder / "killed")
        try:
            process.wait(timeout=generator.uniform(0, 2 * seconds / kills))
        except subprocess.TimeoutExpired:
            process.kill()
            hits += process.wait() == -signal.SIGKILL
    last = start(folder / "killed")
    assert last.wait() == 0
    assert contents(folder / "killed") == contents(folder / "whole")
    return hits


@pytest.mark.slow
def test_killed_at_random_moments(suite: Path, tmp_path: Path) -> None:
    assert killed_at_random_moments(str(suite), tmp_path, kills=2, seed=1) >= 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_bundled_suite_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    assert killed_at_random_moments("bundled:smollm2-135m", tmp_path, kills=20, seed=2024) >= 10
