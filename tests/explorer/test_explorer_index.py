"""The index of an SAE: the same however it is cut, in memory that does not grow."""

from pathlib import Path

import pandas as pd
import pytest
from explored_runs import SHAPE, client_of

from saematch.explorer import index_file
from saematch.explorer.database import Database, OutOfMemoryError
from saematch.explorer.explorer import Explorer
from saematch.explorer.rows import read_rows


def indexed(run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    monkeypatch.setenv("SAEMATCH_CACHE", str(cache))
    return Explorer(run)


@pytest.mark.parametrize("features", [7, 59, 60])
def test_slices_make_the_same_index_as_one(
    features: int, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorers = [indexed(synthetic, tmp_path / "one", monkeypatch)]
    ones = explorers[0].first.of(["0", "1", "3"])
    monkeypatch.setattr(index_file, "SLICE", features)
    explorers.append(indexed(synthetic, tmp_path / "sliced", monkeypatch))
    for one, sliced in zip(ones, explorers[1].first.of(["0", "1", "3"]), strict=True):
        assert one != sliced
        pd.testing.assert_frame_equal(pd.read_parquet(one), pd.read_parquet(sliced))
        every = range(SHAPE.features)
        assert read_rows(one, every) == read_rows(sliced, every)
    for explorer in explorers:
        explorer.close()
    left = {path.suffix for path in (tmp_path / "sliced" / "explorer").iterdir()}
    assert left == {".parquet", ".rows"}


def test_too_little_memory_is_not_taken_for_a_wrong_file(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = indexed(synthetic, tmp_path, monkeypatch)
    whole = Database.rows

    def starved(self: Database, sql: str, parameters: object = ()) -> list[dict[str, object]]:
        if "$file" in sql:
            raise OutOfMemoryError("needed at most 200MB of memory to read the tables, found: more")
        return whole(self, sql, parameters)  # pyright: ignore

    def starved_too(*_: object) -> None:
        raise OutOfMemoryError("needed at most 200MB of memory to read the tables, found: more")

    monkeypatch.setattr(Database, "write", starved_too)
    monkeypatch.setattr(Database, "rows", starved)
    answer = client_of(explorer).get("/api/features", params={"layer": "1"}).json()
    assert answer["features"] == []
    assert "200MB of memory" in answer["problems"]["1"]
    monkeypatch.undo()
    assert explorer.first.run.wrong == []
    explorer.close()


def test_memory_that_does_not_suffice_is_said(synthetic: Path) -> None:
    database = Database([synthetic])
    with pytest.raises(OutOfMemoryError, match="needed at most 200MB of memory"):
        database.rows("SELECT list(range) FROM range(60000000)")
    database.close()
