"""`evaluate` on a run directory: what it keeps, goes on from, refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from killing import contents
from tiny_models import tiny_model
from tiny_suites import write_suite

from saematch.cli.display.evaluation import findings_text
from saematch.configs import EvaluationConfig
from saematch.errors import InputError, UsageError
from saematch.models import LanguageModel
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.evaluation import evaluate as evaluating
from saematch.pipelines.evaluation import evaluated_run as model_of_run
from saematch.pipelines.evaluation.evaluate import evaluate
from saematch.pipelines.evaluation.results import Evaluated
from saematch.report.findings import find, findings, headline
from saematch.store.schema import (
    CAUSAL,
    CONDITIONS,
    DATA_MEASURES,
    DOCUMENTS,
    PAIR_SOURCE,
    PAIRS,
    STREAMS,
)

SMALL = EvaluationConfig(
    corpora=("web", "code"),
    documents=4,
    tokens=40,
    quantiles=(0.5,),
    causal_pairs=3,
    causal_tokens=30,
    random_draws=2,
    batch_tokens=80,
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model(width=8, blocks=7)


def matched(suite: Path, directory: Path) -> Path:
    run(RunConfig(str(suite), far=(("3", "5"),), random_draws=2), directory)
    return directory


@pytest.fixture(scope="module")
def finished(suite: Path, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = matched(suite, tmp_path_factory.mktemp("evaluated") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        evaluate(directory, SMALL, model=model)
    return directory


def test_every_strategy_and_measure_is_there(finished: Path) -> None:
    measures = open_run(finished).measures()
    here = measures[(measures["corpus"] == "web") & (measures["a"] == "3") & (measures["b"] == "4")]
    assert set(here["strategy"]) == {
        "layer_drop", "reconstruct_current", "reconstruct_previous", "folded", "unfolded",
        "unfolded_refolded", "naive", "cosine", "random", "correlation", "ridge", "quantile(0.5)",
    }  # fmt: skip
    assert set(here[here["strategy"] == "folded"]["parts"]) == {
        "decoder+encoder+bias", "decoder", "encoder",
    }  # fmt: skip
    known = {name.split("{")[0] for name in DATA_MEASURES if name[0] != "{"}
    for name in measures[measures["corpus"] != ""]["measure"]:
        base = name.removesuffix("_minus_folded")
        assert base in DATA_MEASURES or any(base.startswith(one) for one in known), name
    # Naive is not done where widths differ, layers 4 and 5.
    other = measures[(measures["corpus"] == "web") & (measures["b"] == "5")]
    assert "naive" not in set(other["strategy"])
    assert set(zip(other["a"], other["b"], strict=True)) >= {("4", "5"), ("3", "5")}
    # Causal agreement is measured on the first corpus alone.
    causal = measures[measures["measure"] == "causal_agreement"]
    assert set(causal["corpus"]) == {"web"}
    assert (here["documents"].max(), here["tokens"].max()) == (4, 4 * 39)


def test_rivals_are_fitted_where_they_are_named(
    suite: Path, model: LanguageModel, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    run(RunConfig(str(suite), strategies=("folded", "greedy_cosine", "cosine_backward")), directory)
    named = ("folded", "cosine_backward", "phi", "regression:2", "sinkhorn_activity", "centroid")
    config = dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0, strategies=named)
    evaluate(directory, config, model=model)
    finished = open_run(directory)
    measures = finished.measures()
    f1 = measures[measures["measure"] == "f1"]
    assert set(f1["strategy"]) == {*named, "regression_2"} - {"regression:2"}
    assert f1["value"].between(0, 1).all()
    assert (f1["low"] <= f1["value"]).all()
    kept = finished.correspondence("3", "4", "regression_2")
    assert not kept.single
    assert np.bincount(kept.partners).max() == 2
    assert finished.correspondence("3", "4", "phi").single
    backward = finished.correspondence("3", "4", "cosine_backward")
    assert np.bincount(backward.partners).tolist() == [1] * backward.d_b
    columns = pq.read_table(
        directory / f"evaluation/documents/web/phi/{finished.config.slug}/3--4.parquet"
    ).to_pandas()
    assert (columns["predicted_right"] <= columns["predicted_count"]).all()
    # What was fitted is not fitted again, and the usual evaluation has none of them.
    before = contents(directory)
    evaluate(directory, config, model=model)
    names = [name for name in before if name.startswith("matchings/")]
    assert {name: contents(directory)[name] for name in names} == {n: before[n] for n in names}
    again = dataclasses.replace(config, strategies=None)
    evaluate(directory, again, model=model)
    measures = open_run(directory).measures()
    on_web = measures[measures["corpus"] == "web"]["strategy"]
    assert "correlation" in set(on_web)
    assert "greedy_cosine" in set(on_web)
    assert "phi" not in set(on_web)


def test_files_have_exactly_the_schema(finished: Path) -> None:
    tables = {
        "evaluation/documents/web/documents.parquet": DOCUMENTS,
        "evaluation/documents/web/streams/3.parquet": STREAMS,
        "evaluation/documents/web/folded/decoder/3--4.parquet": CONDITIONS,
        "evaluation/documents/web/layer_drop/any/3--4.parquet": CONDITIONS,
        "evaluation/causal/web/3--4.parquet": CAUSAL,
        "evaluation/pairs/web.parquet": PAIR_SOURCE,
        "evaluation/pairs.parquet": PAIRS,
    }
    for name, table in tables.items():
        assert pq.read_schema(finished / name).remove_metadata() == table.schema, name
    assert not list((finished / "evaluation").rglob("*.npz"))


def test_feature_pairs_agree_with_the_measures(finished: Path) -> None:
    pairs = pq.read_table(finished / "evaluation/pairs.parquet").to_pandas()
    here = pairs[(pairs["a"] == "3") & (pairs["corpus"] == "web") & (pairs["strategy"] == "folded")]
    here = here[here["b"] == "4"]
    measures = open_run(finished).measures()
    rows = measures[
        (measures["a"] == "3") & (measures["b"] == "4") & (measures["corpus"] == "web")
        & (measures["strategy"] == "folded") & (measures["parts"] == "decoder+encoder+bias")
    ].set_index("measure")["value"]  # fmt: skip
    score = here["joint_activation_count"].sum() / here["activation_count"].sum()
    assert rows["matching_score"] == pytest.approx(score)
    assert rows["phi"] == pytest.approx(here["phi"].mean())
    known = here["causal_agreement"].dropna()
    assert rows["causal_agreement"] == pytest.approx(known.mean())
    assert 1 <= len(known) <= 3


def counting(model: LanguageModel) -> tuple[LanguageModel, list[str]]:
    """The model, and what is asked of it."""
    asked: list[str] = []

    class Counting(LanguageModel):
        def capture_and_predict(self, token_ids, blocks):
            asked.append("whole")
            return super().capture_and_predict(token_ids, blocks)

        def capture(self, token_ids, blocks):
            asked.append("capture")
            return super().capture(token_ids, blocks)

        def predict_from(self, token_ids, block, stream):
            asked.append("suffix")
            return super().predict_from(token_ids, block, stream)

    found = Counting(model.model, model.tokenizer, model.name, model.weights_sha256)
    asked.clear()
    return found, asked


def test_nothing_is_done_twice(finished: Path, model: LanguageModel) -> None:
    before = contents(finished)
    counted, asked = counting(model)
    evaluate(finished, SMALL, model=counted)
    assert asked == []
    assert contents(finished) == before


def test_one_more_quantile_runs_it_alone(
    finished: Path, model: LanguageModel, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(finished, tmp_path / "run")
    counted, asked = counting(model)
    evaluate(tmp_path / "run", dataclasses.replace(SMALL, quantiles=(0.5, 0.75)), model=counted)
    batches = asked.count("whole")
    assert batches == 2 * 2  # two corpora, two batches each
    assert asked.count("suffix") == 3 * batches  # three pairs


def test_cut_off_between_batches_and_resumed(
    suite: Path, model: LanguageModel, finished: Path, tmp_path: Path, monkeypatch
) -> None:
    directory = matched(suite, tmp_path / "run")
    counted, asked = counting(model)
    kept = evaluating.collecting.sums_to_bytes
    written = []

    def stop_at_third(found):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(1)
        return kept(found)

    monkeypatch.setattr(evaluating.collecting, "sums_to_bytes", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        evaluate(directory, SMALL, model=counted)
    assert asked.count("whole") == 3
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked.clear()
    evaluate(directory, SMALL, model=counted)
    assert asked.count("whole") == 2  # of four batches, the two that were not kept
    assert contents(directory) == contents(finished)


def test_a_batch_that_was_cut_short_is_made_again(
    suite: Path, model: LanguageModel, finished: Path, tmp_path: Path, monkeypatch
) -> None:
    directory = matched(suite, tmp_path / "run")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluating.Collected, "joined", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(directory, SMALL, model=model)
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    part = next((directory / "evaluation/unfinished").glob("*-0.parquet"))
    part.write_bytes(part.read_bytes()[:-40])
    evaluate(directory, SMALL, model=model)
    assert contents(directory) == contents(finished)


def test_out_of_memory_goes_on_with_half(model: LanguageModel, suite, tmp_path) -> None:
    class OnSmallMachine(LanguageModel):
        def capture_and_predict(self, token_ids, blocks):
            if len(token_ids) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().capture_and_predict(token_ids, blocks)

    directory = matched(suite, tmp_path / "run")
    config = dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0)
    small = OnSmallMachine(model.model, model.tokenizer, model.name, model.weights_sha256)
    evaluate(directory, config, model=small)
    about = json.loads(
        pq.read_schema(directory / "evaluation/measures/corpus-web.parquet").metadata[b"saematch"]
    )
    assert any("out of memory: went on with batches of 40" in note for note in about["notes"])


def test_saes_are_checked_one_at_a_time(model, suite, tmp_path, monkeypatch) -> None:
    """Those of a large model do not fit into the host's memory together."""
    directory = matched(suite, tmp_path / "run")
    real, together = model_of_run.check_belongs, []

    def check(model, saes, *rest):
        together.append(len(saes))
        return real(model, saes, *rest)

    monkeypatch.setattr(model_of_run, "check_belongs", check)
    evaluate(directory, dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0), model=model)
    assert together == [1, 1, 1]


def test_your_own_text(model: LanguageModel, suite, tmp_path) -> None:
    text = tmp_path / "my notes.txt"
    text.write_text("A long text about bridges, and who counted them. " * 20)
    directory = matched(suite, tmp_path / "run")
    config = dataclasses.replace(SMALL, corpora=(str(text),), causal_pairs=0)
    evaluate(directory, config, model=model)
    measures = open_run(directory).measures()
    assert "my notes" in set(measures["corpus"])
    assert "ridge" not in set(measures["strategy"])  # there is no other text to fit it to
    assert (directory / "evaluation/measures/corpus-my_notes.parquet").exists()


def test_settings_that_cannot_be_used(model, suite, finished, tmp_path) -> None:
    for settings, said in (
        ({"documents": 0}, "documents to be a whole number from 1, got 0"),
        ({"quantiles": (1.5,)}, r"quantiles to be numbers from 0 to 1, .* got a list: \[1.5\]"),
        ({"corpora": ()}, r"corpora to be names, .* got a list: \[\]"),
        ({"strategies": ("foldde",)}, "correlation, .*ridge, got 'foldde'"),
    ):
        with pytest.raises(UsageError, match=said):
            EvaluationConfig(**settings)
    with pytest.raises(UsageError, match=r"pairs among 3,4, 4,5, 3,5, got 5,3"):
        evaluate(finished, dataclasses.replace(SMALL, pairs=(("5", "3"),)), model=model)
    with pytest.raises(UsageError, match="web, wiki, code, or a file or folder"):
        evaluate(finished, dataclasses.replace(SMALL, corpora=("nowhere",)), model=model)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text("Enough text to be read. " * 9)
    twice = tuple(str(tmp_path / name / "same.txt") for name in ("one", "two"))
    with pytest.raises(UsageError, match="expected corpora of different names"):
        evaluate(finished, dataclasses.replace(SMALL, corpora=twice), model=model)
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    with pytest.raises(InputError, match="expected text in"):
        evaluate(finished, dataclasses.replace(SMALL, corpora=(str(empty),)), model=model)
    with pytest.raises(InputError, match="no manifest"):
        evaluate(tmp_path / "none", SMALL, model=model)


def test_models_that_do_not_belong(suite, tmp_path) -> None:
    directory = matched(suite, tmp_path / "run")
    for other, said in (
        (tiny_model(width=16, blocks=7), "d_model 8"),
        (tiny_model(width=8, blocks=4), "expected a block 4"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(directory, SMALL, model=other)
    right = tiny_model(width=8, blocks=7)
    named = LanguageModel(right.model, right.tokenizer, "google/gemma-2-2b", "ab" * 32)
    with pytest.raises(InputError, match="got google/gemma-2-2b"):
        evaluate(directory, SMALL, model=named)
    config = dataclasses.replace(SMALL, any_model=True, corpora=("web",), causal_pairs=0)
    weights = LanguageModel(right.model, right.tokenizer, "google/gemma-2-2b")
    evaluate(directory, config, model=weights)
    about = json.loads(
        pq.read_schema(directory / "evaluation/measures/corpus-web.parquet").metadata[b"saematch"]
    )
    assert any("are not known: numbers may differ" in note for note in about["notes"])


def test_changed_saes_are_refused(model, tmp_path) -> None:
    suite = write_suite(tmp_path / "suite")
    directory = matched(suite, tmp_path / "run")
    write_suite(suite, seed=5)
    with pytest.raises(InputError, match="but 3 has changed or is gone; run saematch run again"):
        evaluate(directory, SMALL, model=model)


def test_a_new_matching_leaves_old_measures_out(model, suite, tmp_path) -> None:
    directory = matched(suite, tmp_path / "run")
    config = dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0)
    evaluate(directory, config, model=model)
    assert "web" in set(open_run(directory).measures()["corpus"])
    run(
        RunConfig(str(suite), far=(("3", "5"),), random_draws=2, unmatched_cost=1.0),
        directory,
    )
    assert set(open_run(directory).measures()["corpus"]) == {""}
    assert np.isfinite(open_run(directory).measures()["value"].dropna()).all()


def test_losses_stay_when_more_is_measured_without_any(model, suite, tmp_path) -> None:
    directory = matched(suite, tmp_path / "run")
    config = dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0, other_parts=False)
    evaluate(directory, config, model=model)

    def losses() -> list[float]:
        rows = open_run(directory).measures()
        return rows[rows["measure"] == "delta_loss"]["value"].tolist()

    before = losses()
    assert np.isfinite(before).all()
    evaluate(directory, dataclasses.replace(config, other_parts=True), model=model)
    assert losses() == before
    (directory / "evaluation/documents/web/documents.parquet").unlink()
    evaluate(directory, config, model=model)
    assert losses() == pytest.approx(before)


def test_one_document_has_no_interval(model, suite, tmp_path) -> None:
    directory = matched(suite, tmp_path / "run")
    config = dataclasses.replace(SMALL, corpora=("web",), causal_pairs=0, documents=1)
    evaluate(directory, config, model=model)
    rows = open_run(directory).measures()
    rows = rows[(rows["corpus"] == "web") & (rows["strategy"] != "random")]
    assert rows["low"].isna().all(), rows["measure"][rows["low"].notna()].unique()
    found = {one.name: one for one in findings(Evaluated(open_run(directory)))}
    assert found["b"].verdict == "does not hold"
    run(RunConfig(str(suite), random_draws=2, scale="none"), directory)
    with pytest.raises(InputError, match="has not been evaluated"):
        Evaluated(open_run(directory))


# The paper's findings


@pytest.fixture(scope="module")
def evaluated(finished: Path) -> Evaluated:
    return Evaluated(open_run(finished))


@pytest.mark.parametrize("strategy", ["folded", "unfolded", "cosine", "correlation"])
@pytest.mark.parametrize("measure", ["matching_score", "explained_variance", "delta_loss"])
def test_means_over_pairs_and_corpora_are_those_of_the_table(
    evaluated: Evaluated, strategy: str, measure: str
) -> None:
    rows = evaluated.run.measures()
    rows = rows[(rows["strategy"] == strategy) & (rows["measure"] == measure)]
    rows = rows[(rows["parts"] == evaluated.slug) & (rows["a"] + rows["b"]).isin(["34", "45"])]
    assert len(rows) == 4
    found = evaluated.mean(measure, strategy)
    assert found is not None
    assert found[0] == pytest.approx(rows["value"].mean())
    assert len(found) == 2001


def test_agreements_are_those_of_the_table(evaluated: Evaluated) -> None:
    rows = evaluated.run.measures()
    rows = rows[(rows["measure"] == "causal_agreement") & (rows["strategy"] == "cosine")]
    rows = rows[(rows["a"] + rows["b"]).isin(["34", "45"])]
    found = evaluated.mean("causal_agreement", "cosine")
    assert found is not None
    assert found[0] == pytest.approx(rows["value"].mean())


def test_every_finding_has_a_verdict(evaluated: Evaluated) -> None:
    found = {one.name: one for one in findings(evaluated)}
    assert list(found) == ["a", "b", "c", "e", "e, low", "f", "g1", "g2", "g3", "h"]
    for name in ("c", "e, low", "g1", "g2", "g3", "h"):
        assert found[name].verdict == "not measurable here"
        assert found[name].needs
    for name in ("b", "e", "f"):
        one = found[name]
        assert one.verdict in ("holds", "does not hold")
        assert None not in (one.value, one.low, one.high)
        assert one.low <= one.value <= one.high
    # Naive is not there where widths differ: those pairs are left out.
    assert "of 1 pair," in found["a"].effect
    assert found["a"].verdict in ("holds", "does not hold")


def test_a_difference_of_nothing_bears_nothing_out(evaluated: Evaluated) -> None:
    found = {one.name: one for one in findings(evaluated, early=evaluated)}
    assert (found["c"].value, found["c"].low, found["c"].high) == (0, 0, 0)
    assert found["c"].verdict == "does not hold"


def test_a_runs_own_first_blocks(finished: Path, evaluated: Evaluated, monkeypatch) -> None:
    found = find(finished, early_layers=4)
    by_name = {one.name: one for one in found.findings}
    scores = [evaluated.mean("matching_score", "folded", pairs=[p]) for p in evaluated.adjacent]
    assert by_name["c"].value == pytest.approx(scores[0][0] - scores[1][0])
    assert "3→4 minus 4→5" in by_name["c"].effect
    assert "all SAEs here have about the same" in by_name["c"].effect
    monkeypatch.setattr(Evaluated, "l0", lambda self, key: 100.0 if key == "3" else 30.0)
    (c,) = (one for one in find(finished, early_layers=4).findings if one.name == "c")
    assert "it takes a second run, over SAEs chosen so" in c.effect
    part = evaluated.within(3, 4)
    rows = evaluated.run.measures()
    rows = rows[(rows["measure"] == "causal_agreement") & (rows["strategy"] == "cosine")]
    agreement = part.mean("causal_agreement", "cosine")
    assert agreement is not None
    assert agreement[0] == pytest.approx(rows[rows["b"] == "4"]["value"].mean())
    with pytest.raises(UsageError, match="within layers 3 to 3"):
        find(finished, early_layers=3)
    with pytest.raises(UsageError, match="take one away"):
        find(finished, early=finished, early_layers=4)


def test_the_verdict_follows_the_interval(evaluated: Evaluated, monkeypatch) -> None:
    real = Evaluated.mean

    def shifted(self, measure, strategy, parts=None, pairs=()):
        values = real(self, measure, strategy, parts, pairs)
        return values + 10 if (measure, strategy) == ("matching_score", "folded") else values

    monkeypatch.setattr(Evaluated, "mean", shifted)
    assert next(f for f in findings(evaluated) if f.name == "b").verdict == "holds"


def test_the_headline_has_every_strategy(evaluated: Evaluated) -> None:
    lines = {line.name: line.measures for line in headline(evaluated)}
    assert {"folded", "random", "ridge", "layer_drop", "correlation"} <= lines.keys()
    assert set(lines["folded"]) == {
        "lift", "phi", "causal_agreement", "explained_variance", "delta_loss",
    }  # fmt: skip
    text = findings_text(evaluated, headline(evaluated), findings(evaluated))
    assert "| folded |" in text
    assert "(h)" in text


def test_findings_need_an_evaluated_run(suite: Path, tmp_path: Path) -> None:
    directory = matched(suite, tmp_path / "run")
    with pytest.raises(InputError, match="has not been evaluated"):
        Evaluated(open_run(directory))


def test_page_and_figure_say_on_how_many_features_scores_are(finished: Path) -> None:
    from saematch.figures import caption_of, draw
    from saematch.report.page import evaluations

    run_ = open_run(finished)
    rows = run_.measures()
    chosen = rows[(rows["measure"] == "features_compared") & (rows["strategy"] == "folded")]
    counts = {corpus: mine["value"] for corpus, mine in chosen.groupby("corpus")}
    for one in evaluations(run_, list(run_.adjacent)):
        least, most = int(counts[one["corpus"]].min()), int(counts[one["corpus"]].max())
        assert one["features"] == (f"{least}" if least == most else f"{least} to {most}")
    assert " features of each pair's earlier SAE" in caption_of(draw(run_, "7 right"))[1]
