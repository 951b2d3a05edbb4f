"""Run by test_run_killed.py in its own process: SIGKILL a child at some effects, then resume.

python kill_for_real.py SUITE FOLDER
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from killing import Effects, contents
from run_fixtures import plain_page, run_and_report
from test_run_killed import tiny_config

from saematch import rendering
from saematch.pipelines.suite import forget_loaded

KILLS = 8


def main(suite: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    rendering.render_report = plain_page
    config = tiny_config(suite)
    with Effects().installed() as effects:
        run_and_report(config, folder / "whole")
    expected = contents(folder / "whole")
    killed = equal = 0
    for turn in range(KILLS):
        directory = folder / f"killed-{turn}"
        number = turn * len(effects.done) // KILLS
        moment = ("before", "after")[turn % 2]
        child = os.fork()
        if child == 0:
            forget_loaded()
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
            with Effects(number, moment, kill).installed():
                run_and_report(config, directory)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        run_and_report(config, directory)
        equal += contents(directory) == expected
    print(f"{killed} killed by SIGKILL, {equal} resumed equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
