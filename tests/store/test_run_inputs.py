"""Whatever happens to a checkpoint between two runs, the second notices, or it cost a hash."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from killing import Memory, contents
from run_fixtures import run_and_report
from test_run_directory import config_of, let_settle

from saematch._io import files
from saematch.errors import InputError
from saematch.pipelines.suite import hash_sources
from saematch.store import manifest as manifests
from saematch.store.reader import open_run

pytestmark = pytest.mark.usefixtures("plain_report")


class Entry:
    def __init__(self, folder: Path) -> None:
        self.reference = str(folder)


@pytest.fixture
def checkpoint(suite: Path, tmp_path: Path) -> Path:
    """A copy of an SAE's folder."""
    source = next(path for path in sorted(suite.iterdir()) if path.is_dir())
    return Path(shutil.copytree(source, tmp_path / "sae"))


def weights_of(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def flip_by_rename(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    flip(other)
    os.replace(other, path)


@pytest.mark.parametrize("times", ["same", "epoch", "one", "future", "left"])
@pytest.mark.parametrize("rewrite", [flip, flip_by_rename])
@pytest.mark.parametrize("settled", [False, True])
def test_a_rewrite_is_noticed_whatever_its_times_say(
    checkpoint: Path, times: str, rewrite, settled: bool
) -> None:
    path = weights_of(checkpoint)
    stamps = {"epoch": (0, 0), "one": (10**9, 10**9), "future": (1 << 62, 1 << 62)}
    if times in stamps:
        os.utime(path, ns=stamps[times])
    if settled and times != "future":
        let_settle(checkpoint)
    before = path.stat()
    hashes, seen = hash_sources(Entry(checkpoint), {})  # type: ignore[arg-type]
    rewrite(path)
    if times != "left":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _ = hash_sources(Entry(checkpoint), seen)  # type: ignore[arg-type]
    assert again[path.name] == files.sha256(path.read_bytes()) != hashes[path.name]


def test_hashes_are_taken_once_where_times_can_be_trusted(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = files.sha256_of_file
    monkeypatch.setattr(files, "sha256_of_file", lambda path: (hashed.append(path), real(path))[1])
    let_settle(checkpoint)
    hashes, seen = hash_sources(Entry(checkpoint), {})  # type: ignore[arg-type]
    first = len(hashed)
    assert first == len(hashes)
    assert hash_sources(Entry(checkpoint), seen) == (hashes, seen)  # type: ignore[arg-type]
    assert len(hashed) == first
    os.utime(weights_of(checkpoint), ns=(10**9, 10**9))  # a package store
    let_settle(checkpoint)
    _, seen = hash_sources(Entry(checkpoint), seen)  # type: ignore[arg-type]
    hash_sources(Entry(checkpoint), seen)  # type: ignore[arg-type]
    assert len(hashed) == first + 2


@pytest.mark.parametrize(
    ("modified", "changed", "trusted"),
    [
        (1.7e18 + 1, 1.7e18 + 1, True),
        (1e9, 1.7e18 + 1, False),  # a package store
        (0, 0, False),
        (1.6e18, 1.6e18, False),  # an image: whole seconds
        (1.7e18 + 1, 1.75e18 - 1e9, False),  # just now
        (1.7e18 + 1, 1.8e18 + 1024, False),  # a clock that was set back
    ],
)
def test_which_times_are_trusted(modified: float, changed: float, trusted: bool) -> None:
    stamp = files.Stamp(1, int(modified), int(changed) | (1 if changed != 1.6e18 else 0), 1, 1)
    if os.name != "nt":
        assert stamp.is_trusted(int(1.75e18)) is trusted


def test_what_was_kept_stays_under_the_versions_that_made_it(
    suite: Path, tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    run_and_report(config_of(suite), directory, execute=memory)
    let_settle(suite)
    run_and_report(config_of(suite), directory, execute=memory)
    first = contents(directory)
    before = open_run(directory).manifest
    ours = manifests.package_versions()
    assert before["packages"] == {manifests.packages_name(): ours}

    other = {**ours, "torch": "99.0", "numpy": "98.0"}
    for module in (manifests, __import__("saematch.store.directory", fromlist=["_"])):
        monkeypatch.setattr(module, "package_versions", lambda: other)
    assert run_and_report(config_of(suite), directory, execute=memory).manifest == before
    assert contents(directory) == first

    after = run_and_report(config_of(suite, candidates=3), directory, execute=memory).manifest
    made_by = {name: after["packages"][one["packages"]] for name, one in after["outputs"].items()}
    assert {name for name, versions in made_by.items() if versions == other} == {
        "candidates/3--4.parquet",
        "candidates/4--5.parquet",
        "candidates/3--5.parquet",
        "report.html",
    }
    assert all(versions in (ours, other) for versions in made_by.values())
    assert manifests.made_with(after) == [other, ours] or manifests.made_with(after) == [
        ours,
        other,
    ]
    # Once nothing is left of the first versions, they are not named.
    shutil.rmtree(directory)
    assert list(
        run_and_report(config_of(suite), directory, execute=memory).manifest["packages"].values()
    ) == [other]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_fsync_folders_refuses_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from killing import real_fsync

    system = os.fsync

    def refusing(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        system(descriptor)

    monkeypatch.setattr(files, "fsync", real_fsync)
    monkeypatch.setattr(os, "fsync", refusing)
    files.write_atomically(tmp_path / "new" / "file", b"bytes")
    assert (tmp_path / "new" / "file").read_bytes() == b"bytes"
    # Of a file it is an error still, and so is a disk that fails.
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(number, "x")))
    with pytest.raises(InputError):
        files.write_atomically(tmp_path / "other", b"bytes")


def test_a_folder_on_a_failing_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from killing import real_fsync

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        real_fsync(tmp_path)
