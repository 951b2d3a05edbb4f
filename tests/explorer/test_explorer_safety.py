"""Strangers: their requests, and their run directories."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from explored_runs import PORT, Shape, client_of, write_run
from starlette.testclient import TestClient

from saematch.errors import InputError
from saematch.explorer.explorer import Explorer
from saematch.store.manifest import encode_manifest

QUESTIONS = {
    "features": (
        "text",
        "activates_on",
        "top_logits",
        "feature",
        "layer",
        "status",
        "label",
        "strategy",
        "differs",
        "certain",
        "mse_min",
        "mse_max",
        "cost_min",
        "cosine_max",
        "margin_min",
        "activation_frequency_max",
        "sort",
        "order",
        "limit",
        "offset",
    ),
    "path": ("feature",),
    "evidence": ("feature", "limit"),
    "candidates": ("feature",),
    "judgements": ("feature",),
    "whole": ("measure", "bins"),
    "compare": ("layer", "one", "other", "corpus", "show", "sort", "limit", "offset"),
    "take": ("format", "text", "sort", "order", "layer", "strategy"),
}
ATTACKS = (
    "'; DROP TABLE x; --",
    "' OR '1'='1",
    "1; COPY (SELECT 1) TO 'stolen.csv'",
    "feature) UNION SELECT 1 --",
    "../../etc/passwd",
    "/etc/passwd",
    "12/0' OR ''='",
    "read_csv('/etc/passwd')",
    "$files",
    "\\",
    "\x1f",
    "%00",
    "NaN",
    "1e999",
    "-1",
    "0x10",
    "١",
    "a" * 301,
    "\0",
)


@pytest.mark.parametrize(
    ("question", "name"), [(q, n) for q, names in QUESTIONS.items() for n in names]
)
def test_no_parameter_reaches_sql_as_text(question: str, name: str, client: TestClient) -> None:
    for attack in ATTACKS:
        reply = client.get(f"/api/{question}", params={name: attack})
        assert reply.status_code in (200, 400), (attack, reply.text)
        assert "passwd" not in reply.text.replace(attack, "")
        if reply.status_code == 400:
            assert reply.json()["error"].startswith("expected")
        elif (
            question == "features"
            and attack.strip()
            and name != "offset"
            and not name.endswith(("_min", "_max"))
        ):
            assert reply.json()["total"] == 0, attack


def test_unknown_and_repeated_filters_are_refused(client: TestClient) -> None:
    for address in (
        "features?evil=1",
        "features?text=a&text=b",
        "run?x=1",
        "nothing",
        "take?limit=1&where=1",
    ):
        reply = client.get(f"/api/{address}")
        assert reply.status_code == 400, address
        assert "expected" in reply.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/manifest.json",
        "/static/manifest.json",
        "/api/../manifest.json",
        "/static/",
    ],
)
def test_only_the_pages_own_files_are_served(path: str, client: TestClient) -> None:
    reply = client.get(path)
    assert reply.status_code in (400, 404)
    assert b"schema_version" not in reply.content


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", f"127.0.0.1.evil.example:{PORT}", ""],
)
def test_another_name_for_this_machine_is_refused(host: str, client: TestClient) -> None:
    for path in ("/", "/api/run", "/static/main.js"):
        reply = client.get(path, headers={"host": host})
        assert reply.status_code == 421
        assert "saes" not in reply.text
    assert client.get("/api/run", headers={"host": f"LOCALHOST:{PORT}"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_get_and_head(method: str, client: TestClient) -> None:
    reply = client.request(method, "/api/run")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD"
    assert client.head("/api/run").status_code == 200
    assert client.head("/api/run").content == b""


def test_every_reply_has_the_headers(client: TestClient) -> None:
    replies = [
        client.get(path)
        for path in ("/", "/static/main.js", "/api/run", "/api/nothing", "/nowhere", "/api/take")
    ]
    replies += [client.post("/"), client.get("/", headers={"host": "evil.example"})]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in reply.headers
    assert client.get("/", params={"a": "b" * 9000}).status_code == 414


def test_a_link_that_leads_out_is_not_read(opened: Explorer, changed: Path, tmp_path: Path) -> None:
    def refused() -> None:
        answer = client_of(opened).get("/api/evidence", params={"feature": "0/0"}).json()
        assert answer["examples"] == []
        assert "examples/0.parquet" in answer["problems"][0]

    secret = tmp_path / "secret.parquet"
    shutil.copy(changed / "examples/0.parquet", secret)
    (changed / "examples/0.parquet").unlink()
    os.symlink(secret, changed / "examples/0.parquet")
    refused()
    shutil.rmtree(changed / "examples")
    os.mkdir(tmp_path / "elsewhere")
    shutil.move(secret, tmp_path / "elsewhere/0.parquet")
    os.symlink(tmp_path / "elsewhere", changed / "examples")
    refused()


def test_the_database_reads_nothing_else(explorer: Explorer, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    for sql in (
        f"SELECT * FROM read_csv('{tmp_path}/a.csv')",
        f"COPY (SELECT 1) TO '{tmp_path}/b.csv'",
        "INSTALL httpfs",
        "SET memory_limit = '10GB'",
        "SET enable_external_access = true",
        f"ATTACH '{tmp_path}/c.db'",
    ):
        with pytest.raises(InputError):
            explorer.database.rows(sql)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.csv"]


def test_a_manifest_that_was_altered_is_said_and_mended(opened: Explorer, changed: Path) -> None:
    client = client_of(opened)
    whole = (changed / "manifest.json").read_bytes()
    (changed / "manifest.json").write_bytes(whole[: len(whole) // 2])
    reply = client.get("/api/run")
    assert reply.status_code == 409
    assert "manifest.json" in reply.json()["error"]
    (changed / "manifest.json").write_bytes(whole)
    assert client.get("/api/run").status_code == 200


def test_a_directory_without_a_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="saematch run"):
        Explorer(tmp_path)
    with pytest.raises(InputError):
        Explorer(tmp_path / "nowhere")


def test_odd_names_of_folders_are_no_patterns(tmp_path: Path) -> None:
    run = write_run(tmp_path / "it's [a] *run*?", Shape(layers=2, features=10))
    for name in (
        "it's [a] xrunx?",
        "it's a *run*y",
    ):  # which the name would match, were it a pattern
        write_run(tmp_path / name, Shape(layers=2, features=10, seed=1))
    explorer = Explorer(run)
    try:
        client = client_of(explorer)
        explorer.first.all()
        assert client.get("/api/features").json()["total"] == 20
        assert client.get("/api/run").json()["problems"] == []
        partners = pd.read_parquet(run / "matchings/folded/decoder+encoder+bias/0--1.parquet")[
            "partner"
        ]
        shown = client.get("/api/features", params={"layer": "0"}).json()["features"]
        assert [row["partner"] for row in shown] == partners.tolist()
        assert client.get("/api/evidence", params={"feature": "0/0"}).status_code == 200
    finally:
        explorer.close()


def test_absurd_widths_are_refused(opened: Explorer, changed: Path) -> None:
    path = changed / "manifest.json"
    content = json.loads(path.read_bytes())
    content.pop("sha256")
    for width in (1 << 60, -3, "many", None, 2.5):
        content["saes"]["0"]["d_sae"] = width
        path.write_bytes(encode_manifest(content))
        reply = client_of(opened).get("/api/run")
        assert reply.status_code == 409
        assert "expected from 1 to" in reply.json()["error"]


def test_what_the_run_lacks_is_said_with_its_command(tmp_path: Path) -> None:
    run = write_run(tmp_path / "bare", Shape(described=False, corpora=()))
    explorer = Explorer(run)
    try:
        client = client_of(explorer)
        missing = client.get("/api/run").json()["missing"]
        assert [one["command"].split()[1] for one in missing] == ["describe", "evaluate", "judge"]
        explorer.first.all()
        assert (
            client.get("/api/features", params={"sort": "activation_frequency"}).json()["total"]
            == 4 * 48
        )
        assert client.get("/api/evidence", params={"feature": "0/0"}).json()["examples"] == []
        compared = client.get("/api/compare").json()
        assert compared["corpus"] == ""
        assert all(row["unmeasured"] == row["differ"] for row in compared["pairs"])
    finally:
        explorer.close()


def test_outputs_appear_while_the_run_is_written(synthetic: Path, tmp_path: Path) -> None:
    run = tmp_path / "growing"
    run.mkdir()
    content = json.loads((synthetic / "manifest.json").read_bytes())
    content.pop("sha256")
    outputs = content["outputs"]

    def finish(*starts: str) -> None:
        for name in outputs:
            if name.startswith(starts):
                (run / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(synthetic / name, run / name)
        there = {name: record for name, record in outputs.items() if (run / name).exists()}
        (run / "manifest.json").write_bytes(encode_manifest({**content, "outputs": there}))

    finish("nothing")
    explorer = Explorer(run)
    try:
        client = client_of(explorer)
        assert "No layers are matched yet" in client.get("/api/run").json()["missing"][0]["what"]
        assert client.get("/api/path", params={"feature": "0/3"}).json()["cards"][1:] == []
        assert client.get("/api/features").status_code == 200
        finish("matchings/folded/decoder+encoder+bias/0--1")
        assert "1 of 3 pairs" in client.get("/api/run").json()["missing"][0]["what"]
        matched = pd.read_parquet(run / "matchings/folded/decoder+encoder+bias/0--1.parquet")
        feature = int(matched[matched["partner"] >= 0]["feature"].iloc[0])
        path = client.get("/api/path", params={"feature": f"0/{feature}"}).json()
        assert len(path["cards"]) == 2
        assert "saematch run" in path["ends"]["after"]
        finish(
            "matchings",
            "candidates",
            "paths",
            "fates",
            "followed",
            "features",
            "examples",
            "descriptions",
            "evaluation",
            "judg",
        )
        assert client.get("/api/run").json()["missing"] == []
        explorer.first.all()
        assert client.get("/api/features", params={"text": "fires"}).json()["total"] > 0
    finally:
        explorer.close()


def test_a_mistake_of_ours_is_said_in_words(
    client: TestClient,
    explorer: Explorer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken: dict[str, Callable[..., Any]] = {**explorer.questions, "run": lambda asked: 1 // 0}
    monkeypatch.setattr(explorer, "questions", broken)
    reply = client.get("/api/run")
    assert reply.status_code == 500
    assert reply.json()["error"] == "the explorer failed: ZeroDivisionError; please report it"
    assert "Traceback" not in capsys.readouterr().err
