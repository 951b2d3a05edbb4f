"""Following a feature, what stands behind it, the whole, and comparisons, against pandas."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from damage import NO_SUCH_TABLES, rewrite, wrong_bytes
from explored_runs import SHAPE, Shape, client_of, write_run
from recomputed import features_of, judged_rows, keys_of, labels_of, matching
from starlette.testclient import TestClient
from synthetic_meanings import JUDGE, UNABLE

from saematch.explorer.explorer import Explorer
from saematch.store.becoming import becomes, fate_shares
from saematch.store.following import StepWarning, followed_steps
from saematch.store.manifest import MANIFEST, decode_manifest, encode_manifest
from saematch.store.reader import open_run
from saematch.store.schema import RESULTS, decode

Ask = Callable[..., dict[str, Any]]


def test_every_path_is_the_runs(ask: Ask, synthetic: Path) -> None:
    paths = pd.read_parquet(synthetic / "paths.parquet")
    tables = {(a, b): matching(synthetic, "folded", a, b) for a, b in pairwise(keys_of(synthetic))}
    for _, path in paths.groupby("path"):
        steps = path.to_dict("records")
        for place, row in enumerate(steps[:: max(1, len(steps) - 1)]):
            answer = ask("path", feature=f"{row['key']}/{row['feature']}")
            cards = answer["cards"]
            assert [(one["key"], one["feature"]) for one in cards] == [
                (one["key"], one["feature"]) for one in steps
            ]
            assert answer["here"] == (0 if place == 0 else len(steps) - 1)
            assert cards[0]["step"] is None
            for card, one in zip(cards[1:], steps[1:], strict=True):
                assert card["step"]["cost"] == pytest.approx(one["cost"])
                assert card["step"]["certain"] == one["certain"]
            for one, other in pairwise(cards):
                before = tables[one["key"], other["key"]].iloc[one["feature"]]
                assert other["step"]["mse"] == pytest.approx(before["mse_decoder"])
                assert other["step"]["from"] == f"{one['key']}/{one['feature']}"
            assert ("born" in answer["ends"]["before"]) == steps[0]["born"]
            assert ("dies" in answer["ends"]["after"]) == steps[-1]["dies"]


def test_runner_up_is_that_of_the_candidates(ask: Ask, synthetic: Path) -> None:
    frame = features_of(synthetic)
    status = frame[frame["key"] == "2"].set_index("feature")["status"]
    for row in frame[(frame["key"] == "1") & frame["partner"].notna()].to_dict("records")[:20]:
        near = pd.read_parquet(synthetic / "candidates/1--2.parquet")
        near = near[(near["feature"] == row["feature"]) & (near["candidate"] != row["partner"])]
        first = near.sort_values("rank").iloc[0]
        answer = ask("path", feature=f"1/{row['feature']}")
        step = answer["cards"][answer["here"] + 1]["step"]
        assert step["runner_up"] == first["candidate"]
        assert step["extra_cost"] == pytest.approx(first["cost"] - row["cost"])
        assert step["runner_up_cosine"] == pytest.approx(first["cosine"])
        assert step["runner_up_status"] == status[first["candidate"]]


def test_warnings_are_those_of_the_report(ask: Ask, synthetic: Path) -> None:
    said = []
    for steps in followed_steps(open_run(synthetic)).values():
        cards = ask("path", feature=f"{steps[0].key}/{steps[0].feature}")["cards"]
        assert [card["feature"] for card in cards] == [step.feature for step in steps]
        for card, step in zip(cards[1:], steps[1:], strict=True):
            assert tuple(card["step"]["warnings"]) == step.warnings
            said += step.warnings
    for kind in (
        "dead",
        "most costly 10%",
        "(cost",
        "by direction",
        "equally",
        "near tie",
        "never",
        "DIFFERENT",
    ):
        assert any(kind in warning for warning in said), kind


def test_the_index_has_the_warnings_of_every_step(ask: Ask, synthetic: Path) -> None:
    of_run = {
        (before.key, before.feature): [str(kind) for kind in step.kinds]
        for steps in followed_steps(open_run(synthetic)).values()
        for before, step in pairwise(steps)
    }
    rows, total = [], 1
    while len(rows) < total:
        page = ask("features", limit=200, offset=len(rows))
        total = page["total"]
        rows += page["features"]
    of_index = {
        (row["key"], row["feature"]): row["warnings"] for row in rows if row["warnings"] is not None
    }
    assert of_index == of_run
    assert {kind for kinds in of_run.values() for kind in kinds} == {
        str(kind) for kind in StepWarning
    }


def test_examples_are_the_strongest(ask: Ask, synthetic: Path) -> None:
    table = pd.read_parquet(synthetic / "examples/2.parquet")
    for feature in table["feature"].unique()[:8]:
        wanted = (
            table[table["feature"] == feature].sort_values("activation", ascending=False).head(3)
        )
        found = ask("evidence", feature=f"2/{feature}", limit=3)["examples"]
        assert [one["activation"] for one in found] == pytest.approx(wanted["activation"].tolist())
        assert [one["tokens"] for one in found] == [list(one) for one in wanted["tokens"]]
        assert [one["activations"] for one in found] == [list(one) for one in wanted["activations"]]


def test_candidates_say_whom_they_were_given_to(ask: Ask, synthetic: Path) -> None:
    near = pd.read_parquet(synthetic / "candidates/0--1.parquet")
    taken = matching(synthetic, "folded", "0", "1").set_index("partner")["feature"]
    argmax = matching(synthetic, "cosine", "0", "1").set_index("feature")
    for feature in (0, 7, 30):
        found = ask("candidates", feature=f"0/{feature}")
        wanted = near[near["feature"] == feature].sort_values("rank")["candidate"].tolist()
        by_direction = argmax.loc[feature, "partner"]
        if by_direction not in (-1, *wanted):
            wanted.append(by_direction)
            assert found["candidates"][-1]["rank"] is None
        assert [one["candidate"] for one in found["candidates"]] == wanted
        for one in found["candidates"]:
            assert one["given_to"] == taken.get(one["candidate"])
    assert ask("candidates", feature="3/0")["candidates"] == []


def test_judgements_of_a_pair_are_shown_with_their_judge(ask: Ask, synthetic: Path) -> None:
    rows = [row for row in judged_rows(synthetic) if row["strategy"] == "folded"]
    for row in rows[:10]:
        name = f"{row['a']}/{row['feature']}"
        mine = [one for one in rows if (one["a"], one["feature"]) == (row["a"], row["feature"])]
        found = ask("judgements", feature=name)["judgements"]
        standing = [one for one in found if one["stands"]]
        assert {(one["experiment"], one["label"]) for one in standing} >= {
            (one["experiment"], one["label"]) for one in mine
        }
        assert {one["judge"] for one in standing} == {JUDGE}
        assert {one["judge"] for one in found if not one["stands"]} <= {UNABLE}
    assert any(not one["stands"] for one in found)


def test_flows_births_and_deaths_add_up(ask: Ask, synthetic: Path) -> None:
    answer = ask("whole")
    paths = pd.read_parquet(synthetic / "paths.parquet")
    for column in answer["columns"]:
        assert sum(column["bands"].values()) == SHAPE.features
        here = paths[paths["key"] == column["key"]]
        assert column["born"] == here["born"].sum()
        assert column["bands"].get("dies", 0) == here["dies"].sum()
    for a, b in pairwise(keys_of(synthetic)):
        table = matching(synthetic, "folded", a, b)
        flows = [one for one in answer["flows"] if one["a"] == a]
        assert sum(one["features"] for one in flows) == (table["partner"] >= 0).sum()
        low = table[(table["status"] == "live") & (table["partner_status"] == "live")]
        low = low[low["cost"] <= answer["quarters"][0]]
        assert sum(one["features"] for one in flows if one["from"] == "q1") == len(low)
    quarters = [
        sum(column["bands"].get(band, 0) for column in answer["columns"])
        for band in ("q1", "q2", "q3", "q4")
    ]
    assert max(quarters) - min(quarters) <= 1


def test_bands_lead_to_the_features_behind_them(ask: Ask) -> None:
    answer = ask("whole")
    low, middle, high = answer["quarters"]
    ranges = {"q1": (None, low), "q2": (low, middle), "q3": (middle, high), "q4": (high, None)}
    for column in answer["columns"][:-1]:
        for band, (least, most) in ranges.items():
            ends = {"cost_min": least, "cost_max": most}
            asked = {name: value for name, value in ends.items() if value is not None}
            found = ask("features", layer=column["key"], pairs="live", **asked)
            assert found["total"] == column["bands"].get(band, 0)


@pytest.mark.parametrize("measure", ["mse", "cost"])
def test_bars_lead_to_the_features_behind_them(measure: str, ask: Ask, synthetic: Path) -> None:
    answer = ask("whole", measure=measure, bins=8)
    column = {"mse": "mse_decoder", "cost": "cost"}[measure]
    edges = answer["edges"]
    for one in answer["histograms"]:
        table = matching(synthetic, "folded", one["a"], one["b"])
        live = table[(table["status"] == "live") & (table["partner_status"] == "live")][column]
        assert sum(one["counts"]) == len(live)
        assert one["median"] == pytest.approx(live.median())
        expected = np.histogram(live, bins=edges)[0]
        assert one["counts"] == expected.tolist()


def pairs_of(run: Path, corpus: str, strategy: str) -> pd.DataFrame:
    table = pd.read_parquet(run / f"evaluation/pairs/{corpus}.parquet")
    keys = keys_of(run)
    adjacent = table["b"] == table["a"].map(dict(pairwise(keys)))
    table = table[(table["strategy"] == strategy) & adjacent].rename(columns={"a": "key"})
    table["score"] = (table["joint_activation_count"] / table["activation_count"]).where(
        table["activation_count"] > 0
    )
    return table[["key", "feature", "partner", "score", "phi"]]


@pytest.mark.parametrize(
    ("one", "other"), [("folded", "cosine"), ("unfolded", "correlation"), ("folded", "naive")]
)
def test_comparison_counts_who_activates_together_more(
    one: str, other: str, ask: Ask, synthetic: Path
) -> None:
    sides = []
    for strategy in (one, other):
        frame = features_of(synthetic, strategy).drop(columns=["phi", "lift"])
        frame = frame[(frame["status"] == "live") & frame["next"].notna()]
        scored = frame.merge(
            pairs_of(synthetic, "web", strategy), on=["key", "feature", "partner"], how="left"
        )
        sides.append(scored.set_index(["key", "feature"]))
    both = sides[0].join(sides[1], lsuffix="_one", rsuffix="_other")
    both = both[both["partner_one"].notna() | both["partner_other"].notna()]
    differ = both[both["partner_one"] != both["partner_other"]]
    answer = ask("compare", one=one, other=other, corpus="web", active=0, limit=200)
    for row in answer["pairs"]:
        here, apart = both.loc[row["a"]], differ.loc[row["a"]]
        assert row["features"] == len(here)
        assert row["differ"] == len(apart)
        assert row["same"] == len(here) - len(apart)
        assert row["for_one"] == (apart["score_one"] > apart["score_other"]).sum()
        assert row["for_other"] == (apart["score_other"] > apart["score_one"]).sum()
        assert row["ties"] == (apart["score_one"] == apart["score_other"]).sum()
        assert row["for_one"] + row["for_other"] + row["ties"] + row["unmeasured"] == row["differ"]
        tables = [matching(synthetic, name, row["a"], row["b"]) for name in (one, other)]
        same = (tables[0]["status"] == "live") & (tables[0]["partner"] >= 0)
        same &= tables[1]["partner"] >= 0
        assert row["compared"] == same.sum()
        for name in ("score", "phi"):
            known = here[[f"{name}_one", f"{name}_other"]].dropna()
            for side in ("one", "other"):
                if len(known):
                    assert row[f"{name}_{side}"] == pytest.approx(known[f"{name}_{side}"].mean())
        for side, table in zip(("one", "other"), tables, strict=True):
            assert row[f"mse_{side}"] == pytest.approx(table["mse_decoder"][same].mean())
    assert answer["total"] == len(differ)
    apart = [
        abs(row["score_one"] - row["score_other"])
        for row in answer["features"]
        if None not in (row["score_one"], row["score_other"])
    ]
    assert apart == sorted(apart, reverse=True)
    assert {(row["key"], row["feature"]) for row in answer["features"]} == set(differ.index)
    for show, name in (
        ("same", "same"),
        ("one", "for_one"),
        ("other", "for_other"),
        ("all", "features"),
    ):
        shown = ask("compare", one=one, other=other, corpus="web", show=show, active=0, limit=200)
        assert shown["total"] == len(shown["features"]) or shown["total"] > 200
        assert shown["total"] == sum(row[name] for row in shown["pairs"])


def test_comparison_says_what_judges_call_both(ask: Ask, synthetic: Path) -> None:
    value = {"DIFFERENT": 1, "MAYBE": 2, "SAME": 3}
    by_strategy: dict[str, dict[tuple[str, int], list[int]]] = {"folded": {}, "cosine": {}}
    for row in judged_rows(synthetic):
        # `mse` asks about folded pairs alone: it says nothing of who is right.
        if row["experiment"] == "layers" and row["strategy"] in by_strategy:
            labels = by_strategy[row["strategy"]].setdefault((row["a"], row["feature"]), [])
            labels.append(value[row["label"]])
    live = features_of(synthetic)
    live = {
        (row["key"], row["feature"]) for row in live.to_dict("records") if row["status"] == "live"
    }
    answer = ask("compare", sort="labels", limit=200)
    assert answer["judged"]
    for row in answer["pairs"]:
        both = {
            name: [np.mean(side[name]) for side in by_strategy.values()]
            for name in live
            if name[0] == row["a"] and all(name in side for side in by_strategy.values())
        }
        assert row["judged"] == len(both) > 0
        means = np.mean(list(both.values()), axis=0)
        assert [row["label_one"], row["label_other"]] == pytest.approx(means)
        partners = [
            matching(synthetic, strategy, row["a"], row["b"]).set_index("feature")["partner"]
            for strategy in by_strategy
        ]
        differ = {name for name in both if partners[0][name[1]] != partners[1][name[1]]}
        assert row["judged_same"] == len(both) - len(differ)
        assert row["judge_one"] == sum(both[name][0] > both[name][1] for name in differ)
        assert row["judge_other"] == sum(both[name][1] > both[name][0] for name in differ)
    labels = labels_of(synthetic)
    for row in answer["features"]:
        for side in ("one", "other"):
            pair = row["key"], row["feature"], row[f"partner_{side}"]
            assert row[f"labels_{side}"] == labels.get(pair)
    found = ask("compare", show="judge_other", limit=200)
    assert found["total"] == sum(row["judge_other"] for row in found["pairs"]) > 0
    assert all(row["label_other"] > row["label_one"] for row in found["features"])


def test_a_comparison_needs_two_strategies(ask: Ask, client: TestClient) -> None:
    assert ask("compare", one="cosine")["other"] == "folded"
    reply = client.get("/api/compare", params={"one": "naive", "other": "naive"})
    assert reply.status_code == 400
    assert "got naive twice" in reply.json()["error"]


def test_two_runs_of_the_same_saes_differ_where_their_partners_do(
    synthetic: Path, tmp_path: Path
) -> None:
    shape = Shape(**{**vars(SHAPE), "seed": 6, "corpora": (), "described": False})
    second = write_run(tmp_path / "second", shape)
    explorer = Explorer(synthetic, second)
    try:
        ask = client_of(explorer)
        answer = ask.get("/api/runs", params={"limit": 200}).json()
        one, other = features_of(synthetic), None
        total = 0
        for row in answer["pairs"]:
            tables = [matching(run, "folded", row["a"], row["b"]) for run in (synthetic, second)]
            live = (one[one["key"] == row["a"]].set_index("feature")["status"] == "live").to_numpy()
            live = live & ((tables[0]["partner"] >= 0) | (tables[1]["partner"] >= 0)).to_numpy()
            apart = (tables[0]["partner"] != tables[1]["partner"])[live]
            assert (row["features"], row["differ"]) == (live.sum(), apart.sum())
            total += apart.sum()
            same = live & (tables[0]["partner"] >= 0) & (tables[1]["partner"] >= 0)
            assert row["compared"] == same.sum()
            for name, table in zip(("mse_one", "mse_other"), tables, strict=True):
                assert row[name] == pytest.approx(table["mse_decoder"][same].mean())
        assert answer["total"] == total
        assert other is None
        assert {"setting": "seed", "one": 5, "other": 6} in answer["settings"]
        assert ask.get("/api/run").json()["second"]["suite"] == "synthetic"
    finally:
        explorer.close()


def test_runs_without_an_sae_in_common_say_so(synthetic: Path, tmp_path: Path) -> None:
    explorer = Explorer(synthetic, write_run(tmp_path / "other", Shape(features=10, layers=3)))
    try:
        answer = client_of(explorer).get("/api/runs").json()
        assert answer["pairs"] == []
        assert answer["total"] == 0
    finally:
        explorer.close()


def test_a_judge_that_fails_its_controls_raises_no_warning(changed: Path) -> None:
    for experiment in ("layers", "mse"):
        name = f"judging/{experiment}/{JUDGE}.parquet"
        table, about = decode((changed / name).read_bytes())
        data = RESULTS.encode(
            table.to_pydict(), {**about, "passes_controls": False, "verdict": "fails its controls"}
        )
        rewrite(changed, name, data)
    explorer = Explorer(changed)
    try:
        client = client_of(explorer)
        called = client.get("/api/features", params={"label": "DIFFERENT", "limit": 200}).json()
        assert called["features"]  # the label is shown even so
        for row in called["features"]:
            name = f"{row['key']}/{row['feature']}"
            path = client.get("/api/path", params={"feature": name}).json()
            step = path["cards"][path["here"] + 1]["step"]
            assert "judged DIFFERENT" not in step["warnings"]
            assert bool(row["warnings"]) == bool(step["warnings"])
    finally:
        explorer.close()
    steps = [step for path in followed_steps(open_run(changed)).values() for step in path]
    assert not any("judged DIFFERENT" in step.warnings for step in steps)


def test_what_becomes_of_a_feature_is_the_tables(ask: Ask, synthetic: Path) -> None:
    told = open_run(synthetic)
    fates, followed = told.fates("1", "2"), told.followed()
    for row in fates.to_dict("records")[:20]:
        feature = row["feature"]
        answer = ask("becomes", feature=f"1/{feature}")
        assert answer["sentence"] == becomes(told, "1", feature)
        assert (answer["fate"], answer["problems"]) == (row["fate"], [])
        counted = row["partner_count"]
        assert [one["feature"] for one in answer["partners"]] == list(row["partners"][:counted])
        assert [one["probability"] for one in answer["partners"]] == pytest.approx(
            list(row["probabilities"][:counted])
        )
        before = told.fates("0", "1")
        counting = [
            one["feature"]
            for one in before.to_dict("records")
            if feature in one["partners"][: one["partner_count"]]
        ]
        assert sorted({one["feature"] for one in answer["origins"]}) == sorted(set(counting))
        place = answer["path"][answer["here"]]
        assert (place["key"], place["feature"]) == ("1", feature)
        start = answer["path"][0]
        number = followed[(followed["key"] == start["key"]) & followed["cosine"].isna()]
        number = number.loc[number["feature"] == start["feature"], "path"].item()
        expected = followed[followed["path"] == number]
        assert [one["feature"] for one in answer["path"]] == expected["feature"].tolist()
        for member in answer["path"][:-1]:
            own = told.fates(member["key"], member["following"]).iloc[member["feature"]]
            assert member["fate"] == own["fate"]


def test_the_whole_has_the_shares_of_fates(ask: Ask, synthetic: Path) -> None:
    answer = ask("whole")
    assert answer["untold"] == []
    for one, other in zip(answer["fates"], fate_shares(open_run(synthetic)), strict=True):
        assert one["shares"] == {fate: list(span) for fate, span in other.shares.items()}
        assert one["born"] == list(other.born or ())
        assert one["counts"] == other.counts
        assert sum(one["counts"].values()) == one["live"]


@pytest.mark.parametrize("name", ["fates/1--2.parquet", "followed.parquet"])
def test_what_becomes_that_cannot_be_read_is_named(
    opened: Explorer, changed: Path, name: str
) -> None:
    for data in NO_SUCH_TABLES:
        rewrite(changed, name, data)
        answer = client_of(opened).get("/api/becomes", params={"feature": "1/7"}).json()
        assert answer["sentence"] == ""
        assert "what becomes of features is left out" in answer["problems"][0]
        cards = client_of(opened).get("/api/path", params={"feature": "1/7"}).json()["cards"]
        assert cards
    wrong_bytes(changed / name)
    answer = client_of(opened).get("/api/becomes", params={"feature": "1/7"}).json()
    assert name in answer["problems"][0]


def test_a_run_without_fates_says_so(opened: Explorer, changed: Path) -> None:
    path = changed / MANIFEST
    content = decode_manifest(path.read_bytes(), path)
    del content["outputs"]["fates/1--2.parquet"]
    path.write_bytes(encode_manifest(content))
    answer = client_of(opened).get("/api/becomes", params={"feature": "1/7"}).json()
    assert "is not known (the run has not told it yet" in answer["sentence"]
    missing = client_of(opened).get("/api/run").json()["missing"]
    assert "What becomes of features is not told for every pair" in missing[0]["what"]
