"""The index of an SAE: the same however it is cut, in memory that does not grow."""

import shutil
import sqlite3
from pathlib import Path
from threading import Thread

import pandas as pd
import pytest
from explored_runs import SHAPE, Shape, client_of, write_run

from saematch.explorer import catalogue
from saematch.explorer.catalogue import MADE_BY
from saematch.explorer.catalogue_query import read_rows
from saematch.explorer.database import Database, OutOfMemoryError
from saematch.explorer.explorer import Explorer
from saematch.store import build


def indexed(run: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    monkeypatch.setenv("SAEMATCH_CACHE", str(cache))
    return Explorer(run)


@pytest.mark.parametrize("features", [7, 59, 60])
def test_slices_make_the_same_index_as_one(
    features: int, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorers = [indexed(synthetic, tmp_path / "one", monkeypatch)]
    ones = explorers[0].first.of(["0", "1", "3"])
    monkeypatch.setattr(catalogue, "SLICE", features)
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
            raise OutOfMemoryError("takes more than 200MB of memory to read the tables, got: more")
        return whole(self, sql, parameters)  # pyright: ignore

    def starved_too(*_: object) -> None:
        raise OutOfMemoryError("takes more than 200MB of memory to read the tables, got: more")

    monkeypatch.setattr(Database, "write", starved_too)
    monkeypatch.setattr(Database, "rows", starved)
    answer = client_of(explorer).get("/api/features", params={"layer": "1"}).json()
    assert answer["features"] == []
    assert "200MB of memory" in answer["problems"]["1"]
    monkeypatch.undo()
    assert explorer.first.run.wrong == []
    explorer.close()


def test_memory_that_does_not_suffice_is_said(synthetic: Path) -> None:
    database = Database()
    with pytest.raises(OutOfMemoryError, match="takes more than 200MB of memory"):
        database.rows("SELECT list(range) FROM range(60000000)")
    database.close()


def test_two_runs_of_one_process_make_a_shared_index_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", Shape(layers=3, features=1500))
    monkeypatch.setenv("SAEMATCH_CACHE", str(tmp_path / "cache"))
    explorer = Explorer(run, run)
    second = explorer.second
    assert second is not None
    threads = [Thread(target=catalogue.all) for catalogue in (explorer.first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, index in explorer.first.all().items():
        assert second.all()[key] != index or len(read_rows(index, range(1500))) == 1500
        assert len(pd.read_parquet(index)) == 1500
    assert explorer.ask("run", {})["problems"] == []
    answer = explorer.ask("runs", {})
    assert sum(row["differ"] for row in answer["pairs"]) == 0 < answer["pairs"][0]["features"]
    explorer.close()


@pytest.mark.parametrize("suffix", [".parquet", ".rows"])
@pytest.mark.parametrize("left", [0, 50, 9000])
def test_an_index_that_was_cut_short_is_made_again(
    suffix: str, left: int, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = indexed(synthetic, tmp_path, monkeypatch)
    [index] = explorer.first.of(["1"])
    damaged = Path(index).with_suffix(suffix)
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:left])
    assert explorer.ask("path", {"feature": "1/3"})["cards"]
    assert len(damaged.read_bytes()) == len(whole)
    explorer.close()


def test_a_full_disk_is_said(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = indexed(synthetic, tmp_path, monkeypatch)

    def full(path: Path, batches: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(catalogue, "write_rows", full)
    problem = explorer.ask("features", {"layer": "1"})["problems"]["1"]
    assert "disk is full; make room, or set SAEMATCH_CACHE" in problem
    explorer.close()


def test_a_cache_that_cannot_be_written_leaves_nothing_behind(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    explorer = indexed(synthetic, tmp_path / "file" / "cache", monkeypatch)
    assert explorer.ask("features", {"layer": "1"})["features"]
    explorer.close()
    assert not explorer.database.temporary.exists()


@pytest.mark.parametrize("part", MADE_BY)
def test_other_code_makes_other_indexes(
    part: str, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number is raised by hand: a changed source is enough, of each file that decides an index."""
    package = Path(build.__file__).parents[1]
    copy = tmp_path / "saematch"
    for path in {path for one in MADE_BY for path in package.glob(one)}:
        target = copy / path.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    monkeypatch.setattr(build, "__file__", str(copy / "store" / "build.py"))

    def wanted() -> dict[str, str]:
        explorer = indexed(synthetic, tmp_path / "cache", monkeypatch)
        try:
            return {key: path.name for key, path in explorer.first.wanted().items()}
        finally:
            explorer.close()

    before = wanted()
    assert wanted() == before
    changed = next(iter(copy.glob(part)))
    changed.write_text(changed.read_text() + "\n# another rule\n")
    after = wanted()
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
