"""Finding features: every filter, sort and page against pandas over the same tables."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recomputed import features_of, keys_of, selected, share_of
from starlette.testclient import TestClient

from saematch.store.following import StepWarning

Ask = Callable[..., dict[str, Any]]
NUMBERS = (
    "partner", "cost", "mse", "cosine", "margin", "activation_frequency", "activation_count",
    "quantile", "phi", "lift",
    "phi_texts", "lift_texts", "active", "partner_active", "joint_active",
)  # fmt: skip
FOLDED = (
    "quantile",
    "phi",
    "lift",
    "phi_texts",
    "lift_texts",
    "active",
    "partner_active",
    "joint_active",
)
"""Known of the folded step alone."""


@pytest.fixture(scope="module")
def by_strategy(synthetic: Path) -> dict[str, pd.DataFrame]:
    names = ("folded", "unfolded", "naive", "random", "cosine", "correlation")
    return {name: features_of(synthetic, name) for name in names}


def check(answer: dict[str, Any], expected: pd.DataFrame, limit: int, offset: int) -> None:
    folded = answer["strategy"] == "folded"
    assert answer["total"] == len(expected)
    page = expected.iloc[offset : offset + limit]
    found = answer["features"]
    assert [(row["key"], row["feature"]) for row in found] == list(
        zip(page["key"], page["feature"], strict=True)
    )
    for row, wanted in zip(found, page.to_dict("records"), strict=True):
        for name in NUMBERS:
            value = wanted.get(name) if folded or name not in FOLDED else None
            if value is None or value != value:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(value, rel=1e-12), name
        assert row["status"] == wanted["status"]
        assert (row["description"] or "") == (
            wanted["description"] if isinstance(wanted["description"], str) else ""
        )
        assert row["activates_on"] == list(wanted["activates_on"])
        assert row["top_logits"] == list(wanted["top_logits"])
        assert (row["peaks"] or []) == (
            wanted["peaks"] if isinstance(wanted["peaks"], list) else []
        )
        assert row["warnings"] == (wanted["warnings"] if folded else None)
        assert (row["labels"] or []) == (wanted["labels"] if folded else [])


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    """Filters of every kind, mixed; values near those in the run."""
    asked: dict[str, Any] = {}

    def maybe(name: str, values: st.SearchStrategy[Any], one_in: int = 4) -> None:
        if draw(st.integers(1, one_in)) == 1:
            asked[name] = draw(values)

    maybe("layer", st.sampled_from(["0", "1,2", "3", "0,3"]))
    maybe(
        "text", st.sampled_from(["ca", "FIRES on", "men sol", "é", "%", "_", "'", "nothing at all"])
    )
    maybe("status", st.sampled_from(["live", "dead", "degenerate"]))
    maybe("label", st.sampled_from(["SAME", "MAYBE", "DIFFERENT"]))
    maybe("certain", st.sampled_from(["yes", "no"]))
    maybe("warnings", st.sampled_from(["some", "none", *map(str, StepWarning)]))
    maybe(
        "strategy",
        st.sampled_from(["folded", "unfolded", "naive", "random", "cosine", "correlation"]),
        2,
    )
    maybe("differs", st.sampled_from(["unfolded", "cosine", "naive"]))
    for name, values in (
        ("mse", st.floats(0, 0.05)),
        ("cost", st.floats(0, 30)),
        ("margin", st.floats(0, 2)),
        ("cosine", st.floats(-0.2, 1)),
        ("activation_frequency", st.floats(0, 0.05)),
        ("phi", st.floats(-0.1, 0.9)),
        ("lift", st.floats(0, 50)),
        ("quantile", st.floats(0, 1)),
        ("active", st.integers(0, 800)),
    ):
        maybe(f"{name}_min", values, 6)
        maybe(f"{name}_max", values, 6)
    maybe(
        "sort",
        st.sampled_from(
            [
                "layer",
                "mse",
                "cost",
                "cosine",
                "margin",
                "activation_frequency",
                "activation_count",
                "quantile",
                "phi",
                "lift",
            ]
        ),
        2,
    )
    maybe("order", st.sampled_from(["asc", "desc"]), 2)
    maybe("limit", st.integers(1, 200), 2)
    maybe("offset", st.integers(0, 120), 3)
    return asked


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=questions())
def test_any_mix_of_filters_is_what_pandas_finds(
    asked: dict[str, Any], ask: Ask, by_strategy: dict[str, pd.DataFrame]
) -> None:
    frame = by_strategy[asked.get("strategy", "folded")]
    other = by_strategy[asked["differs"]] if "differs" in asked else None
    answer = ask("features", **asked)
    expected = selected(frame, asked, other)
    limit, offset = asked.get("limit", 50), asked.get("offset", 0)
    last = max(0, (len(expected) - 1) // limit * limit)
    check(answer, expected, limit, offset if offset < len(expected) else last)


@pytest.mark.parametrize("name", ["activates_on", "top_logits"])
def test_tokens_are_found_whole_whatever_their_blanks_and_case(
    name: str, ask: Ask, by_strategy: dict[str, pd.DataFrame]
) -> None:
    frame = by_strategy["folded"]
    columns = {"activates_on": ("activates_on", "peaks"), "top_logits": ("top_logits",)}[name]
    tokens = [
        token for column in columns for token in frame[column].explode().dropna().unique()[:15]
    ]
    for token in tokens:
        for typed in (token, token.strip().upper(), f" {token} "):
            expected = selected(frame, {name: typed})
            assert len(expected)
            check(ask("features", **{name: typed}), expected, 50, 0)
    assert ask("features", **{name: tokens[0].strip()[:-1] + "zz"})["total"] == 0


def test_features_of_a_token_come_by_its_share(
    ask: Ask, by_strategy: dict[str, pd.DataFrame]
) -> None:
    frame = by_strategy["folded"]
    token = frame["activates_on"].explode().value_counts().index[0]
    rows = ask("features", activates_on=token, limit=200)["features"]
    shares = [share_of(row, token) for row in rows]
    known = [share for share in shares if share is not None]
    assert known == sorted(known, reverse=True)
    assert shares[: len(known)] == known  # those of examples alone come last
    assert len(set(known)) > 1
    least = ask("features", activates_on=token, sort="share", order="asc", limit=200)["features"]
    check({"features": least, "total": len(least), "strategy": "folded"},
          selected(frame, {"activates_on": token, "order": "asc"}), 200, 0)  # fmt: skip


def test_a_page_that_is_not_there_is_the_last(ask: Ask) -> None:
    answer = ask("features", limit=50, offset=999_999)
    assert answer["offset"] == (answer["total"] - 1) // 50 * 50
    assert len(answer["features"]) == answer["total"] - answer["offset"]


def test_a_feature_is_found_by_its_name(
    ask: Ask, client: TestClient, by_strategy: dict[str, pd.DataFrame]
) -> None:
    check(
        ask("features", feature="2/7"), selected(by_strategy["folded"], {"feature": "2/7"}), 50, 0
    )
    assert ask("features", feature="2/7", layer="1")["total"] == 0
    reply = client.get("/api/features", params={"feature": "2/999999999"})
    assert reply.status_code == 400
    assert "a feature of layer 2 from 0 to" in reply.json()["error"]


def test_pages_together_are_the_whole(ask: Ask) -> None:
    total = ask("features")["total"]
    seen = []
    for offset in range(0, total, 17):
        seen += ask("features", sort="margin", order="desc", limit=17, offset=offset)["features"]
    assert len(seen) == total
    assert len({(row["key"], row["feature"]) for row in seen}) == total


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_a_selection_is_taken_away_whole(
    kind: str, client: TestClient, by_strategy: dict[str, pd.DataFrame]
) -> None:
    asked = {"text": "men", "sort": "cost", "order": "desc", "limit": "5", "offset": "3"}
    reply = client.get("/api/take", params={**asked, "format": kind})
    assert reply.status_code == 200
    assert reply.headers["content-disposition"] == f'attachment; filename="features.{kind}"'
    read = {
        "csv": lambda data: pd.read_csv(io.BytesIO(data), dtype={"key": str}),
        "parquet": lambda data: pd.read_parquet(io.BytesIO(data)),
        "json": lambda data: pd.DataFrame(json.loads(data)),
    }
    taken = read[kind](reply.content)
    expected = selected(by_strategy["folded"], asked)
    assert taken["key"].tolist() == expected["key"].tolist()
    assert taken["feature"].tolist() == expected["feature"].tolist()
    assert taken["cost"].to_numpy(float) == pytest.approx(
        expected["cost"].to_numpy(float), nan_ok=True
    )
    assert taken["description"].fillna("").tolist() == expected["description"].fillna("").tolist()
    activates_on = (
        taken["activates_on"].map(json.loads) if kind == "csv" else taken["activates_on"].map(list)
    )
    assert activates_on.tolist() == expected["activates_on"].map(list).tolist()


def test_a_file_that_was_taken_leaves_nothing_behind(client: TestClient, explorer: Any) -> None:
    client.get("/api/take", params={"format": "csv"})
    assert not list(explorer.database.temporary.glob("*.csv"))


def test_layers_are_those_of_the_run(ask: Ask, synthetic: Path) -> None:
    assert [sae["key"] for sae in ask("run")["saes"]] == keys_of(synthetic)
