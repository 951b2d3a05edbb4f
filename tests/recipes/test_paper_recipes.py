"""The paper's recipes, end to end: tiny models, SAEs in the real files, a scripted judge."""

import dataclasses
import types
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from neuronpedia_server import record
from neuronpedia_server import serving as serving_neuronpedia
from scripted_server import Asked, Say, label, serving
from tiny_paper import (
    FEATURES,
    directions_of,
    recipe_of,
    tiny,
    write_gemma_scope,
    write_llama_scope,
    write_model,
)

from saematch._io import files
from saematch.errors import InputError
from saematch.figures.paper import FIGURES
from saematch.pipelines import describe as describing_neuronpedia
from saematch.pipelines import open_run
from saematch.semantics.judges.embedding import EmbeddingJudge
from saematch.semantics.neuronpedia.sources import parse_id
from saematch.store.judge_results import judged
from saematch.store.tables import descriptions_of

SMALL = [
    "--device", "cpu", "--dtype", "float32", "--offline", "--starts", "0", "--first-third", "1",
    "--documents", "4", "--tokens", "48", "--described-tokens", "96", "--ablated", "2",
    "--random-draws", "2", "--random-draws-on-text", "2", "--samples", "8", "--controls", "20",
    "--quantiles", "0", "1",
]  # fmt: skip
LAYERS = 3
EXPERIMENTS = {"layers", "mse", "persistence", "examples"}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """One thread, no waiting for the disk, and a report in one line: it is tested elsewhere."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "fsync", lambda path: None)
        patch.setattr("saematch.rendering.render_report", lambda run: "<p>a report</p>")
        yield


@pytest.fixture(scope="module")
def gemma() -> ModuleType:
    return recipe_of("gemma2")


@pytest.fixture(scope="module")
def llama() -> ModuleType:
    return recipe_of("llama3")


def layers(count: int) -> list[str]:
    return ["--layers", *map(str, range(count))]


def say(asked: Asked) -> Say:
    """SAME where the features are active most on the same word, MAYBE where that of one is among the
    other's."""
    first, second = (text.split("'")[1::2] for text in asked.pair.values())
    if first[0] == second[0]:
        return label("SAME")
    return label("MAYBE" if first[0] in second else "DIFFERENT")


@pytest.fixture(scope="module")
def gemma_files(gemma: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("gemma")
    root = folder / "gemma-scope-2b-pt-res"
    model = write_model(folder / "model", "gemma2")
    for layer in range(LAYERS):
        l0s = {*gemma.PUBLISHED_L0[layer], gemma.TABLE_1_L0[layer], gemma.CANONICAL_L0[layer]}
        for l0 in l0s:
            write_gemma_scope(root, directions_of(model), layer, l0)
    return ["--saes", str(root), "--model", str(model)]


@pytest.fixture(scope="module")
def gemma_run(
    gemma: ModuleType, gemma_files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The whole recipe, judged by a server, with descriptions of the canonical SAEs from another."""
    folder = tmp_path_factory.mktemp("gemma-run")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(say) as server,
        serving_neuronpedia() as neuronpedia,
    ):
        patch.setenv("SAEMATCH_CACHE", str(folder / "cache"))
        # Features as few as these have no id there.
        patch.setattr(
            describing_neuronpedia,
            "source_of",
            lambda sae, **_: parse_id(f"gemma-2-2b/{sae.layer}-gemmascope-res-16k"),
        )
        for layer in range(LAYERS):
            texts = [record(n, f"words about 'matter {n % 9}'") for n in range(FEATURES)]
            neuronpedia.put_batch(0, texts, f"gemma-2-2b/{layer}-gemmascope-res-16k")
        flags = [*SMALL, *layers(LAYERS), "--judge-model", "m/1", "--base-url", server.url]
        flags += ["--neuronpedia-url", f"{neuronpedia.url}/v1", "--out", str(folder / "run")]
        assert gemma.main(tiny(gemma.RECIPE), "", [*gemma_files, *flags]) == 0
    return folder / "run"


def test_every_figure_of_the_paper_is_drawn(gemma_run: Path) -> None:
    drawn = {path.stem for path in gemma_run.glob("*/figures/*.svg")}
    assert drawn >= {figure.name for figure in FIGURES if figure.numbers}
    summary = (gemma_run / "summary.md").read_text()
    assert "not drawn" not in summary
    assert "[l0-series](l0-series/figures/against-l0.svg)" in summary


def test_every_finding_is_measured(gemma_run: Path) -> None:
    found = (gemma_run / "main" / "findings.md").read_text()
    assert found in (gemma_run / "summary.md").read_text()
    for name in ("a", "b", "c", "e", "e, low", "f", "g1", "g2", "g3", "h", "d1", "i", "j"):
        (line,) = (line for line in found.splitlines() if line.startswith(f"| ({name}) "))
        assert "not measurable" not in line, line
    assert "0→1 minus 1→2" in found


def test_a_judge_is_asked_on_the_saes_that_are_described(gemma_run: Path) -> None:
    main, canonical = (open_run(gemma_run / name) for name in ("main", "canonical"))
    for run in (main, canonical):
        assert {(one.experiment, one.judge) for one in judged(run)} == {
            (experiment, "llm-m-1") for experiment in EXPERIMENTS
        }
    assert descriptions_of(main, "neuronpedia", "0") is None
    there = descriptions_of(canonical, "neuronpedia", "0")
    assert there is not None
    assert there.count == FEATURES
    assert "average_l0_102" in main.manifest["references"]["0"]
    assert "average_l0_105" in canonical.manifest["references"]["0"]


def test_several_l0s(gemma_run: Path, gemma: ModuleType) -> None:
    even, series = (open_run(gemma_run / name) for name in ("even-l0", "l0-series"))
    assert [list(keys) for keys in even.chains] == [
        [f"{n}.{name}" for n in range(LAYERS)] for name in ("even", "table-1")
    ]
    assert len(series.keys) == 10
    linked = gemma_run / "suites/even-l0/gemma-scope-2b-pt-res/layer_1/even/params.npz"
    assert linked.resolve().parent.name == "average_l0_40"
    # The published names rank the SAEs; here the measured L0 does too.
    measures = series.measures()
    l0 = measures[(measures["measure"] == "l0") & (measures["corpus"] == "web")]
    values = l0.set_index("a")["value"]
    ranked = [values[f"2.rank-{rank}"] for rank in range(1, 6)]
    assert ranked == sorted(ranked)


def test_even_l0_departs_from_table_1_where_it_is_uneven(gemma: ModuleType) -> None:
    chosen = gemma.even_l0(tuple(range(26)))
    departs = {layer for layer, l0 in chosen.items() if l0 != gemma.TABLE_1_L0[layer]}
    assert departs == {0, 1, 2, 4, 23, 25}
    ratios = [chosen[n + 1] / chosen[n] for n in range(25)]
    assert max(ratios) < 1.4


# Killed and taken up again


class Killed(KeyboardInterrupt):
    pass


LLAMA = [*SMALL, *layers(LAYERS), "--no-neuronpedia", "--documents", "3"]


@pytest.fixture(scope="module")
def llama_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("llama")
    root = folder / "Llama3_1-8B-Base-LXR-8x"
    model = write_model(folder / "model", "llama")
    for layer in range(LAYERS):
        write_llama_scope(root, directions_of(model), layer)
    return ["--saes", str(root), "--model", str(model)]


def kept(directory: Path) -> dict[str, bytes]:
    """Everything but times, and what holds them."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and path.suffix != ".png"
        and path.name
        not in (".lock", ".holder", "manifest.json", "journal.jsonl", "judgements.parquet")
    }


@pytest.fixture(scope="module")
def llama_run(
    llama: ModuleType, llama_files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The whole recipe, judged by what words descriptions share."""
    out = tmp_path_factory.mktemp("llama-run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddingJudge, "scores", shared_words)
        assert llama.main(tiny(llama.RECIPE), "", [*llama_files, *LLAMA, "--out", str(out)]) == 0
    return out


def shared_words(judge: EmbeddingJudge, questions: Any) -> np.ndarray:
    """In place of the cosine of embeddings, which are slow: whether the first words are the same, and
    how many of the others."""
    words = [(one.first.split("'")[1::2], one.second.split("'")[1::2]) for one in questions]
    return np.array([(a[0] == b[0]) + len({*a} & {*b}) / len({*a} | {*b}) for a, b in words])


def test_llama_3_whole(llama_run: Path) -> None:
    drawn = {path.stem for path in llama_run.glob("main/figures/*.svg")}
    assert {figure.name for figure in FIGURES if figure.numbers} - drawn == {
        "against-l0"
    }  # one SAE a layer
    found = judged(open_run(llama_run / "main"))
    assert {one.experiment for one in found} == EXPERIMENTS
    assert {one.experiment for one in found if one.passes_controls} >= {
        "layers",
        "mse",
        "persistence",
    }
    assert "sentence embeddings" in (llama_run / "summary.md").read_text()


@pytest.mark.slow
def test_killed_and_taken_up_again(
    llama: ModuleType,
    llama_files: list[str],
    llama_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed again and again, each time after some files more, it ends with the same."""
    recipe, real = tiny(llama.RECIPE), files.rename
    command = [*llama_files, *LLAMA, "--out", str(tmp_path / "run")]
    left = 0

    def rename(path: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        real(path, target)

    monkeypatch.setattr(files, "rename", rename)
    monkeypatch.setattr(EmbeddingJudge, "scores", shared_words)
    kills = 0
    for more in (50, 80, 90, 40, 40, 10**6):
        left = more
        code = llama.main(recipe, "", command)
        kills += code == 130
    assert code == 0
    assert kills == 5
    assert kept(tmp_path / "run" / "main") == kept(llama_run / "main")
    left = 10**6
    assert llama.main(recipe, "", command) == 0
    assert 10**6 - left < 30  # finished, it makes nothing but names states again


# Needs


def stated(module: ModuleType, capsys: Any, *flags: str, recipe: Any = None) -> tuple[int, str]:
    code = module.main(recipe or module.RECIPE, "", [*flags])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_needs_follow_from_the_settings(gemma: ModuleType, llama: ModuleType) -> None:
    from paper.needs import needs_of, questions
    from paper.settings import Settings

    settings = Settings(out="x", judge_model="m", prompt_price=1.0, completion_price=2.0)
    for module in (gemma, llama):
        recipe = module.RECIPE
        runs = recipe.plan(settings)
        needs = needs_of(recipe, runs, settings)
        f, d = recipe.saes.d_sae, recipe.saes.d_model
        assert recipe.saes.bytes == 4 * (2 * f * d + 2 * f + d)
        different = {sae.path for run in runs for sae in run.saes}
        stored = recipe.model.parameters * recipe.model.stored_bytes
        assert needs.download == len(different) * recipe.saes.bytes + stored + (4 << 30)
        assert needs.gpu > 2 * recipe.model.parameters + 26 * recipe.saes.bytes
        assert needs.calls == sum(questions(run, settings) for run in runs if run.judged_on)
        assert needs.money == pytest.approx(needs.calls * (750 + 2 * 60) / 1e6)
        half = needs_of(recipe, runs, dataclasses.replace(settings, documents=50))
        assert half.model_hours == pytest.approx(needs.model_hours / 2)
    # 26 of Table 1, 5 more that are canonical, those of even L0 and of the series that are neither.
    assert len({s.path for run in gemma.RECIPE.plan(settings) for s in run.saes}) == 45


def test_unmet_needs_are_refused_in_words(
    gemma: ModuleType, gemma_files: list[str], tmp_path: Path, capsys, monkeypatch
) -> None:
    from paper import checks

    monkeypatch.setattr(checks, "hub_is_reachable", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = tmp_path / "out"
    code, said = stated(gemma, capsys, "--out", str(out), "--judge-model", "m")
    assert code == InputError.exit_code
    for words in (
        "expected a CUDA device",
        "the Hub (huggingface.co) is out of reach",
        "expected a key for https://api.openai.com/v1 in the environment variable OPENAI_API_KEY",
        "Nothing was started; --anyway starts all the same",
    ):
        assert words in said
    assert not out.exists()
    usage = types.SimpleNamespace(free=0)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(checks.psutil, "virtual_memory", lambda: types.SimpleNamespace(total=1))
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 8 << 30))
    code, said = stated(gemma, capsys, "--out", str(out), "--check")
    assert code == InputError.exit_code
    for words in (
        "GiB free on the disk of",
        "GiB on the CUDA device, got 8",
        "GiB of memory, got 0",
        "the corpora needs the package 'datasets'",
        "pip install 'saematch[minilm]'",
    ):
        assert words in said


def test_files_and_endpoint_are_looked_at(
    gemma: ModuleType, gemma_files: list[str], tmp_path: Path, capsys
) -> None:
    recipe, out = tiny(gemma.RECIPE), ["--out", str(tmp_path / "out"), "--check"]
    small = [*gemma_files, *SMALL, *layers(LAYERS), *out]
    code, said = stated(gemma, capsys, *small, recipe=recipe)
    assert code == 0, said
    assert "All needs are met." in said
    others = ["--layers", "2", "3", "4", "--starts", "2"]
    code, said = stated(gemma, capsys, *gemma_files, *SMALL, *out, *others, recipe=recipe)
    assert code == InputError.exit_code
    assert "expected layer_3/width_16k/average_l0_59/params.npz" in said
    endpoint = ["--judge-model", "m", "--base-url", "http://127.0.0.1:9/v1"]
    code, said = stated(gemma, capsys, *small, *endpoint, recipe=recipe)
    assert "expected an answer from the judge's endpoint http://127.0.0.1:9/v1" in said
    for flags, words in (
        (["--layers", "0", "1"], "expected at least three --layers"),
        (["--starts", "7"], "expected --starts among the layers 0, 1"),
        (["--prompt-price", "1"], "expected both --prompt-price"),
    ):
        code, said = stated(gemma, capsys, *small, *flags, recipe=recipe)
        assert (code, words in said) == (2, True), said
    assert not (tmp_path / "out").exists()


def test_a_gated_model_names_its_page(gemma: ModuleType, monkeypatch, tmp_path, capsys) -> None:
    import httpx
    import huggingface_hub

    from paper import checks

    def refused(name: str) -> None:
        response = httpx.Response(401, request=httpx.Request("GET", "https://huggingface.co"))
        raise huggingface_hub.errors.GatedRepoError("gated", response=response)

    monkeypatch.setattr(checks, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "auth_check", refused)
    code, said = stated(gemma, capsys, "--out", str(tmp_path / "out"), "--check")
    assert code == InputError.exit_code
    assert "accept the licence at https://huggingface.co/google/gemma-2-2b" in said
