"""How long the embedding judge takes: pairs of descriptions of the bundled suite's features.

python benchmarks/embedding.py --pairs 10000

Prints a line of JSON: all seconds, those of loading the model apart.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from saematch import load_suite
from saematch.loading import source_files
from saematch.pipelines.describe import FOLDER
from saematch.semantics.descriptions.describing import HALVES
from saematch.semantics.judges.embedding import OFFLINE, EmbeddingJudge, Thresholds
from saematch.semantics.judges.judge import Question


def texts(suite: str) -> list[str]:
    """Descriptions from either half of the texts, as a judge compares them, in random order."""
    found = {
        text
        for entry in load_suite(suite).entries
        for half in range(HALVES)
        for text in pq.read_table(
            Path(source_files(entry.reference)[0]).parent
            / f"{FOLDER}/descriptions-activations-{half}.parquet"
        )["text"].to_pylist()
    }
    return np.random.default_rng(0).permutation(sorted(found)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument(
        "--suite", default="bundled:smollm2-135m", help="One that ships descriptions."
    )
    parser.add_argument("--model", default=OFFLINE)
    given = parser.parse_args()
    some = texts(given.suite)[: 2 * given.pairs]
    assert len(some) == 2 * given.pairs, f"{len(some)} texts are too few"
    questions = [Question(a, b) for a, b in zip(some[::2], some[1::2], strict=True)]
    started = time.monotonic()
    judge = EmbeddingJudge(given.model, Thresholds(0.3, 0.6))
    judge.scores(questions[:1])
    loaded = time.monotonic()
    found: dict[int, object] = {}
    judge.judge(questions, found.__setitem__)
    assert len(found) == given.pairs
    print(
        json.dumps(
            {
                "pairs": given.pairs,
                "texts": len(set(some)),
                "loading_seconds": round(loaded - started, 1),
                "seconds": round(time.monotonic() - loaded, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
