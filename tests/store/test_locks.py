"""Locks with and without `flock`: whoever is killed lets go, whoever lives is respected."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from saematch._io import locks
from saematch.errors import InputError
from saematch.store import directory

pytestmark = pytest.mark.skipif(os.name == "nt", reason="flock is of Unix")

PROGRAM = """
import os, sys
number, folder = int(sys.argv[1]), sys.argv[2]
if number:
    import fcntl
    def flock(*arguments):
        raise OSError(number, os.strerror(number))
    fcntl.flock = flock
from pathlib import Path
from saematch.store import directory
with directory.holding(Path(folder)):
    print("held", flush=True)
    sys.stdin.read()
"""
WITHOUT = (0, errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
"""What `flock` answers; 0: it works."""


def start(number: int, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(number), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def held(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


def end(process: subprocess.Popen[str], number: int) -> None:
    process.send_signal(number)
    process.communicate()


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """This process on a file system that answers so."""
    import fcntl

    def refuse(number: int) -> None:
        def flock(*arguments) -> None:
            raise OSError(number, os.strerror(number))

        if number:
            monkeypatch.setattr(fcntl, "flock", flock)

    return refuse


@pytest.mark.parametrize("number", WITHOUT)
def test_a_killed_holder_lets_go_and_a_living_one_does_not(
    number: int, tmp_path: Path, without, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "UNREADABLE_SECONDS", 0.2)
    without(number)
    process = start(number, tmp_path)
    held(process)
    with (
        pytest.raises(InputError, match=f"held by process {process.pid} on .* since 20"),
        directory.holding(tmp_path),
    ):
        pass
    end(process, signal.SIGKILL)
    with directory.holding(tmp_path):
        assert json.loads((tmp_path / ".holder").read_text())["pid"] == os.getpid()
    assert {path.name for path in tmp_path.iterdir()} <= set(directory.LOCK_NAMES)
    assert not (tmp_path / locks.MARKER_NAME).exists()


def test_a_marker_that_a_kill_cut_off_is_broken(tmp_path: Path, without) -> None:
    without(errno.ENOLCK)
    for text in ("12", json.dumps({"pid": 1, "host": "x"})):
        (tmp_path / locks.MARKER_NAME).write_text(text)
        with locks.holding(tmp_path):
            pass


def test_a_marker_that_says_nothing_is_named(
    tmp_path: Path, without, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(errno.ENOLCK)
    monkeypatch.setattr(locks, "UNREADABLE_SECONDS", 0.2)
    (tmp_path / locks.MARKER_NAME).touch()
    with (
        pytest.raises(InputError, match=r"cut off .*delete .*\.lock-marker"),
        directory.holding(tmp_path),
    ):
        pass


def test_a_number_that_another_process_has_by_now_holds_nothing(tmp_path: Path, without) -> None:
    without(errno.ENOSYS)
    process = start(errno.ENOSYS, tmp_path)
    held(process)
    marker = (tmp_path / locks.MARKER_NAME).read_text()
    end(process, signal.SIGKILL)
    # As if this process, which lives, had got the number of the dead one.
    (tmp_path / locks.MARKER_NAME).write_text(
        marker.replace(str(process.pid), str(os.getppid()), 1)
    )
    with locks.holding(tmp_path):
        pass


def test_another_machine_is_believed_and_named(
    tmp_path: Path, without, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(errno.ENOLCK)
    monkeypatch.setattr(locks, "UNREADABLE_SECONDS", 0.2)
    process = start(errno.ENOLCK, tmp_path)
    held(process)
    end(process, signal.SIGKILL)
    for name in (locks.MARKER_NAME, directory.HOLDER_NAME):
        path = tmp_path / name
        path.write_text(path.read_text().replace(socket.gethostname(), "elsewhere"))
    with (
        pytest.raises(InputError, match=r"elsewhere.*another machine.*delete .*\.lock-marker"),
        directory.holding(tmp_path),
    ):
        pass
    (tmp_path / locks.MARKER_NAME).unlink()
    with directory.holding(tmp_path):
        pass


def test_a_link_in_place_of_the_note_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / directory.HOLDER_NAME).symlink_to(tmp_path / "victim")
    with directory.holding(tmp_path / "run"):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
