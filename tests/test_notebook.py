"""What a notebook shows: the numbers of the result, well formed, escaped, and no matplotlib."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from tiny_suites import write_sae, write_suite

from saematch import FeaturePaths, Matching, chain, load_sae, match
from saematch.notebook import curve, page
from saematch.pipelines import RunConfig, run

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def matchings(tmp_path_factory: pytest.TempPathFactory) -> list[Matching]:
    folder = tmp_path_factory.mktemp("saes")
    saes = [load_sae(str(write_sae(folder / f"layer_{n}", n, dead=(0,)))) for n in (3, 4, 5)]
    return [match(saes[0], saes[1]), match(saes[1], saes[2])]


def test_a_matching_shows_its_summary(matchings: list[Matching]) -> None:
    matching = matchings[0]
    text = matching._repr_html_()
    words = " ".join(ElementTree.fromstring(text).itertext())
    row = matching.summary()
    assert f"{row['mse_decoder']:.4g}" in words
    assert f"{row['pairs']}; means are over {row['compared']} of live features" in words
    assert "optimal to 1e-6" in words
    values = matching.mse_decoder[matching.compared]
    assert f"{values.min():.4g} to {values.max():.4g}" in words
    points = next(ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}polyline"))
    heights = [float(point.split(",")[1]) for point in points.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == len(values)


def test_paths_show_whole_ones(matchings: list[Matching]) -> None:
    paths = chain(matchings)
    assert isinstance(paths, FeaturePaths)
    words = " ".join(ElementTree.fromstring(paths._repr_html_()).itertext())
    live = np.flatnonzero(paths.live())
    cheapest = live[np.argmin(paths.cost[live].sum(axis=1))]
    steps = zip(paths.keys, paths.features[cheapest], strict=True)
    assert " → ".join(f"{key}/{feature}" for key, feature in steps) in words
    assert f"{len(live)} of them through every layer" in words


def test_a_run_shows_its_pairs(tmp_path: Path) -> None:
    folder = tmp_path / EVIL.replace("/", "")
    finished = run(RunConfig(str(write_suite(folder / "suite")), random_draws=2), folder / "out")
    text = finished._repr_html_()
    words = " ".join(ElementTree.fromstring(text).itertext())
    measures = finished.measures()
    rows = measures[(measures["measure"] == "mse_decoder") & (measures["strategy"] == "folded")]
    assert all(f"decoder MSE {value:.4g}" in words for value in rows["value"])
    assert "no text: saematch evaluate" in words
    assert "<img" not in text


def test_curves_have_gaps_and_escape() -> None:
    drawn = ElementTree.fromstring(curve(np.array([1.0, np.nan, 2.0, 3.0]), EVIL))
    lines = list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))
    assert [len(line.attrib["points"].split()) for line in lines] == [1, 2]
    assert curve(np.array([np.nan]), "nothing") == ""
    assert "<img" not in page(EVIL, {EVIL: EVIL}, "", [EVIL])
    flat = ElementTree.fromstring(curve(np.zeros(1000), "flat"))
    points = next(flat.iter("{http://www.w3.org/2000/svg}polyline")).attrib["points"]
    assert len(points.split()) == 200


def test_looking_needs_no_matplotlib() -> None:
    program = "import sys, saematch.notebook; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
