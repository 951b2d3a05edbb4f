"""All that is shown of single features, one SQLite file an SAE.

Parquet answers questions about all features at once; a few rows of many columns it gives only after unpacking
thousands.  SQLite finds a row by its number.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from saematch.errors import InputError
from saematch.explorer.catalogue_query import ACTIVE_COLUMNS, STEP_COLUMNS, step_column, strategies

_COLUMNS = (
    "key", "feature", "path", "status", "born", "dies", "next", "certain", "live_pair", "quantile",
    "mse_encoder", "runner_up", "extra_cost", "runner_up_cosine", "runner_up_status", "nearer",
    "nearer_cost", "nearer_cosine", "warnings", "phi", "lift", *ACTIVE_COLUMNS, "activation_count",
    "activation_frequency",
    "mean_activation", "greatest_activation", "activates_on", "activates_on_share", "amid",
    "top_logits", "peaks",
    "description", "source", "labels", "told",
)  # fmt: skip
MEANING = ("description", "source", "activates_on", "amid", "top_logits")
"""What is said of a feature."""
SUFFIX = ".rows"


def rows_file(index: str | Path) -> Path:
    """The file of rows that belongs to an index."""
    return Path(index).with_suffix(SUFFIX)


def columns() -> tuple[str, ...]:
    """Columns of a row, in the order in which they are stored."""
    steps = (step_column(name, strategy) for strategy in strategies() for name in STEP_COLUMNS)
    return (*_COLUMNS, *steps)


def rows_query() -> str:
    """The numbers of the features from $start until before $end of an index, each with its row as JSON."""
    return (
        f"SELECT feature, CAST(json_array({', '.join(columns())}) AS VARCHAR) AS data "
        "FROM read_parquet($index) WHERE feature >= $start AND feature < $end"
    )


def write_rows(path: Path, batches: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Write the rows of an SAE, as `rows_query` gives them, into a new file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")  # it is renamed when it is whole
        connection.execute("CREATE TABLE feature (number INTEGER PRIMARY KEY, data TEXT NOT NULL)")
        for batch in batches:
            connection.executemany("INSERT INTO feature VALUES ($feature, $data)", batch)
        connection.commit()


def read_rows(index: str | Path, features: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The rows of some features, by feature; raises InputError where the file cannot be used."""
    path = rows_file(index)
    try:
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            found, names = {}, columns()
            for feature in features:
                one = connection.execute(
                    "SELECT data FROM feature WHERE number = ?", (feature,)
                ).fetchone()
                if one is not None:
                    values = json.loads(one[0], parse_constant=lambda name: None)
                    found[feature] = dict(zip(names, values, strict=True))
            return found
    except (sqlite3.Error, ValueError) as error:
        raise InputError(
            f"the index {path} cannot be read ({error}); delete {path.parent} and start again"
        ) from error


def read_named(
    names: Iterable[tuple[str, int]], indexes: Mapping[str, str]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of features of several SAEs, by key and number; raises as `read_rows`."""
    return {
        (key, feature): row
        for key, features in by_key(names).items()
        for feature, row in read_rows(indexes[key], features).items()
    }


def by_key(names: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Features by their SAE."""
    wanted: dict[str, list[int]] = {}
    for key, feature in names:
        wanted.setdefault(key, []).append(feature)
    return wanted


def with_meanings(
    rows: Sequence[Mapping[str, Any]], indexes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of features with what these mean; a question about all features asks for no texts, which are most
    of an index."""
    known = read_named(((row["key"], row["feature"]) for row in rows), indexes)
    return [
        {**row, **{name: known[row["key"], row["feature"]][name] for name in MEANING}}
        for row in rows
    ]
