"""What makes a file of a run directory again is named, as one would type it."""

import shlex
from pathlib import Path

import pytest

from saematch.configs import RunConfig
from saematch.errors import InputError
from saematch.store.directory import RunDirectory
from saematch.store.manifest import altered_error, describing, makes

SETTINGS = {"suite": "a b", "layers": [3, 4], "far": [["3", "5"], ["3", "6"]], "seed": 0}
RUN = "saematch run --suite 'a b' --layers 3,4 --far '3,5;3,6' --out 'my run'"


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("matchings/folded/decoder+encoder+bias/3--4.parquet", RUN),
        ("candidates/3--4.parquet", RUN),
        ("paths.parquet", RUN),
        ("report.html", RUN),
        ("evaluation/measures.parquet", RUN),
        ("evaluation/measures/weights.parquet", RUN),
        ("evaluation/measures/norms-3.parquet", RUN),
        ("evaluation/measures/consistency-3--4.parquet", RUN),
        ("evaluation/measures/corpus-web.parquet", "saematch evaluate 'my run' ("),
        ("evaluation/documents/web/streams/3.parquet", "saematch evaluate 'my run' ("),
        ("evaluation/pairs.parquet", "saematch evaluate 'my run' ("),
        ("features/3.parquet", "saematch describe 'my run' ("),
        ("examples/3.parquet", "saematch describe 'my run' ("),
        ("descriptions/activations--3.parquet", "saematch describe 'my run' ("),
        ("descriptions/activations-0--3.parquet", "saematch describe 'my run' ("),
        (
            "descriptions/neuronpedia--3.parquet",
            "saematch describe 'my run' --source neuronpedia (",
        ),
        ("descriptions/model-1--3.parquet", "saematch explain 'my run' --model MODEL ("),
        ("judging/mse/sample.parquet", "saematch judge 'my run' --experiment mse ("),
        ("judgements.parquet", "saematch judge 'my run' ("),
        ("figures/mse.svg", "saematch figures 'my run'"),
    ],
)
def test_every_output_has_its_command(name: str, begins: str) -> None:
    command = makes("my run", name, SETTINGS)
    assert command.startswith(begins)
    if begins == RUN:
        assert command == RUN


def test_the_settings_are_the_manifests(tmp_path: Path) -> None:
    """Where they cannot be read the command says so, and nothing fails."""
    directory, name = tmp_path / "my run", "matchings/folded/slug/3--4.parquet"
    with RunDirectory(directory).holding() as held:
        held.update(config=RunConfig("a suite", layers=(3, 4)).to_dict())
    said = str(altered_error(directory / name))
    command = said.partition("made again by: ")[2]
    assert command.startswith("saematch run --suite 'a suite' --layers 3,4 --out ")
    assert shlex.split(command)[-1] == str(directory)
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text()[:-5])
    said = str(altered_error(directory / name))
    assert said.endswith(f"saematch run --out '{directory}' (with its settings)")
    with pytest.raises(InputError, match=r"manifest\.json .* made again by: saematch run --out"):
        _ = RunDirectory(directory).manifest
    assert "the same saematch command" in str(altered_error(tmp_path / "elsewhere" / "a.parquet"))


def test_descriptions_are_made_by_their_source() -> None:
    assert describing("run", "activations-1") == "saematch describe run"
    assert describing("run", "neuronpedia") == "saematch describe run --source neuronpedia"
