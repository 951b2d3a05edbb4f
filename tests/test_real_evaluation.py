"""The main job as a user runs it: bundled SAEs, the real language model, real text, by the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import saematch
from saematch.models import LanguageModel, load_language_model
from saematch.pipelines import open_run

OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


def saematch_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from saematch.cli import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=OFFLINE, timeout=500
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("real") / "run"
    done = saematch_cli(
        "run", "--suite", "bundled:smollm2-135m", "--layers", "12-14", "--out", directory
    )
    assert done.returncode == 0, done.stderr
    done = saematch_cli(
        "evaluate", directory, "--corpora", "web,code", "--documents", 2, "--tokens", 96,
        "--strategies", "folded,unfolded,naive,random,cosine", "--causal-pairs", 4,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "folded" in done.stdout
    assert "bundled stand-in" in " ".join(done.stdout.split())
    return directory


def test_folded_lies_between_floor_and_ceiling(directory: Path) -> None:
    measures = open_run(directory).measures()
    for corpus in ("web", "code"):
        for pair in (("12", "13"), ("13", "14")):
            here = measures[
                (measures["corpus"] == corpus) & (measures["a"] == pair[0])
                & (measures["b"] == pair[1]) & measures["parts"].isin(["", "decoder+encoder+bias"])
            ].set_index(["strategy", "measure"])["value"]  # fmt: skip
            explained = here.xs("explained_variance", level="measure")
            assert explained["random"] < 0 < 0.2 < explained["folded"]
            assert explained["folded"] < explained["reconstruct_previous"] < 0.9
            loss = here.xs("delta_loss", level="measure")
            assert loss["layer_drop"] < loss["folded"] < loss["random"]
            assert 3 < here["folded", "lift"] < 8
            assert 0.7 < here["random", "lift"] < 1.4
            assert here["naive", "matching_score"] < 0.1 < here["folded", "matching_score"]


def test_the_report_has_its_section_with_intervals(directory: Path) -> None:
    page = (directory / "report.html").read_text()
    assert "What the matching is worth on the language model" in page
    value = open_run(directory).measures()
    row = value[
        (value["corpus"] == "web") & (value["a"] == "12") & (value["strategy"] == "folded")
        & (value["measure"] == "matching_score") & (value["parts"] == "decoder+encoder+bias")
    ].iloc[0]  # fmt: skip
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in page


def test_findings_by_the_command_line(directory: Path) -> None:
    done = saematch_cli("findings", directory, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["name"] for one in found["findings"]} >= {"a", "b", "e", "f", "h"}
    assert next(one for one in found["findings"] if one["name"] == "a")["verdict"] == "holds"
    assert saematch_cli("findings", directory).returncode == 0
    assert "| finding of the paper |" in (directory / "findings.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--corpora", "nowhere"), 2, "web, wiki, code, or a file or folder"),
        (("--pairs", "12,19"), 2, "expected one of the layers"),
        (("--quantiles", "half"), 2, "got 'half'"),
        (("--model", "/nowhere/model"), 3, "there is no folder '/nowhere/model'"),
    ],
)
def test_errors_are_one_or_two_lines(
    directory: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = saematch_cli("evaluate", directory, *arguments)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert said in " ".join(lines)
    assert len(lines) <= 2


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model("smollm2", device="cpu")


def test_real_streams_replaced_by_themselves(model: LanguageModel) -> None:
    import torch

    ids = torch.randint(0, 40_000, (2, 24), generator=torch.Generator().manual_seed(0))
    streams, logits = model.capture_and_predict(ids, [0, 13, 29])
    for block, stream in streams.items():
        assert torch.equal(model.predict_from(ids, block, stream), logits)


def test_one_pair_from_python(model: LanguageModel) -> None:
    a, b = (saematch.load_sae(f"bundled:smollm2-135m/{layer}") for layer in (12, 13))
    found = saematch.evaluate(
        a, b, model=model, documents=2, tokens=48, strategies=("folded", "naive"), offline=True
    )
    values = found.set_index(["strategy", "measure"])["value"]
    assert values["folded", "lift"] > 2 > values["naive", "lift"]
