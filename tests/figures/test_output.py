"""Figures as files: the same bytes, well formed, nothing outside, no stranger's markup."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from pictures import stays_inside
from semantic_tables import describe

from saematch.cli import main
from saematch.errors import InputError, UsageError
from saematch.figures import FIGURES, caption_of, draw, to_png, to_svg
from saematch.figures.captions import (
    NAMED,
    caption,
    label,
    not_measured,
    plain,
    text_width,
    wrap,
)
from saematch.figures.style import new_figure
from saematch.matching.matchers import Matcher, registering
from saematch.pipelines import Run, RunDirectory, open_run
from saematch.rendering import draw_figures

NAMES = [figure.name for figure in FIGURES]
JUDGED = ("judged-shares", "mse-by-label", "persistence")
EVERYWHERE = [name for name in NAMES if name != "against-l0"]
EVIL = '<script>alert(1)</script>]]> & "quoted" $\\frac{1}{0}$ $x$ \x00\x1b 漢字 '
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=EVERYWHERE)
def figure(request: pytest.FixtureRequest, whole: Path) -> Figure:
    return draw(open_run(whole), request.param)


def test_every_figure_is_whole(figure: Figure) -> None:
    stays_inside(figure)
    title, words = caption_of(figure)
    assert title
    assert words.startswith("suite: blocks 3 to 6, 4 SAEs, 16 features each.")
    element = ElementTree.fromstring(to_svg(figure))
    assert element.tag == f"{SVG}svg"
    assert element.findtext(f"{SVG}title") == title
    assert element.findtext(f"{SVG}desc") == words
    assert element.get("role") == "img"


@pytest.mark.parametrize("name", [one for one in NAMES if one not in JUDGED])
def test_several_saes_a_layer(sparse: Run, name: str) -> None:
    """One of them has a name that is longer than a panel."""
    stays_inside(draw(sparse, name))


@pytest.mark.parametrize(
    "name", ["norms", "matching-score", "pruned-by-corpus", "pruned-by-strategy", "even-l0"]
)
def test_captions_say_on_what(whole: Path, name: str) -> None:
    words = caption_of(draw(open_run(whole), name))[1]
    for corpus, stand_in in (("web", "bundled stand-in"), ("code", "bundled stand-in")):
        assert f"{corpus} ({stand_in}" in words
    assert words.count("3 documents, 69 tokens") == 2
    assert "Not measured" in words


def test_strangers_text_stays_text(copied: Path) -> None:
    describe(copied, "neuronpedia", (EVIL,))
    run = open_run(copied)
    for name in ("sorted-pairs", "paths"):
        figure = draw(run, name)
        text = to_svg(figure)
        assert "<script" not in text
        element = ElementTree.fromstring(text)
        assert not list(element.iter(f"{SVG}script"))
        words = " ".join(filter(None, element.itertext()))
        assert "<script>alert(1)</script>]]>" in words
        assert "$x$" in words.replace("$ $", "$ $") or "…" in words
        assert to_png(figure)[:4] == b"\x89PNG"
        stays_inside(figure)


def test_same_run_same_bytes(whole: Path) -> None:
    for name in ("judged-shares", "mse-by-label", "paths"):
        one, other = (draw(open_run(whole), name) for _ in range(2))
        assert to_svg(one) == to_svg(other), name
        if name == "mse-by-label":
            assert to_png(one) == to_png(other)


def test_the_report_has_no_captions_twice() -> None:
    figure, _ = new_figure(2.0)
    assert "<desc>" not in to_svg(figure)


def test_text_is_wrapped_to_its_width() -> None:
    text = "several words of different lengths and one incomprehensibilitiesandmoreofthem " * 3
    lines = wrap(text, 90.0, 7.0)
    assert max(text_width(line, 7.0) for line in lines) <= 90
    assert "".join("".join(lines).split()) == "".join(text.split())
    cut = wrap(text, 90.0, 7.0, 2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert wrap("", 90.0, 7.0) == [""]


def test_plain_text_has_no_formulae_and_no_control_characters() -> None:
    assert plain("a\x00b\n c\t d") == "a b c d"
    figure, (ax,) = new_figure(2.0)
    ax.set_title(label("costs $5 to $7_{"))
    caption(figure, "t", "from $1 to $2_{ and \\frac{")
    assert "costs $5 to $7_{" in to_svg(figure)
    assert caption_of(figure) == ("t", "from $1 to $2_{ and \\frac{")


def test_what_was_not_measured_is_said_once() -> None:
    assert not_measured({"x": [], "y": []}, 3) == ""
    assert not_measured({"x": ["1", "2"], "y": ["1", "2"]}, 3) == "Not measured: 1, 2."
    assert not_measured({"x": ["1", "2"], "y": ["1"]}, 3) == "Not measured: 1; x for 2."
    assert not_measured({"x": ["1", "2", "3"], "y": []}, 3) == "Not measured: x."
    many = not_measured({f"x{n}": ["1"] for n in range(NAMED + 4)} | {"y": []}, 3)
    assert many.endswith("; and 4 more.")


def test_figures_are_kept_and_not_drawn_again(copied: Path) -> None:
    first = draw_figures(copied, ["mse", "14", "5"])
    assert [one.name for one in first] == ["mse", "sorted-pairs", "against-l0"]
    assert [bool(one.files) for one in first] == [True, True, False]
    assert "several L0s" in first[2].needed
    path = copied / "figures" / "mse.svg"
    stamp, data = path.stat().st_mtime_ns, path.read_bytes()
    directory = RunDirectory(copied)
    assert directory.read("figures/mse.svg") == data
    assert directory.names("figures/") == [
        "figures/mse.png", "figures/mse.svg", "figures/sorted-pairs.png", "figures/sorted-pairs.svg",
    ]  # fmt: skip
    draw_figures(copied, ["mse"])
    assert path.stat().st_mtime_ns == stamp
    other = RunDirectory(copied).read("paths.parquet")
    path.write_bytes(data + b" ")
    with pytest.raises(InputError, match="altered or cut short"):
        draw_figures(copied, ["mse"])
    path.unlink()
    draw_figures(copied, ["mse"])
    assert path.read_bytes() == data
    assert RunDirectory(copied).read("paths.parquet") == other


def test_figures_of_strategies_that_look_otherwise_are_drawn_again(copied: Path) -> None:
    """Matchers say how they look, so that the code of figures alone does not decide it."""
    draw_figures(copied, ["mse"])
    path = copied / "figures" / "mse.svg"
    stamp, data = path.stat().st_mtime_ns, path.read_bytes()
    with registering(Matcher(name="another", label="another", color="#123456", marker="o")):
        draw_figures(copied, ["mse"])
    assert path.stat().st_mtime_ns != stamp
    assert path.read_bytes() == data  # it is not in this run


def test_an_altered_file_keeps_back_those_that_need_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    altered, some = "matchings/folded/decoder+encoder+bias/5--6.parquet", "mse,5,8,12,14,paths"
    whole = (copied / altered).read_bytes()
    (copied / altered).write_bytes(whole[:-9])
    found = {one.name: one for one in draw_figures(copied, some.split(","))}
    assert {name for name, one in found.items() if one.altered} == {"sorted-pairs", "paths"}
    assert {name for name, one in found.items() if one.needed} == {"against-l0"}
    assert {name for name, one in found.items() if one.files} == {
        "mse", "persistence", "score-by-parts",
    }  # fmt: skip
    assert str(copied / altered) in found["paths"].altered
    assert "saematch run --suite" in found["paths"].altered
    assert call(monkeypatch, "figures", copied, "--only", some) == 3
    shown = capsys.readouterr()
    assert "18 and 19 (paths)" in shown.out
    assert shown.out.count(str(copied / altered)) == 1
    assert "figures/mse.svg" in shown.out
    assert "not drawn: " in shown.err
    assert call(monkeypatch, "figures", copied, "--only", some, "--json") == 3
    said = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert said["paths"]["altered"] == found["paths"].altered
    assert said["mse"]["altered"] == ""
    with pytest.raises(InputError, match="altered or cut short"):
        draw_figures(copied, ["paths"])
    (copied / altered).write_bytes(whole)
    assert call(monkeypatch, "figures", copied, "--only", some) == 0


def test_a_figure_whose_data_are_gone_goes(copied: Path) -> None:
    draw_figures(copied, ["judged-shares", "mse"])
    with RunDirectory(copied).holding() as held:
        outputs = held.manifest["outputs"]
        held.update(outputs={n: o for n, o in outputs.items() if not n.startswith("judging/")})
    found = draw_figures(copied, ["judged-shares", "mse"])
    assert [bool(one.files) for one in found] == [True, False]
    assert not (copied / "figures" / "judged-shares.svg").exists()
    assert RunDirectory(copied).names("figures/") == ["figures/mse.png", "figures/mse.svg"]


def test_new_tables_draw_again(copied: Path) -> None:
    draw_figures(copied, ["paths"])
    before = (copied / "figures" / "paths.svg").read_bytes()
    describe(copied, "neuronpedia", ("another text",))
    draw_figures(copied, ["paths"])
    assert (copied / "figures" / "paths.svg").read_bytes() != before


def test_errors(tmp_path: Path, matched: Path) -> None:
    with pytest.raises(InputError, match="got no manifest"):
        draw_figures(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"got '2'; there are norms \(1\), mse \(3\), "):
        draw_figures(matched, ["2"])
    with pytest.raises(InputError, match="to draw persistence, got none; try: saematch judge"):
        draw_figures(matched, ["8"])


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["saematch", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_the_command(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "figures", copied, "--only", "3,14", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["mse", "against-l0"]
    assert [Path(name).is_file() for name in found[0]["files"]] == [True, True]
    assert found[1]["files"] == []
    assert found[1]["command"].startswith("saematch run")
    assert call(monkeypatch, "figures", copied, "--only", "3,14") == 0
    out = capsys.readouterr().out
    assert "figures/mse.svg" in out
    assert "14 (against-l0) needs SAEs of several L0s" in out
    for wanted, said in (
        ("20", "got '20'"), ("", "got ''"), (",", "got ','"), ("3,2", "got '2'"),
        ("path", "got 'path'; did you mean paths?"),
    ):  # fmt: skip
        assert call(monkeypatch, "figures", copied, "--only", wanted) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert said in error
        assert "norms (1), mse (3), judged-shares (4 and 7 left)" in error


def test_help_does_not_wait_for_figures() -> None:
    program = (
        "import sys; sys.argv = ['saematch', 'figures', '--help']\n"
        "from saematch.cli import main; main()\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout


def test_a_title_names_the_paper_and_the_number(whole: Path) -> None:
    for one in FIGURES:
        if one.numbers and one.name in EVERYWHERE:
            title, _ = caption_of(draw(open_run(whole), one.name))
            assert "SAE Match, figure" in title, one.name


def test_the_document_lists_every_figure() -> None:
    document = (Path(__file__).parents[2] / "docs" / "figures.md").read_text()
    for one in FIGURES:
        assert f"| {one.number} | `{one.name}` | {one.shows} | `{one.command}` |" in document
    numbers = {number.split()[0] for one in FIGURES for number in one.numbers}
    assert numbers == {str(n) for n in (1, *range(3, 9), *range(10, 20))}


def test_the_last_bits_of_a_layout_change_no_byte() -> None:
    """The solver of layouts does not repeat them, and matplotlib's ids hashed them."""

    def svg(nudge: float) -> str:
        figure = Figure(figsize=(3, 2))
        ax = figure.add_axes((0.1 + nudge, 0.1, 0.8, 0.8))
        ax.plot([0, 1, 2], [1, 3, 2], marker="o")
        return to_svg(figure)

    text = svg(0)
    assert text == svg(1e-15) == svg(3e-14)
    assert text != svg(0.01)
    ids = set(re.findall(r'id="([A-Za-z][0-9a-f]{10}-\d+)"', text))
    used = set(re.findall(r"#([A-Za-z][0-9a-f]{10}-\d+)", text))
    assert used
    assert used <= ids
    assert not ids & set(re.findall(r'id="([^"]+)"', svg(0.01))) & used
