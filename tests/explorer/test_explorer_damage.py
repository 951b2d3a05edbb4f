"""A file that is wrong is named in words, and everything else of its layer is shown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from damage import NO_SUCH_TABLES, cut_short, gone, rewrite, wrong_bytes
from explored_runs import SHAPE, client_of
from recomputed import features_of, labels_of
from starlette.testclient import TestClient
from synthetic_meanings import JUDGE

from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import export_page

SLUG = "decoder+encoder+bias"
FEATURES = ("activates_on", "top_logits", "activation_frequency", "activation_count")
PAIRS = ("phi", "lift")
STEP = ("partner", "cost", "mse", "cosine", "margin")
ALL = ("status", "description", "peaks", *FEATURES, *STEP, *PAIRS, "quantile", "labels")
LOST = {
    "features/1.parquet": FEATURES,
    "examples/1.parquet": ("peaks",),
    "descriptions/activations--1.parquet": ("description",),
    "judgements.parquet": ("labels",),
    "judging/layers/sample.parquet": ("labels",),
    "evaluation/pairs/web.parquet": PAIRS,
    f"matchings/folded/{SLUG}/1--2.parquet": (*STEP, *PAIRS, "quantile", "labels"),
    f"matchings/cosine/{SLUG}/1--2.parquet": (),
    "candidates/1--2.parquet": (),
    "paths.parquet": (),
}
"""What is not known any more of a feature of layer 1 where that file is wrong."""


def shown(client: TestClient) -> pd.DataFrame:
    """Layer 1 as it is found."""
    answer = client.get("/api/features", params={"layer": "1", "limit": 200})
    assert answer.status_code == 200, answer.text
    assert answer.json()["problems"] == {}
    frame = pd.DataFrame(answer.json()["features"])
    assert len(frame) == SHAPE.features
    return frame


def same(found: pd.DataFrame, expected: pd.DataFrame, columns: tuple[str, ...]) -> None:
    for name in columns:
        for one, other in zip(found[name], expected[name], strict=True):
            if isinstance(other, str | list) or hasattr(other, "tolist"):
                assert list(one if one is not None else []) == list(other), name
            elif other is None or other != other:
                assert one is None or one != one, name
            else:
                assert one == pytest.approx(other), name


def problems(opened: Explorer) -> str:
    return "\n".join(client_of(opened).get("/api/run").json()["problems"])


def empty(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, list) and not value)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No index is known from another test."""
    monkeypatch.setenv("SAEMATCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def first(fresh: None, opened: Explorer) -> Explorer:
    """An explorer that has seen nothing yet."""
    return opened


DESCRIBED = ("features/1.parquet", "descriptions/activations--1.parquet")


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, wrong_bytes) for name in LOST] + [(n, d) for n in DESCRIBED for d in (cut_short, gone)],
)
def test_what_was_altered_is_named_and_the_rest_of_its_layer_is_shown(
    name: str, damage: Callable[[Path], None], first: Explorer, changed: Path
) -> None:
    expected = features_of(changed)
    expected = expected[expected["key"] == "1"]
    whole = (changed / name).read_bytes()
    damage(changed / name)
    found = shown(client_of(first))
    same(found, expected, tuple(column for column in ALL if column not in LOST[name]))
    # φ is then that of the other corpus, labels are those of the other experiment.
    if name not in ("evaluation/pairs/web.parquet", "judging/layers/sample.parquet"):
        assert all(found[column].map(empty).all() for column in LOST[name])
    assert name in problems(first)
    path = client_of(first).get("/api/path", params={"feature": "1/7"}).json()
    assert path["cards"][path["here"]]["feature"] == 7
    (changed / name).write_bytes(whole)
    first.first.all()
    same(shown(client_of(first)), expected, ALL)
    assert name not in problems(first)


@pytest.mark.parametrize("damage", [wrong_bytes, gone])
def test_without_a_matching_nothing_is_known_of_its_steps(
    damage: Callable[[Path], None], first: Explorer, changed: Path
) -> None:
    """Nothing dies, differs or is uncertain for want of a file."""
    client = client_of(first)
    damage(changed / f"matchings/folded/{SLUG}/1--2.parquet")

    def ask(question: str, **asked: str) -> dict[str, Any]:
        answer = client.get(f"/api/{question}", params=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    columns = {one["key"]: one["bands"] for one in ask("whole")["columns"]}
    assert columns["1"] == {"unknown": SHAPE.features}
    assert "unknown" not in columns["0"]
    assert not any(row["matched"] for row in ask("features", layer="1", limit="200")["features"])
    for filters in ({"pairs": "dies"}, {"differs": "cosine"}, {"certain": "no"}):
        assert ask("features", layer="1", **filters)["total"] == 0
    assert [row["a"] for row in ask("compare", one="folded", other="cosine")["pairs"]] == ["0", "2"]
    path = ask("path", feature="1/7")
    after = path["cards"][path["here"] + 1 :]
    assert after[0]["step"]["certain"] is None
    assert after[0]["step"]["warnings"][-1].startswith("the matching of these layers is missing")


@pytest.mark.parametrize("damage", [wrong_bytes, cut_short])
def test_examples_that_were_altered_are_said_on_their_card(
    damage: Callable[[Path], None], opened: Explorer, changed: Path
) -> None:
    whole = client_of(opened).get("/api/evidence", params={"feature": "0/0"}).json()
    assert whole["examples"]
    damage(changed / "examples/0.parquet")
    answer = client_of(opened).get("/api/evidence", params={"feature": "0/0"}).json()
    assert "examples/0.parquet" in answer["problems"][0]
    assert {**answer, "examples": whole["examples"], "problems": []} == whole
    assert "examples/0.parquet" in problems(opened)


def test_an_exported_file_says_what_is_left_out_and_not_where_the_run_lies(
    opened: Explorer, changed: Path, tmp_path: Path
) -> None:
    cut_short(changed / "examples/0.parquet")
    export_page(opened, tmp_path / "page.html", ["0/7"], 1)
    text = (tmp_path / "page.html").read_text()
    assert "examples are left out: run/examples/0.parquet" in text
    assert str(tmp_path) not in text


def test_what_was_altered_after_its_index_was_made_is_named(
    opened: Explorer, changed: Path
) -> None:
    opened.first.all()
    expected = shown(client_of(opened))
    for name in ("descriptions/activations--1.parquet", "candidates/2--3.parquet"):
        wrong_bytes(changed / name)
    opened.first.run.check(lambda: False)
    for name in ("descriptions/activations--1.parquet", "candidates/2--3.parquet"):
        assert name in problems(opened)
    assert shown(client_of(opened)).equals(expected)
    answer = client_of(opened).get("/api/evidence", params={"feature": "1/7"}).json()
    assert "descriptions/activations--1.parquet" in answer["problems"][0]


@pytest.mark.parametrize("data", NO_SUCH_TABLES)
def test_what_is_in_the_manifest_and_no_such_table_is_named(
    data: bytes, opened: Explorer, changed: Path
) -> None:
    expected = features_of(changed)
    expected = expected[expected["key"] == "1"]
    damaged = (*DESCRIBED, "examples/1.parquet")
    for name in damaged:
        rewrite(changed, name, data)
    found = shown(client_of(opened))
    lost = {column for name in damaged for column in LOST[name]}
    same(found, expected, tuple(column for column in ALL if column not in lost))
    answer = client_of(opened).get("/api/evidence", params={"feature": "1/7"}).json()
    assert "examples" in answer["problems"][0]
    said = problems(opened)
    assert all(name in said for name in damaged)
    assert "docs/run-directory.md" in said


def test_results_of_a_judge_that_were_altered_leave_out_its_labels(
    first: Explorer, changed: Path
) -> None:
    assert labels_of(changed)
    results = [changed / f"judging/{one}/{JUDGE}.parquet" for one in ("layers", "mse")]
    whole = [path.read_bytes() for path in results]
    for path in results:
        wrong_bytes(path)
    assert shown(client_of(first))["labels"].map(empty).all()
    assert "judging/layers" in problems(first)
    for path, data in zip(results, whole, strict=True):
        path.write_bytes(data)
    first.first.all()
    assert not shown(client_of(first))["labels"].map(empty).all()
    assert "judging/layers" not in problems(first)


def test_what_labels_come_from_may_be_damaged_and_the_rest_is_compared_and_exported(
    opened: Explorer, changed: Path, tmp_path: Path
) -> None:
    client = client_of(opened)
    whole = client.get("/api/compare").json()
    for name in ("judgements.parquet", "candidates/0--1.parquet"):
        wrong_bytes(changed / name)
    left = client.get("/api/compare").json()
    assert "judgements.parquet" in left["left_out"][0]
    assert not left["judged"]
    for row, before in zip(left["pairs"], whole["pairs"], strict=True):
        assert (row["same"], row["for_one"]) == (before["same"], before["for_one"])
    written = export_page(opened, tmp_path / "page.html", ["0/3"], 1)
    assert written.features
    assert str(changed) not in (tmp_path / "page.html").read_text()
    for corpus in ("web", "code"):
        wrong_bytes(changed / f"evaluation/pairs/{corpus}.parquet")
    left = client.get("/api/compare").json()
    assert len(left["left_out"]) == 2
    assert [row["same"] for row in left["pairs"]] == [row["same"] for row in whole["pairs"]]


def test_a_mended_file_is_named_no_more_whatever_the_index(opened: Explorer, changed: Path) -> None:
    opened.first.all()
    path = changed / "candidates/0--1.parquet"
    data = path.read_bytes()
    wrong_bytes(path)
    reply = client_of(opened).get("/api/candidates", params={"feature": "0/1"})
    assert reply.status_code == 409
    assert "candidates/0--1" in problems(opened)
    path.write_bytes(data)
    assert problems(opened) == ""
