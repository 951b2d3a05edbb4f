"""A matcher of two partners a feature, registered here alone, through everything there is.

What this test does is what a newcomer does who adds a way of matching: one object, no other file.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from killing import contents
from tiny_models import tiny_model
from tiny_suites import write_suite

import saematch
from saematch import UsageError, chain, fold_thresholds, load_sae
from saematch.configs import DescribeConfig, EvaluationConfig, JudgeConfig
from saematch.evaluation.interventions import (
    PairRows,
    encode_permute_decode,
    encode_sparse,
    quantile,
)
from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import export_page
from saematch.figures.matching import mse
from saematch.figures.style import strategy_lines
from saematch.matching.correspondence import Correspondence
from saematch.matching.matched import Found, Settings
from saematch.matching.matchers import Matcher, matchers, register, registering
from saematch.matching.strategies import unit_rows
from saematch.models import LanguageModel
from saematch.pipelines import Run, RunConfig, export, open_run, run
from saematch.pipelines.benchmark import _labels, benchmark
from saematch.pipelines.describe import describe
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.pipelines.judge import judge
from saematch.rendering import draw_figures, write_report
from saematch.report.findings import find
from saematch.sae import FoldedSAE
from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question
from saematch.store.judge_results import labelled_sample
from saematch.store.schema import CORRESPONDENCES, MATCHINGS

NAME, LABEL, COLOR = "two_nearest", "two nearest (toy)", "#12ab34"
COMPOSED = "two_nearest_composition"
WEIGHTS = (0.7, 0.3)
TEXTS = {"corpora": ("web",), "documents": 4, "tokens": 40, "batch_tokens": 80}


class TwoNearest(Matcher):
    """The two features of greatest decoder cosine, weighed 0.7 and 0.3."""

    def match(self, a: FoldedSAE, b: FoldedSAE, settings: Settings) -> Found:
        cosine = unit_rows(a.W_dec) @ unit_rows(b.W_dec).T
        partners = cosine.topk(2, dim=1).indices.flatten().numpy()
        features = np.arange(a.d_sae).repeat(2)
        weights = np.tile(WEIGHTS, a.d_sae)
        found = Correspondence.of_pairs(features, partners, weights, a.d_sae, b.d_sae)
        return Found(found, notes=("a toy",))


TOY = TwoNearest(
    name=NAME,
    label=LABEL,
    color=COLOR,
    marker="h",
    several=True,
    composition=COMPOSED,
    judged=True,
)


class Alike:
    """A judge that calls equal texts SAME and others DIFFERENT."""

    name = "alike"
    identity = {"kind": "alike"}  # noqa: RUF012

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, asked in enumerate(questions):
            label = Label.SAME if asked.first == asked.second else Label.DIFFERENT
            keep(number, Judgement(Outcome.JUDGED, label, reply=label, model="alike"))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model(width=8, blocks=9)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite"), (40, 40, 40), seed=3)


@pytest.fixture(scope="module")
def finished(
    suite: Path, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Run, evaluated, described, judged; the toy is known as long as the module's tests run."""
    directory = tmp_path_factory.mktemp("toy") / "run"
    with registering(TOY), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("SAEMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        run(RunConfig(str(suite), far=(("3", "5"),), random_draws=2), directory)
        evaluated = EvaluationConfig(**TEXTS, causal_pairs=3, random_draws=2, other_parts=False)
        evaluate(directory, evaluated, model=model)
        describe(directory, DescribeConfig(**TEXTS), model=model)
        judge(directory, JudgeConfig(samples=10, controls=10), Alike())
        write_report(directory)
        yield open_run(directory)


def sides(suite: Path, *layers: int) -> list[FoldedSAE]:
    return [fold_thresholds(load_sae(f"{suite}/layer_{layer}")) for layer in layers]


def matrix(found: Correspondence) -> torch.Tensor:
    """[d_a, d_b] of the weights."""
    dense = torch.zeros(found.d_a, found.d_b, dtype=torch.float64)
    dense[found.features, found.partners] = torch.from_numpy(found.weights)
    return dense


def same(one: Correspondence, other: Correspondence) -> bool:
    return torch.equal(matrix(one), matrix(other)) and one.permutation.tolist() == (
        other.permutation.tolist()
    )


def test_a_registered_matcher_is_among_the_defaults_and_known_by_name(finished: Run) -> None:
    assert NAME in RunConfig("any").strategies
    assert NAME in JudgeConfig().strategies
    assert finished.config.strategies[-1] == NAME
    EvaluationConfig(strategies=("folded", NAME))
    with pytest.raises(UsageError, match=f"{NAME}, .*got 'other'"):
        saematch.match(*sides(Path(finished.config.suite), 3, 4), strategy="other")


def test_it_stands_in_the_leaderboard_and_labels_are_means_of_the_same_features(
    finished: Run, tmp_path: Path
) -> None:
    directory = shutil.copytree(finished.path, tmp_path / "run")
    rows = benchmark(directory).rows
    mine = rows[rows["strategy"] == NAME].set_index("measure")
    assert set(mine.index) >= {"explained_variance_typical", "delta_loss", "substitution"}
    # This judge is none whose labels count.
    assert "label" not in set(rows["measure"])
    assert mine["data"].unique().tolist() == ["none"]
    assert not mine["reference"].any()
    judged = labelled_sample(finished, "layers", "alike")
    judged = judged[(judged["kind"] == "pair") & ~judged["swapped"] & judged["label"].notna()]
    names = set(judged["strategy"])
    asked = judged.groupby(["a", "b", "feature"])["strategy"].nunique()
    shared = set(asked.index[asked == len(names)])
    found = {
        strategy: np.mean(
            [
                {"DIFFERENT": 1, "MAYBE": 2, "SAME": 3}[row["label"]]
                for _, row in judged[judged["strategy"] == strategy].iterrows()
                if (row["a"], row["b"], row["feature"]) in shared
            ]
        )
        for strategy in names
    }
    labels = _labels(finished, "alike", finished.pairs)
    assert {strategy: values[0] for strategy, values in labels.items()} == pytest.approx(found)


def test_a_matcher_is_known_as_long_as_it_is_registered() -> None:
    other = TwoNearest(name="other", label="other", color="#000000", marker="8", several=True)
    with registering(other):
        assert "other" in RunConfig("any").strategies
        with pytest.raises(UsageError, match="no other matcher has, got 'other'"):
            register(other)
    assert "other" not in [one.name for one in matchers()]
    with pytest.raises(UsageError, match="names among folded, unfolded"):
        RunConfig("any", strategies=("folded", "other"))


@pytest.mark.parametrize("name", ["", "Two", "two-nearest", "2nd", "x; drop table"])
def test_a_name_must_do_as_a_folder_and_a_column(name: str) -> None:
    with pytest.raises(UsageError, match="small letters, digits and underscores"):
        TwoNearest(name=name or "é", label="x", color="#000000", marker="8")


def test_stored_partners_are_read_back_equal(finished: Run, suite: Path) -> None:
    a, b = sides(suite, 3, 4)
    found = saematch.match(a, b, strategy=NAME)
    kept = finished.correspondence(3, 4, NAME)
    assert same(kept, found.correspondence)
    assert not kept.single
    assert (kept.counts == 2).all()
    slug = finished.config.slug
    table = pq.read_table(finished.path / f"correspondences/{NAME}/{slug}/3--4.parquet")
    assert table.schema.remove_metadata() == CORRESPONDENCES.schema
    frame = found.correspondence.to_frame().assign(cosine=found.pair_cosine)
    pd.testing.assert_frame_equal(table.to_pandas(), frame)
    strongest = pq.read_table(finished.path / f"matchings/{NAME}/{slug}/3--4.parquet")
    assert strongest.schema.remove_metadata() == MATCHINGS.schema
    assert strongest["partner"].to_pylist() == found.permutation.tolist()
    np.testing.assert_allclose(strongest["cosine"].to_numpy(), found.cosine)
    assert finished.matching_details(3, 4, NAME)["notes"] == ["a toy"]
    # One partner of weight 1 needs no table of its own.
    assert not (finished.path / "correspondences/folded").exists()
    folded = finished.correspondence(3, 4)
    assert folded.single
    assert folded.permutation.tolist() == finished.matching_table(3, 4)["partner"].tolist()


def test_its_composition_is_the_product_of_its_steps(finished: Run) -> None:
    steps = [matrix(finished.correspondence(a, b, NAME)) for a, b in ((3, 4), (4, 5))]
    composed = finished.correspondence(3, 5, COMPOSED)
    torch.testing.assert_close(matrix(composed), steps[0] @ steps[1])
    assert composed.counts.max() > 2
    partners = finished.matching_table(3, 5, COMPOSED)["partner"]
    assert partners.tolist() == composed.permutation.tolist()
    assert finished.matching_details(3, 5, COMPOSED)["through"] == ["4"]


def test_it_decodes_as_a_dense_product(finished: Run, suite: Path) -> None:
    a, b = sides(suite, 3, 4)
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 2
    rows = PairRows(x, x, encode_sparse(a.sae, x), encode_sparse(b.sae, x))
    found = saematch.match(a, b, strategy=NAME)
    f_a = a.sae.encode(x).double() / a.scale.double()
    of_b = f_a @ matrix(found.correspondence) * b.scale.double()
    expected = of_b @ b.sae.W_dec.double() + b.b_dec.double()
    got = encode_permute_decode(a, b, found.correspondence)(rows)
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4)
    strongest = encode_permute_decode(
        a, b, Correspondence.of_permutation(found.permutation, b.d_sae)
    )(rows)
    assert not torch.allclose(got, strongest, atol=0.1)
    # SAE Match, eq. 6, with all features through their partners.
    torch.testing.assert_close(quantile(a, b, found, 1.0)(rows), got, rtol=1e-4, atol=1e-4)


def test_it_is_evaluated_with_all_its_partners(
    finished: Run, suite: Path, model: LanguageModel
) -> None:
    """From the stored tables as from the two SAEs at hand."""
    a, b = sides(suite, 3, 4)
    direct = saematch.evaluate(
        a, b, model=model, corpora=("web",), documents=4, tokens=40, batch_tokens=80,
        strategies=("folded", NAME), offline=True,
    )  # fmt: skip
    measures = finished.measures()
    kept = measures[(measures["a"] == "3") & (measures["b"] == "4") & (measures["corpus"] == "web")]
    values = []
    for table in (direct, kept):
        mine = table[table["strategy"] == NAME].set_index("measure")["value"]
        values.append(mine[["explained_variance", "delta_loss"]])
    np.testing.assert_allclose(*values, rtol=1e-5)
    folded = kept[kept["strategy"] == "folded"].set_index("measure")["value"]
    assert values[1]["explained_variance"] != folded["explained_variance"]
    pairs = pq.read_table(finished.path / "evaluation/pairs.parquet").to_pandas()
    assert NAME in set(pairs["strategy"])
    assert "random" not in set(pairs["strategy"])


def test_other_weights_make_what_was_made_from_them_again(finished: Run) -> None:
    """The table of strongest partners says the sha256 of that with all of them."""
    slug = finished.config.slug
    record = finished.directory.record(f"correspondences/{NAME}/{slug}/3--4.parquet")
    assert record is not None
    assert finished.matching_details(3, 4, NAME)["correspondence"] == record.sha256


def test_nothing_is_made_twice(finished: Run, suite: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.path, tmp_path / "run"))
    before = contents(copy)
    run(RunConfig(str(suite), far=(("3", "5"),), random_draws=2), copy)
    after = contents(copy)
    kept = ("matchings/", "correspondences/", "evaluation/", "paths")
    assert {n: d for n, d in before.items() if n.startswith(kept)} == {
        n: d for n, d in after.items() if n.startswith(kept)
    }


def test_the_judge_is_asked_about_it(finished: Run) -> None:
    sample = labelled_sample(finished, "layers", "alike")
    assert sample is not None
    assert NAME in set(sample["strategy"])


def test_findings_figures_and_report_show_it(finished: Run, tmp_path: Path) -> None:
    assert NAME in [line.name for line in find(finished.path).lines]
    assert strategy_lines()[NAME].color == COLOR
    legend = [text.get_text() for text in mse(finished).legends[0].get_texts()]
    assert LABEL in legend
    copy = Path(shutil.copytree(finished.path, tmp_path / "run"))
    drawn = {file for one in draw_figures(copy, ["mse", "matching-score"]) for file in one.files}
    svgs = [(copy / name).read_text() for name in map(str, drawn) if str(name).endswith(".svg")]
    assert len(svgs) == 2
    assert all(COLOR in svg for svg in svgs)
    page = (finished.path / "report.html").read_text()
    assert COLOR in page
    assert f"<th>{NAME}</th>" in page


def test_the_explorer_shows_it(finished: Run, tmp_path: Path) -> None:
    explorer = Explorer(finished.path)
    try:
        explorer.first.all()
        told = explorer.ask("run", {})
        assert told["strategies"][-1] != "folded"
        assert told["main"] == "folded"
        (mine,) = (one for one in told["matchers"] if one["name"] == NAME)
        assert mine == {"name": NAME, "label": LABEL, "color": COLOR, "one_to_one": False}
        found = explorer.ask("features", {"strategy": NAME, "layer": "3", "limit": "100"})
        partners = finished.correspondence(3, 4, NAME).permutation.tolist()
        assert [row["partner"] for row in found["features"]] == partners
        compared = explorer.ask("compare", {"one": "folded", "other": NAME})
        assert sum(row["features"] for row in compared["pairs"]) > 0
        written = export_page(explorer, tmp_path / "page.html", ["3/5"], 1)
        page = written.path.read_text()
        assert LABEL in page
        assert COLOR in page
    finally:
        explorer.close()


def test_it_is_exported_and_its_steps_are_chained(
    finished: Run, suite: Path, tmp_path: Path
) -> None:
    export(finished, "json", tmp_path)
    rows = json.loads((tmp_path / "matchings.json").read_text())
    assert {NAME, COMPOSED} <= {row["strategy"] for row in rows}
    a, b, c = sides(suite, 3, 4, 5)
    paths = chain([saematch.match(*pair, strategy=NAME) for pair in ((a, b), (b, c))])
    first, second = (finished.correspondence(*p, NAME).permutation for p in ((3, 4), (4, 5)))
    assert paths.permutation(3, 5).tolist() == second[first].tolist()
    assert len(finished.follow(3, 5)) == 3
