"""Where every matcher stands on the bundled suite, from nothing: run, evaluate, benchmark.

python benchmarks/matchers.py --out leaderboard
python benchmarks/matchers.py --out leaderboard-quick --quick

Every matcher there is, those fitted to text too, `transport` with 2, 4 and 8 partners, and what they are
compared with.  Matchers that leave features without a partner (`mutual_cosine`, `cosine_backward`) would
leave few features to compare the others on, and are left out; `--strategies` names others.  What is finished
is kept: the same command goes on.  To see where a matcher of yours stands, register it in a script that then
calls `main` of this file.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from saematch.cli.display.evaluation import leaderboard_shown
from saematch.configs import EvaluationConfig, parse_pairs
from saematch.matching.matchers import matcher, matchers
from saematch.pipelines import RunConfig, run
from saematch.pipelines.benchmark import benchmark
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.types import RIDGE

PAIRS = "12,13;15,16;18,19"
QUICK = ("folded", "random", "cosine", "transport_4", "correlation")
PARTIAL = ("mutual_cosine", "cosine_backward")


def usual() -> list[str]:
    """Names of the matchers that are measured where none are named."""
    for partners in (2, 8):
        matcher(f"transport:{partners}")
    return [one.name for one in matchers() if one.name not in PARTIAL]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a run directory")
    parser.add_argument("--suite", default="bundled:smollm2-135m")
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--strategies", help="names with commas between them (default: all)")
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--causal-pairs", type=int, default=20)
    parser.add_argument(
        "--quick", action="store_true", help="one corpus, one pair, 2 documents, few matchers"
    )
    given = parser.parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    names = given.strategies.split(",") if given.strategies else QUICK if given.quick else usual()
    free = [name for name in names if not matcher(name).needs_data]
    pairs = parse_pairs(given.pairs)[: 1 if given.quick else None]
    layers = sorted({int(end) for pair in pairs for end in pair})
    run(
        RunConfig(
            given.suite,
            layers=tuple(range(layers[0], layers[-1] + 1)),
            strategies=tuple(free),
        ),
        given.out,
    )
    config = EvaluationConfig(
        corpora=("web",) if given.quick else ("web", "wiki", "code"),
        documents=2 if given.quick else given.documents,
        tokens=64 if given.quick else given.tokens,
        strategies=(*names, *(() if given.quick else (RIDGE,))),
        pairs=pairs,
        causal_pairs=3 if given.quick else given.causal_pairs,
        other_parts=False,
    )
    evaluate(given.out, config)
    leaderboard_shown(benchmark(given.out), given.out)


if __name__ == "__main__":
    main()
