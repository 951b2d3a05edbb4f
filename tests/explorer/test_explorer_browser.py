"""The page in a real browser: what a user does, what a stranger tries, and who can use it."""

import json
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browsing import Watched, chromium, served
from damage import cut_short, rewrite, wrong_bytes
from explored_runs import SHAPE, Shape, write_run
from playwright.sync_api import Browser, Page, expect

from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import export_page
from saematch.run.manifest import encode_manifest
from saematch.run.schema import decode
from saematch.run.schema_semantics import CONTEXTS, DESCRIPTIONS, FEATURES

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
VIEWS = {
    "find": "#/find?text=men&status=live&limit=8",  # a filter that opens the others
    "follow": "#/follow?feature=1/7",
    "whole": "#/whole",
    "compare": "#/compare?limit=5",
    "runs": "#/runs?limit=5",
}
AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter(one => ["serious", "critical"].includes(one.impact))
  .map(one => `${one.id}: ${one.nodes.map(node => node.html).slice(0, 3).join(" ")}`)"""


def hostile(run: Path) -> None:
    """Texts that would run where they were not escaped: descriptions, tokens, contexts."""
    for name, table, columns in (
        ("descriptions/activations--1.parquet", DESCRIPTIONS, ("text",)),
        ("features/1.parquet", FEATURES, ("fires_on", "amid", "promotes")),
        ("contexts/1.parquet", CONTEXTS, ("tokens",)),
    ):
        rows, about = decode((run / name).read_bytes())
        values = rows.to_pydict()
        for column in columns:
            values[column] = [
                HOSTILE if isinstance(one, str) else [HOSTILE for _ in one]
                for one in values[column]
            ]
        if column == "text":
            values["source"] = ["model"] * len(values["source"])
        rewrite(run, name.replace("activations", "model"), table.encode(values, about))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def strange(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic run with hostile texts at layer 1."""
    run = Path(shutil.copytree(synthetic, tmp_path_factory.mktemp("strange") / "run"))
    hostile(run)
    return run


@pytest.fixture(scope="module")
def site(strange: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    second = write_run(
        tmp_path_factory.mktemp("second") / "run", Shape(**{**vars(SHAPE), "seed": 9})
    )
    with served(strange, second) as address:
        yield address


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page())
    yield watched
    context.close()


def opened(watched: Watched, address: str, heading: str | re.Pattern[str]) -> Page:
    watched.page.goto(address)
    expect(watched.page.locator("h1")).to_have_text(heading)
    return watched.page


def test_find_then_follow_then_back(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_label("Described with").fill("men")
    page.get_by_label("Described with").press("Enter")
    expect(page.locator("main")).to_have_attribute("data-shown", "#/find?text=men")
    expect(page.locator("tbody tr").first).to_contain_text("men")
    found = page.locator("tbody tr").count()
    page.get_by_label("Sorted by").select_option("cost")
    expect(page.locator("main")).to_have_attribute("data-shown", re.compile("sort=cost"))
    name = page.locator("tbody th a").first.inner_text()
    page.locator("tbody th a").first.click()
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    expect(page.locator("li.here h2 a")).to_have_text(name.split("/")[1])
    page.go_back()
    expect(page.locator("h1")).to_have_text("Find features")
    expect(page.locator("tbody tr")).to_have_count(found)
    expect(page.get_by_label("Described with")).to_have_value("men")
    expect(page.get_by_label("Sorted by")).to_have_value("cost")
    page.go_forward()
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    page.reload()
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    watched.check()


def test_a_name_in_the_search_box_is_followed(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    page.get_by_label("Described with").fill("2/11")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("h1")).to_have_text("Follow 2/11")
    watched.check()


def test_follow_shows_the_path_its_evidence_and_its_doubts(
    watched: Watched, site: str, strange: Path
) -> None:
    paths = pd.read_parquet(strange / "paths.parquet")
    steps = paths[(paths.groupby("path")["path"].transform("count") == 4)]
    path = steps[steps["path"] == steps["path"].iloc[0]].to_dict("records")
    page = opened(watched, f"{site}#/follow?feature=2/{path[2]['feature']}", re.compile("Follow"))
    expect(page.locator(".cards > li")).to_have_count(4)
    links = page.locator(".cards h2 a").all_inner_texts()
    assert links == [str(step["feature"]) for step in path]
    here = page.locator("li.here")
    expect(here.locator(".context").first).to_be_visible()
    assert here.locator("mark").count()
    shares = here.locator("mark.peak").first.evaluate(
        "node => node.style.getPropertyValue('--share')"
    )
    assert 0 < float(shares) <= 1
    expect(here.locator(".step")).to_contain_text("decoder MSE")
    page.get_by_role("button", name="nearest at the next layer").nth(2).click()
    expect(here.locator(".candidates li")).to_have_count(SHAPE.candidates)
    here.locator(".candidates a").first.click()
    expect(page.locator("h1")).to_have_text(re.compile("Follow 3/"))
    page.go_back()
    page.locator("li.here dd a.feature").click()  # the runner-up
    expect(page.locator("h1")).not_to_have_text(f"Follow 2/{path[2]['feature']}")
    watched.check()


def test_doubts_and_labels_are_said_in_words(watched: Watched, site: str, strange: Path) -> None:
    sample = pd.read_parquet(strange / "judging/layers/sample.parquet")
    row = sample[(sample["strategy"] == "folded") & (sample["a"] == "0")].iloc[0]
    page = opened(watched, f"{site}#/follow?feature=0/{row['feature']}", re.compile("Follow"))
    card = page.locator(".cards > li").nth(1)
    expect(card.locator(".label").first).to_have_text(re.compile("SAME|MAYBE|DIFFERENT"))
    card.get_by_role("button", name="why").click()
    expect(card).to_contain_text("since the texts say so")
    candidates = pd.read_parquet(strange / "candidates/0--1.parquet")
    table = pd.read_parquet(strange / "matchings/folded/decoder+encoder+bias/0--1.parquet")
    merged = candidates.merge(table, on="feature", suffixes=("", "_taken"))
    nearer = merged[
        (merged["cost"] < merged["cost_taken"]) & (merged["candidate"] != merged["partner"])
    ]
    page = opened(
        watched, f"{site}#/follow?feature=0/{nearer['feature'].iloc[0]}", re.compile("Follow")
    )
    expect(page.locator(".cards > li").nth(1).locator(".doubts")).to_contain_text(
        "another feature is nearer"
    )
    watched.check()


def test_texts_of_strangers_stay_text(watched: Watched, site: str, strange: Path) -> None:
    told = pd.read_parquet(strange / "contexts/1.parquet")["feature"].iloc[0]
    page = opened(watched, f"{site}#/find?layer=1", "Find features")
    expect(page.locator("tbody tr").first).to_contain_text("<script>window.hacked")
    page = opened(watched, f"{site}#/follow?feature=1/{told}", re.compile("Follow"))
    expect(page.locator("li.here .context").first).to_contain_text("<img src=x onerror=")
    expect(page.locator("li.here")).to_contain_text("<script>window.hacked")
    for address in (
        "#/compare?show=all&layer=1",
        "#/runs?layer=1",
        f"#/find?text={HOSTILE}",
        f"#/{HOSTILE}",
    ):
        page.goto(site + address)
        page.wait_for_timeout(150)
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script").count() == 0
    watched.check(("There is no view",))


def test_the_whole_leads_to_the_features_behind_a_bar(watched: Watched, site: str) -> None:
    page = opened(watched, f"{site}#/whole", "The whole run")
    expect(page.locator(".multiples figure")).to_have_count(SHAPE.layers - 1)
    bar = page.locator(".multiples figure").nth(1).locator("a[tabindex='0']")
    count = int(re.search(r": ([\d,]+) pair", bar.get_attribute("aria-label") or "").group(1))  # pyright: ignore
    bar.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Find features")
    expect(page.locator(".paging").first).to_contain_text(f"of {count}")
    page.go_back()
    band = page.locator("svg a:has(rect.band.q1)").first
    count = int(re.search(r": ([\d,]+) feature", band.get_attribute("aria-label") or "").group(1))  # pyright: ignore
    band.click()
    expect(page.locator(".paging").first).to_contain_text(f"of {count}")
    watched.check()


def test_strategies_are_compared(watched: Watched, site: str) -> None:
    page = opened(watched, f"{site}#/compare", "Compare strategies")
    expect(page.locator(".answer")).to_contain_text("folded and cosine")
    page.get_by_label("The other").select_option("correlation")
    expect(page.locator(".answer")).to_contain_text("folded and correlation")
    page.get_by_label("Show").select_option("other")
    expect(page.locator("main")).to_have_attribute("data-shown", re.compile("show=other"))
    expect(page.locator("table.pairs tbody tr").first).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.locator(".answer")).to_contain_text("folded and cosine")
    watched.check()


def test_two_runs_are_compared(watched: Watched, site: str) -> None:
    page = opened(watched, f"{site}#/runs", "Compare two runs")
    expect(page.locator(".answer")).to_contain_text("the same partner")
    expect(page.locator("table.pairs tbody tr").first).to_be_visible()
    watched.check()


def test_a_selection_is_downloaded(watched: Watched, site: str) -> None:
    page = opened(watched, f"{site}#/find?text=men", "Find features")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="CSV").click()
    assert waiting.value.suggested_filename == "features.csv"
    total = int(
        (page.locator(".paging").first.inner_text().split("of ")[1]).split()[0].replace(",", "")
    )
    assert len(pd.read_csv(waiting.value.path())) == total
    watched.check()


def test_an_exported_file_opens_without_a_server(
    watched: Watched, strange: Path, tmp_path: Path
) -> None:
    explorer = Explorer(strange)
    try:
        told = pd.read_parquet(strange / "contexts/1.parquet")["feature"].iloc[0]
        written = export_page(explorer, tmp_path / "page.html", [f"1/{told}", "0/3"], 5)
    finally:
        explorer.close()
    assert written.bytes == (tmp_path / "page.html").stat().st_size
    page = opened(watched, f"file://{tmp_path}/page.html", "Find features")
    expect(page.locator("tbody tr")).to_have_count(written.features)
    expect(page.locator("#notices")).to_contain_text(
        f"carries {written.features} features of 2 paths"
    )
    page.goto(f"file://{tmp_path}/page.html#/follow?feature=1/{told}")
    expect(page.locator("li.here .context").first).to_contain_text("<img src=x onerror=")
    for view, heading in (
        ("whole", "The whole run"),
        ("compare?other=naive", "Compare strategies"),
    ):
        page.goto(f"file://{tmp_path}/page.html#/{view}")
        expect(page.locator("h1")).to_have_text(heading)
    page.goto(f"file://{tmp_path}/page.html#/follow?feature=3/59999")
    expect(page.get_by_role("alert")).to_contain_text("is not in this file")
    assert page.evaluate("window.hacked") is None
    assert str(strange) not in (tmp_path / "page.html").read_text()
    watched.check()


def test_an_exported_file_finds_as_the_server_does(browser: Browser, tmp_path: Path) -> None:
    shape = Shape(layers=3, features=12, unmatched=0.15)
    explorer = Explorer(write_run(tmp_path / "small", shape))
    try:
        every = [f"{key}/{feature}" for key in "012" for feature in range(shape.features)]
        export_page(explorer, tmp_path / "all.html", every, 0)
        page = browser.new_page()
        page.goto(f"file://{tmp_path}/all.html")
        source = (package_files("saematch.explorer") / "static" / "embedded.js").read_text()
        page.evaluate("1")  # the page is there
        data = page.evaluate("JSON.parse(document.getElementById('carried').textContent)")
        lonely = browser.new_page()
        lonely.add_script_tag(content=source.replace("export function", "function"))
        for asked in (
            {"text": "men", "sort": "cost", "order": "desc"},
            {"strategy": "cosine", "mse_max": "0.01", "sort": "mse"},
            {"pairs": "live", "sort": "margin"},
            {"pairs": "dies"},
            {"pairs": "born"},
            {"differs": "naive", "limit": "7", "offset": "9"},
            {"certain": "no", "strategy": "unfolded"},
            {"label": "SAME"},
            {"density_min": "0.001", "sort": "density"},
            {"phi_min": "0.2", "sort": "lift", "order": "desc"},
        ):
            mine = lonely.evaluate(
                "([data, asked]) => embeddedAnswer(data, 'features', asked)", [data, asked]
            )
            theirs = explorer.ask("features", asked)
            assert mine["total"] == theirs["total"], asked
            names = [
                [(row["key"], row["feature"]) for row in one["features"]] for one in (mine, theirs)
            ]
            assert names[0] == names[1], asked
    finally:
        explorer.close()


def test_outputs_appear_on_the_page_while_a_run_is_written(
    watched: Watched, synthetic: Path, tmp_path: Path
) -> None:
    run = tmp_path / "growing"
    shutil.copytree(synthetic, run)
    content = json.loads((run / "manifest.json").read_bytes())
    content.pop("sha256")
    (run / "manifest.json").write_bytes(encode_manifest({**content, "outputs": {}}))
    with served(run) as address:
        page = opened(watched, address, "Find features")
        expect(page.locator("#notices")).to_contain_text("No layers are matched yet")
        expect(page.locator("#notices code").first).to_contain_text(
            "saematch run --suite synthetic"
        )
        for view, words in (("whole", "nothing flows"), ("compare", "one strategy")):
            page.goto(f"{address}#/{view}")
            expect(page.locator("main")).to_contain_text(words)
        page.goto(f"{address}#/find")
        (run / "manifest.json").write_bytes(encode_manifest(content))
        expect(page.locator("#notices details")).to_have_count(0, timeout=10_000)
        expect(page.locator("tbody tr").first).to_contain_text("fires on", timeout=10_000)
    watched.check(("Failed to load", "ERR_CONNECTION"))


def test_corrupt_files_are_named_and_the_rest_is_shown(
    watched: Watched, synthetic: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(synthetic, tmp_path / "run"))
    rewrite(run, "descriptions/activations--1.parquet", b"PAR1 and nothing that is a table")
    wrong_bytes(run / "contexts/1.parquet")
    cut_short(run / "features/2.parquet")
    with served(run) as address:
        page = opened(watched, f"{address}#/find?layer=1", "Find features")
        for name in ("descriptions/activations--1", "contexts/1", "features/2"):
            expect(page.locator("#notices")).to_contain_text(f"{name}.parquet", timeout=10_000)
        expect(page.locator(".paging").first).to_contain_text(f"of {SHAPE.features}")
        expect(page.locator("tbody tr").first).to_contain_text("promotes")
        page.goto(f"{address}#/follow?feature=1/7")
        expect(page.locator("li.here .step, li.here .contexts").last).to_be_visible()
        expect(page.locator("li.here [role=alert]").first).to_contain_text("contexts/1.parquet")
    watched.check()


def test_everything_can_be_reached_by_keyboard(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url == site
    page.keyboard.press("Tab")
    expect(page.get_by_label("Described with")).to_be_focused()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.type("0/3")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Follow 0/3")
    page.locator(".cards h2 a").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".cards h2 a").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(re.compile("Follow 1/"))
    watched.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_barrier_and_no_sideways_scrolling(
    theme: Any, browser: Browser, site: str
) -> None:
    axe = (package_files("axe_playwright_python") / "axe.min.js").read_text()
    for width in (1280, 380):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True
        )
        page = context.new_page()
        for view, address in VIEWS.items():
            page.goto(site + address)
            expect(page.locator("main")).to_have_attribute("data-shown", address)
            if view == "follow":
                expect(page.locator(".cards .context").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
            page.evaluate(axe)
            assert page.evaluate(AXE) == [], (view, width)
        context.close()


def test_the_theme_can_be_chosen_and_stays(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    button = page.locator("#theme")
    button.click()
    expect(button).to_have_text("theme: light")
    button.click()
    expect(button).to_have_text("theme: dark")
    assert page.evaluate(paper) != light
    page.reload()
    expect(button).to_have_text("theme: dark")
    watched.check()
