"""What the server lets in and out."""

import io
import json
from pathlib import Path

import httpx
import pandas as pd
import pytest

from saematch.explorer.server import POLICY, STATIC


def get(address: str, path: str, **more) -> httpx.Response:
    return httpx.get(address + path, timeout=20, **more)


def test_the_page_and_its_headers(address: str) -> None:
    for name in ("", *STATIC):
        found = get(address, name)
        assert found.status_code == 200
        assert found.headers["content-security-policy"] == POLICY
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["referrer-policy"] == "no-referrer"
    assert "'unsafe" not in POLICY


def test_another_host_is_refused(address: str) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        found = get(address, "api/about", headers={"Host": host})
        assert found.status_code == 403
        assert "suite" not in found.text
    port = address.rstrip("/").rpartition(":")[2]
    assert get(address, "api/about", headers={"Host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_reading_alone(address: str, method: str) -> None:
    for path in ("", "api/find", "take/csv"):
        assert httpx.request(method, address + path, timeout=20).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["manifest.json", "../manifest.json", "%2e%2e/manifest.json", "..%2f..%2fetc%2fpasswd",
     "static/app.js", "api/../manifest.json", "api/nothing", "take/exe", "server.py"],
)  # fmt: skip
def test_nothing_else_is_served(address: str, path: str) -> None:
    assert get(address, path).status_code == 404


def test_wrong_questions_are_answered_in_words(address: str) -> None:
    for path in (
        "api/follow?key=3&feature=x",
        "api/follow?key=77&feature=1",
        "api/find?mse_min=x",
        "api/runs",
    ):
        found = get(address, path)
        assert found.status_code == 400
        assert found.json()["error"].startswith("needed")


def test_a_selection_as_a_file(address: str) -> None:
    wanted = get(address, "api/find?key=3&sort=mse").json()["rows"]
    asked = "key=3&sort=mse"
    csv = pd.read_csv(io.BytesIO(get(address, f"take/csv?{asked}").content))
    parquet = pd.read_parquet(io.BytesIO(get(address, f"take/parquet?{asked}").content))
    rows = get(address, f"take/json?{asked}")
    assert rows.headers["content-disposition"] == 'attachment; filename="features.json"'
    for found in (csv, parquet, pd.DataFrame(rows.json())):
        assert found["feature"].tolist() == [row["feature"] for row in wanted]
    assert json.loads(csv["fires_on"].dropna().iloc[0])


def test_a_table_that_cannot_be_read_is_no_traceback(copied_run: Path) -> None:
    from explored_pages import serving

    path = copied_run / "contexts/4.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with serving(copied_run) as address:
        found = get(address, "api/contexts?key=4&feature=3")
        assert found.status_code == 500
        assert "could not be read" in found.json()["error"]
        assert "Traceback" not in found.text
