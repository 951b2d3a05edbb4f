"""What the page is told, against the run's tables read straight with pandas."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saematch.errors import UsageError
from saematch.explorer.index import Index
from saematch.explorer.questions import SORTS, compare, compare_runs, contexts, find, follow, whole
from saematch.run import open_run
from saematch.run.described import descriptions_of
from saematch.run.steps import followed_steps

QUIET = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def expected(whole_run: Path) -> pd.DataFrame:
    """A row a feature, joined by hand."""
    run = open_run(whole_run)
    rows = []
    for place, key in enumerate(run.keys):
        features = pd.read_parquet(whole_run / f"features/{key}.parquet").set_index("feature")
        texts = descriptions_of(run, "activations", key).texts
        table = features[["density", "fires_on", "promotes"]].copy()
        table["key"], table["text"] = key, pd.Series(texts)
        if place + 1 < len(run.keys):
            matched = run.matching_table(key, run.keys[place + 1]).set_index("feature")
            table["mse"] = matched["mse_decoder"]
            table[["cost", "cosine", "margin"]] = matched[["cost", "cosine", "margin"]]
        rows.append(table.reset_index())
    table = pd.concat(rows, ignore_index=True)
    paths = run.paths()[["key", "feature", "status", "path"]]
    return table.merge(paths, on=["key", "feature"], validate="one_to_one")


def places(rows) -> list[tuple[str, int]]:
    return [(row["key"], row["feature"]) for row in rows]


def test_every_feature_is_there(index: Index, expected: pd.DataFrame) -> None:
    assert not index.problems
    found = find(index, {}, 10_000)
    assert found.total == len(found.rows) == len(expected) == 150
    table = pd.DataFrame(found.rows).merge(
        expected, on=["key", "feature"], suffixes=("", "_by_hand")
    )
    for name in ("density", "mse", "cost", "cosine", "margin"):
        pd.testing.assert_series_equal(
            table[name].astype(float),
            table[f"{name}_by_hand"].astype(float),
            check_names=False,
            rtol=1e-5,
        )
    for name in ("text", "status", "path"):
        by_hand = table[f"{name}_by_hand"]
        assert table[name].astype(object).where(table[name].notna(), None).tolist() == (
            by_hand.astype(object).where(by_hand.notna(), None).tolist()
        )


@QUIET
@given(
    word=st.sampled_from(["", "fires", "promotes", "amid", "e", "'t'", "nothing like this"]),
    low=st.one_of(st.none(), st.floats(0, 2)),
    high=st.one_of(st.none(), st.floats(0, 4)),
    key=st.sampled_from(["", "3", "4", "6"]),
    sort=st.sampled_from(list(SORTS)),
    down=st.booleans(),
)
def test_filters_and_order(
    index: Index, expected: pd.DataFrame, word, low, high, key, sort, down
) -> None:
    asked = {"text": word, "key": key, "sort": sort, "descending": "1" if down else ""}
    rows = expected
    if word:
        for one in word.split():
            rows = rows[rows["text"].fillna("").str.lower().str.contains(one, regex=False)]
    if key:
        rows = rows[rows["key"] == key]
    for name, value, sign in (("mse_min", low, 1), ("mse_max", high, -1)):
        if value is not None:
            asked[name] = repr(value)
            rows = rows[(sign * rows["mse"].astype("float32") >= sign * value)]
    found = find(index, asked, 10_000)
    assert sorted(places(found.rows)) == sorted(places(rows.to_dict("records")))
    if sort in ("mse", "density", "cost"):
        values = [row[sort] for row in found.rows]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=down)
        assert values == known + [None] * (len(values) - len(known))


def test_pages_hold_everything_once(index: Index) -> None:
    asked = {"sort": "mse"}
    found = [find(index, {**asked, "page": str(page)}, 40).rows for page in range(1, 6)]
    assert [len(rows) for rows in found] == [40, 40, 40, 30, 0]
    together = [place for rows in found for place in places(rows)]
    assert len(set(together)) == 150


def test_by_place_and_token(index: Index, expected: pd.DataFrame) -> None:
    assert places(find(index, {"text": " 4 / 17 "}).rows) == [("4", 17)]
    with pytest.raises(UsageError, match="needed one of the layers"):
        find(index, {"text": "99/1"})
    token = next(one for some in expected["fires_on"] for one in some if one.strip().isalpha())
    rows = expected[
        [
            any(
                one.strip().lower() == token.strip().lower()
                for one in (*row.fires_on, *row.promotes)
            )
            for row in expected.itertuples()
        ]
    ]
    found = find(index, {"token": token}, 10_000)
    assert sorted(places(found.rows)) == sorted(places(rows.to_dict("records")))


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "x' OR 1=1 --"},
        {"key": "3' OR '1'='1"},
        {"status": "live'; DROP TABLE features; --"},
        {"label": '" OR true'},
        {"token": "') OR true --"},
    ],
)
def test_values_are_never_sql(index: Index, asked: dict[str, str]) -> None:
    assert find(index, asked).total == 0
    assert find(index, {}).total == 150


@pytest.mark.parametrize(
    "asked",
    [
        {"sort": "mse; DROP TABLE features"},
        {"mse_min": "0 OR 1=1"},
        {"page": "nan"},
        {"mse_max": "inf"},
        {"page": "1e99"},
    ],
)
def test_what_is_no_number_and_no_order_is_refused(index: Index, asked: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="needed"):
        find(index, asked)


def test_paths_are_those_of_the_run(index: Index, whole_run: Path) -> None:
    run = open_run(whole_run)
    for path in list(followed_steps(run).values())[::7]:
        for step in path[:: max(1, len(path) - 1)]:
            cards = follow(index, step.key, step.feature)
            assert places(cards) == [(one.key, one.feature) for one in path]
        for card, one in zip(cards[1:], path[1:], strict=True):
            assert card["step"]["cost"] == pytest.approx(one.cost, rel=1e-5)
            # The status that is doubted may be that of the feature before.
            known = [why for why in one.doubts if not why.startswith("the feature is")]
            assert [
                why for why in card["step"]["doubts"] if not why.startswith("feature ")
            ] == known
            runner_up = (
                card["step"]["runners_up"][0]["candidate"] if card["step"]["runners_up"] else None
            )
            assert runner_up == one.runner_up
    with pytest.raises(UsageError, match="found 4000"):
        follow(index, "3", 4000)


def test_contexts_are_the_strongest(index: Index, whole_run: Path) -> None:
    table = pd.read_parquet(whole_run / "contexts/4.parquet")
    for feature in table["feature"].unique()[:10]:
        mine = table[table["feature"] == feature].nlargest(6, "activation")
        found = contexts(index, "4", int(feature))
        assert [one["activation"] for one in found] == pytest.approx(mine["activation"].tolist())
        assert all(len(one["tokens"]) == len(one["activations"]) for one in found)


def test_whole(index: Index, whole_run: Path) -> None:
    found = whole(index)
    run = open_run(whole_run)
    assert [layer["features"] for layer in found["layers"]] == [40, 40, 40, 30]
    for flow in found["flows"]:
        table = run.matching_table(flow["a"], flow["b"])
        size = run.manifest["saes"][flow["b"]]["d_sae"]
        kept = table[table["partner"] >= 0]
        assert (flow["kept"], flow["died"]) == (len(kept), len(table) - len(kept))
        assert flow["born"] == size - kept["partner"].nunique()
        live = kept[(kept["status"] == "live")]
        assert sum(flow["counts"]) == len(live)


def test_compare(index: Index, whole_run: Path) -> None:
    run = open_run(whole_run)
    first, second = (
        run.matching_table("3", "4", s).set_index("feature") for s in ("folded", "cosine")
    )
    live = first["status"] == "live"
    apart = live & (first["partner"] != second["partner"])
    found = compare(index, {"pair": "3--4", "second": "cosine"}, 10_000)
    assert (found["live"], found["apart"]) == (live.sum(), apart.sum())
    assert sorted(row["feature"] for row in found["rows"]) == sorted(first.index[apart])
    pairs = pd.read_parquet(whole_run / "evaluation/pairs.parquet")
    pairs = pairs[(pairs["a"] == "3") & (pairs["b"] == "4")]
    score = {
        s: (rows.set_index("feature")["joint_firings"] / rows.set_index("feature")["firings"])
        for s, rows in pairs[pairs["firings"] > 0].groupby("strategy")
    }
    better = sum(
        score["folded"].get(f, float("nan")) > score["cosine"].get(f, float("nan"))
        for f in first.index[apart]
    )
    assert found["first_better"] == better
    for wrong in ({"pair": "3--6"}, {"first": "x"}, {"second": "folded'"}):
        with pytest.raises(UsageError, match="needed"):
            compare(index, wrong)


def test_a_run_agrees_with_itself(index: Index) -> None:
    found = compare_runs(index, index, {})
    assert [row["live"] == row["alike"] for row in found["pairs"]] == [True] * 3
    assert found["not_the_same"] == []


def test_a_run_without_descriptions_and_one_that_is_being_written(copied_run: Path) -> None:
    for name in ("features/3.parquet", "matchings/folded/decoder+encoder+bias/4--5.parquet"):
        (copied_run / name).unlink()
    (copied_run / "contexts/4.parquet").write_bytes(b"cut short")
    path = copied_run / "descriptions/activations--5.parquet"
    path.write_bytes(b"x" * path.stat().st_size)  # of the right length and nothing else
    opened = Index.of(copied_run)
    try:
        said = "\n".join(opened.problems)
        assert "features/3.parquet: no such file" in said
        assert "features of 5" in said
        assert find(opened, {}).total >= 110
        assert contexts(opened, "4", 3) == []
        assert "contexts/4.parquet" in "\n".join(opened.problems)
        assert [flow["a"] for flow in whole(opened)["flows"]] == ["3"]
    finally:
        opened.close()
