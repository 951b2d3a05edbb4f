"""Whatever the system refuses is said in words, with the path and the reason, and ends with exit code 3."""

import contextlib
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from described_runs import SMALL
from tiny_suites import write_suite

import saematch
from saematch._io import files
from saematch.configs import EvaluationConfig
from saematch.errors import InputError, SaematchError
from saematch.loading import inspect_sae, load_sae, load_suite
from saematch.models.corpora import load_corpus
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.describe import describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.rendering import draw_figures
from saematch.store.directory import RunDirectory

KINDS = ("too long", "nobody", "loop", "below a file", "a file", "a folder")
SUITE = "bundled:smollm2-135m"


@pytest.fixture
def place(tmp_path: Path):
    """A path of a kind that cannot be used."""

    def of(kind: str) -> Path:
        (tmp_path / "file").write_text("text")
        if kind == "loop":
            (tmp_path / "one").symlink_to(tmp_path / "two")
            (tmp_path / "two").symlink_to(tmp_path / "one")
        return {
            "too long": tmp_path / ("x" * 300),
            "nobody": Path("~nobody-there") / "x",
            "loop": tmp_path / "one",
            "below a file": tmp_path / "file" / "x",
            "a file": tmp_path / "file",
            "a folder": tmp_path,
        }[kind]

    return of


def explorer(path: str) -> None:
    from saematch.explorer.explorer import Explorer

    Explorer(Path(path)).close()


READERS = {
    "load_sae": load_sae, "load_suite": load_suite, "inspect_sae": inspect_sae, "open_run": open_run,
    "from_toml": RunConfig.from_toml, "explorer": explorer, 
    "describe": lambda path: describe(path, SMALL),
    "evaluate": lambda path: evaluate(path, EvaluationConfig()),
    "draw": draw_figures,
    "load_corpus": lambda path: load_corpus(path, 3),
    "saematch.load_sae": saematch.load_sae,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_readers(reader: str, kind: str, place) -> None:
    if (reader, kind) == ("load_corpus", "a file"):
        return  # which is text
    if (reader, kind) == ("load_corpus", "a folder"):
        return  # which holds text
    path = place(kind)
    with pytest.raises(SaematchError) as caught:
        READERS[reader](str(path))
    assert path.name[:100] in str(caught.value) or str(path)[:100] in str(caught.value)


@pytest.mark.parametrize("kind", KINDS[:5])
def test_where_a_run_is_to_be_written(kind: str, place) -> None:
    with (
        pytest.raises(SaematchError, match=r"expected|could not"),
        RunDirectory(place(kind)).holding(),
    ):
        pass


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.EIO, errno.EACCES]
)
def test_an_error_amid_a_stage(number: int, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")

    def failing(*arguments):
        raise OSError(number, os.strerror(number), "/some/file")

    with pytest.raises(InputError) as caught:
        run(RunConfig(str(suite), strategies=("folded",)), tmp_path / "run", execute=failing)
    assert f"/some/file: {os.strerror(number)}" in str(caught.value)


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "from saematch.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )


def test_the_command_line(
    tmp_path: Path, place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saematch.cli import main

    long, loop = str(place("too long")), str(tmp_path / "one")
    place_of_loop = place("loop")
    assert str(place_of_loop) == loop
    for arguments in (
        ("inspect", long),
        ("match", "~nobody-there/x", f"{SUITE}/12"),
        ("export", loop),
        ("explore", loop, "--no-browser"),
        ("run", "--suite", SUITE, "--out", f"{tmp_path}/file/x", "--layers", "12-13"),
    ):
        monkeypatch.setattr(sys, "argv", ["saematch", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr().err
        assert stopped.value.code == 3, (arguments, said)
        assert "saematch: " in said
        assert "Traceback" not in said


def test_a_raw_error_anywhere_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saematch import cli

    def failing(*arguments, **keywords):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/root/secret")

    monkeypatch.setattr("saematch.loading.inspect_sae", failing)
    monkeypatch.setattr(sys, "argv", ["saematch", "inspect", "x"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 3
    assert "could not use the file /root/secret: Permission denied; " in capsys.readouterr().err


def test_no_more_files_may_be_opened(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    sae = str(next(path for path in suite.iterdir() if path.is_dir()))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, before[1])
        )
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(InputError, match="Too many open files"):
            load_sae(sae)
        with pytest.raises(InputError, match="Too many open files"):
            files.write_atomically(tmp_path / "new", b"")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    program = "from saematch.cli import main; main()"
    shown = subprocess.run(
        f"'{sys.executable}' -c '{program}' --help | head -c 1; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in shown.stderr


def test_nothing_asked_shows_the_help_and_no_empty_error() -> None:
    done = cli()
    assert done.returncode == 2
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(("command", "kept"), [("match", False), ("run", True), ("judge", True)])
def test_an_interrupt_says_what_is_kept_where_something_is(
    command: str, kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import saematch.cli as entry
    from saematch import cli

    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["saematch", "--debug", command, "x"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    assert ("is kept" in capsys.readouterr().err) is kept
