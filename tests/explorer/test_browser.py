"""The page in a real browser: no error, no request that leaves the machine, nothing that a run holds runs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from explored_pages import serving
from playwright.sync_api import Page, expect
from typer.testing import CliRunner

from saematch.cli import app
from saematch.run import RunConfig, open_run, run
from saematch.run.directory import RunDirectory
from saematch.run.schema import decode
from saematch.run.schema_semantics import DESCRIPTIONS

NewPage = Callable[..., Page]
VIEWS = ("#view=whole", "#view=find", "#view=follow&key=4&feature=7", "#view=compare")


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=2).first).to_contain_text(text)


def test_find_follow_and_back(address: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(address)
    heading(page, "The whole")
    page.get_by_role("link", name="Find", exact=True).click()
    page.get_by_label("words in the description").fill("fires on")
    page.locator("select[name=key]").select_option("4")
    page.get_by_role("button", name="Find", exact=True).click()
    rows = page.locator("tbody tr")
    expect(rows.first).to_contain_text("fires on")
    page.get_by_role("button", name="decoder MSE").click()
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("decoder MSE")
    values = [
        float(text)
        for text in page.locator("tbody tr td:nth-child(3)").all_inner_texts()
        if text != "–"
    ]
    assert values == sorted(values)
    first = rows.first.get_by_role("link").inner_text()
    rows.first.get_by_role("link").click()
    heading(page, f"Feature {first} and its path")
    expect(page.locator(".card.here h3")).to_have_text(first)
    expect(page.locator(".card")).to_have_count(page.locator(".step").count() + 1)
    expect(page.locator(".contexts mark").first).to_be_visible()
    page.go_back()
    heading(page, "Find features")
    expect(page.get_by_label("words in the description")).to_have_value("fires on")
    shared = page.url
    other = new_page()
    other.goto(shared)  # a link that was shared
    expect(other.locator("tbody tr").first.get_by_role("link")).to_have_text(first)


def test_runners_up_and_both_directions(address: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{address}#view=follow&key=4&feature=7")
    page.locator("summary").first.click()
    link = page.locator("details a").first
    name = link.inner_text()
    link.click()
    heading(page, f"Feature {name}")
    page.goto(f"{address}#view=follow&key=4&feature=7")
    heading(page, "Feature 4/7")
    before = page.locator(".card h3 a").first
    name = before.inner_text()
    assert name.startswith("3/")
    before.click()
    heading(page, f"Feature {name}")


def test_whole_leads_to_the_features_behind_a_bar(address: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(address)
    bar = page.locator(".between a").first
    count = int(bar.get_attribute("aria-label").split()[0])
    bar.click()
    heading(page, "Find features")
    expect(page.locator(".pager").first).to_contain_text(" in all")
    total = int(page.locator(".pager").first.inner_text().split(", ")[1].split()[0])
    assert total >= count > 0


def test_compare(address: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(f"{address}#view=compare")
    page.get_by_label("against").select_option("cosine")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("dl.counts")).to_contain_text("under cosine")
    expect(page.locator("tbody tr").first).to_contain_text("score")


def test_two_runs(whole_run: Path, tmp_path: Path, new_page: NewPage) -> None:
    other = tmp_path / "decoder"
    suite = open_run(whole_run).config.suite
    run(RunConfig(suite, strategies=("folded",), parts={"decoder": 1.0}), other)
    with serving(whole_run, other) as address:
        page = new_page()
        page.goto(f"{address}#view=compare")
        expect(page.get_by_role("heading", name="run against decoder")).to_be_visible()
        expect(page.get_by_text("3 → 4").last).to_be_visible()


def test_by_keyboard_alone(address: str, new_page: NewPage) -> None:
    page = new_page()
    page.goto(address)
    heading(page, "The whole")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Find", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    heading(page, "Find features")
    page.get_by_label("words in the description").focus()
    page.keyboard.type("4/7")
    page.keyboard.press("Enter")
    expect(page.locator(".pager").first).to_contain_text("1 in all")
    link = page.get_by_role("link", name="4/7", exact=True)
    link.focus()
    page.keyboard.press("Enter")
    heading(page, "Feature 4/7")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_accessible(address: str, new_page: NewPage, scheme: str, width: int) -> None:
    page = new_page(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    for view in VIEWS:
        page.goto(address + view)
        page.locator("main h2").first.wait_for()
        page.wait_for_load_state("networkidle")
        found: dict[str, Any] = Axe().run(page).response
        serious = [
            (one["id"], one["nodes"][0]["html"][:200])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, view  # tables and paths scroll, the page does not


def test_what_strangers_wrote_is_text(copied_run: Path, new_page: NewPage, tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
    with RunDirectory(copied_run).holding() as held:
        name = "descriptions/activations--4.parquet"
        table, about = decode(held.read(name))
        columns = {one: table[one].to_pylist() for one in DESCRIPTIONS.names}
        columns["text"] = [evil for _ in columns["text"]]
        held.keep(name, DESCRIPTIONS.encode(columns, about), "altered for the test")
    exported = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["explore", str(copied_run), "--export", str(exported)])
    assert done.exit_code == 0, done.output
    with serving(copied_run) as address:
        for start in (address, exported.as_uri()):
            page = new_page()
            page.goto(f"{start}#view=find&key=4")
            expect(page.locator("td.text").first).to_have_text(evil)
            page.goto(f"{start}#view=whole")
            assert page.locator("main img, main script").count() == 0
            assert page.title() not in ("1", "2")


def test_exported_page_works_without_a_server(
    whole_run: Path, new_page: NewPage, tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    done = CliRunner().invoke(
        app, ["explore", str(whole_run), "--export", str(path), "--features", "4/7,3/5"]
    )
    assert done.exit_code == 0, done.output
    page = new_page()
    page.goto(path.as_uri())
    heading(page, "The whole")
    page.get_by_role("link", name="Find", exact=True).click()
    page.get_by_label("words in the description").fill("4/7")
    page.get_by_role("button", name="Find", exact=True).click()
    page.get_by_role("link", name="4/7", exact=True).click()
    heading(page, "Feature 4/7")
    expect(page.locator(".contexts li").first).to_be_visible()
    page.go_back()
    heading(page, "Find")
    page.goto(f"{path.as_uri()}#view=follow&key=6&feature=29999")
    expect(page.locator("main")).to_contain_text("not among the 2 paths")
    page.goto(f"{path.as_uri()}#view=compare")
    expect(page.locator("main")).to_contain_text("not in an exported file")


def test_a_run_that_is_still_being_written(
    whole_run: Path, tmp_path: Path, new_page: NewPage
) -> None:
    suite = open_run(whole_run).config.suite
    run(RunConfig(suite, strategies=("folded",)), tmp_path / "run")
    with RunDirectory(tmp_path / "run").holding() as held:
        gone = "matchings/folded/decoder+encoder+bias/5--6.parquet"
        kept = {name: one for name, one in held.manifest["outputs"].items() if name != gone}
        held.update(outputs=kept)
    shutil.rmtree(tmp_path / "run" / "candidates")
    with serving(tmp_path / "run") as address:
        page = new_page()
        page.goto(address)
        heading(page, "The whole")
        expect(page.locator(".between")).to_have_count(2)
        page.goto(f"{address}#view=find")
        expect(page.get_by_text("has no descriptions yet")).to_be_visible()
        page.goto(f"{address}#view=follow&key=3&feature=7")
        expect(page.get_by_text("no contexts yet").first).to_be_visible()
        page.goto(f"{address}#view=compare")
        expect(page.get_by_text("fewer than two strategies")).to_be_visible()


def test_a_corrupt_file_is_named(copied_run: Path, new_page: NewPage) -> None:
    (copied_run / "contexts/4.parquet").write_bytes(b"cut short")
    path = copied_run / "descriptions/activations--3.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with serving(copied_run) as address:
        page = new_page()
        page.goto(address)
        expect(page.locator("#problems")).to_contain_text("features of 3")
        page.goto(f"{address}#view=follow&key=4&feature=7")
        heading(page, "Feature 4/7")


def test_what_is_not_there_is_said(address: str, new_page: NewPage) -> None:
    page = new_page(allowed=("400",))
    page.goto(f"{address}#view=follow&key=4&feature=99999")
    heading(page, "That did not work")
    expect(page.get_by_text("found 99999").first).to_be_visible()
    page.get_by_role("link", name="Back to the whole").click()
    heading(page, "The whole")
