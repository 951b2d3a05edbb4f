"""The protocol against a real server with a real model: `transformers serve` and SmolLM2-135M-Instruct.

It says nothing of quality: a model of this size follows no rubric.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from saematch.models.smollm2 import smollm2_checkpoint
from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import Conversation, Reply
from saematch.semantics.explaining import explain
from saematch.semantics.judges.judge import Judgement, Outcome, Question
from saematch.semantics.judges.llm import LLMJudge

STARTING = 240.0
"""Seconds; about 12 on an idle machine."""
pytestmark = pytest.mark.timeout(STARTING + 360)


@pytest.fixture(scope="module")
def model() -> str:
    return str(smollm2_checkpoint())


@pytest.fixture(scope="module")
def url(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(sys.executable).with_name("transformers")
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [str(script), "serve", model, *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


def _wait(server: "subprocess.Popen[bytes]", health: str, log: Path) -> None:
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_replies_come_with_their_counts(url: str, model: str, stream: bool) -> None:
    chat = Chat(model, url, stream=stream, concurrency=4, max_tokens=6, timeout=120.0)
    words = ("red", "blue", "green", "black", "white")
    conversations = [Conversation("Repeat the word.", word) for word in words]
    kept: dict[int, Reply] = {}
    chat.ask(conversations, kept.__setitem__, schema={"type": "object"})
    assert sorted(kept) == list(range(len(words)))
    for reply in kept.values():
        assert reply.failure == ""
        assert reply.text
        assert reply.model == model
        assert reply.attempts == 1
        assert reply.prompt_tokens is not None
        assert reply.prompt_tokens > 10
        assert reply.completion_tokens is not None
        assert 1 <= reply.completion_tokens <= 6
    assert chat.spent.calls == len(words)
    assert chat.spent.tokens.completion == sum(one.completion_tokens or 0 for one in kept.values())
    # Releases differ in whether they ignore structured output or refuse it; both are to work.
    assert chat.refused <= {"response_format", "stream_options"}


def test_plain_and_streamed_replies_are_the_same(url: str, model: str) -> None:
    texts = []
    for stream in (False, True):
        chat = Chat(model, url, stream=stream, max_tokens=8, timeout=120.0)
        chat.ask(
            [Conversation("You are brief.", "Name a colour.")], lambda _, r: texts.append(r.text)
        )
    assert texts[0] == texts[1]


def test_every_question_ends_as_judged_or_unreadable(url: str, model: str) -> None:
    questions = [Question("names of rivers", "rivers of Asia"), Question("the digit 7", "grief")]
    kept: dict[int, Judgement] = {}
    chat = Chat(model, url, concurrency=4, max_tokens=8, timeout=120.0)
    LLMJudge(chat, attempts=1).judge(questions, kept.__setitem__)
    assert sorted(kept) == [0, 1]
    for judgement in kept.values():
        assert judgement.outcome in (Outcome.JUDGED, Outcome.UNREADABLE)
        assert (judgement.label is not None) == (judgement.outcome is Outcome.JUDGED)
        assert judgement.reply


def test_a_description_is_written_or_said_to_be_unreadable(url: str, model: str) -> None:
    kept: dict[int, Judgement] = {}
    example = [(" to", 0.0), (" Paris", 3.0), (" and", 0.0), (" Rome", 2.0)]
    chat = Chat(model, url, max_tokens=16, timeout=120.0)
    explain(chat, [[example]], kept.__setitem__, attempts=1)
    assert kept[0].outcome in (Outcome.JUDGED, Outcome.UNREADABLE)
    assert kept[0].label is None
    assert kept[0].reason


def test_a_model_that_is_not_there_is_a_failure_with_the_servers_words(url: str) -> None:
    kept: dict[int, Reply] = {}
    Chat("nobody/nothing", url).ask([Conversation("", "Hello")], kept.__setitem__)
    assert "nobody/nothing" in kept[0].failure
