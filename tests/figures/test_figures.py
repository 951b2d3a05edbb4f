"""What is drawn is what the tables say: values, intervals, gaps, captions."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from semantic_tables import RELIABILITY, activate, describe, judge, keep, result
from told_runs import CHOSEN, write_fates

from saematch.configs import parse_parts
from saematch.errors import UsageError
from saematch.figures import FIGURES, NotInRunError, caption_of, draw
from saematch.figures.data import described, run_command
from saematch.figures.evaluated import stream_norms
from saematch.figures.labels import judged_shares, mse_by_label, persistence
from saematch.figures.paths import followed
from saematch.figures.sorted_pairs import sorted_pairs
from saematch.figures.style import (
    FATE_FILLS,
    LABEL_FILLS,
    draw_strategies,
    new_figure,
    strategy_lines,
)
from saematch.matching.matchers import BUILT_IN, matcher, matchers
from saematch.matching.probability import Calibration
from saematch.pipelines import Run, RunConfig, open_run
from saematch.stats import share_interval
from saematch.store.directory import RunDirectory
from saematch.store.schema import RESULTS

CORPORA = ("code", "web")
"""In the order of their panels."""


def drawn(ax: Axes, label: str) -> np.ndarray:
    """[points, 2] of the line of this name, gaps left out."""
    line = next(line for line in ax.lines if line.get_label() == label)
    found = np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float)
    return found[np.isfinite(found).all(axis=1)]


def spans(ax: Axes) -> list[tuple[float, float]]:
    """Lower and upper ends of all intervals."""
    return [
        (float(segment[0][1]), float(segment[1][1]))
        for found in ax.collections
        if isinstance(found, LineCollection)
        for segment in found.get_segments()
    ]


def agrees(ax: Axes, label: str, rows: pd.DataFrame, places: list[int]) -> None:
    """The line stands near its places, at the rows' values, with the rows' intervals."""
    points = drawn(ax, label)
    assert points[:, 0].round().tolist() == places
    np.testing.assert_allclose(points[:, 1], rows["value"])
    there = spans(ax)
    for low, high in rows[["low", "high"]].dropna().to_numpy():
        assert any(np.allclose(span, (low, high)) for span in there)


@pytest.fixture
def run(whole: Path) -> Run:
    return open_run(whole)


def rows_of(run: Run, measure: str, **equal: str) -> pd.DataFrame:
    rows = run.measures()
    rows = rows[rows["measure"] == measure]
    for name, value in equal.items():
        rows = rows[rows[name] == value]
    return rows


def test_mse_is_the_tables(run: Run) -> None:
    figure = draw(run, 3)
    for ax, part in zip(figure.axes, ("decoder", "encoder", "bias"), strict=True):
        for strategy in run.config.strategies:
            rows = rows_of(run, f"mse_{part}", strategy=strategy, corpus="")
            agrees(ax, strategy_lines()[strategy].label, rows, [0, 1, 2])
    assert "no text was read" in caption_of(figure)[1]


def test_norms_leave_massive_tokens_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stream_norms(run, "web")["3"][0]
    whole = RunDirectory.table

    def with_outliers(of: RunDirectory, name: str) -> tuple[pa.Table, dict[str, object]]:
        table, about = whole(of, name)
        if "stream_square" not in table.column_names:  # the documents, for the draws
            return table, about
        place = table.column_names.index("stream_square")
        greater = pc.multiply(table["stream_square"], 1e6)
        return table.set_column(place, "stream_square", greater), about

    monkeypatch.setattr(RunDirectory, "table", with_outliers)
    assert stream_norms(run, "web")["3"][0] == expected


def test_norms_are_sums_and_weights(run: Run) -> None:
    figure = draw(run, "norms")
    stream, thresholds, growth = figure.axes
    for corpus in CORPORA:
        norms = stream_norms(run, corpus)
        table = pd.read_parquet(run.path / f"evaluation/documents/{corpus}/streams/3.parquet")
        expected = np.sqrt(table["typical_stream_square"].sum() / table["typical_tokens"].sum())
        assert norms["3"][0] == pytest.approx(expected)
        points = drawn(stream, f"residual stream, {corpus}")
        np.testing.assert_allclose(points[:, 1], [norms[key][0] for key in "345"])
        steps = [norms["4"][0] / norms["3"][0], norms["5"][0] / norms["4"][0]]
        np.testing.assert_allclose(drawn(growth, f"residual stream, {corpus}")[:, 1], steps)
    agrees(thresholds, "thresholds", rows_of(run, "threshold"), [0, 1, 2, 3])
    label = "matched folded decoder norms"
    agrees(growth, label, rows_of(run, "decoder_norm_ratio"), [0, 1, 2])
    assert "Not measured: layer 6." in caption_of(figure)[1]


def test_measured_norms_are_those_of_the_folded_weights(run: Run) -> None:
    from saematch.loading import load_suite
    from saematch.sae import fold_thresholds

    a, b = (fold_thresholds(load_suite(run.config.suite).load(key)) for key in (3, 4))
    table = run.matching_table(3, 4)
    live = table[(table["status"] == "live") & (table["partner_status"] == "live")]
    own, other = (one.W_dec.norm(dim=1).numpy() for one in (a, b))
    ratios = other[live["partner"]] / own[live["feature"]]
    ratio = rows_of(run, "decoder_norm_ratio", a="3")["value"].item()
    assert ratio == pytest.approx(np.exp(np.log(ratios).mean()), rel=1e-6)
    alive = np.array(a.sae.status) == "live"
    norm = rows_of(run, "decoder_norm", a="3")["value"].item()
    assert norm == pytest.approx(own[alive].mean(), rel=1e-6)
    assert a.sae.threshold is not None
    threshold = rows_of(run, "threshold", a="3")["value"].item()
    assert threshold == pytest.approx(a.sae.threshold.numpy()[alive].mean(), rel=1e-6)


@pytest.mark.parametrize("name", ["pruned-by-strategy", "pruned-by-corpus", "matching-score"])
def test_measures_on_text_are_the_tables(run: Run, name: str) -> None:
    figure = draw(run, name)
    slug = run.config.slug
    axes = iter(figure.axes)
    if name == "matching-score":
        for corpus in CORPORA:
            ax = next(axes)
            for strategy in ("folded", "unfolded", "cosine"):
                rows = rows_of(run, "matching_score", corpus=corpus, strategy=strategy, parts=slug)
                agrees(ax, strategy_lines()[strategy].label, rows, [0, 1])
            rows = rows_of(run, "chance", corpus=corpus, strategy="folded", parts=slug)
            agrees(ax, "chance (folded)", rows, [0, 1])
        return
    for measure in ("explained_variance", "delta_loss"):
        if name == "pruned-by-corpus":
            ax = next(axes)
            for corpus in CORPORA:
                rows = rows_of(run, measure, corpus=corpus, strategy="folded", parts=slug)
                agrees(ax, corpus, rows, [0, 1])
            continue
        for corpus in CORPORA:
            ax = next(axes)
            for strategy in ("folded", "unfolded", "layer_drop", "reconstruct_current"):
                rows = rows_of(run, measure, corpus=corpus, strategy=strategy)
                rows = rows[rows["parts"].isin(["", slug])]
                agrees(ax, strategy_lines()[strategy].label, rows, [0, 1])


def test_parts_are_told_apart(run: Run) -> None:
    figure = draw(run, 12)
    for ax, corpus in zip(figure.axes, CORPORA, strict=True):
        for label, parts in (
            ("decoder, encoder, bias", run.config.slug), ("decoder only", "decoder"),
            ("encoder only", "encoder"),
        ):  # fmt: skip
            rows = rows_of(run, "matching_score", corpus=corpus, strategy="folded", parts=parts)
            agrees(ax, label, rows, [0, 1])


def test_quantiles_are_the_tables(run: Run) -> None:
    figure = draw(run, 16)
    for ax, (measure, corpus) in zip(
        figure.axes,
        [(m, c) for m in ("explained_variance", "delta_loss") for c in CORPORA],
        strict=True,
    ):
        for a, b in (("3", "4"), ("4", "5")):
            rows = rows_of(run, measure, corpus=corpus, a=a, b=b)
            rows = rows[rows["strategy"].str.startswith("quantile")].sort_values("strategy")
            points = drawn(ax, f"{a}→{b}")
            np.testing.assert_allclose(points[:, 0], [0, 0.5, 1], atol=0.04)
            np.testing.assert_allclose(points[:, 1], rows["value"])
    assert "Not measured" in caption_of(figure)[1]


def test_l0_against_measures(sparse: Run) -> None:
    figure = draw(sparse, 14)
    l0 = rows_of(sparse, "l0").set_index("a")["value"]
    at = {pair: (l0[pair[0]] + l0[pair[1]]) / 2 for pair in sparse.adjacent}
    ordered = sorted(at, key=lambda pair: at[pair])
    rows = rows_of(sparse, "explained_variance", strategy="folded", parts=sparse.config.slug)
    values = rows.set_index(["a", "b"])["value"].reindex(pd.MultiIndex.from_tuples(ordered))
    points = drawn(figure.axes[0], strategy_lines()["folded"].label)
    np.testing.assert_allclose(points[:, 0], [at[pair] for pair in ordered])
    np.testing.assert_allclose(points[:, 1], values)


def test_even_l0_is_what_choose_suite_takes(sparse: Run, run: Run) -> None:
    from saematch.loading.suite import choose_suite

    l0 = rows_of(sparse, "l0").set_index("a")["value"]
    layers = {3: {}, 4: {}}
    for key, value in l0.items():
        layers[int(str(key).split(".")[0])][str(key)] = float(value)
    taken = choose_suite(layers)
    figure = draw(sparse, 15)
    points = drawn(figure.axes[0], "chosen for even L0")
    np.testing.assert_allclose(points[:, 1], [l0[taken[3]], l0[taken[4]]])
    assert f"Chosen: {taken[3]}, {taken[4]}" in caption_of(figure)[1]
    alone = draw(run, 15)
    assert "nothing to choose" in caption_of(alone)[1]
    rows = rows_of(run, "l0", corpus="web")
    agrees(alone.axes[1], "the SAEs", rows, [0, 1, 2])
    # The first SAE ends no pair: its reconstruction was not measured, and is not drawn.
    assert drawn(alone.axes[2], "the SAEs")[:, 0].tolist() == [1, 2]


def test_pairs_sorted_by_mse(run: Run) -> None:
    figure = sorted_pairs(run, ("4", "5"))
    table = run.matching_table(4, 5)
    live = table[(table["status"] == "live") & (table["partner_status"] == "live")]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), np.sort(live["mse_decoder"]))
    words = " ".join(text.get_text() for text in figure.axes[1].texts)
    first = live.sort_values("mse_decoder").iloc[0]
    assert f"4/{first['feature']} → 5/{first['partner']}" in words
    assert f"The {len(live)} live pairs" in caption_of(figure)[1]
    with pytest.raises(UsageError, match="expected one of the pairs"):
        sorted_pairs(run, ("3", "6"))


def test_shares_are_stacked(run: Run) -> None:
    figure = judged_shares(run)
    table = pd.read_parquet(run.path / "judging/layers/llm-gpt-4o-mini.parquet")
    for ax, strategy in zip(figure.axes, ("folded", "unfolded"), strict=True):
        for bars, measure in zip(ax.containers, LABEL_FILLS, strict=True):
            rows = table[(table["strategy"] == strategy) & (table["measure"] == measure)]
            heights = [bar.get_height() for bar in bars]
            assert np.isnan(heights[1])  # 4→5 was judged by nobody
            np.testing.assert_allclose([heights[0], heights[2]], rows["value"])
            ends = rows[["low", "high"]].to_numpy()
            if measure == "different":
                ends = 1 - ends[:, ::-1]
            there = spans(ax)
            for low, high in ends if measure != "maybe" else ():
                assert any(np.allclose(span, (low, high)) for span in there)
    title, words = caption_of(figure)
    assert "AUC 0.93" in words
    assert "40 to 42 labels" in words
    assert "Not measured: 4→5." in words
    assert "figures 4 and 7" in title


def test_mse_by_label_counts_pairs_alone(run: Run) -> None:
    figure = mse_by_label(run)
    sample = pd.read_parquet(run.path / "judging/mse/sample.parquet")
    said = pd.read_parquet(run.path / "judgements.parquet")
    both = sample.merge(said, on="question")
    both = both[(both["kind"] == "pair") & ~both["swapped"] & (both["outcome"] == "judged")]
    for ax, (a, b) in zip(figure.axes, run.pairs, strict=True):
        here = both[(both["a"] == a) & (both["b"] == b)]
        ticks = [text.get_text() for text in ax.get_xticklabels()]
        counts = here["label"].value_counts()
        assert ticks == [f"{n}\nn = {counts.get(n, 0)}" for n in ("DIFFERENT", "MAYBE", "SAME")]
        dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() == "."])
        np.testing.assert_allclose(np.sort(dots), np.sort(here["mse_decoder"]))
        drawn_ends = {float(end) for line in ax.lines for end in line.get_ydata()}
        for name in counts.index:
            mine = here.loc[here["label"] == name, "mse_decoder"].to_numpy()
            # A whisker reaches the last pair within 5% to 95%.
            low, high = np.percentile(mine, (5, 95))
            for end in (mine[mine >= low].min(), mine[mine <= high].max(), np.median(mine)):
                assert min(abs(end - one) for one in drawn_ends) < 1e-12
    assert f"{len(both)} labels" in caption_of(figure)[1]


def test_persistence_is_the_table(run: Run) -> None:
    figure = persistence(run)
    table = pd.read_parquet(run.path / "judging/persistence/llm-gpt-4o-mini.parquet")
    for ax, start in zip(figure.axes, ("3", "4", "5"), strict=True):
        rows = table[(table["strategy"] == "exact") & (table["a"] == start)]
        later = [key for key in "3456" if key > start]
        agrees(ax, "exact matching (folded)", rows, [later.index(b) for b in rows["b"]])
    assert "3→5" in caption_of(figure)[1]


def test_paths_show_features_and_texts(run: Run) -> None:
    figure = followed(run, [("4", 7), ("3", 2)])
    words = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    text_of = described(run)
    for key, feature in (("4", 7), ("3", 2)):
        for step in run.follow(key, feature).to_dict("records"):
            name = f"{step['key']}/{step['feature']}"
            assert [word for word in words if word.split(" ")[0] == name]
            begins = text_of(step["key"], step["feature"])[:20]
            assert [word for word in words if word.startswith(begins)]
    assert draw(run, 18).axes
    with pytest.raises(UsageError, match=r"feature of layer 4 from 0 to \d+, got 99"):
        followed(run, [("4", 99)])


def test_features_of_paths_by_name_or_number(run: Run) -> None:
    wanted = caption_and_words(followed(run, [("4", 7), ("3", 2)]))
    assert caption_and_words(followed(run, ["4/7", " 3/2 "])) == wanted
    assert caption_and_words(followed(run, [(4, 7), (3, np.int64(2))])) == wanted
    assert followed(run, "4/7").axes
    with pytest.raises(
        UsageError, match=r"expected a feature as LAYER/INDEX, e\.g\. 12/345, got '47'"
    ):
        followed(run, ["47"])


def caption_and_words(figure: Figure) -> tuple[str, list[str]]:
    return caption_of(figure)[1], [text.get_text() for text in figure.axes[0].texts]


def test_steps_in_warning_have_hollow_arrows(run: Run) -> None:
    figure = followed(run, ["4/7", "3/2", "3/0"])
    steps = [
        one
        for key, feature in (("4", 7), ("3", 2), ("3", 0))
        for one in run.follow(key, feature).to_dict("records")[1:]
    ]
    flagged = [bool(one["warnings"]) for one in steps]
    assert 0 < sum(flagged) < len(flagged)
    arrows = [one.arrow_patch for one in figure.axes[0].texts if isinstance(one, Annotation)]
    hollow = [arrow is not None and to_rgb(arrow.get_facecolor()) == (1, 1, 1) for arrow in arrows]
    assert hollow == flagged
    thick = [arrow is not None and arrow.get_linewidth() > 1 for arrow in arrows]
    assert thick == [not warning for warning in flagged]
    assert "saematch paths names the reasons" in caption_of(figure)[1]


def test_captions_say_what_misleads(run: Run, copied: Path) -> None:
    score = caption_of(draw(run, "matching-score"))[1]
    assert "Chance: of folded's pairs" in score
    assert "cosine: several features may share a partner" in score
    assert "cosine" not in caption_of(draw(run, "score-by-parts"))[1]
    assert "small MSE whatever their cosine" in caption_of(sorted_pairs(run))[1]
    assert "AUC" not in caption_of(mse_by_label(run))[1]
    name = "judging/mse/llm-gpt-4o-mini.parquet"
    keep(
        copied,
        name,
        RESULTS,
        [result("", "", "", "auc", 0.87, 40)],
        passes_controls=True,
        verdict="",
    )
    words = caption_of(mse_by_label(open_run(copied)))[1]
    assert "Judged by llm-gpt-4o-mini (controls told apart with AUC 0.87)" in words
    assert "in a layer pair live pairs at random" in words


def test_a_missing_pair_is_a_gap() -> None:
    rows = pd.DataFrame(
        {"a": ["1", "3"], "b": ["2", "4"], "value": [0.5, 0.7], "low": [0.4, None],
         "high": [0.6, None]}
    )  # fmt: skip
    _, (ax,) = new_figure(3.0)
    draw_strategies(ax, [(strategy_lines()["folded"], rows)], [("1", "2"), ("2", "3"), ("3", "4")])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0.5, np.nan, 0.7])
    assert spans(ax) == [(0.4, 0.6)]


def test_chains_are_not_joined() -> None:
    pairs = [("1.x", "2.x"), ("1.y", "2.y")]
    rows = pd.DataFrame(
        {"a": ["1.x", "1.y"], "b": ["2.x", "2.y"], "value": [1.0, 2.0], "low": None, "high": None}
    )
    _, (ax,) = new_figure(3.0)
    draw_strategies(ax, [(strategy_lines()["folded"], rows)], pairs)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1, np.nan, 2])


def test_strategies_look_different_without_colour() -> None:
    # Those that ship; others become known as tests ask for them.
    known = {one.name for one in matchers()} - {one.name for one in BUILT_IN}
    lines = [line for name, line in strategy_lines().items() if name not in known]
    looks = [(line.marker, str(line.dashes)) for line in lines]
    assert len(set(looks)) == len(looks)
    markers = [line.marker for line in lines]
    assert len(set(markers)) == len(markers)
    assert len({line.color for line in lines}) >= len(markers) - 1


def test_numbers_of_partners_look_different() -> None:
    assert len({matcher(f"transport:{count}").marker for count in (2, 4, 8)}) == 3


NEEDS = {
    "norms": "residual|measures on text", "judged-shares": "'layers'", "mse-by-label": "'mse'",
    "persistence": "'persistence'", "matching-score": "measures on text",
    "pruned-by-corpus": "measures on text", "pruned-by-strategy": "variance on text",
    "score-by-parts": "decoder alone", "against-l0": "several L0s", "even-l0": "measures on text",
    "mixed-quantiles": "MSE quantiles", "fates": "unlike those", "reliability": "was judged",
}  # fmt: skip


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_what_a_run_lacks_is_said(matched: Path, figure, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_judged = dataclasses.replace(Calibration.load(), about={})
    monkeypatch.setattr(Calibration, "load", lambda: nobody_judged)
    run = open_run(matched)
    if figure.name not in NEEDS:
        assert caption_of(figure.draw(run))[1]
        return
    with pytest.raises(NotInRunError, match=NEEDS[figure.name]) as error:
        figure.draw(run)
    assert error.value.command.startswith("saematch ")
    assert "got none; try: saematch" in str(error.value)


def test_descriptions_go_by_source(copied: Path) -> None:
    assert described(open_run(copied)).sources == ("model",)
    said = "Descriptions: words of a language model, not checked by anyone."
    assert described(open_run(copied)).facts() == said
    describe(copied, "neuronpedia", ("from elsewhere",))
    found = described(open_run(copied))
    assert found.sources == ("neuronpedia",)
    assert found("3", 0) == "from elsewhere"
    assert found("3", 99) == ""


def test_tokens_stand_for_descriptions(matched: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(matched, tmp_path / "run")
    activate(tmp_path / "run", "4")
    found = described(open_run(tmp_path / "run"))
    assert found("4", 0) == "'<b>', 'x'"
    assert found("4", 15) == ""
    assert found("3", 0) == ""
    assert "tokens" in found.facts()


def test_several_judges_stand_below_each_other(copied: Path) -> None:
    judge(copied, ("llm-gpt-4o-mini", "human"))
    run = open_run(copied)
    shares = judged_shares(run)
    assert len(shares.axes) == 4
    assert len(persistence(run).axes) == 6
    assert len(mse_by_label(run).axes) == 6
    assert "human" in shares.axes[0].get_title()


def test_the_command_makes_the_same_run(tmp_path: Path, matched: Path) -> None:
    config = RunConfig(
        "a b", layers=(1, 2), parts=parse_parts("decoder,encoder@0.5"), far=(("1", "3"),)
    )
    words = {
        "layers": "1,2", "parts": "decoder,encoder@0.5", "far": "1,3",
    }  # fmt: skip
    run = open_run(matched)
    run.__dict__["config"] = config
    line = run_command(run)
    assert line.startswith("saematch run --suite 'a b' --layers 1,2 ")
    assert all(f"--{name} {word}" in line for name, word in words.items())
    assert line.endswith(f"--out {matched}")


def test_numbers_and_names(run: Run) -> None:
    assert caption_of(draw(run, "mse"))[0] == caption_of(draw(run, 3))[0]
    with pytest.raises(UsageError, match="judged-shares and matching-score"):
        draw(run, 7)
    with pytest.raises(UsageError, match="got '99'"):
        draw(run, 99)


def test_a_run_by_one_part_is_drawn_once(whole: Path) -> None:
    run = open_run(whole)
    run.__dict__["config"] = RunConfig(run.config.suite, parts={"decoder": 1.0})
    found = [str(line.get_label()) for line in draw(run, 12).axes[0].lines]
    assert found == ["decoder", "encoder only", "chance (folded)"]
    rows = rows_of(run, "matching_score", corpus="code", strategy="folded", parts="decoder")
    agrees(draw(run, 12).axes[0], "decoder", rows, [0, 1])


def test_fates_are_the_tables(copied: Path) -> None:
    pairs = [("3", "4"), ("4", "5"), ("5", "6")]
    for pair in pairs[:2]:
        write_fates(copied, pair, CHOSEN, born=[1, 2, 3])
    unknown = {feature: ("unknown", None, [], [], 0) for feature in range(16)}
    write_fates(copied, pairs[2], unknown, notes=["they are unlike others"])
    run = open_run(copied)
    figure = draw(run, "fates")
    stacked, born = figure.axes
    floor = np.zeros(3)
    for bars, fate in zip(stacked.containers, FATE_FILLS, strict=False):
        tables = [run.fates(*pair) for pair in pairs[:2]]
        live = [(table["fate"] != "not live").sum() for table in tables]
        counts = [(table["fate"] == fate).sum() for table in tables]
        heights = np.array([bar.get_height() for bar in bars])
        np.testing.assert_allclose(heights[:2], np.divide(counts, live))
        assert np.isnan(heights[2])
        np.testing.assert_allclose([bar.get_y() for bar in bars][:2], floor[:2])
        floor += heights
    np.testing.assert_allclose(floor[:2], 1)
    assert [bar.get_height() for bar in born.containers[0]][:2] == [3 / 15, 3 / 15]
    assert spans(born)[0] == pytest.approx(share_interval(3, 15)[1:])
    assert "Not measured: 5→6." in caption_of(figure)[1]


def test_fates_that_nobody_knows_are_not_drawn(copied: Path) -> None:
    unknown = {feature: ("unknown", None, [], [], 0) for feature in range(16)}
    for pair in (("3", "4"), ("4", "5"), ("5", "6")):
        write_fates(copied, pair, unknown, notes=["they are unlike others"])
    with pytest.raises(NotInRunError, match="they are unlike others") as error:
        draw(open_run(copied), "fates")
    assert error.value.command.startswith("saematch calibrate ")


def test_reliability_is_the_calibrations(
    run: Run, matched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = draw(run, "reliability")
    np.testing.assert_allclose(drawn(figure.axes[0], "judged pairs"), np.array(RELIABILITY)[:, :2])
    words = caption_of(figure)[1]
    assert "the run's own calibration: 150 pairs in 3 groups" in words
    assert "Fitted to pairs 3→4. Judged on pairs 4→5." in words
    shipped = dataclasses.replace(
        Calibration.load(), about={"judged": {"reliability": [[1, 1, 7]]}}
    )
    monkeypatch.setattr(Calibration, "load", lambda: shipped)
    words = caption_of(draw(open_run(matched), "reliability"))[1]
    assert "the calibration that ships with saematch: 7 pairs" in words
