"""Who can use the page: by keyboard, with a reader, in the dark, on a phone."""

import re
from importlib.resources import files as package_files
from typing import Any

import pytest
from browsing import Watched, opened
from playwright.sync_api import Browser, expect

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


def test_everything_can_be_reached_by_keyboard(watched: Watched, site: str) -> None:
    page = opened(watched, site, "Find features")
    expect(page.locator("tbody tr").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    assert page.url == site
    page.keyboard.press("Tab")
    expect(page.get_by_label("Description has")).to_be_focused()
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
                expect(page.locator(".cards .example").first).to_be_visible()
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
