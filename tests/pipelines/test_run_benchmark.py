"""The leaderboard against a straight computation from the tables of a tiny run."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from killing import contents
from tiny_models import tiny_model

from saematch.cli import evaluation as verbs
from saematch.cli.display import evaluation as display
from saematch.cli.display.terminal import Terminal
from saematch.configs import EvaluationConfig
from saematch.errors import InputError, UsageError
from saematch.matching.correspondence import Correspondence
from saematch.matching.matched import Found, Settings
from saematch.matching.matchers import Matcher, registering
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.benchmark import Leaderboard, _places, benchmark
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.sae import FoldedSAE
from saematch.stats import document_weights
from saematch.store.schema import DATA_MEASURES, LEADERBOARD

PAIRS = (("3", "4"), ("4", "5"))
TEXT_MEASURES = ("explained_variance_typical", "delta_loss", "lift", "phi", "f1")
CAUSAL = ("causal_agreement", "deactivation", "substitution", "ausqc")
MATCHERS = {"folded", "unfolded", "cosine", "transport_2", "phi", "backwards"}


class Backwards(Matcher):
    """Feature i is the i-th from the end."""

    def match(self, a: FoldedSAE, b: FoldedSAE, settings: Settings) -> Found:
        partners = (b.d_sae - 1 - np.arange(a.d_sae)) % b.d_sae
        return Found(Correspondence.of_permutation(partners, b.d_sae))


TOY = Backwards(name="backwards", label="backwards", color="#12ab34", marker="h", in_runs=False)


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("benchmark") / "run"
    with registering(TOY), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        strategies = ("folded", "unfolded", "random", "cosine", "transport:2", "backwards")
        run(RunConfig(str(suite), strategies=strategies, random_draws=2), directory)
        with pytest.raises(InputError, match="has not been evaluated"):
            benchmark(directory)
        config = EvaluationConfig(
            corpora=("web", "code"),
            documents=4,
            tokens=40,
            strategies=(*strategies, "phi", "ridge"),
            causal_pairs=4,
            causal_tokens=30,
            random_draws=2,
            batch_tokens=80,
            other_parts=False,
        )
        evaluate(directory, config, model=tiny_model(width=8, blocks=7))
        yield directory


@pytest.fixture(scope="module")
def board(finished: Path) -> Leaderboard:
    return benchmark(finished)


def row(board: Leaderboard, strategy: str, measure: str) -> pd.Series:
    (found,) = [
        one
        for _, one in board.rows.iterrows()
        if (one["strategy"], one["measure"]) == (strategy, measure)
    ]
    return found


def test_every_value_is_the_mean_of_the_measures(finished: Path, board: Leaderboard) -> None:
    measures = open_run(finished).measures()
    measures = measures[(measures["corpus"] != "") & (measures["a"] != measures["b"])]
    means = measures.groupby(["strategy", "measure"])["value"].mean()
    expected = {
        (strategy, measure): means[strategy, measure]
        for strategy in (*MATCHERS, "random", "ridge", "layer_drop", "reconstruct_current")
        for measure in (*TEXT_MEASURES, *CAUSAL)
        if (strategy, measure) in means
    }
    found = {(one["strategy"], one["measure"]): one["value"] for _, one in board.rows.iterrows()}
    assert found.keys() >= expected.keys()
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert set(board.rows["measure"]) == {*TEXT_MEASURES, *CAUSAL} <= DATA_MEASURES.keys()
    assert {key[0] for key in found} - {key[0] for key in expected} == {"reconstruct_previous"}


def losses(finished: Path, strategy: str) -> np.ndarray:
    """ΔL of all documents, then of every draw of them: mean over pairs and corpora."""
    found = []
    slug = open_run(finished).config.slug
    for corpus in ("web", "code"):
        folder = finished / "evaluation/documents" / corpus
        documents = pq.read_table(folder / "documents.parquet").to_pandas()
        weights = document_weights(documents["text"].to_numpy(), corpus, 0)
        for a, b in PAIRS:
            mine = pq.read_table(folder / strategy / slug / f"{a}--{b}.parquet").to_pandas()
            rise = weights @ (mine["loss"] - documents["loss"]).to_numpy()
            found.append(rise / (weights @ documents["predicted"].to_numpy()))
    return np.mean(found, axis=0)


def test_intervals_and_differences_are_those_of_draws_of_documents(
    finished: Path, board: Leaderboard
) -> None:
    folded = losses(finished, "folded")
    for strategy in MATCHERS:
        mine, found = losses(finished, strategy), row(board, strategy, "delta_loss")
        ends = np.quantile(mine[1:], (0.025, 0.975))
        assert [found["low"], found["high"]] == pytest.approx(ends)
        of_change = found[["value_minus_folded", "low_minus_folded", "high_minus_folded"]]
        if strategy == "folded":
            assert of_change.isna().all()
            continue
        change = mine - folded
        expected = [change[0], *np.quantile(change[1:], (0.025, 0.975))]
        assert of_change.tolist() == pytest.approx(expected)


def test_the_best_and_those_not_clearly_worse_are_marked(
    finished: Path, board: Leaderboard
) -> None:
    of_draws = {strategy: losses(finished, strategy) for strategy in MATCHERS}
    best = min(of_draws, key=lambda one: of_draws[one][0])
    for strategy, mine in of_draws.items():
        low, high = np.quantile((mine - of_draws[best])[1:], (0.025, 0.975))
        expected = "best" if strategy == best else "near" * bool(low <= 0 <= high)
        assert row(board, strategy, "delta_loss")["place"] == expected
    for measure in (*TEXT_MEASURES, *CAUSAL):
        here = board.rows[(board.rows["measure"] == measure)]
        (first,) = here[here["place"] == "best"]["value"]
        ranked = here[~here["reference"]]["value"]
        assert first == (ranked.min() if measure == "delta_loss" else ranked.max())
    references = board.rows[board.rows["reference"]]
    assert set(references["place"]) == {""}
    assert set(references["strategy"]) == {
        "random", "ridge", "layer_drop", "reconstruct_previous", "reconstruct_current",
    }  # fmt: skip


def test_it_is_kept_and_follows_what_it_was_made_of(finished: Path, board: Leaderboard) -> None:
    table = pq.read_table(finished / "leaderboard.parquet")
    assert table.schema.remove_metadata() == LEADERBOARD.schema
    pd.testing.assert_frame_equal(table.to_pandas(), board.rows)
    before = contents(finished)
    assert benchmark(finished).about == board.about
    assert contents(finished) == before
    one = benchmark(finished, [("3", "4")])
    assert one.about["pairs"] == [["3", "4"]]
    assert row(one, "folded", "phi")["value"] != row(board, "folded", "phi")["value"]
    benchmark(finished)
    with pytest.raises(UsageError, match="pairs among"):
        benchmark(finished, [("3", "5")])
    data = dict(zip(board.rows["strategy"], board.rows["data"], strict=True))
    assert {s for s, of in data.items() if of == "text"} == {"phi", "ridge"}
    assert board.seconds.keys() == MATCHERS | {"random"}
    assert all(seconds > 0 for seconds in board.seconds.values())


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_it(
    finished: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Terminal()
    console.width = width
    monkeypatch.setattr(display, "CONSOLE", console)
    display.leaderboard_shown(benchmark(finished), finished)
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in shown
    tables = sum(line.startswith("matcher ") for line in lines)
    for name in (*MATCHERS, "random"):
        assert sum(line.startswith(f"{name} ") for line in lines) == tables
    # What has no value in a table has no row in it.
    for name in ("ridge", "layer_drop"):
        assert 1 <= sum(line.startswith(f"{name} ") for line in lines) < tables
    for title in display.LEADERBOARD_COLUMNS.values():
        if title != "label":
            assert title in shown
    value = row(benchmark(finished), "folded", "delta_loss")
    (cells,) = [line for line in lines if line.startswith("folded ")][:1]
    assert f"{value['value']:.3f}" in cells
    assert (f"[{value['low']:.3f}, {value['high']:.3f}]" in cells) == (width == 140)


def test_json_has_the_rows(
    finished: Path, board: Leaderboard, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.benchmark(directory=finished, pairs="3,4;4,5", as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["rows"]) == len(board.rows)
    assert {one["strategy"] for one in printed["rows"]} >= MATCHERS
    assert printed["about"]["pairs"] == [list(pair) for pair in PAIRS]
    assert printed["seconds"].keys() == board.seconds.keys()


def test_two_matchers_of_equal_pairs_are_near() -> None:
    values = np.random.default_rng(0).normal(size=2001)
    places = _places({"folded": values, "cosine": values + 0.0, "phi": values - 9}, True)
    assert sorted(places.values()) == ["best", "near"]
    assert "phi" not in places
