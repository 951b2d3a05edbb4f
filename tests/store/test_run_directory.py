"""Files that are whole or not there, one holder at a time, and nothing altered goes unnoticed."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import Effects, Memory, contents, real_fsync
from run_fixtures import run_and_report

from saematch._io import files
from saematch.configs import RunConfig
from saematch.errors import InputError, UsageError
from saematch.store.directory import RunDirectory
from saematch.store.reader import open_run

pytestmark = pytest.mark.usefixtures("plain_report")


@pytest.fixture
def finished(suite: Path, tmp_path: Path, memory: Memory) -> Path:
    run_and_report(config_of(suite), tmp_path / "run", execute=memory)
    return tmp_path / "run"


def let_settle(folder: Path) -> None:
    """Wait until the times of all files say that nothing changed since."""
    files_there = [path for path in folder.rglob("*") if path.is_file()]
    while not all(files.Stamp.of(path).is_settled(files.now_ns()) for path in files_there):
        time.sleep(0.1)


def config_of(suite: Path, **changes) -> RunConfig:
    values = {"strategies": "folded,cosine", "candidates": 2, "far": "3,5", **changes}
    return RunConfig.from_dict({"suite": str(suite), **values})


KINDS = (
    "manifest.json",
    "matchings/folded/decoder+encoder+bias/3--4.parquet",
    "matchings/cosine/decoder+encoder+bias/4--5.parquet",
    "matchings/composition/decoder+encoder+bias/3--5.parquet",
    "matchings/cosine_composition/decoder+encoder+bias/3--5.parquet",
    "candidates/3--4.parquet",
    "paths.parquet",
    "fates/3--4.parquet",
    "followed.parquet",
    "evaluation/compared/3--4.parquet",
    "evaluation/measures/weights.parquet",
    "evaluation/measures/consistency-3--4.parquet",
    "evaluation/measures.parquet",
    "report.html",
)


@pytest.mark.parametrize("damage", ["altered", "cut short", "empty"])
def test_damage_in_every_kind_of_file_is_found_and_named(
    suite: Path, finished: Path, memory: Memory, damage: str
) -> None:
    whole = contents(finished)
    # Every file of the directory is of one of the kinds.
    folders = {name.rpartition("/")[0] for name in KINDS}
    assert {name.rpartition("/")[0] for name in whole} == folders
    for name in KINDS:
        path = finished / name
        before = path.read_bytes()
        middle = len(before) // 2
        flipped = before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :]
        path.write_bytes({"altered": flipped, "cut short": before[:-1], "empty": b""}[damage])
        if name.endswith(".json"):
            with pytest.raises(InputError, match=re.escape(name)):
                open_run(finished)
        else:
            with pytest.raises(InputError, match=re.escape(name)):
                open_run(finished).directory.read(name)
        with pytest.raises(InputError, match="delete that file") as caught:
            run_and_report(config_of(suite), finished, execute=memory)
        assert str(path) in str(caught.value)
        path.unlink()
        run_and_report(config_of(suite), finished, execute=memory)
        assert contents(finished) == whole, name


def test_a_finished_run_is_not_touched(suite: Path, finished: Path, memory: Memory) -> None:
    let_settle(suite)
    run_and_report(config_of(suite), finished, execute=memory)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    memory.executed.clear()
    with Effects().installed() as effects:
        run_and_report(config_of(suite), finished, execute=memory)
    assert memory.executed == []
    assert set(effects.done) == {"write_holder"}
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    del before[finished / ".holder"], after[finished / ".holder"]
    assert after == before


def test_a_second_process_is_told_who_holds_the_directory(suite: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from saematch.store.directory import RunDirectory\n"
        "with RunDirectory(sys.argv[1]).holding():\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"held by process {other.pid} on .* since 20"):
            run_and_report(config_of(suite), tmp_path / "run")
        other.kill()
    # The lock of a killed process is free.
    with RunDirectory(tmp_path / "run").holding():
        holder = json.loads((tmp_path / "run" / ".holder").read_text())
    assert holder["pid"] == os.getpid()


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    again = RunDirectory(tmp_path / "run").holding()
    with (
        RunDirectory(tmp_path / "run").holding(),
        pytest.raises(InputError, match=f"process {os.getpid()}"),
        again,
    ):
        pass


def test_a_full_disk_names_the_file_and_keeps_what_was_finished(
    suite: Path, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_report(config_of(suite), tmp_path / "whole", execute=memory)
    for effect in ("write", "fsync", "rename"):
        directory = tmp_path / effect
        original = getattr(files, effect)
        calls = 0

        def full(*arguments) -> None:
            nonlocal calls
            calls += 1
            if calls > 9:
                if len(arguments) == 2 and isinstance(arguments[1], bytes):
                    original(arguments[0], arguments[1][:10])  # noqa: B023
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(*arguments)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(files, effect, full)
            with pytest.raises(InputError, match="No space left on device") as caught:
                run_and_report(config_of(suite), directory, execute=memory)
        assert str(directory) in str(caught.value)
        assert not list(directory.rglob("*.partial"))
        assert open_run(directory).manifest["outputs"], "what was finished is there"
        for name in open_run(directory).directory.names():
            open_run(directory).directory.read(name)
        run_and_report(config_of(suite), directory, execute=memory)
        assert contents(directory) == contents(tmp_path / "whole")


def test_a_folder_of_something_else_is_left_alone(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        run_and_report(config_of(suite), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="got a file"):
        run_and_report(config_of(suite), tmp_path / "thesis.tex")


def test_another_suite_does_not_overwrite_a_run(
    suite: Path, finished: Path, tmp_path: Path, memory: Memory
) -> None:
    from tiny_suites import write_suite

    other = write_suite(tmp_path / "other", seed=5)
    whole = contents(finished)
    with pytest.raises(UsageError, match="give another directory"):
        run_and_report(config_of(other), finished)
    assert contents(finished) == whole
    # The same suite at another place is the same suite.
    moved = shutil.copytree(suite, tmp_path / "moved")
    memory.executed.clear()
    run_and_report(config_of(moved), finished, execute=memory)
    assert memory.executed == []


def test_a_newer_schema_is_refused(finished: Path) -> None:
    from saematch.store.manifest import decode_manifest, encode_manifest

    path = finished / "manifest.json"
    content = decode_manifest(path.read_bytes(), path)
    path.write_bytes(encode_manifest({**content, "schema_version": 99}))
    with pytest.raises(InputError, match="schema 99"):
        open_run(finished)


def test_links_left_by_strangers_are_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".paths.parquet.partial").symlink_to(victim)
    (tmp_path / "paths.parquet").symlink_to(victim)
    files.write_atomically(tmp_path / "paths.parquet", b"new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "paths.parquet").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", "a/../../b"])
def test_names_do_not_lead_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected the name of a file"):
        RunDirectory(tmp_path).file(name)


def test_fsync_takes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    real_fsync(tmp_path / "file")
    real_fsync(tmp_path)
    with pytest.raises(FileNotFoundError):
        real_fsync(tmp_path / "missing")


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a run directory"):
        open_run(tmp_path / "nothing")
