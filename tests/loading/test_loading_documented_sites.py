"""docs/formats.md: every name in its table of sites is decided as its row says."""

import re
from pathlib import Path

import pytest

from saematch.errors import InputError, UnsupportedError
from saematch.loading.site import (
    SUPPORTED,
    Site,
    claim_of_hook,
    claims_of_config,
    claims_of_path,
    decide,
)

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"

CONFIGS = {
    "transcode": True, "skip_connection": True, "affine_connection": True, "hook_head_index": 2,
    "trainer.layer": 3, "hook_layer": 3,
}  # fmt: skip
"""Names in the table that are fields of a config, not places."""


def rows() -> list[tuple[str, str]]:
    """(name, what it is) for each name of the table, with block 3 for L."""
    table = PAGE.read_text(encoding="utf-8").partition("| written | is |")[2].partition("\n\n")[0]
    found = []
    for line in table.splitlines()[2:]:
        written, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
        for name in re.findall(r"`([^`]+)`", written):
            if not name.startswith(".") and name != "Llama Scope":
                number = re.sub(r"(?<=[a-z_.])L(?=$|[._/])|(?<=^L)L", "3", name)
                found.append((number.replace("…", "2b-pt"), meaning))
    return found


def decided(name: str) -> Site:
    """As a field of a config, a module, a module of block 3, or a folder, alone or above layer_3."""
    if name in CONFIGS:
        first, _, last = name.partition(".")
        config = {first: {last: CONFIGS[name]} if last else CONFIGS[name]}
        return decide(claims_of_config(config, "cfg.json"), name)
    for hook in (name, f"blocks.3.{name}", f"model.layers.3.{name}"):
        try:
            return decide([claim_of_hook(hook, "hook_name")], name)
        except UnsupportedError:
            continue
    path = name if re.search(r"\d", name.removeprefix("gemma-scope-2b")) else f"{name}/layer_3"
    path = name if name in ("embed", "embedding") else path
    return decide(claims_of_path(path), path)


@pytest.mark.parametrize(("name", "meaning"), rows())
def test_every_documented_name_is_what_its_row_says(name: str, meaning: str) -> None:
    if meaning.startswith("refused as not recognised"):
        with pytest.raises((UnsupportedError, InputError), match="not recognised"):
            decided(name)
    elif meaning.endswith("refused"):
        assert decided(name).kind not in SUPPORTED
    else:
        layers = {"residual, layer L": 3, "residual, layer L − 1": 2, "embedding, layer −1": -1}
        site = decided(name)
        assert site.layer == layers[meaning.removesuffix(", where nothing else says otherwise")]
        assert site.kind == ("embedding" if "embedding" in meaning else "residual")


def test_the_table_is_read() -> None:
    assert len(rows()) > 50
    assert {kind for _, kind in rows() if "refused" not in kind} >= {"residual, layer L"}
