"""Compiled loops give the same bits when they are compiled and when they come from numba's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOLVE = """
import hashlib, torch
from saematch.assignment import solve
generator = torch.Generator().manual_seed(0)
for n in (27, 200):
    rows, columns = (torch.randn(n + k, 129, generator=generator) for k in (0, 1))
    found = solve(rows, columns)
    for values in (found.columns, found.row_duals, found.column_duals, found.margins):
        print(hashlib.sha256(values.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_the_first_run_on_a_machine_gives_the_bits_of_every_later_one(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", SOLVE], env=environment, capture_output=True, text=True
        )
        for _ in range(2)
    ]
    assert said[0].returncode == 0, said[0].stderr
    assert list(tmp_path.rglob("*.nbc"))
    assert said[0].stdout == said[1].stdout
