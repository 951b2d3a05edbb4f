"""What a run computes, what it computes again, and that it is the same every time."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from killing import Memory, contents
from tiny_suites import write_sae, write_suite

import saematch.pipelines.suite
from saematch.configs import RunConfig
from saematch.errors import UsageError
from saematch.loading import load_suite
from saematch.matching.correspondence import compose
from saematch.matching.match import match
from saematch.pipelines.matching.run import run
from saematch.pipelines.matching.stages import nearest, pair_costs
from saematch.pipelines.suite import chains
from saematch.sae import SAE, fold_thresholds
from saematch.store.reader import Run


def config_of(suite: Path, **changes) -> RunConfig:
    return RunConfig.from_dict({"suite": str(suite), "random_draws": 3, **changes})


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(config_of(suite, far="3,5"), tmp_path_factory.mktemp("runs") / "run")


def value(run: Run, a: str, b: str, strategy: str, measure: str, column: str = "value") -> float:
    table = run.measures().set_index(["a", "b", "strategy", "measure"])
    return table.loc[(a, b, strategy, measure), column]


@pytest.mark.parametrize("pair", [("3", "4"), ("4", "5"), ("3", "5")])
def test_matchings_are_those_of_match(finished: Run, suite: Path, pair: tuple[str, str]) -> None:
    saes = load_suite(str(suite))
    for strategy in ("folded", "unfolded", "cosine", "random"):
        expected = match(saes.load(pair[0]), saes.load(pair[1]), strategy=strategy)
        table = finished.matching_table(*pair, strategy)
        frame = expected.to_frame()
        for column in ("partner", "status", "cost", "mse_decoder", "cosine", "certain"):
            np.testing.assert_array_equal(table[column], frame[column], column)
        if strategy == "random":
            continue
        for name, found in expected.summary().items():
            if name in ("total_cost", "mse_encoder", "cosine", "compared", "left_out"):
                assert value(finished, *pair, strategy, name) == pytest.approx(found, rel=1e-15)
    folded = finished.matching_details(*pair)
    assert folded["proof"]["gap"] <= 1e-6
    assert value(finished, *pair, "folded", "total_cost") == pytest.approx(
        folded["proof"]["primal"]
    )


def test_random_is_the_mean_of_its_draws(finished: Run, suite: Path) -> None:
    saes = load_suite(str(suite))
    draws = [
        match(saes.load("3"), saes.load("4"), strategy="random", seed=seed).summary()["mse_decoder"]
        for seed in range(3)
    ]
    for column, expected in (("value", np.mean(draws)), ("low", min(draws)), ("high", max(draws))):
        assert value(finished, "3", "4", "random", "mse_decoder", column) == pytest.approx(expected)


def test_raw_measures_are_of_raw_weights(finished: Run, suite: Path) -> None:
    saes = load_suite(str(suite))
    raw = match(saes.load("3"), saes.load("4"), strategy="unfolded", scale="none")
    expected = raw.summary()["mse_decoder"]
    assert value(finished, "3", "4", "unfolded", "mse_decoder_raw") == pytest.approx(expected)
    least = value(finished, "3", "4", "folded", "total_cost")
    for strategy in ("unfolded", "naive", "random"):
        column = "low" if strategy == "random" else "value"
        assert least <= value(finished, "3", "4", strategy, "total_cost", column) * (1 + 1e-12)


def test_composition_composes_the_steps(finished: Run) -> None:
    steps = [finished.matching_table(*p)["partner"].to_numpy() for p in (("3", "4"), ("4", "5"))]
    composed = finished.matching_table(3, 5, "composition")["partner"].to_numpy()
    np.testing.assert_array_equal(composed, compose(steps[0], steps[1]))
    paths = finished.paths()
    wide = paths.pivot(index="path", columns="key", values="feature")
    for row in wide[["3", "5"]].dropna().astype(int).itertuples(index=False):
        assert composed[row[0]] == row[1]


def test_cosine_is_composed_step_by_step_too(finished: Run) -> None:
    steps = [
        finished.matching_table(*pair, "cosine")["partner"].to_numpy()
        for pair in (("3", "4"), ("4", "5"))
    ]
    composed = finished.matching_table(3, 5, "cosine_composition")["partner"].to_numpy()
    np.testing.assert_array_equal(composed, steps[1][steps[0]])


def test_paths_hold_every_feature_once(finished: Run) -> None:
    paths = finished.paths()
    for key, d_sae in (("3", 16), ("4", 16), ("5", 24)):
        assert sorted(paths.loc[paths["key"] == key, "feature"]) == list(range(d_sae))
    assert finished.chains == (("3", "4", "5"),)


def test_follow(finished: Run) -> None:
    path = finished.follow("4", 7)
    assert list(path["key"]) == ["3", "4", "5"]
    assert path["feature"][1] == 7
    table = finished.matching_table(4, 5)
    assert path["feature"][2] == table["partner"][7]
    live = table[(table["status"] == "live") & (table["partner_status"] == "live")]
    assert path["quantile"][2] == (live["cost"] <= table["cost"][7]).mean()
    near = finished.candidates(4, 5)
    near = near[(near["feature"] == 7) & (near["candidate"] != path["feature"][2])]
    assert path["runner_up"][2] == near["candidate"].iloc[0]
    assert path["cost"][2] + path["runner_up_extra_cost"][2] == pytest.approx(near["cost"].iloc[0])
    assert pd.isna(path["runner_up"][0])
    assert len(finished.follow(5, 23)) >= 1


def test_what_is_not_there_is_said(finished: Run) -> None:
    with pytest.raises(UsageError, match="3, 4, 5, got '9'"):
        finished.follow("9", 0)
    with pytest.raises(UsageError, match="from 0 to 15, got 16"):
        finished.follow("3", 16)
    with pytest.raises(UsageError, match=r"3--4, 3--5, 4--5, got 5--3"):
        finished.matching_table("5", "3")
    with pytest.raises(UsageError, match="folded"):
        finished.matching_table("3", "4", "magic")
    with pytest.raises(UsageError, match="pairs"):
        finished.candidates("5", "3")


def test_unknown_layers_are_said(suite: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="9"):
        run(config_of(suite, layers="3,9"), tmp_path / "run")
    with pytest.raises(UsageError, match="got '9'"):
        run(config_of(suite, far="3,9"), tmp_path / "run")
    with pytest.raises(UsageError, match="twice"):
        run(config_of(suite, far="3,3"), tmp_path / "run")
    with pytest.raises(UsageError, match="at least two layers"):
        run(config_of(suite, layers="3"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parts", [{"decoder": 1.0, "encoder": 1.0, "bias": 1.0}, {"encoder": 0.3}])
@pytest.mark.parametrize("count", [1, 5, 100])
def test_candidates_equal_brute_force(parts: dict[str, float], count: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def sae(d_sae: int) -> SAE:
        # Few different values, so that many costs are equal; some rows are zero.
        draw = lambda *shape: torch.randint(-1, 2, shape, generator=generator).float()  # noqa: E731
        threshold = torch.full((d_sae,), 2.0)
        return SAE(
            draw(3, d_sae), draw(d_sae), draw(d_sae, 3), draw(3), "jumprelu", threshold=threshold
        )

    a, b = fold_thresholds(sae(30)), fold_thresholds(sae(40))
    found = nearest(a, b, parts, count)
    live = np.array(b.sae.status) == "live"
    assert not live.all()
    kept = min(count, int(live.sum()))
    i, j = torch.arange(30).repeat_interleave(40), torch.arange(40).repeat(30)
    costs = pair_costs(a, b, i, j, parts).reshape(30, 40).numpy()
    costs[:, ~live] = np.inf
    order = np.argsort(costs, axis=1, kind="stable")[:, :kept]
    np.testing.assert_array_equal(found["candidate"].reshape(30, kept), order)
    np.testing.assert_array_equal(
        found["cost"].reshape(30, kept), np.take_along_axis(costs, order, axis=1)
    )
    assert list(found["rank"][:kept]) == list(range(1, kept + 1))
    np.testing.assert_array_equal(found["feature"], np.repeat(np.arange(30), kept))


def test_candidates_agree_with_the_matching(finished: Run) -> None:
    table, near = finished.matching_table(3, 4), finished.candidates(3, 4)
    both = near.merge(table, left_on=["feature", "candidate"], right_on=["feature", "partner"])
    assert len(both) > 5
    np.testing.assert_array_equal(both["cost_x"], both["cost_y"])
    np.testing.assert_allclose(both["cosine_x"], both["cosine_y"], rtol=1e-14)


def test_two_runs_are_the_same_byte_for_byte(finished: Run, suite: Path, tmp_path: Path) -> None:
    saematch.pipelines.suite.forget_loaded()
    run(config_of(suite, far="3,5"), tmp_path / "again")
    assert contents(finished.path) == contents(tmp_path / "again")


def test_a_change_makes_anew_exactly_what_depends_on_it(
    suite: Path, tmp_path: Path, memory: Memory
) -> None:
    def again(**changes) -> list[str]:
        memory.executed.clear()
        config = config_of(suite, **{"strategies": "folded", **changes})
        run(config, tmp_path / "run", execute=memory)
        return sorted(memory.executed)

    measures = ["collect_measures", *["compare_strategies"] * 2, "merge_sources"]
    assert len(again()) == 2 * 6 + 3 + 2 + 2
    assert again() == []
    with_random = [*measures[:3], *["match_pair"] * 2, measures[3]]
    assert again(strategies="folded,random") == with_random
    assert again(strategies="folded,random", random_draws=4) == measures
    assert again() == measures
    assert again(candidates=2) == ["find_candidates", "find_candidates"]
    assert again(candidates=2, far="3,5") == [
        "collect_measures", "compare_strategies", "compose_pair", "find_candidates", "match_pair",
        "measure_consistency", "measure_growth", "merge_sources", "tell_fates",
    ]  # fmt: skip
    assert again(candidates=2, parts="decoder").count("match_pair") == 2
    assert again(candidates=2, parts="decoder") == []


def test_a_changed_checkpoint_makes_anew_what_reads_it(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite")
    memory = Memory()
    config = RunConfig(str(folder), strategies=("folded",))
    run(config, tmp_path / "run", execute=memory)
    write_sae(folder / "layer_5", 5, 24, seed=7)
    memory.executed.clear()
    run(config, tmp_path / "run", execute=memory)
    assert sorted(memory.executed) == [
        "chain_paths", "collect_measures", "compare_strategies", "find_candidates", "follow_paths",
        "match_pair", "measure_consistency", "measure_growth", "measure_norms", "merge_sources", "tell_fates",
    ]  # fmt: skip
    run(config, tmp_path / "fresh")
    assert contents(tmp_path / "run") == contents(tmp_path / "fresh")


def test_stages_and_tasks_pickle(suite: Path, tmp_path: Path) -> None:
    def elsewhere(stage, task, files):
        stage, task, files = pickle.loads(pickle.dumps((stage, task, files)))
        return pickle.loads(pickle.dumps(stage(task, files)))

    config = config_of(suite, far="3,5", strategies="folded,naive,random")
    run(config, tmp_path / "sent", execute=elsewhere)
    run(config, tmp_path / "here")
    assert contents(tmp_path / "sent") == contents(tmp_path / "here")


def test_two_saes_at_a_time(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saematch.loading import SuiteEntry

    loaded: list[str] = []
    original = SuiteEntry.load

    def load(entry: SuiteEntry) -> SAE:
        assert len(saematch.pipelines.suite._LOADED) < 2
        loaded.append(entry.key)
        return original(entry)

    monkeypatch.setattr(SuiteEntry, "load", load)
    run(config_of(suite, strategies="folded,cosine"), tmp_path / "run")
    assert loaded[:6] == ["3", "4", "5", "3", "4", "5"], "once to describe, once to match"


def test_progress_counts_up_to_all(suite: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    run(
        config_of(suite, strategies="folded"),
        tmp_path / "run",
        progress=lambda *event: told.append(event),
    )
    assert told[-1][0] == told[-1][1]
    assert "reading 3" in told[0][2]
    assert any("matchings/folded" in what for _, _, what in told)


def test_several_saes_a_layer_make_a_chain_for_each_name(tmp_path: Path) -> None:
    for layer in (3, 4):
        for name, seed in (("small", 0), ("large", 1)):
            write_sae(tmp_path / "suite" / f"layer_{layer}" / name, layer, 16, seed)
    write_sae(tmp_path / "suite" / "layer_4" / "odd", 4, 16, 2)
    finished = run(config_of(tmp_path / "suite", strategies="folded"), tmp_path / "run")
    assert set(finished.pairs) == {("3.small", "4.small"), ("3.large", "4.large")}
    assert finished.chains == (("3.large", "4.large"), ("3.small", "4.small"))
    assert "4.odd" in finished.manifest["notes"][0]
    assert len(finished.follow("3.small", 2)) == 2
    with pytest.raises(UsageError, match="names several"):
        finished.follow(3, 2)
    paths = finished.paths()
    assert paths["path"].nunique() == 32
    with pytest.raises(UsageError, match="at least two"):
        chains(load_suite(str(tmp_path / "suite"), layers=[4]).entries)


def test_later_stages_add_measures_while_they_are_current(suite: Path, tmp_path: Path) -> None:
    from saematch.pipelines.matching.run import merge_measures
    from saematch.store.directory import RunDirectory
    from saematch.store.schema import MEASURE_SOURCE

    config = config_of(suite, strategies="folded")
    finished = run(config, tmp_path / "run")
    row = ("3", "4", "web", "folded", config.slug, "ev", 0.5, 0.4, 0.6, 10, 100)
    columns = {name: [cell] for name, cell in zip(MEASURE_SOURCE.names, row, strict=True)}
    matching = f"matchings/folded/{config.slug}/3--4.parquet"
    with RunDirectory(tmp_path / "run").holding() as held:
        data = MEASURE_SOURCE.encode(columns)
        held.keep("evaluation/measures/web.parquet", data, "inputs", [held.kept(matching)])
        assert merge_measures(held)
        assert not merge_measures(held)
    before = len(finished.measures())
    again = run(config, tmp_path / "run")
    assert list(again.measures().query("corpus == 'web'")["value"]) == [0.5]
    # Matched on another scale the pair is another one, and what was measured on it is left out.
    changed = run(
        RunConfig.from_dict({**config.to_dict(), "scale": "decoder_norm"}), tmp_path / "run"
    )
    assert "web" not in set(changed.measures()["corpus"])
    assert len(changed.measures()) == before - 1
