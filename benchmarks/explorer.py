"""The explorer over a large synthetic run: time to the first answers, latency of warm questions, memory.

python benchmarks/explorer.py --layers 26 --features 16384

1. Makes a run in the exact schema of a real one (synthetic_run.py), once; `--keep` keeps it for later.
2. Starts `saematch explore` with an empty index and waits for the page's first answers.
3. Lets the index be made, starts again, and asks 200 questions one after another: 90 times find
   (text, tokens, ranges, sorts, all layers), 70 times follow, 40 times the examples of a feature.

Prints a line of JSON; times in seconds, memory in MB (resident; most of samples every 50 ms).
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from synthetic_run import Shape, write_run

WORDS = ("ca", "men", "sol", "ver", "ing", "ple")


class Server:
    """`saematch explore` in a process of its own."""

    def __init__(self, run: Path, cache: Path) -> None:
        self.started = time.monotonic()
        command = "from saematch.cli import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, "explore", str(run), "--no-browser", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SAEMATCH_CACHE": str(cache)},
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split()[0]
        self.most = 0
        self._watched = psutil.Process(self._process.pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self._process.poll() is None:
            try:
                self.most = max(self.most, self._watched.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.05)

    def ask(self, question: str, **asked: Any) -> dict[str, Any]:
        query = urllib.parse.urlencode(asked)
        address = f"{self.address}api/{question}?{query}"
        with urllib.request.urlopen(address, timeout=600) as reply:
            return json.load(reply)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def questions(shape: Shape, draw: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """200 questions, in a seeded order."""

    def feature() -> str:
        return f"{draw.randrange(shape.layers)}/{draw.randrange(shape.features)}"

    found: list[tuple[str, dict[str, Any]]] = []
    sorts = ("layer", "mse", "margin", "activation_frequency", "cosine")
    for number in range(90):
        asked: dict[str, Any] = {"sort": draw.choice(sorts), "order": draw.choice(("asc", "desc"))}
        kind = number % 3
        if kind == 0:
            asked["text"] = f"{draw.choice(WORDS)}{draw.choice(WORDS)}"
        elif kind == 1:
            asked["activates_on"] = "".join(draw.choice(WORDS) for _ in range(draw.randint(1, 3)))
        else:
            asked |= {"mse_max": round(draw.uniform(0.005, 0.03), 4), "status": "live"}
        found.append(("features", asked))
    found += [("path", {"feature": feature()}) for _ in range(70)]
    found += [("evidence", {"feature": feature()}) for _ in range(40)]
    draw.shuffle(found)
    return found


def measure(run: Path, shape: Shape) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:
        server = Server(run, Path(cache))
        server.ask("run")
        first = time.monotonic() - server.started
        server.ask("features")
        first_page = time.monotonic() - server.started
        while server.ask("run")["index"]["ready"] < shape.layers:
            time.sleep(0.1)
        indexed = time.monotonic() - server.started
        making = server.most
        size = sum(path.stat().st_size for path in Path(cache).rglob("*.*"))
        server.stop()
        server = Server(run, Path(cache))
        server.ask("run")
        again = time.monotonic() - server.started
        for question, asked in questions(shape, random.Random(1))[:20]:
            server.ask(question, **asked)
        took: dict[str, list[float]] = {}
        for question, asked in questions(shape, random.Random(0)):
            started = time.monotonic()
            server.ask(question, **asked)
            took.setdefault(question, []).append(time.monotonic() - started)
        asking = server.most
        others = {}
        for question in ("whole", "compare"):
            started = time.monotonic()
            server.ask(question)
            others[question] = round(time.monotonic() - started, 3)
        most = server.most
        server.stop()
    every = [one for some in took.values() for one in some]
    return {
        "first_answer": round(first, 2),
        "first_features": round(first_page, 2),
        "index_made": round(indexed, 1),
        "first_answer_again": round(again, 2),
        "p50": round(statistics.median(every), 3),
        "p95": round(_p95(every), 3),
        "p95_by_question": {question: round(_p95(some), 3) for question, some in took.items()},
        "once": others,
        "memory_making_index": making >> 20,
        "memory_asking": asking >> 20,
        "memory_most": most >> 20,
        "index_mb": size >> 20,
    }


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--features", type=int, default=16384)
    parser.add_argument("--examples", type=int, default=8, help="kept for each feature")
    parser.add_argument("--keep", type=Path, help="where the run is kept, and found again")
    given = parser.parse_args()
    shape = Shape(given.layers, given.features, given.examples, corpora=("web", "wiki", "code"))
    with tempfile.TemporaryDirectory() as temporary:
        run = given.keep or Path(temporary) / "run"
        if not (run / "manifest.json").exists():
            write_run(run, shape)
        size = sum(path.stat().st_size for path in run.rglob("*.parquet"))
        sizes = {"layers": given.layers, "features": given.features, "run_mb": size >> 20}
        print(json.dumps({**sizes, "cores": os.cpu_count(), **measure(run, shape)}))


if __name__ == "__main__":
    main()
