"""The command: what it prints, how it ends, a server that is really started."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saematch.cli import app


def explore(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from saematch.cli import main; main()", "explore"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


def test_a_server_answers_until_it_is_interrupted(synthetic: Path) -> None:
    command = "from saematch.cli import main; main()"
    server = subprocess.Popen(
        [sys.executable, "-c", command, "explore", str(synthetic), "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    address = server.stdout.readline().split()[0]
    try:
        with urllib.request.urlopen(f"{address}api/run", timeout=30) as reply:
            assert json.load(reply)["suite"] == "synthetic"
        server.send_signal(signal.SIGINT)
        _, error = server.communicate(timeout=20)
        assert "Traceback" not in error
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("named", "paths"), [(["--features", "1/7,0/3"], 2), (["--paths", "3"], 3), ([], 100)]
)
def test_an_export_says_what_it_wrote(
    named: list[str], paths: int, synthetic: Path, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    done = CliRunner().invoke(
        app, ["explore", str(synthetic), "--export", str(file), *named, "--json"]
    )
    assert done.exit_code == 0, done.output
    written = json.loads(done.output)
    assert written["path"] == str(file)
    assert written["bytes"] == os.path.getsize(file)
    assert written["paths"] <= paths
    assert written["features"] >= written["paths"] > 0


def test_what_cannot_be_done_is_said_in_words(synthetic: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for code, words, arguments in (
            (2, "--port 0", [str(synthetic), "--no-browser", "--port", port]),
            (2, "expected --export FILE.html with --features", [str(synthetic), "--features", "1/7"]),
            (2, "expected --export FILE.html with --paths", [str(synthetic), "--paths", "7"]),
            (2, "expected one of the layers", [str(synthetic), "--export", "x.html", "--features", "99/1"]),
            (2, "an .html file", [str(synthetic), "--export", str(tmp_path / "page.txt")]),
            (3, "saematch run", [str(tmp_path), "--no-browser"]),
        ):  # fmt: skip
            done = explore(*arguments)
            assert done.returncode == code, done.stderr
            assert words in done.stderr
            assert "Traceback" not in done.stderr
