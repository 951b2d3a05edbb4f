"""A language model describes and judges a run's features, through the command line and a real socket."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from described_runs import SMALL
from scripted_server import Asked, Say, label, serving
from typer.testing import CliRunner

from saematch.cli import app
from saematch.models import LanguageModel
from saematch.pipelines import open_run
from saematch.pipelines.describe import describe
from saematch.store.judge_results import judged_by
from saematch.store.tables import descriptions_of

pytestmark = pytest.mark.usefixtures("plain_report")
SECRET = "sk-secret-0123456789"


@pytest.fixture
def directory(described_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SOME_KEY", SECRET)
    return Path(shutil.copytree(described_run, tmp_path / "run"))


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code or (code and done.exception is not None), done.output
    return done.output + str(done.exception or "")


def say(asked: Asked) -> Say:
    pair = asked.pair
    same = set(pair["first"].split("'")) & set(pair["second"].split("'"))
    return label("SAME" if len(same) > 3 else "DIFFERENT")


def test_judged_by_a_server(directory: Path) -> None:
    flags = ("--samples", "8", "--controls", "8", "--model", "m/1", "--key-variable", "SOME_KEY")
    prices = ("--prompt-price", "1", "--completion-price", "2")
    with serving(say) as server:
        url = ("--base-url", server.url)
        refused = call("judge", str(directory), *flags, *url, code=2)
        assert "--yes" in refused
        assert not server.asked  # nobody agreed
        short = call(
            "judge", str(directory), *flags, *url, *prices, "--yes", "--max-calls", "10", code=1
        )
        assert "budget" in short
        assert len(server.asked) == 10
        call("judge", str(directory), *flags, *url, *prices, "--yes")
        pairs = [json.dumps(asked.pair) for asked in server.asked]
        assert len(set(pairs)) == len(pairs)  # nothing is paid for twice
        output = call("judge", str(directory), *flags, *url, *prices, "--yes", "--json")
        assert len(server.asked) == len(pairs)
    found = judged_by(open_run(directory), "layers", "llm-m-1")
    assert json.loads(output[output.index("{") :])["about"]["judge"] == "llm-m-1"
    answers = pq.read_table(directory / "judgements.parquet").to_pandas()
    assert set(answers["outcome"]) == {"judged"}
    assert (answers["cost"] > 0).all()
    assert answers["prompt"].str.contains("descriptions").all()
    assert found.span("mean", "folded") is not None
    for path in directory.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()


def test_explained_by_a_server_then_judged(directory: Path) -> None:
    flags = ("--samples", "8", "--controls", "4", "--pairs", "3,4", "--model", "writer")
    asked: list[str] = []

    def write(one: Asked) -> Say:
        asked.append(one.user)
        assert "<<" in one.user
        assert '"promoted": []' in one.user  # they are no evidence of either half
        return Say('{"description": "thing ' + str(len(asked)) + '"}')

    with serving(write) as server:
        call("explain", str(directory), *flags, "--base-url", server.url, "--yes")
        count = len(asked)
        assert len(set(asked)) == count  # equal examples of several features are asked about once
        call("explain", str(directory), *flags, "--base-url", server.url, "--yes")
        assert len(asked) == count
    run = open_run(directory)
    halves = [descriptions_of(run, f"model-{half}", "3") for half in (0, 1)]
    assert all(one is not None and one.count for one in halves)
    assert descriptions_of(run, "model", "3").descriptions[0].explainer == "writer"
    with serving(lambda _: label("MAYBE")) as server:
        url = ("--base-url", server.url, "--descriptions", "model", "--yes")
        call("judge", str(directory), *flags, *url)
        assert all(one.pair["first"].startswith("thing") for one in server.asked)
    sample = pq.read_table(directory / "judging/layers/sample.parquet").to_pandas()
    assert (sample["kind"] == "same").any()
    assert "4 controls of a kind" in judged_by(open_run(directory), "layers", "llm-writer").verdict
    # Another experiment's descriptions come next to those that are there.
    before = {
        half: descriptions_of(open_run(directory), f"model-{half}", "3").texts for half in (0, 1)
    }
    with serving(write) as server:
        mse = ("--experiment", "mse", "--samples", "12", "--controls", "4", "--pairs", "3,4")
        flags = (*mse, "--model", "writer", "--base-url", server.url, "--yes")
        call("explain", str(directory), *flags)
    for half, texts in before.items():
        after = descriptions_of(open_run(directory), f"model-{half}", "3").texts
        assert texts.items() <= after.items()


def test_descriptions_of_other_examples_or_of_two_writers_are_not_judged(
    directory: Path, described_model: LanguageModel
) -> None:
    def write(one: Asked) -> Say:
        return Say(json.dumps({"description": f"thing {len(one.user)}"}))

    flags = ("--samples", "8", "--controls", "4", "--pairs", "3,4;4,5", "--yes")
    with serving(write) as server:
        url = ("--base-url", server.url)
        call("explain", str(directory), *flags, *url, "--model", "A")
        cut = call(
            "explain", str(directory), *flags, *url, "--model", "B", "--max-calls", "30",
            "--concurrency", "1", code=1,
        )  # fmt: skip
        assert "budget" in cut
        ask = ("judge", str(directory), *flags, *url, "--model", "J", "--descriptions", "model")
        assert "by one writer, got those of" in call(*ask, code=3)
        # Of layers that only calibration asks about another writer's do not matter to a language model.
        call("explain", str(directory), *flags[:4], "--pairs", "3,4", "--yes", *url, "--model", "B")
        with serving(lambda _: label("MAYBE")) as judges:
            call("judge", str(directory), *flags[:4], "--pairs", "3,4", "--yes", "--base-url",
                 judges.url, "--model", "J", "--descriptions", "model")  # fmt: skip
        describe(directory, replace(SMALL, corpora=("wiki",)), model=described_model)
        assert "these have changed since" in call(*ask, code=3)


def test_what_failed_is_asked_again(directory: Path) -> None:
    flags = ("--samples", "8", "--controls", "4", "--pairs", "3,4", "--model", "m", "--yes")
    with serving(lambda asked: Say(status=400) if asked.times == 1 else label("SAME")) as server:
        url = ("--base-url", server.url)
        stopped = call("judge", str(directory), *flags, *url, "--concurrency", "1", code=1)
        assert "failures in a row" in stopped
        failed = len(server.asked)
    with serving(lambda _: label("SAME")) as server:
        call("judge", str(directory), *flags, "--base-url", server.url)
        assert len(server.asked) >= failed
    answers = pq.read_table(directory / "judgements.parquet").to_pandas()
    assert set(answers["outcome"]) == {"judged"}


def test_bad_input(directory: Path) -> None:
    assert "--model" in call("judge", str(directory), "--judge", "llm", code=2)
    both = call("judge", str(directory), "--model", "m", "--by-hand", code=2)
    assert "expected one judge" in both
    prices = call("judge", str(directory), "--model", "m", "--prompt-price", "1", code=2)
    assert "--completion-price" in prices


POISON = '{"reason": "half \\ud83d \\u0000 \\u001b[2J", "label": "SAME"}'


def test_half_an_emoji_in_a_reply_stops_neither_this_judge_nor_another(directory: Path) -> None:
    flags = ("--samples", "4", "--controls", "4", "--pairs", "3,4", "--yes")
    with serving(lambda _: Say(POISON)) as server:
        call("judge", str(directory), *flags, "--model", "m", "--base-url", server.url)
    log = directory / "judging/journal.jsonl"
    # As 0.1.0 left it: the half character escaped, and half a line at the end.
    log.write_bytes(log.read_bytes().replace(b"\\ufffd", b"\\ud83d") + b'{"judge": "x", "ques')
    with serving(say) as server:
        call("judge", str(directory), *flags, "--model", "other", "--base-url", server.url)
    answers = pq.read_table(directory / "judgements.parquet").to_pandas()
    assert set(answers["judge"]) == {"llm-m", "llm-other"}
    assert set(answers.loc[answers["judge"] == "llm-m", "label"]) == {"SAME"}
    assert answers["reason"].str.contains("half \ufffd").any()
    assert "\x1b" not in (directory / "report.html").read_text()


@pytest.mark.parametrize("command", ["judge", "explain"])
def test_no_usable_answer_at_all_is_no_success(directory: Path, command: str) -> None:
    flags = ("--samples", "4", "--controls", "4", "--pairs", "3,4", "--yes", "--model", "m")
    with serving(lambda _: Say("", finish="length")) as server:
        url = ("--base-url", server.url)
        said = call(command, str(directory), *flags, *url, code=1)
        assert "thinking" in said
        assert "--max-tokens" in said  # and the flag that it names is there
        again = call(command, str(directory), *flags, *url, code=1)
        assert "thinking" in again
    answer = say if command == "judge" else lambda _: Say('{"description": "rivers"}')
    with serving(answer) as server:
        url = ("--base-url", server.url)
        call(command, str(directory), *flags, *url, "--max-tokens", "4000")
        assert {one.body["max_tokens"] for one in server.asked} <= {4000}
