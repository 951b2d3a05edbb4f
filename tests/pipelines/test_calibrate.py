"""A run's own calibration, on a tiny model: what is labelled, what is kept, what is made again by it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from tiny_suites import write_suite

from saematch import UsageError, fold_thresholds, load_sae
from saematch.configs import CalibrationConfig
from saematch.matching.probability import Calibration, Descriptors
from saematch.models import Documents, LanguageModel, load_corpus
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.calibrate import OFTEN, calibrate, label_pairs

SMALL = {"corpora": ("web",), "documents": 30, "tokens": 64, "offline": True, "any_model": True}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model(width=8, blocks=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: LanguageModel) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    suite = write_suite(folder / "suite", (60, 60, 60), seed=3)
    run(RunConfig(str(suite), strategies=("folded",)), folder / "run")
    before = open_run(folder / "run").fates("3", "4")
    assert set(before["fate"]) == {"unknown", "not live"}  # random weights are unlike trained ones
    calibrate(folder / "run", CalibrationConfig(**SMALL, fresh=True), model=model)
    return folder / "run"


def test_it_is_fitted_to_one_pair_and_judged_on_the_other(made: Path) -> None:
    about = json.loads((made / "calibration.json").read_text())["about"]
    assert about["fitted"]["pairs"] == ["3--4"]
    assert about["judged"]["pairs"] == ["4--5"]
    counts = [count for _, _, count in about["judged"]["reliability"]]
    assert sum(counts) == about["judged"]["candidates"]
    assert 0 <= about["judged"]["calibration_error"] <= 1


def test_fates_and_paths_are_made_again_by_it(made: Path) -> None:
    opened = open_run(made)
    told = opened.fates("3", "4")
    assert opened.calibration.about["fitted"]["from"] == "nothing"
    live = told[told["fate"] != "not live"]
    assert not live["probability"].isna().any()
    assert not (told["fate"] == "unknown").any()
    followed = opened.followed()
    assert followed["probability"].notna().any()
    assert not opened.directory.table("followed.parquet")[1]["notes"]


def test_labels_are_the_phi_of_the_texts(made: Path, model: LanguageModel) -> None:
    """Every text at once, by numpy."""
    opened = open_run(made)
    a, b = (load_sae(opened.manifest["saes"][key]["reference"]) for key in ("3", "4"))
    corpus = load_corpus("web", 42, 0, True).without(12)
    texts = Documents.of(corpus, model, 64, 30)
    active_a, active_b = [], []
    for ids in texts.token_ids:
        streams = model.capture(torch.tensor([ids]), [3, 4])
        active_a.append((a.encode(streams[3][0, 1:]) > 0).numpy())
        active_b.append((b.encode(streams[4][0, 1:]) > 0).numpy())
    one, other = np.concatenate(active_a), np.concatenate(active_b)
    with np.errstate(invalid="ignore", divide="ignore"):
        phi = np.corrcoef(one.T.astype(float), other.T.astype(float))[: a.d_sae, a.d_sae :]
    pairs = Descriptors(a, b)
    live = pairs.a.live.numpy()
    seen = one.sum(axis=0)[live] >= OFTEN
    of_b = pairs.b.live.numpy()[pairs.near.numpy()]
    expected = (np.nan_to_num(phi)[live[:, None], of_b] >= 0.3)[seen]
    about = json.loads((made / "calibration.json").read_text())["about"]
    assert about["fitted"]["tokens"] == texts.tokens

    saes = {"3": fold_thresholds(a), "4": fold_thresholds(b)}
    labelled = label_pairs(model, [texts], saes, [("3", "4")], 256, lambda _: None)["3", "4"]
    assert (labelled.same == expected).all()
    assert labelled.same.any()


def test_pairs_that_are_not_there_in_words(made: Path, model: LanguageModel) -> None:
    with pytest.raises(UsageError, match="expected pairs among"):
        calibrate(made, CalibrationConfig(**SMALL, fit_pairs=(("3", "5"),)), model=model)
    short = made.parent / "short.jsonl"
    short.write_text('{"text": "one short text of a few words"}\n' * 3)
    config = CalibrationConfig(**{**SMALL, "corpora": (str(short),)})
    with pytest.raises(UsageError, match="more than 12 texts"):
        calibrate(made, config, model=model)


def test_the_one_that_ships_says_what_it_is_of() -> None:
    about = Calibration.load().about
    assert about["fitted"]["pairs"] == ["12--13", "13--14", "14--15"]
    assert not set(about["fitted"]["pairs"]) & set(about["judged"]["pairs"])
    assert about["judged"]["auc"] > 0.875
    assert about["judged"]["calibration_error"] < 0.03
    assert about["judged"]["any_auc"] > 0.86
    assert about["judged"]["any_right_of_surer_half"] > 0.88
