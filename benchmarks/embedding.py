"""How long the embedding judge takes: pairs of descriptions of the bundled suite's features.

python benchmarks/embedding.py --pairs 10000

Prints a line of JSON: all seconds, those of loading the model apart.
"""

import argparse
import json
import time

import numpy as np

from saematch.semantics.embedding_judge import OFFLINE, EmbeddingJudge, Thresholds
from saematch.semantics.judging import Question
from saematch.semantics.summaries import describe_tokens


def texts(count: int) -> list[str]:
    """Descriptions as long as real ones, all different."""
    generator = np.random.default_rng(0)
    syllables = np.array(["ca", "to", "ri", "men", "sol", "ver", "ing", "ex", "ple", "un"])

    def words() -> list[str]:
        return [" " + "".join(generator.choice(syllables, 3)) for _ in range(5)]

    return [describe_tokens(words(), words()) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--model", default=OFFLINE)
    given = parser.parse_args()
    some = texts(2 * given.pairs)
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
