"""Whatever compares strategies does so over the same features of A: live, with a partner under every one."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from core_builders import make_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tiny_suites import write_sae

from saematch import SAE, Matching, match, price_curve
from saematch.evaluation.ablation import sample
from saematch.evaluation.collecting import Collected, Condition
from saematch.evaluation.measuring import CorpusMeasures
from saematch.matching.matched import same_features
from saematch.matching.strategies import random_permutation
from saematch.pipelines import Run, RunConfig, run
from saematch.pipelines.matching.measures import compared_measures
from saematch.report.page import far_row
from saematch.sae import Firing, fold_thresholds
from saematch.semantics.judges.experiments import PAIR, Answer, pairs_of, results
from saematch.semantics.judges.judge import Judgement, Label, Outcome

MEANS = {
    "mse_decoder": "mse_decoder", "mse_encoder": "mse_encoder", "mse_bias": "mse_bias",
    "cosine": "cosine", "mean_cost": "cost",
}  # fmt: skip
DRAWS = 3


def sae(seed: int, d_sae: int, dead: set[int]) -> SAE:
    counts = torch.ones(d_sae, dtype=torch.int64)
    counts[sorted(dead)] = 0
    return make_sae(seed=seed, d_sae=d_sae, firing=Firing(counts, 100, "made up"))


def matchings_of(a: SAE, b: SAE, price: float | None = None) -> dict[str, Matching]:
    names = ["folded", "unfolded", "random", "cosine"] + ["naive"] * (a.d_sae == b.d_sae)
    return {
        name: match(a, b, strategy=name, unmatched_cost=price if name == "folded" else None)
        for name in names
    }


def by_hand(matchings: Mapping[str, Matching], a: SAE) -> np.ndarray:
    return np.array(
        [
            a.status[i] == "live" and all(one.permutation[i] >= 0 for one in matchings.values())
            for i in range(a.d_sae)
        ]
    )


features = st.sets(st.integers(0, 11), max_size=9)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 99),
    st.sampled_from([(12, 12), (12, 17), (17, 12)]),
    features,
    features,
    features,
    st.sampled_from([None, 4.0, 12.0]),
)
def test_measures_are_over_one_set_that_b_has_no_say_in(
    seed: int,
    widths: tuple[int, int],
    dead_a: set[int],
    dead_b: set[int],
    others: set[int],
    price: float | None,
) -> None:
    a, b = sae(seed, widths[0], dead_a), sae(seed + 1, widths[1], dead_b)
    matchings = matchings_of(a, b, price)
    same = by_hand(matchings, a)
    if widths[0] <= widths[1] and price is None:
        assert same.tolist() == [status == "live" for status in a.status]
    sides = fold_thresholds(a), fold_thresholds(b)
    rows = compared_measures(*sides, matchings, draws=DRAWS)
    for name, one in matchings.items():
        drawn = [one]
        if name == "random":
            drawn += [match(a, b, strategy=name, seed=n) for n in range(1, DRAWS)]
            assert all((other.matched == one.matched).all() for other in drawn)
        for measure, values in MEANS.items():
            each = [getattr(draw, values)[same].mean() if same.any() else np.nan for draw in drawn]
            assert rows[name][measure][0] == pytest.approx(np.mean(each), nan_ok=True)
        assert rows[name]["compared"][0] == same.sum()
        assert rows[name]["left_out"][0] == a.d_sae - same.sum()
    if price is None:
        again = matchings_of(a, sae(seed + 1, widths[1], others))
        if all((again[n].permutation == m.permutation).all() for n, m in matchings.items()):
            assert (same_features(again.values()) == same).all()


def test_a_matching_alone_is_over_live_features_with_any_partner() -> None:
    a, b = sae(0, 12, {2}), sae(1, 12, {0, 1, 3})
    found = match(a, b)
    live = np.array(a.status) == "live"
    assert found.summary()["mse_decoder"] == found.mse_decoder[live].mean()
    assert (found.summary()["compared"], found.summary()["left_out"]) == (11, 1)


def test_a_price_curve_is_over_features_matched_at_every_price() -> None:
    a, b = sae(0, 12, {2}), sae(1, 12, {0, 1, 3})
    prices = [8.0, 14.0, 1e6]
    found = [match(a, b, unmatched_cost=price) for price in prices]
    same = (found[0].status == "live") & np.all([one.matched for one in found], axis=0)
    curve = price_curve(a, b, prices)
    assert 0 < same.sum() < 11
    assert set(curve["compared"]) == {same.sum()}
    assert curve["cost"].tolist() == pytest.approx([one.cost[same].mean() for one in found])


def test_scores_on_text_are_over_features_that_every_map_pairs() -> None:
    generator = np.random.default_rng(0)
    d_a, d_b, tokens = 6, 4, 50

    def counts(width: int) -> list[dict]:
        return [
            {"features": np.arange(width), "counts": generator.integers(0, 9, width), "tokens": tokens,
             "typical_tokens": tokens}
            for _ in range(3)
        ]  # fmt: skip

    maps = {
        "folded": np.array([0, 1, 2, 3, -1, -1]),
        "unfolded": np.array([-1, 3, 2, 1, 0, -1]),
        "random": random_permutation(d_a, d_b, 5),
    }
    layers = {"a": counts(d_a), "b": counts(d_b)}
    conditions = [(Condition(name, "all", 0, None, p), counts(d_a)) for name, p in maps.items()]
    documents = [{"text": n, "tokens": tokens} for n in range(3)]
    found = CorpusMeasures(
        "c", Collected(documents, layers, {("a", "b"): conditions}), {"a": 6, "b": 4}, 0
    )
    same = np.all([p >= 0 for p in maps.values()], axis=0)
    assert same.any()
    fired = sum(row["counts"] for row in layers["a"])[same]
    for name, (_, rows) in zip(maps, conditions, strict=True):
        joint = sum(row["counts"] for row in rows)[same]
        values = found.values(("a", "b"), name, "all")
        assert values["matching_score"][0] == pytest.approx(joint.sum() / fired.sum())
        known = fired > 0
        assert values["features_compared"][0] == known.sum()
        macro = (joint[known] / fired[known]).mean()
        assert values["matching_score_macro"][0] == pytest.approx(macro)


def test_samples_ask_every_strategy_about_the_same_features() -> None:
    a, b = sae(0, 12, {2}), sae(1, 17, {0, 1, 3, 5, 8, 13})
    matchings = matchings_of(a, b)
    same = set(np.flatnonzero(by_hand(matchings, a)).tolist())
    asked = pairs_of("1", "2", matchings, 100, np.random.default_rng(0), 4)
    strategies = {
        name: {one.feature for one in asked if one.strategy == name} for name in matchings
    }
    assert all(some <= same and some == strategies["folded"] for some in strategies.values())
    drawn = sample(matchings["folded"], same_features(matchings.values()), 4, seed=0)
    assert set(drawn[drawn >= 0].tolist()) == same


def test_labels_of_strategies_are_over_features_labelled_under_all() -> None:
    def answer(strategy: str, feature: int, label: Label | None) -> Answer:
        outcome = Outcome.UNREADABLE if label is None else Outcome.JUDGED
        judgement = Judgement(outcome, label)
        return Answer(PAIR, strategy, "1", "2", feature, feature, False, True, judgement)

    said = {"folded": ["SAME", "SAME", "DIFFERENT"], "cosine": ["MAYBE", None, "SAME"]}
    answers = [
        answer(strategy, n, None if label is None else Label(label))
        for strategy, labels in said.items()
        for n, label in enumerate(labels)
    ]
    rows = {(row[0], row[3]): row for row in results(answers, 0, "folded") if row[1] == "1"}
    assert rows["folded", "mean"][4] == pytest.approx((3 + 1) / 2)
    assert rows["cosine", "mean"][4] == pytest.approx((2 + 3) / 2)
    assert rows["folded", "mean"][7] == rows["cosine", "mean"][7] == 2


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Layers of 20, 14 and 16 features, a third of each degenerate, the first and last far apart."""
    folder = tmp_path_factory.mktemp("uneven")
    for layer, width in ((3, 20), (4, 14), (5, 16)):
        write_sae(folder / "suite" / f"layer_{layer}", layer, width, dead=tuple(range(0, width, 3)))
    settings = {"suite": str(folder / "suite"), "far": "3,5", "random_draws": DRAWS}
    return run(RunConfig.from_dict(settings, "test"), folder / "run")


def tables_of(of: Run, a: str, b: str) -> dict[str, pd.DataFrame]:
    names = of.directory.names("matchings/")
    return {
        name.split("/")[1]: of.matching_table(a, b, name.split("/")[1])
        for name in names
        if name.endswith(f"/{a}--{b}.parquet")
    }


def same_in(tables: Mapping[str, pd.DataFrame]) -> pd.Series:
    return np.logical_and.reduce(
        [(one["status"] == "live") & (one["partner"] >= 0) for one in tables.values()]
    )


def test_a_run_compares_over_the_same_features_everywhere(uneven: Run) -> None:
    measures = uneven.measures()
    for a, b in uneven.pairs:
        tables = tables_of(uneven, a, b)
        same = same_in(tables)
        assert same.sum() > 0
        here = measures[(measures["a"] == a) & (measures["b"] == b) & (measures["corpus"] == "")]
        values = here.set_index(["strategy", "measure"])["value"]
        for name, table in tables.items():
            assert values[name, "compared"] == same.sum()
            if name != "random":
                for column in ("mse_decoder", "mse_encoder", "cosine"):
                    assert values[name, column] == pytest.approx(table[column][same].mean())
    exact, composed = (uneven.matching_table("3", "5", s) for s in ("folded", "composition"))
    row = far_row(uneven, "3", "5")
    same = same_in({"exact": exact, "composed": composed})
    assert row["exact"] == pytest.approx(exact["mse_decoder"][same].mean())
    assert row["composition"] == pytest.approx(composed["mse_decoder"][same].mean())
    assert row["compared"] == same.sum()


def test_the_page_and_the_terminal_say_how_many_are_compared(
    uneven: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saematch.cli.display import terminal as display
    from saematch.report.page import render_report

    same = same_in(tables_of(uneven, "3", "4"))
    page = render_report(uneven)
    assert f"<td>{same.sum()}</td><td>{20 - same.sum()}</td>" in page
    assert "features compared" in page
    screen = io.StringIO()
    monkeypatch.setattr(display, "CONSOLE", Console(file=screen, width=80))
    display.run_summary(uneven, uneven.path)
    assert str(same.sum()) in screen.getvalue()
    assert "…" not in screen.getvalue()


def test_match_compare_is_over_the_same_features(
    uneven: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saematch import cli

    suite = Path(uneven.config.suite)
    ends = [str(suite / f"layer_{layer}") for layer in (3, 4)]
    monkeypatch.setattr("sys.argv", ["saematch", "match", *ends, "--compare", "--json"])
    cli.main()
    rows = json.loads(capsys.readouterr().out)["matchings"]
    same = same_in(tables_of(uneven, "3", "4"))
    assert {row["compared"] for row in rows} == {same.sum()}
    folded = uneven.matching_table("3", "4")
    assert rows[0]["mse_decoder"] == pytest.approx(folded["mse_decoder"][same].mean())
