"""The page in a real browser: what a user does, what a stranger tries."""

import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote_plus

import pandas as pd
from browsing import Watched, opened, served
from damage import HOSTILE, cut_short, rewrite, wrong_bytes
from explored_runs import SHAPE
from playwright.sync_api import expect

from saematch.store.becoming import becomes, fate_shares
from saematch.store.following import followed_steps
from saematch.store.manifest import encode_manifest
from saematch.store.reader import open_run


def test_find_then_follow_then_back(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_label("Description has").fill("men")
    page.get_by_label("Description has").press("Enter")
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
    expect(page.get_by_label("Description has")).to_have_value("men")
    expect(page.get_by_label("Sorted by")).to_have_value("cost")
    page.go_forward()
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    page.reload()
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    watched.check()


def test_features_of_a_token_come_by_its_share_first(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    token = page.locator("tbody tr .token").first.inner_text()
    page.get_by_label("Activates on the token").fill(token)
    page.get_by_label("Activates on the token").press("Enter")
    expect(page.locator("main")).to_have_attribute(
        "data-shown", f"#/find?activates_on={quote_plus(token)}"
    )
    expect(page.get_by_label("Sorted by")).to_have_value("share")
    expect(page.get_by_label("Order")).to_have_value("desc")
    shares = page.get_by_text("of its activation is on this token")
    first, last = (re.match(r"[\d.]+", one.inner_text()) for one in (shares.first, shares.last))
    assert first
    assert last
    assert float(first[0]) >= float(last[0])
    page.get_by_label("Activates on the token").fill("")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_label("Sorted by")).to_have_value("layer")
    expect(page.get_by_label("Order")).to_have_value("asc")
    watched.check()


def test_a_name_in_the_search_box_is_followed(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    page.get_by_label("Description has").fill("2/11")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("h1")).to_have_text("Follow 2/11")
    watched.check()


def test_follow_shows_the_path_its_evidence_and_its_warnings(
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
    expect(here.locator(".example").first).to_be_visible()
    assert here.locator("mark").count()
    shares = here.locator("mark.peak").first.evaluate(
        "node => node.style.getPropertyValue('--share')"
    )
    assert 0 < float(shares) <= 1
    expect(here.locator(".step")).to_contain_text("decoder MSE")
    page.get_by_role("button", name="nearest at the next layer").nth(2).click()
    near = here.locator(".candidates li")  # and, last, the one that is nearest by direction
    expect(near.nth(SHAPE.candidates - 1)).to_be_visible()
    expect(near.nth(SHAPE.candidates + 1)).to_have_count(0)
    here.locator(".candidates a").first.click()
    expect(page.locator("h1")).to_have_text(re.compile("Follow 3/"))
    page.go_back()
    page.locator("li.here dd a.feature").click()  # the runner-up
    expect(page.locator("h1")).not_to_have_text(f"Follow 2/{path[2]['feature']}")
    watched.check()


def test_warnings_and_labels_are_said_in_words(watched: Watched, site: str, strange: Path) -> None:
    sample = pd.read_parquet(strange / "judging/layers/sample.parquet")
    row = sample[(sample["strategy"] == "folded") & (sample["a"] == "0")].iloc[0]
    page = opened(watched, f"{site}#/follow?feature=0/{row['feature']}", re.compile("Follow"))
    card = page.locator(".cards > li").nth(1)
    expect(card.locator(".label").first).to_have_text(re.compile("SAME|MAYBE|DIFFERENT"))
    card.get_by_role("button", name="why").click()
    expect(card).to_contain_text("since the texts say so")
    steps = next(
        steps
        for steps in followed_steps(open_run(strange)).values()
        if any("is nearer" in warning for step in steps for warning in step.warnings)
    )
    page = opened(
        watched, f"{site}#/follow?feature={steps[0].key}/{steps[0].feature}", re.compile("Follow")
    )
    for place, step in enumerate(steps):
        card = page.locator(".cards > li").nth(place)
        for warning in step.warnings:
            expect(card.locator(".warnings")).to_contain_text(warning)
    watched.check()


def test_texts_of_strangers_stay_text(watched: Watched, site: str, strange: Path) -> None:
    told = pd.read_parquet(strange / "examples/1.parquet")["feature"].iloc[0]
    page = opened(watched, f"{site}#/find?layer=1", "Find features")
    expect(page.locator("tbody tr").first).to_contain_text("<script>window.hacked")
    page = opened(watched, f"{site}#/follow?feature=1/{told}", re.compile("Follow"))
    expect(page.locator("li.here .example").first).to_contain_text("<img src=x onerror=")
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


def test_follow_begins_with_what_becomes_of_the_feature(
    watched: Watched, site: str, strange: Path
) -> None:
    told = open_run(strange)
    table = told.fates("1", "2")
    feature = int(table.loc[table["fate"] == "splits", "feature"].iloc[0])
    partners = table["partners"][feature][: table["partner_count"][feature]]
    page = opened(watched, f"{site}#/follow?feature=1/{feature}", re.compile("Follow"))
    expect(page.locator(".becomes .answer")).to_have_text(becomes(told, "1", feature))
    here = page.locator(".becoming a.node.here")
    expect(here).to_have_attribute("aria-label", re.compile(f"^1/{feature}.*; splits$"))
    drawn = page.locator(".becoming a", has_text=re.compile("^2/")).all()
    names = {one.locator("text").first.text_content() for one in drawn}
    assert {f"2/{partner}" for partner in partners} <= names
    rows = page.locator("table.members tbody tr")
    expect(rows).to_have_count(page.locator(".becoming a.node.member").count())
    expect(page.locator("table.members tr[aria-current] td").nth(3)).to_contain_text("splits: ")
    branch = page.locator(".becoming a.branch").first
    name = branch.locator("text").first.text_content()
    branch.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"Follow {name}")
    watched.check()


def test_the_whole_begins_with_the_shares_of_fates(
    watched: Watched, site: str, strange: Path
) -> None:
    page = opened(watched, f"{site}#/whole", "The whole run")
    rows = page.locator("table.fated tbody tr")
    shares = fate_shares(open_run(strange))
    expect(rows).to_have_count(len(shares))
    for number, one in enumerate(shares):
        said = rows.nth(number).inner_text()
        for share in one.shares.values():
            assert f"{100 * share.value:.0f}%" in said
        bar = rows.nth(number).locator(".fates span").nth(1)
        style = float(bar.evaluate("node => node.style.getPropertyValue('--share')"))
        assert abs(style - one.shares["splits"].value) < 1e-4
    watched.check()


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
    expect(page.locator(".answer")).to_contain_text("labelled the partners by both of")
    page.get_by_label("Sorted by").select_option("labels")
    expect(page.locator("main")).to_have_attribute("data-shown", re.compile("sort=labels"))
    expect(page.locator("table.pairs tbody tr").first.locator("td .label").nth(1)).to_be_visible()
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
        expect(page.locator("tbody tr").first).to_contain_text("activates on", timeout=10_000)
    watched.check(("Failed to load", "ERR_CONNECTION"))


def test_corrupt_files_are_named_and_the_rest_is_shown(
    watched: Watched, synthetic: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(synthetic, tmp_path / "run"))
    rewrite(run, "descriptions/activations--1.parquet", b"PAR1 and nothing that is a table")
    wrong_bytes(run / "examples/1.parquet")
    cut_short(run / "features/2.parquet")
    with served(run) as address:
        page = opened(watched, f"{address}#/find?layer=1", "Find features")
        for name in ("descriptions/activations--1", "examples/1", "features/2"):
            expect(page.locator("#notices")).to_contain_text(f"{name}.parquet", timeout=10_000)
        expect(page.locator(".paging").first).to_contain_text(f"of {SHAPE.features}")
        expect(page.locator("tbody tr").first).to_contain_text("top logits")
        page.goto(f"{address}#/follow?feature=1/7")
        expect(page.locator("li.here .step, li.here .examples").last).to_be_visible()
        expect(page.locator("li.here [role=alert]").first).to_contain_text("examples/1.parquet")
    watched.check()
