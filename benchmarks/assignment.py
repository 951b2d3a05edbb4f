"""Our solver compared with scipy, lap, lapx, lapjv, POT and OR-tools: one run, one table, and its exponents.

python benchmarks/assignment.py --sizes 2304x576 4096x576 --repeats 3
python benchmarks/assignment.py --setup-peers          # once: an environment for each peer

Solvers take turns within every repeat, so that a slow minute of the machine falls on all of them; the
table shows medians.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

from problems import STRUCTURES
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PEERS = HERE.parent / ".peers"
PACKAGES = {
    "lap": ["lap"],
    "lapx": ["lapx"],
    "pot": ["POT"],
    "ortools": ["ortools", "absl-py", "protobuf", "immutabledict"],
    "lapjv": ["lapjv"],  # built from source: needs a C++ compiler
}
"""What a peer's own environment needs besides ours."""
SOLVERS = ("saematch", "saematch-float32", "scipy", *PACKAGES)


def python_of(solver: str) -> str:
    """The interpreter that has the solver: the peer's own, else ours."""
    return str(PEERS / solver / "bin" / "python") if solver in PACKAGES else sys.executable


def set_up_peers() -> None:
    """An environment for each peer; torch and the rest come from ours."""
    for peer, packages in PACKAGES.items():
        subprocess.run([sys.executable, "-m", "venv", PEERS / peer], check=True)
        python = PEERS / peer / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *packages], check=True)
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        site = next((PEERS / peer / "lib").glob("python*/site-packages"))
        (site / "ours.pth").write_text(ours + "\n")


def measure(
    solver: str, size: tuple[int, int], structure: str, limit: float, memory: float
) -> dict | str:
    """One measurement, or in a word why there is none."""
    python = python_of(solver)
    if not Path(python).exists():
        return "not set up"
    command = [python, str(HERE / "one.py"), solver, *map(str, size), structure, str(memory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"over {limit:g} s"
    if done.returncode:
        return "failed: " + (done.stderr.strip().splitlines() or ["killed"])[-1][:60]
    values: dict = {}
    for line in done.stdout.splitlines():
        values |= json.loads(line)
    return values


def growth(everything: list[dict]) -> Table:
    """Seconds ~ n^exponent by least squares on logarithms, where a solver ran at several n."""
    table = Table("structure", "solver", "d", "n", "exponent")
    groups: dict[tuple, dict[int, list[float]]] = {}
    for one in everything:
        n, d = map(int, one["size"].split("x"))
        of = groups.setdefault((one["structure"], one["solver"], d), {})
        of.setdefault(n, []).append(one["seconds"])
    for (structure, solver, d), by_n in groups.items():
        if len(by_n) < 2:
            continue
        sizes = sorted(by_n)
        seconds = [statistics.median(by_n[n]) for n in sizes]
        slope, _ = statistics.linear_regression(
            [math.log(n) for n in sizes], [math.log(one) for one in seconds]
        )
        table.add_row(structure, solver, str(d), f"{sizes[0]} to {sizes[-1]}", f"{slope:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["2304x576", "4096x576"])
    parser.add_argument("--structures", nargs="+", default=["persisting"], choices=STRUCTURES)
    parser.add_argument(
        "--solvers",
        nargs="+",
        default=[name for name in SOLVERS if name != "saematch-float32"],
        choices=SOLVERS,
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds a solver may take")
    parser.add_argument("--memory", type=float, default=20, help="GiB a solver may address")
    parser.add_argument("--json", type=Path, help="write every measurement")
    parser.add_argument("--setup-peers", action="store_true")
    arguments = parser.parse_args()
    if arguments.setup_peers:
        set_up_peers()
        return
    table = Table("size", "structure", "solver", "s", "× product", "peak GiB", "total", "gap")
    everything = []
    given_up: set[tuple[str, str]] = set()
    limits = arguments.limit, arguments.memory
    for text in arguments.sizes:
        n, d = map(int, text.split("x"))
        for structure in arguments.structures:
            # What did not end at one size is not tried at the next.
            found: dict[str, list] = {
                solver: [] for solver in arguments.solvers if (structure, solver) not in given_up
            }
            for _ in range(arguments.repeats):
                for solver, values in found.items():
                    if not (values and isinstance(values[-1], str)):
                        values.append(measure(solver, (n, d), structure, *limits))
            for solver, values in found.items():
                row = [text, structure, solver]
                if isinstance(values[-1], str):
                    table.add_row(*row, values[-1])
                    given_up.add((structure, solver))
                    continue
                seconds = statistics.median(v["seconds"] for v in values)
                ratio = statistics.median(v["seconds"] / v["product"] for v in values)
                peak = max(v["peak_gib"] for v in values)
                gap = values[0].get("gap")
                table.add_row(
                    *row,
                    f"{seconds:.2f}",
                    f"{ratio:.2f}",
                    f"{peak:.2f}",
                    f"{values[0]['total']:.4f}",
                    "" if gap is None else f"{gap:.1e}",
                )
                everything += [
                    {"size": text, "structure": structure, "solver": solver, **v} for v in values
                ]
    console = Console(width=110)
    console.print(table)
    console.print(growth(everything))
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
