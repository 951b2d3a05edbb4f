"""From Gemma Scope's files and Neuronpedia's exports, in their exact formats, to judged pairs."""

from pathlib import Path

import numpy as np
import pytest
from neuronpedia_server import LocalNeuronpedia, serving
from typer.testing import CliRunner

from saematch.cli import app
from saematch.configs import DescribeConfig
from saematch.errors import InputError
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.describe import describe
from saematch.store.judge_results import judged_by
from saematch.store.tables import descriptions_of

pytestmark = pytest.mark.usefixtures("plain_report")
FEATURES, D_MODEL = 16_384, 6
WORDS = ("rain", "harbour", "verbs", "brackets", "baseball", "acids", "capitals", "music", "law")


def write_gemma_scope(folder: Path, l0s: dict[int, int]) -> Path:
    """Layers with the names and the width of Gemma Scope; each layer's features are mixed copies."""
    generator = np.random.default_rng(0)
    w = generator.normal(size=(FEATURES, D_MODEL)).astype(np.float32)
    threshold = generator.uniform(0.5, 1, FEATURES).astype(np.float32)
    for layer, l0 in l0s.items():
        order = np.random.default_rng(layer).permutation(FEATURES)
        path = folder / f"layer_{layer}/width_16k/average_l0_{l0}/params.npz"
        path.parent.mkdir(parents=True)
        np.savez(
            path, W_enc=w[order].T, W_dec=w[order], b_enc=np.zeros(FEATURES, np.float32),
            b_dec=np.zeros(D_MODEL, np.float32), threshold=threshold[order],
        )  # fmt: skip
    return folder


def put_exports(server: LocalNeuronpedia, layer: int) -> None:
    """Descriptions that follow the features: those of equal weights are described alike."""
    order = np.random.default_rng(layer).permutation(FEATURES)
    records = []
    for index in range(FEATURES):
        one = int(order[index])
        word = f"{WORDS[one % 9]} and {WORDS[one // 9 % 9]}, kind {one % 50}"
        for way in (f"words about {word}", f"{word}, in any form"):
            records.append(
                {"index": str(index), "description": way, "explanationModelName": "gpt-4o-mini"}
            )
        if index % 100 == 0:
            records[-2]["description"] = records[-1]["description"] = None
    source = f"gemma-2-2b/{layer}-gemmascope-res-16k"
    for number, first in enumerate(range(0, len(records), 8192)):
        server.put_batch(number, records[first : first + 8192], source)


def test_described_by_neuronpedia_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEMATCH_CACHE", str(tmp_path / "cache"))
    suite = write_gemma_scope(tmp_path / "gemma-scope-2b-pt-res", {3: 59, 4: 125})
    directory = tmp_path / "run"
    strategies = ("folded", "random")
    run(RunConfig(str(suite), strategies=strategies, random_draws=1, candidates=1), directory)
    with serving() as server:
        put_exports(server, 3)
        put_exports(server, 4)
        url = f"{server.url}/v1"
        # The descriptions of layer 4 are those of the SAE of L0 124.
        with pytest.raises(InputError, match="average_l0_124"):
            describe(directory, DescribeConfig(source="neuronpedia", neuronpedia_url=url))
        assert not server.asked
        flags = ["describe", str(directory), "--source", "neuronpedia", "--neuronpedia-url", url]
        done = CliRunner().invoke(app, [*flags, "--allow-other-sae"])
        assert done.exit_code == 0, done.output
        server.forget_requests()
        assert CliRunner().invoke(app, [*flags, "--allow-other-sae"]).exit_code == 0
        assert not [path for path in server.asked if path in server.answers]  # all are cached
    found = {key: descriptions_of(open_run(directory), "neuronpedia", key) for key in ("3", "4")}
    assert found["3"].count == found["4"].count == FEATURES - 164
    scope = "google/gemma-scope-2b-pt-res"
    assert found["3"].about["describes"] == f"{scope}/layer_3/width_16k/average_l0_59"
    assert found["3"].about["explainers"] == {"gpt-4o-mini": 2 * (FEATURES - 164)}
    assert any("average_l0_124" in note for note in found["4"].about["notes"])
    flags = ["judge", str(directory), "--descriptions", "neuronpedia", "--samples", "60"]
    done = CliRunner().invoke(app, flags)
    assert done.exit_code == 0, done.output
    judged = judged_by(open_run(directory), "layers", "embedding-all-MiniLM-L6-v2")
    # Folded pairs are copies of each other; they are described in the same words.
    assert judged.span("same", "folded")[0] > 0.95
    assert judged.span("same", "random")[0] < 0.3
    assert judged.passes_controls
