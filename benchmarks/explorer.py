"""How soon the explorer answers on a large run: a synthetic one in exactly the schema of a real one.

python benchmarks/explorer.py --layers 26 --features 16384

Starts `saematch explore`, waits for the first answer, then asks 200 questions: half are searches (words,
tokens, values, pages), a third follow a feature, the rest are contexts.  Prints a line of JSON.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import psutil
from synthetic_run import Shape, write_run

QUESTIONS = 200


def ask(address: str, question: str, **asked: object) -> float:
    """Seconds that a question takes."""
    started = time.perf_counter()
    query = urllib.parse.urlencode({name: str(value) for name, value in asked.items()})
    with urllib.request.urlopen(f"{address}api/{question}?{query}", timeout=120) as answer:
        answer.read()
    return time.perf_counter() - started


def mix(layers: int, features: int) -> list[tuple[str, dict[str, object]]]:
    """The questions, in random order."""
    random = np.random.default_rng(0)
    found: list[tuple[str, dict[str, object]]] = []
    for number in range(QUESTIONS):
        place = {"key": int(random.integers(layers)), "feature": int(random.integers(features))}
        searches: list[dict[str, object]] = [
            {"text": f"{place['key']}/{place['feature']}"},
            {"text": "the", "sort": "mse"},
            {"token": " the", "sort": "density", "descending": 1},
            {"key": place["key"], "mse_min": 0.001, "sort": "margin"},
            {"sort": "mse", "descending": 1, "page": int(random.integers(1, 40))},
        ]
        if number % 2 == 0:
            found.append(("find", searches[number // 2 % len(searches)]))
        else:
            found.append(("follow" if number % 3 else "contexts", place))
    return [found[n] for n in random.permutation(len(found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--features", type=int, default=16_384)
    parser.add_argument("--port", type=int, default=8397)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="saematch-benchmark-"))
    address = f"http://127.0.0.1:{given.port}/"
    try:
        directory = write_run(folder / "run", Shape(given.layers, given.features))
        command = [str(Path(sys.executable).with_name("saematch")), "explore", str(directory)]
        command += ["--no-browser", "--port", str(given.port)]
        started = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while True:
                try:
                    ask(address, "about")
                    break
                except OSError:
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.02)
            opened = time.perf_counter() - started
            questions = mix(given.layers, given.features)
            for question, asked in questions[:20]:
                ask(address, question, **asked)
            took: dict[str, list[float]] = {}
            for question, asked in questions:
                took.setdefault(question, []).append(ask(address, question, **asked))
            every = [seconds for some in took.values() for seconds in some]
            memory = psutil.Process(server.pid).memory_info().rss
        finally:
            server.terminate()
            server.wait()
        print(
            json.dumps(
                {
                    "layers": given.layers,
                    "features": given.features,
                    "opened_seconds": round(opened, 2),
                    "p95_ms": round(1000 * float(np.quantile(every, 0.95)), 1),
                    **{
                        f"{name}_p95_ms": round(1000 * float(np.quantile(some, 0.95)), 1)
                        for name, some in sorted(took.items())
                    },
                    "memory_mb": round(memory / 1e6),
                    "run_mb": round(
                        sum(p.stat().st_size for p in directory.rglob("*") if p.is_file()) / 1e6
                    ),
                }
            )
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
