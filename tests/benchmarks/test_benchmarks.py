"""The benchmarks run, at sizes where they measure nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str, timeout: float = 120) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_assignment_compares_the_same_problem(tmp_path: Path) -> None:
    kept = tmp_path / "measured.json"
    table = run(
        "assignment.py", "--sizes", "60x8", "--structures", "half", "--repeats", "1",
        "--solvers", "saematch", "saematch-float32", "scipy", "--json", str(kept),
    )  # fmt: skip
    rows = json.loads(kept.read_text())
    assert [row["solver"] for row in rows] == ["saematch", "saematch-float32", "scipy"]
    totals = [row["total"] for row in rows]
    assert totals == pytest.approx([totals[0]] * 3, rel=1e-6)
    assert rows[0]["gap"] <= 1e-6
    assert all(solver in table for solver in ("saematch", "saematch-float32", "scipy"))


def test_a_peer_that_is_not_there_or_too_slow_is_said(tmp_path: Path) -> None:
    kept = tmp_path / "measured.json"
    table = run(
        "assignment.py", "--sizes", "60x8", "--repeats", "1", "--limit", "0.01",
        "--solvers", "scipy", "--json", str(kept),
    )  # fmt: skip
    assert "over 0.01 s" in table
    assert json.loads(kept.read_text()) == []


def test_exponents_are_fitted_over_sizes_and_what_failed_is_not_tried_again() -> None:
    table = run(
        "assignment.py", "--sizes", "60x8", "120x8", "--repeats", "1", "--solvers", "scipy", "lap",
    )  # fmt: skip
    growth = table[table.index("exponent") :]
    assert "60 to 120" in growth
    assert "scipy" in growth
    if "not set up" in table:  # the peers' environments are made by hand
        assert table.count("not set up") == 1


def test_the_summit_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    arguments = (
        "--n",
        "300",
        "--d",
        "16",
        "--device",
        "cpu",
        "--checkpoint",
        str(tmp_path / "s.npz"),
    )
    first, again = (json.loads(run("summit.py", *arguments)) for _ in range(2))
    assert first["gap"] <= 1e-6
    assert first["stopped"] is None
    assert again["rounds"] <= first["rounds"]


def test_match_of_a_small_pair() -> None:
    line = json.loads(
        run("match.py", "--d-sae", "80", "--d-model", "8", "--repeats", "1").splitlines()[-1]
    )
    assert line["gap"] <= 1e-6
    assert {"seconds", "product", "ratio", "over_inputs_gib"} <= line.keys()


def test_an_evaluation_runs_no_prefix_twice() -> None:
    line = json.loads(
        run(
            "evaluation.py",
            "--pairs",
            "12,13",
            "--documents",
            "1",
            "--tokens",
            "16",
            "--repeats",
            "1",
        )
    )
    # 30 blocks once, and 16 after block 13 for each of 9 interventions: the script counts and asserts.
    assert line["block_executions"] == 30 + 16 * line["interventions"]
    assert line["over_bound"] > 0


def test_judging_counts_every_call() -> None:
    measured = json.loads(
        run("judging.py", "--calls", "20", "--latency", "0.01", "--concurrency", "4")
    )
    assert measured["calls"] == 20
    assert measured["ratio"] >= 1
    assert measured["cpu_ms"] > 0


def test_warnings_are_counted_over_live_steps(tmp_path: Path) -> None:
    sys.path.append(str(BENCHMARKS))
    from synthetic_run import Shape, write_run

    table = run("doubts.py", str(write_run(tmp_path / "run", Shape(layers=3, features=40))))
    rows = {line.rsplit(maxsplit=4)[0]: line.split()[-4:] for line in table.splitlines()[1:]}
    none, some = (float(rows[name][0]) for name in ("none of them", "any of them"))
    assert none + some == pytest.approx(1, abs=2e-3)
    assert 0.05 < float(rows["costly"][0]) < 0.15  # of so few steps


@pytest.mark.slow
def test_matchers_are_compared_from_nothing(tmp_path: Path) -> None:
    arguments = ("--out", str(tmp_path / "run"), "--quick", "--strategies", "folded,random,cosine")
    table = run("matchers.py", *arguments, timeout=500)
    assert (tmp_path / "run" / "leaderboard.parquet").is_file()
    for name in ("folded", "random", "cosine", "reconstruct_current"):
        assert f"\n{name} " in table
