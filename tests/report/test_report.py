"""The report: says what the tables say, answers a newcomer, trusts no text."""

import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny_suites import write_suite
from told_runs import tell

from saematch._io import files
from saematch.pipelines import Run, RunConfig, open_run, run
from saematch.rendering import report_code, write_report
from saematch.report import page as report_module
from saematch.report.page import render_report
from saematch.store import following
from saematch.store.becoming import becomes
from saematch.store.following import followed_steps

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report") / EVIL.replace("/", "")
    suite = write_suite(folder / "suite")
    return run(RunConfig(str(suite), far=(("3", "5"),)), folder / "out")


@pytest.fixture(scope="module")
def page(finished: Run) -> str:
    assert write_report(finished.path)
    return (finished.path / "report.html").read_text()


class Elements(HTMLParser):
    """Tags and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_shows_the_measures(finished: Run, page: str) -> None:
    measures = finished.measures()
    rows = measures[measures["measure"] == "mse_decoder"]
    adjacent = rows[rows["b"].isin(["4", "5"]) & ~((rows["a"] == "3") & (rows["b"] == "5"))]
    assert len(adjacent) >= 8
    for value in adjacent["value"]:
        assert f"<td>{value:.4g}</td>" in page


def test_answers_where_the_example_goes(finished: Run, page: str) -> None:
    path = finished.follow("3", 15)  # the first SAE has 16 features, so 345 is out of reach
    text = " ".join("".join(Elements(page).words).split())
    answer = (
        f"Nearest to feature 15 of layer 3 under a one-to-one matching is feature "
        f"{path['feature'][1]} of layer 4"
    )
    assert answer in text
    assert f"From there it goes to 5/{path['feature'][2]}." in text


def test_embedded_data_holds_every_path(finished: Run, page: str) -> None:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    data = json.loads(found[1])
    table = finished.paths()
    expected = {
        (number, data["keys"].index(row.key), row.feature)
        for number, (_, rows) in enumerate(table.groupby("path", sort=False))
        for row in rows.itertuples()
    }
    embedded = {(n, s[0], s[1]) for n, path in enumerate(data["paths"]) for s in path}
    assert embedded == expected


def test_text_of_strangers_stays_text(page: str) -> None:
    assert EVIL[1:9] in page
    assert not [tag for tag, attributes in Elements(page).tags if tag == "img"]


def test_needs_nothing_from_the_network(page: str) -> None:
    for tag, attributes in Elements(page).tags:
        assert tag not in ("link", "iframe", "object", "embed"), tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith("#"), (tag, value)


def test_same_tables_same_page(finished: Run, page: str) -> None:
    assert render_report(open_run(finished.path)) == page


def test_a_large_run_names_the_command(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "EMBEDDED_STEPS", 3)
    page = render_report(finished)
    assert "saematch paths out --feature" in page
    assert "<script" not in page


def test_steps_agree_with_follow(finished: Run) -> None:
    for steps in list(followed_steps(finished).values())[:8]:
        path = finished.follow(steps[0].key, steps[0].feature)
        assert [step.feature for step in steps] == path["feature"].tolist()
        for step, row in zip(steps[1:], path.to_dict("records")[1:], strict=True):
            assert step.cost == row["cost"]
            assert step.runner_up == row["runner_up"]
            assert step.extra_cost == row["runner_up_extra_cost"]
            if step.quantile is not None:
                assert step.quantile == pytest.approx(row["quantile"])


def test_warnings_are_said(finished: Run, page: str) -> None:
    steps = [step for path in followed_steps(finished).values() for step in path]
    flagged = [step for step in steps if step.warnings]
    assert any("is degenerate" in step.warnings[0] for step in flagged)
    assert all(step.cost is not None for step in flagged)
    path = next(
        path for path in followed_steps(finished).values() if path[0].feature == 15
    )  # the one that the page opens with
    for step in path[1:]:
        for warning in step.warnings:
            assert escape(warning) in page


def test_non_adjacent_pairs_show_exact_and_composition(finished: Run, page: str) -> None:
    composed = finished.matching_table("3", "5", "composition")
    live = (composed["status"] == "live") & (composed["partner_status"] == "live")
    assert f"<td>{composed['mse_decoder'][live].mean():.4g}</td>" in page


def test_the_page_is_written_again_only_where_something_changed(
    finished: Run, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(page) > 10_000
    assert not write_report(finished.path)
    code = report_code()
    for part in (report_module, following):
        assert files.sha256_of_file(Path(part.__file__)) in code
    assert files.sha256_of_file(Path(report_module.__file__).with_name("template.html")) in code
    monkeypatch.setattr("saematch.rendering.report_code", lambda: ["other code"])
    assert write_report(finished.path)


@pytest.fixture(scope="module")
def told(finished: Run) -> Run:
    directory = finished.path.parent / "told"
    shutil.copytree(finished.path, directory)
    tell(directory)
    return open_run(directory)


def test_opens_with_the_shares_of_fates(told: Run) -> None:
    page = render_report(told)
    assert page.index("What becomes of features") < page.index("Follow one feature")
    rows = [
        re.findall("<td>(.*?)</td>", row)
        for row in re.findall("<tr>(.*?)</tr>", page, re.S)
        if row.startswith(("<td>3 → 4", "<td>4 → 5"))
    ]
    # 15 features of layer 3 are live; in brackets Wilson's interval of 10, 2, 2, 1 and 1 of 15.
    shares = ["67% [42, 85]", "13% [4, 38]", "13% [4, 38]", "7% [1, 30]"]
    assert rows[0] == ["3 → 4", "15", *shares, "15", "7% [1, 30]"]
    assert rows[1] == ["4 → 5", "16", "–", "–", "–", "–", "23", "–"]
    note = "Where there is a dash nothing is known: no probabilities: they are unlike others."
    assert note in page


def test_says_of_every_feature_what_becomes_of_it(told: Run) -> None:
    page = render_report(told)
    assert f'<p class="answer becomes">{becomes(told, "3", 15)}</p>' in page
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    data = json.loads(found[1])
    for key, sentences in zip(data["keys"], data["becomes"], strict=True):
        assert sentences == [becomes(told, key, n) for n in range(len(sentences))]
        assert len(sentences) == told.manifest["saes"][key]["d_sae"]
