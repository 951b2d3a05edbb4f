"""Descriptions of a suite's features, beside its weights, as `saematch describe` takes them.

python recipes/smollm2/describe.py --suite src/saematch/bundled/smollm2-135m --work work

The texts are the bundled stand-ins of web, wiki and code alone, whose licences let excerpts ship: see
src/saematch/bundled/corpora/NOTICE.
"""

import argparse
from pathlib import Path

from saematch import files
from saematch.run import RunConfig, open_run, run
from saematch.run.describe_config import DescribeConfig
from saematch.run.describing import describe, names_from_activations
from saematch.run.shipped import FOLDER, shipped_name


def ship(run_directory: Path, suite: Path) -> None:
    """Copy a run's descriptions to where its SAEs lie."""
    found = open_run(run_directory)
    for key in found.keys:
        for name in names_from_activations(key):
            target = suite / key / FOLDER / shipped_name(name, key)
            files.write_atomically(target, found.directory.read(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--contexts", type=int, default=5)
    given = parser.parse_args()
    directory = given.work / "described-run"
    run(RunConfig(str(given.suite), strategies=("folded",)), directory)
    config = DescribeConfig(
        source="activations",
        documents=given.documents,
        tokens=given.tokens,
        contexts=given.contexts,
        offline=True,
    )
    describe(directory, config, lambda _, __, what: print(what, flush=True))
    ship(directory, given.suite)


if __name__ == "__main__":
    main()
