"""The recipe, end to end and tiny: real model, real trainer, a few hundred tokens."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from saematch import load_sae, load_suite, match

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2"
TEXT = "The committee met in {place} in {year} to count the {things} that nobody had counted. "


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's `build` module, imported from its folder."""
    sys.path.insert(0, str(RECIPE))
    return importlib.import_module("build")


@pytest.fixture(scope="module")
def settings(recipe: ModuleType, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("recipe")
    corpus = folder / "corpus.jsonl"
    with corpus.open("w") as stream:
        for number in range(40):
            text = TEXT.format(place=f"town {number}", year=1900 + number, things="bridges") * 4
            record = {"group": "prose" if number % 2 else "code", "text": text}
            stream.write(json.dumps(record) + "\n")
    (folder / "more").mkdir()
    (folder / "more" / "web.jsonl").write_text(corpus.read_text())
    return recipe.Settings(
        corpus=str(corpus),
        work=str(folder / "work"),
        blocks=(0, 1),
        second_seed_block=0,
        extra_blocks=(),
        train_tokens=1200,
        held_out_tokens=300,
        context=64,
        tokens_per_batch=256,
        d_sae=48,
        target_l0=8,
        training_samples=3200,
        batch=64,
        evaluation=str(folder / "more"),
        evaluation_documents=3,
        workers=1,
    )


@pytest.fixture(scope="module")
def built(recipe: ModuleType, settings) -> Path:
    """The work folder after a whole run, which was interrupted twice on its way."""
    activations = importlib.import_module("activations")
    train = importlib.import_module("train")
    work = Path(settings.work)
    real = activations.write_chunk
    patch = pytest.MonkeyPatch()
    patch.setattr(activations, "DOCUMENTS_PER_CHUNK", 4)
    written = []

    def die_after_three(path: Path, *rest: object) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        real(path, *rest)
        written.append(path)

    patch.setattr(activations, "write_chunk", die_after_three)
    with pytest.raises(KeyboardInterrupt):
        recipe.collect(settings)
    assert not (work / "activations" / "complete.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in written}
    patch.setattr(activations, "write_chunk", real)
    recipe.collect(settings)
    assert {path: path.stat().st_mtime_ns for path in written} == kept
    patch.undo()

    jobs = train.jobs(settings)
    train.train(settings, jobs[0])
    first = (work / "saes" / jobs[0].name / "sae_weights.safetensors").stat().st_mtime_ns
    for job in jobs:
        train.train(settings, job)
    assert (work / "saes" / jobs[0].name / "sae_weights.safetensors").stat().st_mtime_ns == first
    recipe.export_and_measure(settings)
    return work


def test_the_suite_loads_here_and_in_saelens_alike(built: Path) -> None:
    from sae_lens import SAE as SAELensSAE

    x = torch.randn(32, 576) * 3
    for key in (0, 1):
        ours = load_sae(str(built / "export" / str(key)))
        theirs = SAELensSAE.load_from_disk(built / "export" / str(key))
        with torch.no_grad():
            torch.testing.assert_close(ours.reconstruct(x), theirs(x), rtol=1e-4, atol=1e-4)
        assert ours.layer == key
        assert ours.firing is not None
        assert ours.metadata["bos_token_id"] == 1


def test_rescaling_and_relabelling_change_no_reconstruction(built: Path) -> None:
    """Shipped and trained SAEs agree up to bfloat16, feature by feature, in another order."""
    from sae_lens import SAE as SAELensSAE

    shipped = load_sae(str(built / "export" / "0"))
    trained = SAELensSAE.load_from_disk(built / "saes" / "0")
    order = [
        int(torch.argmin((trained.b_enc - value).abs() + (trained.threshold - theta).abs()))
        for value, theta in zip(shipped.b_enc, shipped.threshold, strict=True)
    ]
    assert sorted(order) == list(range(48))
    assert order != list(range(48))
    rows = shipped.W_dec.float().norm(dim=1)
    torch.testing.assert_close(rows, torch.ones(48), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(
        shipped.W_dec.float(), trained.W_dec.detach()[order], rtol=1e-2, atol=1e-2
    )


def test_naive_is_no_better_than_chance(built: Path) -> None:
    suite = load_suite(str(built / "export"), layers=[1])
    a, b = load_sae(str(built / "export" / "0")), suite.load(1)
    naive = match(a, b, strategy="naive").cost.sum()
    draws = [match(a, b, strategy="random", seed=seed).cost.sum() for seed in range(20)]
    spread = max(draws) - min(draws)
    assert min(draws) - spread < naive < max(draws) + spread


def test_measurements_agree_with_a_straight_recomputation(built: Path, settings) -> None:
    activations = importlib.import_module("activations")
    measured = json.loads((built / "measurements.json").read_text())["saes"]["1"]["held_out"]
    x = activations.read_activations(settings, "held_out", 1).rows.double()
    sae = load_sae(str(built / "export" / "1"))
    error = sae.reconstruct(x.float()).double() - x
    expected = 1 - float(error.var(dim=0).sum() / x.var(dim=0).sum())
    assert measured["explained_variance"] == pytest.approx(expected, abs=1e-4)
    assert measured["tokens"] == len(x)
    assert measured["l0"] == pytest.approx(
        float((sae.encode(x.float()) > 0).sum(1).double().mean())
    )


def test_the_card_shows_every_sae(built: Path) -> None:
    card = (built / "card.md").read_text()
    for name in ("| 0 |", "| 1 |", "| 0-second-seed |", "| 0-untrained |", "EV web"):
        assert name in card


def test_outliers_are_left_out(settings, tmp_path: Path, monkeypatch) -> None:
    from safetensors.torch import save_file

    activations = importlib.import_module("activations")
    rows = torch.ones(10, 4)
    rows[3] *= 100
    folder = tmp_path / "activations" / "train"
    folder.mkdir(parents=True)
    save_file({"block_0": rows.bfloat16()}, folder / "00000.safetensors")
    import dataclasses

    here = dataclasses.replace(settings, work=str(tmp_path))
    found = activations.read_activations(here, "train", 0)
    assert (len(found.rows), found.left_out) == (9, 1)
