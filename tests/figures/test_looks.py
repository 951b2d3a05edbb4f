"""How figures look: they fit a page, can be read there, and say what their marks mean."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from pictures import shown, stays_apart, stays_inside
from semantic_tables import describe

from saematch.figures import FIGURES, NotInRunError, caption_of, draw, mse_by_pair
from saematch.figures.captions import lacking, text_width, wrap
from saematch.figures.evaluated import depth_lines, limit
from saematch.figures.labels import judged_shares
from saematch.figures.paths import HIGHEST, LONG, QUANTILES, followed, laid_out
from saematch.figures.sorted_pairs import EXAMPLE_QUANTILES, LINES, sorted_pairs
from saematch.figures.style import (
    LABEL_FILLS,
    NARROWEST,
    PAGE,
    SMALLEST,
    arrows,
    dodge,
    label_pairs,
    new_figure,
    shortened,
)
from saematch.pipelines import Run, RunConfig, open_run

NAMES = [figure.name for figure in FIGURES]


@pytest.fixture
def run(whole: Path) -> Run:
    return open_run(whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_wide_enough_and_its_reader_sees_every_word(
    run: Run, sparse: Run, name: str
) -> None:
    drawn = 0
    for one in (run, sparse):
        try:
            figure = draw(one, name)
        except NotInRunError:
            continue
        drawn += 1
        width, height = figure.get_size_inches()
        assert width <= PAGE + 1e-9
        assert height <= 9.5
        assert min(text.get_fontsize() for text in shown(figure)) >= SMALLEST
        stays_apart(figure)
        for ax in figure.axes:  # more corpora than here make panels narrower
            for line in ax.get_xlabel().splitlines():
                assert text_width(line, ax.xaxis.label.get_fontsize()) <= 72 * NARROWEST
    assert drawn


def test_texts_upon_each_other_are_seen() -> None:
    figure, (ax,) = new_figure(2.0)
    ax.text(0.5, 0.5, "one")
    ax.text(0.5, 0.51, "other")
    with pytest.raises(AssertionError):
        stays_apart(figure)


def test_lines_stand_aside_alike_on_both_sides() -> None:
    for of in range(1, 7):
        for places in (1, 2, 7, 25):
            aside = [dodge(number, of, places, 3) for number in range(of)]
            assert sum(aside) == pytest.approx(0, abs=1e-12)
            assert max(aside) <= 0.25
    # The fewer places, the wider each is on paper: lines stand no farther apart there.
    assert dodge(1, 2, 2) * (1 / 2) == pytest.approx(dodge(1, 2, 4) * (1 / 4))


@pytest.mark.parametrize("count", [1, 2])
def test_points_of_few_pairs_stand_at_their_ticks(count: int) -> None:
    pairs = [(str(n), str(n + 1)) for n in range(count)]
    names = ("folded", "unfolded", "cosine", "naive", "random")
    rows = [
        {"a": a, "b": b, "strategy": name, "measure": f"mse_{part}", "value": 1.0, "low": None, "high": None}
        for a, b in pairs for name in names for part in ("decoder", "encoder", "bias")
    ]  # fmt: skip
    figure = mse_by_pair(pd.DataFrame(rows), pairs)
    stays_apart(figure)
    for ax in figure.axes:
        x = np.array([line.get_xdata() for line in ax.lines], dtype=float)
        np.testing.assert_allclose(x.mean(axis=0), np.arange(count), atol=1e-12)
        points = np.diff(ax.transData.transform([(0, 0), (1, 0)])[:, 0]) / figure.dpi * 72
        assert abs(x - np.arange(count)).max() * points <= 6


def test_names_keep_their_differences() -> None:
    names = ["1.average_l0_20_of_a_suite", "1.average_l0_30_of_a_suite", "2"]
    short = shortened(names, 10)
    assert len(set(short)) == 3
    assert short[2] == "2"
    assert all("…" in name and len(name) < len(names[0]) for name in short[:2])
    assert all(name.startswith("1.") for name in short[:2])
    assert arrows([("12.x.y", "13.x.y"), ("12.x", "13.y"), ("1", "2")]) == [
        "12→13 x.y", "12.x→13.y", "1→2",
    ]  # fmt: skip
    assert [line.label for line in depth_lines([("1.$a$", "2.$a$")]).values()] == [r"1→2 \$a\$"]


@pytest.mark.parametrize("count", [1, 3, 8, 25, 60])
def test_names_along_an_axis_do_not_touch(count: int) -> None:
    for pattern in ("{0}", "{0}→{1}", "{0}.a_long_name→{1}.another_one"):
        figure, (ax, *_) = new_figure(3.0, columns=3)
        label_pairs(ax, [pattern.format(n, n + 1) for n in range(count)])
        stays_apart(figure)
        shown_first = ax.get_xticklabels()[0]
        ticks = ax.get_xticks()
        step = (ticks[1] - ticks[0]) if len(ticks) > 1 else count
        apart = np.diff(ax.transData.transform([(0, 0), (step, 0)])[:, 0]) / figure.dpi * 72
        if shown_first.get_rotation():
            assert apart * np.sin(np.radians(60)) >= shown_first.get_fontsize()


def test_bars_say_what_their_intervals_are(run: Run) -> None:
    figure = judged_shares(run)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[:3] == ["SAME", "MAYBE", "DIFFERENT"]
    assert words[3] == "95% interval: left of SAME, right of DIFFERENT"
    assert "on the left of a bar that of SAME" in caption_of(figure)[1]
    # The steps between fills are seen in greyscale, where nothing but lightness is left.
    lightness = [np.dot(to_rgb(color), (0.299, 0.587, 0.114)) for _, color in LABEL_FILLS.values()]
    assert min(np.diff(lightness)) > 0.15


def test_paths_name_their_quantile_and_cost(run: Run) -> None:
    figure = draw(run, "paths")
    titles = [text.get_text() for text in figure.axes[0].texts if "total cost" in text.get_text()]
    paths = run.paths()
    live = paths.groupby("path").filter(lambda p: len(p) == 4 and (p["status"] == "live").all())
    costs = live.groupby("path")["cost"].sum().sort_values().to_numpy()
    assert titles == [
        f"quantile {q:g} of the paths,\ntotal cost {costs[round(q * (len(costs) - 1))]:.3g}"
        for q in QUANTILES
    ]
    chosen = followed(run, [("4", 7)])
    assert any(text.get_text().startswith("through 4/7,\n") for text in chosen.axes[0].texts)


def test_long_paths_are_broken_into_halves_that_fit() -> None:
    texts = {
        str(n): ["a description of several words, and more of them " * 3] * 2 for n in range(26)
    }
    layout = laid_out(texts, 2)
    assert layout.blocks == 2
    assert layout.height <= HIGHEST
    boxes = list(layout.boxes.values())
    assert [box.leads for box in boxes] == [n in (0, 13) for n in range(26)]
    for one, other in zip(boxes[:13], boxes[13:], strict=True):
        assert one.top == other.top
        assert one.left + 2 * layout.width <= other.left
    short = laid_out(dict(list(texts.items())[:LONG]), 2)
    assert short.blocks == 1
    assert short.height <= HIGHEST


def test_descriptions_are_whole_unless_they_are_long(copied: Path) -> None:
    wanted = "the beginning of a description that takes more than one line but not many of them, to its end"
    for number, text in enumerate((wanted, wanted * 9)):
        describe(copied, ("model", "neuronpedia")[number], (text,))
        figure = sorted_pairs(open_run(copied))
        lines = [
            text.get_text() for text in figure.axes[1].texts if not text.get_text().endswith(":")
        ]
        words = " ".join(line for line in lines if " → " not in line)
        if number == 0:
            assert words.count(wanted) == 2 * len(EXAMPLE_QUANTILES)
            assert "…" not in words
        else:
            assert words.count("…") == 2 * len(EXAMPLE_QUANTILES)
            assert len(lines) == len(EXAMPLE_QUANTILES) * (1 + 2 * LINES)
            for line in lines:
                if line.endswith("…"):
                    assert line[:-1].split()[-1] in f"{wanted}{wanted}".replace(",", " ").split()
        stays_inside(figure)
        stays_apart(figure)


def test_pairs_are_sorted_by_what_was_matched(matched: Path, tmp_path: Path) -> None:
    from saematch.pipelines import run as make

    config = open_run(matched).config
    make(RunConfig(config.suite, parts={"encoder": 1.0}, random_draws=1), tmp_path / "run")
    run = open_run(tmp_path / "run")
    figure = sorted_pairs(run, ("4", "5"))
    table = run.matching_table(4, 5)
    live = table[(table["status"] == "live") & (table["partner_status"] == "live")]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), np.sort(live["cost"]))
    assert figure.axes[0].get_ylabel() == "cost of a pair 4→5\n(encoder, folded)"
    assert "the decoder was not among the parts matched on" in caption_of(figure)[1]


def test_values_that_are_cut_off_are_counted(run: Run) -> None:
    figure = draw(run, "pruned-by-corpus")
    values = np.concatenate([line.get_ydata() for line in figure.axes[0].lines]).astype(float)
    below = int((values < -1).sum())
    words = [text.get_text() for text in figure.axes[0].texts]
    assert below
    assert words == [f"{below} values below −1"]


def test_text_is_cut_at_the_end_of_a_word() -> None:
    width = text_width("several, words", 7.0)
    assert wrap("several, words that go on", width, 7.0, 1) == ["several…"]
    tokens = "' one', ' two', '\\n\\n ', ' three' "
    for room in range(40, 120, 5):
        for lines in (None, 2):
            for line in wrap(tokens * 4, float(room), 7.0, lines):
                assert line.count("'") % 2 == 0


def test_signs_that_the_font_lacks_are_said() -> None:
    assert lacking(["plain", "Ünïcödé → עברית"]) == ""
    assert "boxes" in lacking(["plain", "漢字"])


def test_zero_is_where_the_change_of_loss_begins() -> None:
    for least, lines in ((0.01, 1), (-0.2, 2)):
        _, (ax,) = new_figure(2.0)
        ax.plot([0, 1], [0.05, 3.0])
        ax.vlines([0], [least], [0.3])
        limit([ax], "delta_loss")
        assert len(ax.lines) == lines
        assert ax.get_ylim()[0] == 0 if least > 0 else ax.get_ylim()[0] < least


@pytest.mark.parametrize(
    ("least", "begins"), [(0.001, 0), (0.0, 0), (0.29, 0), (0.5, None), (-0.1, None), (-3.0, -1)]
)
def test_zero_is_where_a_small_explained_variance_begins(
    least: float, begins: float | None
) -> None:
    _, axes = new_figure(2.0, columns=2, share=True)
    for ax, low in zip(axes, (least + 0.05, least), strict=True):
        ax.plot([0, 1], [low + 0.1, 0.9])
        ax.vlines([0], [low], [0.9])
    limit(axes, "explained_variance")
    low, high = axes[1].get_ylim()
    assert high == 1
    assert low == begins if begins is not None else low < least
    if begins is None:
        assert low > least - 0.2


def test_many_lines_go_without_intervals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from saematch.figures import evaluated

    monkeypatch.setattr(evaluated, "MANY", 1)
    figure = draw(run, "mixed-quantiles")
    assert "Intervals are not drawn: those of 3 lines" in caption_of(figure)[1]
    for line in figure.axes[0].lines:
        assert list(line.get_xdata()) == [0.0, 0.5, 1.0]


def test_long_names_leave_panels_their_height(sparse: Run) -> None:
    for name in ("matching-score", "mse", "pruned-by-corpus"):
        figure = draw(sparse, name)
        stays_inside(figure)
        for ax in figure.axes:
            assert ax.get_window_extent().height / figure.dpi >= 1
