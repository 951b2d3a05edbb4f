"""`describe` and `judge` on a run directory: what they keep, go on from, refuse."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from described_runs import SMALL
from killing import contents

from saematch.configs import DescribeConfig, JudgeConfig
from saematch.errors import InputError, UsageError
from saematch.models import Documents, LanguageModel, load_corpus
from saematch.pipelines import RunConfig, open_run, run
from saematch.pipelines.describe import FOLDER, describe, names_from_activations, shipped_name
from saematch.pipelines.judge import JOURNAL, Intent, judge
from saematch.report.findings import judged_findings
from saematch.semantics.judges.experiments import CALIBRATION, DIFFERENT, PAIR, SAME
from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question
from saematch.store.judge_results import judged, judged_by, labelled_sample, name_in
from saematch.store.judgements import question_of
from saematch.store.schema import (
    DESCRIPTIONS,
    EXAMPLES,
    FEATURES,
    JUDGED_MEASURES,
    JUDGEMENTS,
    RESULTS,
    SAMPLE,
)
from saematch.store.tables import descriptions_of


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def directory(described_run: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(described_run, tmp_path / "run"))


class Scripted:
    """Says SAME of texts that are equal or that a rule names; counts what it is asked."""

    name = "scripted"

    def __init__(
        self,
        fail_after: int | None = None,
        wrong: bool = False,
        name: str = "scripted",
        endpoint: str = "",
    ):
        self.asked: list[Question] = []
        self.fail_after, self.wrong, self.name = fail_after, wrong, name
        self.endpoint = endpoint

    @property
    def identity(self) -> dict[str, str]:
        return {"kind": "scripted", "name": self.name, "endpoint": self.endpoint}

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, question in enumerate(questions):
            if self.fail_after is not None and number >= self.fail_after:
                raise KeyboardInterrupt
            self.asked.append(question)
            if number % 10 == 9:
                keep(number, Judgement(Outcome.UNREADABLE, None, reply="?"))
                continue
            words = [set(text.split("'")) for text in (question.first, question.second)]
            shared = len(words[0] & words[1]) / max(1, len(words[0] | words[1]))
            label = (
                Label.SAME if shared > 0.3 else Label.MAYBE if shared > 0.15 else Label.DIFFERENT
            )
            if self.wrong:
                label = Label.MAYBE
            keep(number, Judgement(Outcome.JUDGED, label, reply=label, model="scripted"))


def test_described_features(described_run: Path, described_model: LanguageModel) -> None:
    found = open_run(described_run)
    for key in found.keys:
        features, examples, *texts = (
            pq.read_table(described_run / name) for name in names_from_activations(key)
        )
        assert features.schema.remove_metadata() == FEATURES.schema
        assert examples.schema.remove_metadata() == EXAMPLES.schema
        assert {one.schema.remove_metadata() for one in texts} == {DESCRIPTIONS.schema}
        rows = features.to_pylist()
        assert [row["feature"] for row in rows] == list(range(40))
        fired = {row["feature"] for row in rows if row["activation_count"]}
        assert fired
        assert set(descriptions_of(found, "activations", key).texts) == fired
        about = json.loads(features.schema.metadata[b"saematch"])
        assert about["corpora"] == ["web", "code"]
        assert about["documents"] == 12


def test_examples_are_the_text_that_is_there(
    described_run: Path, described_model: LanguageModel
) -> None:
    documents = {
        name: Documents.of(load_corpus(name, 6, 0, True), described_model, 40, 6)
        for name in ("web", "code")
    }
    key = open_run(described_run).keys[1]
    rows = pq.read_table(described_run / f"examples/{key}.parquet").to_pylist()
    assert rows
    for row in rows:
        ids = documents[row["corpus"]].token_ids[row["document"]]
        first = row["position"] - row["place"]
        expected = [
            described_model.token_text(token) for token in ids[first : first + len(row["tokens"])]
        ]
        assert row["tokens"] == expected
        assert row["activations"][row["place"]] == pytest.approx(row["activation"])
        assert max(row["activations"]) == pytest.approx(row["activation"], rel=1e-3)
        assert first >= 1  # never BOS
    halves = {(row["feature"], row["half"], row["corpus"], row["document"]) for row in rows}
    assert len(halves) == len(rows)  # one example per document
    by_document = {}
    for _, half, corpus, document in halves:
        assert by_document.setdefault((corpus, document), half) == half  # halves share no document


def test_describing_again_does_nothing(directory: Path, described_model: LanguageModel) -> None:
    before = contents(directory)
    describe(directory, SMALL, model=described_model)
    assert contents(directory) == before


def test_descriptions_that_ship_are_taken(
    chain_of_four: Path, described_run: Path, tmp_path: Path, described_model: LanguageModel
) -> None:
    import shutil

    suite = Path(shutil.copytree(chain_of_four, tmp_path / "suite"))
    found = open_run(described_run)
    for key, folder in zip(found.keys, sorted(suite.iterdir()), strict=True):
        (folder / FOLDER).mkdir()
        for name in names_from_activations(key):
            shutil.copy(described_run / name, folder / FOLDER / shipped_name(name, key))
    run(RunConfig(str(suite), random_draws=2), tmp_path / "run")
    describe(tmp_path / "run", DescribeConfig())  # no model: none is needed
    for key in found.keys:
        for name in names_from_activations(key):
            assert (tmp_path / "run" / name).read_bytes() == (described_run / name).read_bytes()
    # Of another SAE they are not taken.
    first, second = sorted(suite.iterdir())[:2]
    for path in (first / FOLDER).iterdir():
        shutil.copy(path, second / FOLDER / path.name)
    run(RunConfig(str(suite), random_draws=2), tmp_path / "other")
    with pytest.raises(InputError, match="tiny"):  # there is no such model to describe it with
        describe(tmp_path / "other", DescribeConfig())


@pytest.mark.parametrize("experiment", ["layers", "mse", "persistence", "examples"])
def test_experiments(directory: Path, experiment: str) -> None:
    config = JudgeConfig(experiment, samples=20, controls=10)
    scripted = Scripted()
    shown: list[Intent] = []
    judge(directory, config, scripted, agree=lambda intent: bool(shown.append(intent)) or True)
    found = judged_by(open_run(directory), experiment, "scripted")
    sample = pq.read_table(directory / f"judging/{experiment}/sample.parquet")
    assert sample.schema.remove_metadata() == SAMPLE.schema
    answers = pq.read_table(directory / "judgements.parquet")
    assert answers.schema.remove_metadata() == JUDGEMENTS.schema
    results = pq.read_table(directory / f"judging/{experiment}/scripted.parquet")
    assert results.schema.remove_metadata() == RESULTS.schema
    known = set(JUDGED_MEASURES)
    for measure in found.results["measure"]:
        plain = measure.split("_minus_")[0]
        assert plain in known or measure.startswith("kappa_")
    # Each pair of texts is asked once, and every row that has both gets its answer.
    assert len(set(scripted.asked)) == len(scripted.asked) == len(shown[0].to_ask)
    table = labelled_sample(open_run(directory), experiment, "scripted")
    askable = [
        row
        for row in sample.to_pylist()
        if row["text_a"] and row["text_b"] and not row["kind"].startswith("calibration")
    ]
    # Of a calibration pair the texts may have been asked as others'.
    assert (~table["kind"].str.startswith("calibration")).sum() == len(askable)
    labelled = table[(table["kind"] == "pair") & ~table["swapped"] & table["label"].notna()]
    if experiment == "layers":  # over the features that have a label under every strategy
        under = labelled.groupby(["a", "b", "feature"])["strategy"].transform("nunique")
        mine = labelled[(labelled["strategy"] == "folded") & (under == 4)]
        assert 0 < len(mine) < (labelled["strategy"] == "folded").sum()
        expected = np.mean([Label(label).value_in_means for label in mine["label"]])
        assert found.span("mean", "folded")[0] == pytest.approx(expected)
        assert found.strategies == ("folded", "unfolded", "cosine", "random")
    if experiment == "persistence":
        assert set(found.strategies) == {"composition", "exact"}
        assert ("3", "6") in found.pairs
    assert found.span("unreadable")[0] == pytest.approx(0.1, abs=0.05)


def test_what_was_asked_is_not_asked_again(directory: Path) -> None:
    config = JudgeConfig(samples=12, controls=6)
    cut = Scripted(fail_after=25)
    with pytest.raises(KeyboardInterrupt):
        judge(directory, config, cut)
    assert len(cut.asked) == 25
    assert judged(open_run(directory))[0].span("unreadable") is not None  # of what there is
    rest = Scripted()
    judge(directory, config, rest)
    assert not set(rest.asked) & set(cut.asked)
    whole = Scripted()
    judge(directory, config, whole)
    assert whole.asked == []
    # Another experiment over the same features asks only what is new.
    more = Scripted()
    judge(directory, JudgeConfig("mse", samples=12, controls=6), more)
    assert not set(more.asked) & {*cut.asked, *rest.asked}


def test_nothing_is_asked_without_agreement(directory: Path) -> None:
    scripted = Scripted()
    judge(directory, JudgeConfig(samples=12, controls=6), scripted, agree=lambda _: False)
    assert scripted.asked == []


def test_a_sample_that_is_drawn_anew_takes_other_judges_along(directory: Path) -> None:
    judge(directory, JudgeConfig("mse", samples=20, controls=12), Scripted(name="first"))
    before = contents(directory)
    # Nobody agreed: nothing changes, the sample least of all.
    small = JudgeConfig("mse", samples=10, controls=12)
    judge(directory, small, Scripted(name="second"), agree=lambda _: False, redraw=True)
    assert contents(directory) == before
    # Nor do settings of another sample take away what another judge's results are of.
    with pytest.raises(
        UsageError, match=r"that first judged \(samples 20\).*\(samples 10\).*--redraw"
    ):
        judge(directory, small, Scripted(name="second"))
    assert contents(directory) == before
    judge(directory, JudgeConfig("mse", samples=11, controls=12), Scripted(name="first"))
    judge(directory, small, Scripted(name="second"), redraw=True)
    run_now = open_run(directory)
    for name in ("first", "second"):
        table = labelled_sample(run_now, "mse", name)
        mine = table[(table["kind"] == PAIR) & ~table["swapped"] & table["label"].notna()]
        found = judged_by(run_now, "mse", name)
        row = found.results[(found.results["strategy"] == "folded") & (found.results["a"] == "")]
        assert row[row["measure"] == "mean"]["judged"].item() == len(mine)
        expected = np.mean([Label(label).value_in_means for label in mine["label"]])
        assert found.span("mean", "folded")[0] == pytest.approx(expected)


def test_persistence_asks_about_the_same_features_at_every_layer(directory: Path) -> None:
    judge(directory, JudgeConfig("persistence", samples=15, controls=12), Scripted())
    table = pq.read_table(directory / "judging/persistence/sample.parquet").to_pandas()
    pairs = table[(table["kind"] == PAIR) & ~table["swapped"]]
    for _, of_start in pairs.groupby("a"):
        sets = [set(rows["feature"]) for _, rows in of_start.groupby(["b", "strategy"])]
        assert all(one == sets[0] for one in sets)
        assert len(sets[0]) == 15


def test_questions_in_part(directory: Path) -> None:
    with pytest.raises(UsageError, match="at least one question"):
        judge(directory, JudgeConfig(samples=12, controls=6), Scripted(), at_most=-3)


def test_at_most_and_agreement_of_judges(directory: Path) -> None:
    config = JudgeConfig(samples=20, controls=10)
    judge(directory, config, Scripted())
    other = Scripted(name="other")
    judge(directory, config, other, at_most=40)
    assert len(other.asked) == 40
    found = judged_by(open_run(directory), "layers", "other")
    assert found.span("kappa_scripted")[0] > 0.9  # they follow the same rule


def test_questions_that_changed_are_not_asked_in_place_of_those_that_others_had(
    directory: Path, described_model: LanguageModel
) -> None:
    config = JudgeConfig(samples=12, controls=12)
    judge(directory, config, Scripted(name="paid"))
    describe(directory, replace(SMALL, corpora=("wiki",)), model=described_model)
    assert judged(open_run(directory)) == []  # of texts that are gone
    before = contents(directory)
    with pytest.raises(UsageError, match=r"that paid judged; the descriptions .*--redraw"):
        judge(directory, config, Scripted(name="other"))
    assert contents(directory) == before
    judge(directory, config, Scripted(name="other"), redraw=True)
    assert [one.judge for one in judged(open_run(directory))] == ["other"]
    small = replace(config, samples=8)
    judge(directory, small, Scripted(name="other"))  # nobody else has results of this sample
    assert [one.judge for one in judged(open_run(directory))] == ["other"]


def test_results_over_other_matchings_are_out_of_date(directory: Path, chain_of_four: Path) -> None:
    judge(directory, JudgeConfig(samples=12, controls=12), Scripted())
    assert [one.judge for one in judged(open_run(directory))] == ["scripted"]
    run(RunConfig(str(chain_of_four), random_draws=2, parts={"encoder": 1.0}), directory)
    assert judged(open_run(directory)) == []
    run(RunConfig(str(chain_of_four), random_draws=2), directory)
    assert [one.judge for one in judged(open_run(directory))] == ["scripted"]


def test_what_is_missing_does_not_decide_which_tokens_are_left_out(
    directory: Path, described_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saematch.evaluation.interventions.MASSIVE", 1.1)
    settings = replace(SMALL, documents=3)
    describe(directory, settings, model=described_model)
    names = names_from_activations("3")
    before = [(directory / name).read_bytes() for name in names]
    for name in names:
        (directory / name).unlink()
    describe(directory, settings, model=described_model)
    assert [(directory / name).read_bytes() for name in names] == before


def test_judges_of_one_name_keep_their_own_results(directory: Path) -> None:
    config = JudgeConfig("mse", samples=10, controls=10)
    here, there = Scripted(endpoint="here"), Scripted(endpoint="there", wrong=True)
    names = []
    for one in (here, there, here):
        names.append(name_in(judge(directory, config, one), "mse", one))
    assert names == ["scripted", "scripted-2", "scripted"]
    found = open_run(directory)
    assert {one.judge for one in judged(found)} == {"scripted", "scripted-2"}
    labels = [labelled_sample(found, "mse", name)["label"].dropna() for name in names[:2]]
    assert set(labels[0]) > {"MAYBE"} == set(labels[1])
    assert judged_by(found, "mse", "scripted-2").about["judge"] == "scripted-2"
    assert name_in(found, "mse", Scripted(endpoint="elsewhere")) is None


def test_a_judge_that_fails_its_controls(directory: Path) -> None:
    for experiment in ("layers", "mse", "persistence"):
        config = JudgeConfig(experiment, samples=20, controls=20)
        judge(directory, config, Scripted(wrong=True))
    found = judged_by(open_run(directory), "layers", "scripted")
    assert not found.passes_controls
    assert "fails its controls" in found.verdict
    assert {one.verdict for one in judged_findings(open_run(directory))} == {"not measurable here"}


class Planted:
    """Answers as the rows of a sample deserve; a question that several rows ask takes the first's."""

    name = "llm-planted"

    def __init__(self, directory: Path, experiment: str, label_of) -> None:
        self.identity = {"kind": "planted", "experiment": experiment}  # each has labels of its own
        self.labels: dict[Question, Label] = {}
        for row in pq.read_table(directory / f"judging/{experiment}/sample.parquet").to_pylist():
            if (question := question_of(row)) is not None:
                control = {SAME: Label.SAME, DIFFERENT: Label.DIFFERENT}.get(row["kind"])
                self.labels.setdefault(question, control or label_of(row))

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        for number, question in enumerate(questions):
            keep(number, Judgement(Outcome.JUDGED, self.labels[question]))


def plant(directory: Path, experiment: str, label_of) -> None:
    config = JudgeConfig(experiment, samples=40, controls=40, swapped=0.0)
    judge(directory, config, Scripted(), at_most=1)  # draws the sample
    judge(directory, config, Planted(directory, experiment, label_of))


def test_findings_that_were_planted(directory: Path) -> None:
    assert {one.verdict for one in judged_findings(open_run(directory))} == {"not measurable here"}
    plant(directory, "layers", lambda r: Label.SAME if r["strategy"] == "folded" else Label.MAYBE)
    order = [Label.SAME, Label.MAYBE, Label.DIFFERENT]
    plant(directory, "mse", lambda r: order[min(2, r["stratum"] // 4)])
    at = {"3": 0, "4": 1, "5": 2, "6": 3}
    plant(directory, "persistence", lambda r: order[at[r["b"]] - at[r["a"]] - 1])
    found = {one.name: one for one in judged_findings(open_run(directory))}
    assert list(found) == ["d1", "d2", "d3", "d4", "i", "j"]
    assert "llm-planted" in found["i"].effect
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts["d1"] == verdicts["i"] == verdicts["j"] == "holds"
    assert verdicts["d2"] == "not measurable here"  # five layers on there is none
    assert verdicts["d3"] == "holds"
    assert verdicts["d4"] == "does not hold"
    answers = labelled_sample(open_run(directory), "persistence", "llm-planted")
    answers = answers[(answers["kind"] == PAIR) & answers["label"].notna()]
    answers = answers[(answers["a"] + answers["b"]).isin(["35", "46"])]  # two layers on
    values = {
        way: {(r.a, r.feature): Label(r.label).value_in_means for r in rows.itertuples()}
        for way, rows in answers.groupby("strategy")
    }
    both = [k for k in values["exact"] if k in values["composition"]]
    apart = np.mean([values["exact"][k] - values["composition"][k] for k in both])
    assert found["d3"].value == pytest.approx(apart)
    assert f"the same {len(both)} features of 3, 4" in found["d3"].effect
    table = labelled_sample(open_run(directory), "layers", "llm-planted")
    table = table[(table["kind"] == PAIR) & table["label"].notna()]
    by = {
        s: {(r.a, r.b, r.feature): r.label == "SAME" for r in rows.itertuples()}
        for s, rows in table.groupby("strategy")
    }
    both = set(by["folded"]) & set(by["unfolded"])
    gain = np.mean([by["folded"][k] - float(by["unfolded"][k]) for k in both])
    assert found["i"].value == pytest.approx(gain)
    assert found["i"].low < gain < found["i"].high


def test_controls_are_of_different_documents(directory: Path) -> None:
    judge(directory, JudgeConfig(samples=12, controls=20), Scripted())
    sample = pq.read_table(directory / "judging/layers/sample.parquet").to_pylist()
    found = open_run(directory)
    texts = {
        (half, key): descriptions_of(found, f"activations-{half}", key).texts
        for half in (0, 1)
        for key in found.keys
    }
    kinds = {row["kind"] for row in sample}
    assert {PAIR, SAME, DIFFERENT} < kinds
    for row in sample:
        assert row["text_a"] == texts[0, row["a"]].get(row["feature"])
        assert row["text_b"] == texts[1, row["b"]].get(row["partner"])
        if row["kind"] == SAME:
            assert (row["a"], row["feature"]) == (row["b"], row["partner"])
    ends = {
        calibrates: {
            place
            for row in sample
            if row["kind"] != PAIR and row["kind"].startswith(CALIBRATION) is calibrates
            for place in ((row["a"], row["feature"]), (row["b"], row["partner"]))
        }
        for calibrates in (True, False)
    }
    assert ends[True]
    assert not ends[True] & ends[False]


def test_bad_input(directory: Path, chain_of_four: Path, tmp_path: Path) -> None:
    run(RunConfig(str(chain_of_four), random_draws=2), tmp_path / "plain")
    with pytest.raises(InputError, match="saematch describe"):
        judge(tmp_path / "plain", JudgeConfig(), Scripted())
    with pytest.raises(InputError, match="from neuronpedia, got activations"):
        judge(directory, JudgeConfig(descriptions="neuronpedia"), Scripted())
    with pytest.raises(UsageError, match="expected pairs among"):
        judge(directory, JudgeConfig(pairs=(("3", "6"),)), Scripted())
    with pytest.raises(UsageError, match="expected one of the layers"):
        judge(directory, JudgeConfig("persistence", starts=("99",)), Scripted())
    with pytest.raises(UsageError, match="later ones"):
        judge(directory, JudgeConfig("persistence", starts=("6",)), Scripted())
    with pytest.raises(UsageError, match="persistence takes starting layers instead of pairs"):
        JudgeConfig("persistence", pairs=(("3", "4"),))
    with pytest.raises(UsageError, match="layers takes no starting layers"):
        JudgeConfig(starts=("3",))
    for wrong in ({"experiment": "x"}, {"samples": 1}, {"controls": 0}, {"strategies": ("x",)}):
        with pytest.raises(UsageError, match="expected"):
            JudgeConfig(**wrong)
    for wrong in ({"source": "x"}, {"documents": 0}, {"corpora": ()}):
        with pytest.raises(UsageError, match="expected"):
            DescribeConfig(**wrong)
    with pytest.raises(UsageError, match="expected results of"):
        judged_by(open_run(directory), "layers", "nobody")
    path = directory / JOURNAL
    path.parent.mkdir(exist_ok=True)
    path.write_text("nonsense\n")
    judge(directory, JudgeConfig(samples=12), Scripted())
    assert judged(open_run(directory))
    assert path.read_text().startswith("nonsense\n")  # nothing of a log is ever taken away


def test_a_missing_output_names_the_command_that_makes_it(directory: Path) -> None:
    (directory / "descriptions/activations-0--3.parquet").unlink()
    with pytest.raises(
        InputError, match=f"there is no file .*; make it again with saematch describe {directory}"
    ):
        judge(directory, JudgeConfig(samples=12, controls=6), Scripted())
