"""Names of language models as trainers record them, and the Hub when it does not answer well."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saematch.errors import InputError
from saematch.loading import hub
from saematch.loading.model_names import REPOSITORIES, hub_name, same_model
from saematch.loading.registry import read_registry


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ("gemma-v3-1b-pt", "google/gemma-3-1b-pt"),
        ("gemma-v3-270m-pt", "google/gemma-3-270m"),
        ("gemma-3-270m", "google/gemma-3-270m"),
        ("gemma-2-2b", "google/gemma-2-2b"),
        ("gpt2-small", "gpt2"),
        ("openai-community/gpt2", "gpt2"),
        ("SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("Llama3_1-8B-Base", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("qwen3-0.6b", "Qwen/Qwen3-0.6B"),
        ("mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("somebody/own-model", "somebody/own-model"),
    ],
)
def test_names_of_trainers_are_repositories(recorded: str, expected: str) -> None:
    assert hub_name(recorded) == expected
    assert hub_name(recorded.upper()).lower() == expected.lower()
    assert same_model(recorded, expected)


def test_every_model_of_saelens_registry_has_a_repository() -> None:
    for model in {one["model"] for one in read_registry().values()}:
        assert hub_name(model) in REPOSITORIES


def test_no_two_repositories_are_one_model() -> None:
    assert len({hub_name(name) for name in REPOSITORIES}) == len(REPOSITORIES)
    assert not same_model("gemma-2-2b", "google/gemma-2-2b-it")
    assert not same_model("gemma-2-2b-it", "/models/google/gemma-2-2b")
    assert same_model("gemma-2-2b", "/cache/models--google--gemma-2-2b/snapshots/0ab1")
    assert same_model("gemma-2-2b", "/somewhere/else")


class Hub:
    """A server in the Hub's place that answers everything the same way; `hangs`: all but its first page;
    `listing`: what it says of a repository, well."""

    def __init__(
        self, status: int, body: bytes, kind: str, hangs: bool = False, listing: bytes = b""
    ) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if hangs and self.path != "/":
                    time.sleep(60)
                listed = bool(listing) and self.path.startswith("/api/models/")
                self.send_response(200 if listed else status)
                said = listing if listed else body
                if status in (429, 503) and not listed:
                    self.send_header("Retry-After", "60")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(said)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


ASK = """
import sys, warnings
from saematch.errors import InputError
from saematch.models import load_language_model
from saematch.loading import hub
from saematch.loading.hub import download, list_files
hub.REACH_SECONDS = 1.0
import transformers, huggingface_hub, httpx, time
start = time.monotonic()
for ask in (lambda: list_files("me/saes"), lambda: download("me/saes", "cfg.json")):
    try:
        print("got", ask())
    except InputError as error:
        print("refused", str(error).replace(chr(10), " "))
try:
    load_language_model("me/saes")
except InputError as error:
    print("no model:", str(error).replace(chr(10), " "))
print("seconds", time.monotonic() - start)
"""


def ask(tmp_path: Path, cached: bool, **settings: str) -> tuple[str, str]:
    if cached:
        folder = tmp_path / "hub" / "models--me--saes"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "snapshots" / "abc" / "cfg.json").write_text(json.dumps({}))
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
    environment = {
        **os.environ, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", **settings,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=90
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("status", [401, 200])
def test_the_cached_file_while_the_hub_refuses(tmp_path: Path, status: int) -> None:
    body = b"<!DOCTYPE html><html>sign in</html>"
    url = Hub(status, body, "text/html").url
    out, said = ask(tmp_path, True, HF_ENDPOINT=url)
    assert "got ('cfg.json',)" in out
    assert out.count("got") == 2
    assert "Traceback" not in said
    out, said = ask(tmp_path / "empty", False, HF_ENDPOINT=url)
    assert out.count("\nrefused") + out.startswith("refused") == 2
    assert "Traceback" not in said


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("state", ["429", "503", "hangs", "refuses", "offline"])
def test_nothing_waits_for_a_hub_that_does_not_serve(
    tmp_path: Path, state: str, cached: bool
) -> None:
    """Neither the Hub's `Retry-After` of a minute nor huggingface_hub's own repetitions."""
    served = Hub(int(state) if state.isdigit() else 200, b"", "text/plain", state == "hangs").url
    url = "http://127.0.0.1:9" if state == "refuses" else served
    offline = "1" if state == "offline" else "0"
    out, said = ask(tmp_path, cached, HF_ENDPOINT=url, HF_HUB_OFFLINE=offline)
    assert out.count("got") == (2 if cached else 0), out
    assert out.count("no model: there is no folder 'me/saes'") == 1
    # The server hangs for a minute: far less says that nobody waited, on busy cores too.
    assert float(out.split()[-1]) < 30, out
    assert "Traceback" not in said
    assert "etry" not in said


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_lists_a_file_and_is_too_busy_to_serve_it(tmp_path: Path, status: int) -> None:
    listing = json.dumps({"id": "me/saes", "siblings": [{"rfilename": "cfg.json"}]}).encode()
    url = Hub(status, b"", "application/json", listing=listing).url
    out, said = ask(tmp_path, False, HF_ENDPOINT=url)
    assert "got ('cfg.json',)" in out
    expected = f"'cfg.json' of me/saes: the Hub answers {status} for now; try again in 60 seconds"
    assert f"refused {expected}\n" in out
    assert "no model: " in out
    assert float(out.split()[-1]) < 10, out  # on a busy machine too
    assert "Traceback" not in said


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_the_cached_file_is_taken_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, response: Callable[[int], object], status: int
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        raise errors.HfHubHTTPError("refused", response=response(status))  # pyright: ignore

    (tmp_path / "cfg.json").write_text("{}")
    for name in ("_asked", "_check_served"):
        monkeypatch.setattr(hub, name, lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    kept = str(tmp_path / "cfg.json")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: kept)
    with pytest.warns(UserWarning, match=f"from the cache: the Hub answers {status}"):
        assert hub.download("me/saes", "cfg.json") == Path(kept)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(InputError, match=r"Hub answers|was refused"):
        hub.download("me/saes", "cfg.json")


def test_a_page_is_not_taken_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "cfg.json").write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE HTML><title>Sign in</title>")
    with pytest.raises(InputError, match="got an HTML page"):
        hub._check_no_page(tmp_path / "cfg.json", "me/saes", "cfg.json")


def test_a_hub_that_hangs_or_refuses_is_given_up_after_three_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], 9):
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
            start = time.monotonic()
            assert not hub.hub_is_reachable()
            assert time.monotonic() - start < 3.5
            start = time.monotonic()
            assert not hub.hub_is_reachable()  # and the answer stands for a while
            assert time.monotonic() - start < 0.1
    monkeypatch.setattr(constants, "ENDPOINT", Hub(503, b"", "text/plain").url)
    assert hub.hub_is_reachable()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not hub.hub_is_reachable()
