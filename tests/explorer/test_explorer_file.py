"""The page in one file, in a real browser."""

import json
import re
from pathlib import Path

import pandas as pd
from browsing import Watched, opened
from damage import rewrite
from explored_runs import SHAPE, Shape, write_run
from playwright.sync_api import Browser, expect

from saematch.explorer.explorer import Explorer
from saematch.explorer.one_file import bundled, export_page
from saematch.store.becoming import becomes
from saematch.store.reader import open_run
from saematch.store.schema import DESCRIPTIONS, decode


def test_an_exported_file_opens_without_a_server(
    watched: Watched, strange: Path, tmp_path: Path
) -> None:
    explorer = Explorer(strange)
    try:
        told = pd.read_parquet(strange / "examples/1.parquet")["feature"].iloc[0]
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
    expect(page.locator("li.here .example").first).to_contain_text("<img src=x onerror=")
    said = becomes(open_run(strange), "1", int(told))
    expect(page.locator(".becomes .answer")).to_have_text(said)
    for view, heading in (
        ("whole", "The whole run"),
        ("compare?other=naive", "Compare strategies"),
    ):
        page.goto(f"file://{tmp_path}/page.html#/{view}")
        expect(page.locator("h1")).to_have_text(heading)
    page.goto(f"file://{tmp_path}/page.html#/follow?feature=3/59999")
    expect(page.get_by_role("alert")).to_contain_text("is not in this file")
    page.goto(f"file://{tmp_path}/page.html#/whole")
    expect(page.locator(".fates")).to_have_count(SHAPE.layers - 1)
    assert page.evaluate("window.hacked") is None
    assert str(strange) not in (tmp_path / "page.html").read_text()
    watched.check()


def test_the_best_paths_are_live_and_of_least_mean_cost(synthetic: Path, tmp_path: Path) -> None:
    paths = pd.read_parquet(synthetic / "paths.parquet")
    whole = paths.groupby("path").filter(
        lambda path: len(path) == SHAPE.layers and (path["status"] == "live").all()
    )
    best = whole.groupby("path")["cost"].mean().sort_values(kind="stable").index[:3]
    expected = {
        f"{row['key']}/{row['feature']}"
        for row in whole[whole["path"].isin(best)].to_dict("records")
    }
    explorer = Explorer(synthetic)
    try:
        export_page(explorer, tmp_path / "best.html", [], 3)
    finally:
        explorer.close()
    text = (tmp_path / "best.html").read_text()
    carried = re.search(r'id="carried">(.*?)</script>', text, re.DOTALL)
    assert carried
    assert set(json.loads(carried[1])["places"]) == expected


def test_an_exported_file_finds_as_the_server_does(browser: Browser, tmp_path: Path) -> None:
    shape = Shape(layers=3, features=12, unmatched=0.15)
    run = write_run(tmp_path / "small", shape)
    table, about = decode((run / "descriptions/activations--0.parquet").read_bytes())
    columns = {**table.to_pydict(), "text": ["by another writer"] * len(table)}
    rewrite(run, "descriptions/explained--0.parquet", DESCRIPTIONS.encode(columns, about))
    explorer = Explorer(run)
    try:
        every = [f"{key}/{feature}" for key in "012" for feature in range(shape.features)]
        export_page(explorer, tmp_path / "all.html", every, 0)
        page = browser.new_page()
        page.goto(f"file://{tmp_path}/all.html")
        carried = page.evaluate("document.getElementById('carried').textContent")
        data = json.loads(carried)
        lonely = browser.new_page()
        lonely.set_content(f'<script type="application/json" id="carried">{carried}</script>')
        lonely.add_script_tag(content=bundled("questions"))
        token = data["features"][0]["activates_on"][0]
        highest = sorted(row["mse"] for row in data["features"] if row["mse"] is not None)[5]
        for asked in (
            {"text": "men", "sort": "cost", "order": "desc"},
            {"text": "men ca"},
            {"text": "another writer"},
            {"pairs": "left out"},
            {"mse_max": str(highest)},
            {"strategy": "cosine", "sort": "quantile"},
            {"strategy": "cosine", "mse_max": "0.01", "sort": "mse"},
            {"pairs": "live", "sort": "margin"},
            {"pairs": "dies"},
            {"pairs": "born"},
            {"differs": "naive", "limit": "7", "offset": "9"},
            {"certain": "no", "strategy": "unfolded"},
            {"label": "SAME"},
            {"warnings": "none"},
            {"warnings": "some", "offset": "999999"},
            {"activates_on": token},
            {"activates_on": token, "sort": "share", "order": "asc"},
            {"activation_frequency_min": "0.001", "sort": "activation_frequency"},
            {"phi_min": "0.2", "sort": "lift", "order": "desc"},
        ):
            mine = lonely.evaluate("asked => from_questions.ask('features', asked)", asked)
            theirs = explorer.ask("features", asked)
            assert mine["total"] == theirs["total"], asked
            names = [
                [(row["key"], row["feature"]) for row in one["features"]] for one in (mine, theirs)
            ]
            assert names[0] == names[1], asked
            for one, other in zip(mine["features"], theirs["features"], strict=True):
                assert {name: one[name] for name in other} == other, asked
    finally:
        explorer.close()
