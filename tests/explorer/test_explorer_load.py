"""Many clients at once, connections that say nothing, questions that take long, texts without end."""

import contextlib
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from browsing import served
from damage import rewrite
from explored_runs import Shape, client_of, write_run

from saematch.errors import InputError
from saematch.explorer import database as databases
from saematch.explorer import server
from saematch.explorer.database import (
    BusyError,
    Database,
    OutOfMemoryError,
    TooLongError,
    limited,
)  # fmt: skip
from saematch.explorer.explorer import Explorer

LONG = "SELECT count(*) AS n FROM range(100000000) a, range(100000) b"


@pytest.fixture
def database():
    opened = Database()
    yield opened
    opened.close()


def status_of(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=60) as reply:
            return reply.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


def test_fifty_clients_are_all_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two comparisons at once have not memory enough."""
    monkeypatch.setattr(databases, "MEMORY", "60MB")
    run = write_run(tmp_path / "run", Shape(layers=6, features=4000))
    with served(run) as address:
        one = status_of(f"{address}api/compare")
        assert one == (200, ""), one
        questions = ["compare", "compare?one=folded&other=naive", "features?sort=mse", "run"]
        with ThreadPoolExecutor(50) as pool:
            asked = [f"{address}api/{questions[n % 4]}" for n in range(100)]
            said = Counter(pool.map(status_of, asked))
    assert set(said) == {(200, "")}, said


def test_memory_that_another_query_has_is_waited_for() -> None:
    """A query that fits alone is answered, however many others run; one that never fits is told so."""
    running = []

    class ShortOfMemory(Database):
        def execute_now(self, sql: str, parameters: databases.Parameters):
            running.append(sql)
            try:
                time.sleep(0.02)
                if len(running) > 1 or "never" in sql:
                    raise OutOfMemoryError("no memory")
                return super().execute_now(sql, parameters)
            finally:
                running.remove(sql)

    with contextlib.closing(ShortOfMemory()) as database:
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda n: database.rows(f"SELECT {n} AS n"), range(60)))
        assert found == [[{"n": n}] for n in range(60)]
        with pytest.raises(OutOfMemoryError):
            database.rows("SELECT 1 AS never")


def test_a_question_that_takes_too_long_is_stopped(database: Database) -> None:
    began = time.monotonic()
    with limited(0.3), pytest.raises(TooLongError, match="too long"):
        database.rows(LONG)
    assert time.monotonic() - began < 5
    with limited(math.inf):
        assert database.rows("SELECT 1 AS one") == [{"one": 1}]


def test_who_waits_too_long_is_told_to_ask_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def long() -> None:
        with limited(1.5), pytest.raises(TooLongError):
            database.rows(LONG)

    threads = [threading.Thread(target=long) for _ in range(databases.AT_ONCE)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    with limited(0.2), pytest.raises(BusyError, match="ask again"):
        database.rows("SELECT 1")
    for thread in threads:
        thread.join()
    assert database.rows("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (BusyError("busy"), 503, "2"),
        (TooLongError("long"), 504, None),
        (InputError("no"), 409, None),
    ],
)
def test_the_reply_says_which(
    error: Exception, status: int, again: str | None, opened: Explorer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def failing(asked):
        raise error

    monkeypatch.setattr(opened, "questions", {"run": failing})
    reply = client_of(opened).get("/api/run")
    assert (reply.status_code, reply.headers.get("retry-after")) == (status, again)
    assert reply.json()["error"] == str(error)


def connect(address: str, said: bytes = b"") -> socket.socket:
    port = int(address.rsplit(":", 1)[1].strip("/"))
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(said)
    return connection


def is_closed(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while data := connection.recv(1 << 16):
            del data
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_silent_connections_are_let_go_and_keep_nobody_out(
    synthetic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.5)
    monkeypatch.setattr(server, "IDLE_SECONDS", 1)
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 20)
    with served(synthetic) as address:
        host = address.split("/")[2].encode()
        whole = b"GET /api/run HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        starts = (b"", b"GET / HTTP/1.1\r\nHost: ", whole[:-2], whole + b"GET /api")
        silent = [connect(address, starts[n % len(starts)]) for n in range(60)]
        try:
            assert status_of(f"{address}api/run") == (200, "")
            began = time.monotonic()
            dripping = connect(address)
            with contextlib.suppress(ConnectionError):  # reset or broken pipe, as the system likes
                while time.monotonic() - began < 8:
                    dripping.sendall(b"x")
                    time.sleep(0.1)
            assert time.monotonic() - began < 5
            assert all(is_closed(one, 3) for one in silent)
        finally:
            for one in silent:
                one.close()
        assert status_of(f"{address}api/run") == (200, "")


def test_long_descriptions_leave_every_layer_readable(changed: Path) -> None:
    """100 kB a feature are more than the memory of the database."""
    name = "descriptions/activations--1.parquet"
    table = pq.read_table(changed / name)
    text = [f"long {n} " + "many words " * 9000 + "atlast" for n in range(len(table))]
    place = table.schema.get_field_index("text")
    table = table.set_column(place, table.schema.field(place), [text])
    sink = changed.parent / "long.parquet"
    pq.write_table(table, sink)
    rewrite(changed, name, sink.read_bytes())
    explorer = Explorer(changed)
    try:
        client = client_of(explorer)
        explorer.first.all()
        assert explorer.first.problems == {}
        found = client.get("/api/features", params={"layer": "1", "text": "long words"})
        assert found.status_code == 200
        assert found.json()["total"] > 0
        assert all(len(row["description"]) <= 2000 for row in found.json()["features"])
        feature = found.json()["features"][0]["feature"]
        shown = client.get("/api/evidence", params={"feature": f"1/{feature}"}).json()
        assert any(one["text"].endswith("atlast") for one in shown["descriptions"])
    finally:
        explorer.close()
