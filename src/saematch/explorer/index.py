"""A run's tables as DuckDB sees them: one narrow table of features, the rest read from their files.

1. Every file is taken as the manifest records it; one that is missing, cut short or altered in size is
   named and left out, so that a run that is still being written, or is damaged, shows what is whole.
2. `features` has a row a feature: its status, path, step to the next layer, density, description, tokens.
   It is the only table that is held; it spills to a temporary folder beyond `MEMORY`.
3. Contexts, candidates and matchings of other strategies are read from Parquet when they are asked for.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from saematch.errors import MissingDependencyError, UsageError
from saematch.run.described import SHOWN_FIRST, descriptions_of
from saematch.run.findings_judge import best_judge
from saematch.run.plan import PATHS_NAME, candidates_name, matching_name
from saematch.run.read import Run, open_run

MEMORY = "256MB"
THREADS = 2

_FEATURES = """
CREATE TABLE features (
    key VARCHAR, layer INTEGER, feature INTEGER, status VARCHAR, path INTEGER,
    partner INTEGER, cost FLOAT, mse FLOAT, cosine FLOAT, margin FLOAT, certain BOOLEAN, quantile FLOAT,
    density FLOAT, text VARCHAR, fires_on VARCHAR[], promotes VARCHAR[], label VARCHAR, phi FLOAT, lift FLOAT
)
"""
OF_A_FEATURE = (
    "status", "path", "partner", "cost", "mse", "cosine", "margin", "certain", "quantile", "density",
    "text", "fires_on", "promotes", "label", "phi", "lift",
)  # fmt: skip
"""Columns of `features` that a run may lack."""


@dataclass
class Index:
    """A run opened for questions; `close` removes what it put into the temporary folder."""

    run: Run
    problems: list[str] = field(default_factory=list[str])
    """Files that are recorded and cannot be used, in words."""
    source: str = ""
    """Where the descriptions shown come from; '' where there are none."""
    neuronpedia: dict[str, str] = field(default_factory=dict[str, str])
    """By key: `model/source` whose pages show these very features."""
    strategies: tuple[str, ...] = ()
    judge: str = ""
    """Whose labels are shown."""

    def __post_init__(self) -> None:
        duckdb = _duckdb()
        self._folder = tempfile.TemporaryDirectory(prefix="saematch-explorer-")
        self._lock = Lock()
        self._connection = duckdb.connect(
            config={
                "memory_limit": MEMORY,
                "threads": THREADS,
                "temp_directory": self._folder.name,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._build()

    @classmethod
    def of(cls, directory: str | Path) -> "Index":
        """Raises InputError where there is no run, MissingDependencyError without DuckDB."""
        return cls(open_run(directory))

    def close(self) -> None:
        self._connection.close()
        self._folder.cleanup()

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of a query; values are never put into its text."""
        with self._lock:
            cursor = self._connection.execute(sql, list(values))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def file(self, name: str) -> str | None:
        """The path of a finished output that looks whole; None, and a problem, where it does not."""
        record = self.run.directory.record(name)
        if record is None:
            return None
        path = self.run.directory.file(name)
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        if size == record.bytes:
            return str(path)
        found = "no such file" if size < 0 else f"{size:,} bytes, not {record.bytes:,}"
        self._problem(f"{name}: {found}; delete it and run the same saematch command again")
        return None

    @cached_property
    def adjacent(self) -> tuple[tuple[str, str], ...]:
        """Read once; empty where the paths are not there yet."""
        return self.run.adjacent if self.file(PATHS_NAME) else ()

    @property
    def keys(self) -> tuple[str, ...]:
        return self.run.keys

    def matching(self, a: str, b: str, strategy: str = "folded") -> str | None:
        return self.file(matching_name(a, b, strategy, self.run.config.slug))

    def candidates(self, a: str, b: str) -> str | None:
        return self.file(candidates_name(a, b))

    def places(self, text: str) -> list[tuple[str, int]]:
        """Features named as layer/feature with commas between; UsageError for anything else."""
        found = []
        for one in text.split(","):
            key, slash, feature = one.strip().rpartition("/")
            if not slash or not feature.isdecimal():
                raise UsageError(f"needed features as layer/feature, found '{one.strip()}'")
            found.append((self.run.key(key), int(feature)))
        return found

    # Building

    def _build(self) -> None:
        self._connection.execute(_FEATURES)
        self._about()
        after = dict(self.adjacent)
        for key in self.keys:
            with self._said(f"features of {key}"):
                self._connection.execute(*self._features_of(key, after.get(key)))
        self._connection.execute("CREATE INDEX by_path ON features (path)")

    def _about(self) -> None:
        directory = self.run.directory
        there = {name.split("/")[1].partition("--")[0] for name in directory.names("descriptions/")}
        self.source = next((one for one in SHOWN_FIRST if one in there), "")
        slug = f"/{self.run.config.slug}/"
        found = {name.split("/")[1] for name in directory.names("matchings/") if slug in name}
        self.strategies = tuple(sorted(found, key=lambda one: (one != "folded", one)))
        with self._said("judgements"):
            best = best_judge(self.run, "layers")
            self.judge = best.judge if best is not None else ""
        if self.source == "neuronpedia":
            for key in self.keys:
                with self._said(f"descriptions of {key}"):
                    of = descriptions_of(self.run, self.source, key)
                    if of is not None:
                        self.neuronpedia[key] = str(of.about.get("neuronpedia", ""))

    def _features_of(self, key: str, after: str | None) -> tuple[str, list[Any]]:
        """One INSERT for an SAE, of whatever is there of it."""
        sae = self.run.manifest["saes"][key]
        values: list[Any] = [key, sae["layer"], sae["d_sae"]]
        columns: dict[str, str] = dict.fromkeys(OF_A_FEATURE, "NULL")
        joins = []

        def join(alias: str, table: str, file: str | None, /, **names: str) -> None:
            if file is None:
                return
            joins.append(f"LEFT JOIN {table} {alias} ON {alias}.feature = f.feature")
            values.append(file)
            columns.update({name: f"{alias}.{source}" for name, source in names.items()})

        paths = f"(SELECT * FROM read_parquet(?) WHERE key = {_quoted(key)})"
        join("p", paths, self.file(PATHS_NAME), status="status", path="path")
        if after is not None:
            live = "status = 'live' AND partner_status = 'live'"
            matched = (
                f"(SELECT *, CASE WHEN {live} THEN cume_dist() OVER (PARTITION BY {live} ORDER BY cost) "
                "END AS quantile FROM read_parquet(?))"
            )
            join(
                "m", matched, self.matching(key, after), partner="partner", cost="cost",
                mse="mse_decoder", cosine="cosine", margin="margin", certain="certain",
                quantile="quantile",
            )  # fmt: skip
        fired = "(SELECT * FROM read_parquet(?))"
        join(
            "s", fired, self.file(f"features/{key}.parquet"), density="density",
            fires_on="fires_on", promotes="promotes",
        )  # fmt: skip
        if self.source:
            first = "(SELECT feature, first(text) AS text FROM read_parquet(?) GROUP BY feature)"
            join("d", first, self.file(f"descriptions/{self.source}--{key}.parquet"), text="text")
        if after is not None:
            pair = f"a = {_quoted(key)} AND b = {_quoted(after)} AND strategy = 'folded'"
            fires = (
                "(SELECT feature, avg(phi) AS phi, avg(lift) AS lift FROM read_parquet(?) WHERE "
                f"{pair} GROUP BY feature)"
            )
            join("e", fires, self.file("evaluation/pairs.parquet"), phi="phi", lift="lift")
            sample = self.file("judging/layers/sample.parquet") if self.judge else None
            answers = self.file("judgements.parquet") if self.judge else None
            if sample and answers:
                labels = (
                    "(SELECT s.feature, first(j.label) AS label FROM read_parquet(?) s "
                    f"JOIN read_parquet(?) j USING (question) WHERE {pair} AND NOT swapped "
                    f"AND j.experiment = 'layers' AND j.judge = {_quoted(self.judge)} GROUP BY s.feature)"
                )
                join("l", labels, sample, label="label")
                values.append(answers)
        sql = (
            "INSERT INTO features SELECT f.key, f.layer, f.feature, "
            + ", ".join(columns.values())
            + " FROM (SELECT ? AS key, ? AS layer, unnest(range(?)) AS feature) f "
            + " ".join(joins)
            + " ORDER BY f.feature"
        )
        return sql, values

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """A file that cannot be read is a problem to show, not an end."""
        try:
            yield
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._problem(f"{what}: {first[:200]}")

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)


def _quoted(text: str) -> str:
    """A name from the manifest as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingDependencyError("duckdb", "explorer", "saematch explore") from None
    return duckdb
