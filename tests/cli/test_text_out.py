"""One collection of nasty texts through every way out: terminals, tables, JSON, pictures, pages."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.dom import minidom

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tiny_suites import write_suite

from saematch.pipelines import RunConfig, open_run
from saematch.pipelines import run as run_suite
from saematch.pipelines.exporting import export
from saematch.store.manifest import encode_manifest
from saematch.store.schema import DESCRIPTIONS, decode
from saematch.text import clean, records, to_json

NASTY = [
    "half \ud83d",
    "whole \ud83d\ude00",
    "\udcff\udc80 of a file name",
    "\x00\x01\x1b[2J\x1b]0;title\x07\x9b31m",
    "\ufeffmark",
    "\u202eright to left\u202c",
    "</script><script>alert(1)</script><!--",
    "$\\frac{1}{$ & <b>[bold]x[/bold][/]",
    "=cmd|' /C calc'!A0",
    "a\r\nb\u2028c\x85d",
    "\ufffe\uffff\U0001ffff",
    "x" * 100_000,
    "\u0301" * 500,
    "'\"`${}%s{0}\\",
    "",
]


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"bare {name}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    run_suite(RunConfig(suite=str(write_suite(tmp_path_factory.mktemp("suite")))), out)
    return out


def test_tables_take_any_text_and_give_it_back_clean() -> None:
    columns: dict[str, Any] = {
        name: NASTY if name != "feature" else list(range(len(NASTY))) for name in DESCRIPTIONS.names
    }
    data = DESCRIPTIONS.encode(columns, {"notes": NASTY, "cost": float("nan"), NASTY[0]: 1})
    table, details = decode(data)
    assert table["text"].to_pylist() == [clean(one) for one in NASTY]
    assert details == {"notes": [clean(one) for one in NASTY], "cost": None, clean(NASTY[0]): 1}
    objects = {**columns, "text": np.array(NASTY, dtype=object)}
    assert DESCRIPTIONS.encode(objects, {}) == DESCRIPTIONS.encode(columns, {})


def test_a_manifest_takes_any_text() -> None:
    data = encode_manifest({"notes": NASTY, "outputs": {}, "x": float("inf")})
    assert strict(data.decode("ascii"))["notes"] == [clean(one) for one in NASTY]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_exports_are_read_by_others(finished: Path, tmp_path: Path, format: str) -> None:
    for path in export(open_run(finished), format, tmp_path):
        if format == "csv":
            assert len(pd.read_csv(path))
        elif format == "json":
            assert strict(path.read_text(encoding="utf-8"))
        else:
            assert pq.read_table(path).num_rows


def test_rows_as_json_keep_every_number_in_full() -> None:
    frame = pd.DataFrame({
        "cost": [1.234567890123456e-12, 2e300, np.nan], "n": pd.array([1, None, 3], dtype="Int64"),
        "texts": [["a", "b"], np.array(["c"]), None], "name": ["nan", "x\x00", None],
        "ok": [True, False, True],
    })  # fmt: skip
    assert json.loads(to_json(records(frame))) == [
        {"cost": 1.234567890123456e-12, "n": 1, "texts": ["a", "b"], "name": "nan", "ok": True},
        {"cost": 2e300, "n": None, "texts": ["c"], "name": "x\ufffd", "ok": False},
        {"cost": None, "n": 3, "texts": None, "name": None, "ok": True},
    ]
    assert records(frame[:0]) == []


def test_no_cell_of_a_csv_is_a_formula() -> None:
    from saematch.pipelines import exporting

    texts = ["=1+1", "@x", "+y", "-z", "-", "-1+2", "\t=1", "\r=1"]
    fine = ["-1", "plain", "a=b", "'=1", "é", "x-1"]  # -1: the layer of an embedding
    frame = pd.DataFrame({"text": [*texts, *fine, None], "value": -1.5})
    back = pd.read_csv(io.BytesIO(exporting._encode(frame, "csv")), lineterminator="\n")
    assert back["text"].tolist()[:-1] == [*(f"'{one}" for one in texts), *fine]
    assert (back["value"] == -1.5).all()


def test_a_picture_takes_any_text(tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    from saematch.figures.captions import label

    for number, text in enumerate(NASTY):
        figure = plt.figure()
        figure.suptitle(label(clean(text)[:200]))
        figure.savefig(tmp_path / f"{number}.svg")
        plt.close(figure)
        minidom.parse(str(tmp_path / f"{number}.svg"))


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "cp1252", "C"],
)
def test_a_terminal_of_any_encoding_shows_everything(
    finished: Path, environment: dict[str, str]
) -> None:
    env = {**os.environ, **environment}

    def call(*arguments: object) -> tuple[int, str, str]:
        program = "from saematch.cli import main; main()"
        line = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(line, env=env, capture_output=True, timeout=120)
        return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")

    key = next(iter(open_run(finished).manifest["saes"]))
    code, out, err = call("paths", finished, "--feature", f"{key}/0")
    assert (code, err) == (0, "")
    assert "what becomes of it" in out
    code, out, _ = call("paths", finished, "--feature", f"{key}/0", "--json")
    assert code == 0
    assert strict(out)
    code, out, err = call("inspect", "no/\x1b[2J\u2192" + "x" * 5000)
    assert code in (1, 2, 3)
    assert "\x1b" not in out + err
    assert "Traceback" not in err
    assert len(err) < 2000
