"""The tables are as documented: the files have the schema, and docs/run-directory.md names them."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from saematch.configs import RunConfig
from saematch.errors import UsageError
from saematch.pipelines.exporting import FORMATS, all_matchings, export
from saematch.pipelines.matching.run import run
from saematch.store.manifest import empty_manifest
from saematch.store.reader import Run
from saematch.store.schema import (
    CANDIDATES,
    COMPARED,
    FATES,
    FOLLOWED,
    MATCHINGS,
    MEASURE_SOURCE,
    MEASURES,
    PATHS,
    SCHEMA_VERSION,
    SEMANTIC_TABLES,
    TABLES,
    WEIGHT_MEASURES,
)

COLUMNS = {3: "9b9d615bf7f8afe6986a258a4a2240d624b781c268300e3a37eee6175f7b1f5b"}
"""sha256 of the columns of every table, by the version of the schema."""
DOCUMENT = Path(__file__).parents[2] / "docs" / "run-directory.md"


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = RunConfig(str(suite), far=(("3", "5"),), random_draws=2)
    return run(config, tmp_path_factory.mktemp("runs") / "run")


def test_files_have_exactly_the_schema(finished: Run) -> None:
    patterns = {
        "matchings/": MATCHINGS, "candidates/": CANDIDATES, "paths.parquet": PATHS, "fates/": FATES,
        "followed.parquet": FOLLOWED, "evaluation/measures.parquet": MEASURES,
        "evaluation/measures/": MEASURE_SOURCE, "evaluation/compared/": COMPARED,
    }  # fmt: skip
    seen = set()
    for path in finished.path.rglob("*.parquet"):
        name = path.relative_to(finished.path).as_posix()
        start = next(start for start in patterns if name.startswith(start))
        found = pq.read_schema(path)
        assert found.remove_metadata() == patterns[start].schema, name
        json.loads(found.metadata[b"saematch"])
        seen.add(start)
    assert seen == set(patterns)
    assert set(finished.measures()["measure"]) == set(WEIGHT_MEASURES)
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert set(manifest) == {*empty_manifest(), "sha256"}
    assert manifest["saes"]["3"]["model_weights_sha256"] == "ab" * 32


def test_the_schema_has_a_new_version_when_its_columns_change() -> None:
    columns = {
        table.path: [[one.name, str(one.type), one.nullable, one.unit] for one in table.columns]
        for table in (*TABLES, *SEMANTIC_TABLES)
    }
    found = hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()
    assert COLUMNS.get(SCHEMA_VERSION) == found, (
        "expected the columns that the schema's version was given for, got others; raise SCHEMA_VERSION, so "
        "that directories of the old columns are refused, and put its hash here (where the words of a unit "
        "changed, but not the unit, the hash alone)"
    )


def test_the_document_names_what_is_there() -> None:
    text = DOCUMENT.read_text()
    assert f"Schema version: {SCHEMA_VERSION}" in text
    for key in (*empty_manifest(), "sha256"):
        assert f"| `{key}` |" in text
    paths = {table.path for table in (*TABLES, *SEMANTIC_TABLES)}
    named = set(re.findall(r"(?m)^### `(.*)`$", text))
    assert named
    assert named <= paths


@pytest.mark.parametrize("format", FORMATS)
def test_export_gives_the_tables_back(finished: Run, tmp_path: Path, format: str) -> None:
    written = export(finished, format, tmp_path / "out")
    assert sorted(path.stem for path in written) == ["matchings", "measures", "paths"]
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[format]
    expected = {
        "paths": finished.paths(), "measures": finished.measures(),
        "matchings": all_matchings(finished),
    }  # fmt: skip
    for path in written:
        found, table = read(path), expected[path.stem]
        assert list(found.columns) == list(table.columns)
        assert len(found) == len(table)
        for column in ("cost", "feature", "value"):
            if column in table:
                pd.testing.assert_series_equal(
                    found[column], table[column], check_dtype=False, rtol=1e-12
                )
    strategies = set(all_matchings(finished)["strategy"])
    assert strategies == {*finished.config.strategies, "composition", "cosine_composition"}


def test_unknown_formats_are_said(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="csv, parquet, json, got 'xlsx'"):
        export(finished, "xlsx", tmp_path)
