"""Descriptions of a suite's features, next to its weights, as `saematch describe` takes them.

python recipes/smollm2/describe.py --suite src/saematch/bundled/smollm2-135m --work work

The texts are the bundled stand-ins of web, wiki and code alone, whose licences let excerpts ship: see
src/saematch/bundled/corpora/NOTICE.
"""

import argparse
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from saematch._io import files
from saematch.configs import DescribeConfig
from saematch.matching.matchers import MAIN
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.describe import FOLDER, describe, names_from_activations, shipped_name

SHIPPED_EXAMPLES = 3
"""For each half of the documents; features are described from all that `--examples` asks for."""
DIGITS = 3
"""Significant digits of an activation in them."""


def ship(run_directory: Path, suite: Path) -> None:
    """Put a run's descriptions where its SAEs lie, examples cut to what a package can carry."""
    found = open_run(run_directory)
    for key in found.keys:
        for name in names_from_activations(key):
            table = pq.read_table(pa.BufferReader(found.directory.read(name)))
            if name.startswith("examples/"):
                table = slim(table)
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd", compression_level=19)
            target = suite / key / FOLDER / shipped_name(name, key)
            files.write_atomically(target, sink.getvalue())


def slim(examples: pa.Table) -> pa.Table:
    """The strongest examples of either half, activations rounded."""
    kept = examples.filter(pc.less_equal(examples["rank"], SHIPPED_EXAMPLES)).combine_chunks()
    place = kept.schema.get_field_index("activations")
    lists = kept["activations"].combine_chunks()
    rounded = [float(f"{value:.{DIGITS}g}") for value in lists.flatten().to_pylist()]
    lengths = pc.list_value_length(lists).to_numpy()
    starts = pa.array([0, *lengths.cumsum().tolist()], pa.int32())
    column = pa.ListArray.from_arrays(starts, pa.array(rounded, pa.float64()))
    return kept.set_column(place, kept.schema.field(place), column)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--examples", type=int, default=5)
    given = parser.parse_args()
    directory = given.work / "described-run"
    run(RunConfig(str(given.suite), strategies=(MAIN,)), directory)
    config = DescribeConfig(
        source="activations",
        documents=given.documents,
        tokens=given.tokens,
        examples=given.examples,
        offline=True,
    )
    describe(directory, config, lambda _, __, what: print(what, flush=True))
    ship(directory, given.suite)


if __name__ == "__main__":
    main()
