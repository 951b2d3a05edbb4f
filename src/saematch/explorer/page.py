"""`saematch explore --export`: the page and some of its answers in one file that opens without a server.

The same scripts run on answers that are embedded as JSON; the file's own policy lets nothing else in, by the
sha256 of what it holds.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from saematch.explorer import questions
from saematch.explorer.index import Index
from saematch.explorer.server import about, static

MODULES = ("dom.js", "source.js", "find.js", "follow.js", "whole.js", "compare.js", "app.js")
_IMPORT = re.compile(r'^import \{(.*)\} from ("\./\w+\.js");$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?:async )?(?:function|const) (\w+)", re.MULTILINE)
PATHS = 200
"""Paths that a file holds where none are named: about a megabyte."""


def exported_page(index: Index, places: Sequence[tuple[str, int]] = (), paths: int = PATHS) -> str:
    """The file's text: the paths through `places`, or those of least MSE at the first layer."""
    chosen = list(places)
    if not chosen and index.keys:
        asked = {"key": index.keys[0], "status": "live", "sort": "mse"}
        rows = questions.find(index, asked, paths).rows
        chosen = [(row["key"], row["feature"]) for row in rows]
    followed: list[list[dict[str, Any]]] = []
    contexts: dict[str, list[dict[str, Any]]] = {}
    for key, feature in chosen:
        path = questions.follow(index, key, feature)
        followed.append(path)
        for card in path:
            place = f"{card['key']}/{card['feature']}"
            contexts[place] = questions.contexts(index, card["key"], card["feature"], 3)
    held = {
        "about": {**about(index), "other": None, "exported": len(followed)},
        "paths": followed,
        "contexts": contexts,
        "whole": questions.whole(index),
    }
    data = json.dumps(held, allow_nan=False).replace("<", "\\u003c")
    script = "const modules = {};\n" + "".join(_as_part(name, static(name)) for name in MODULES)
    style = static("style.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; style-src 'sha256-{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = static("index.html")
    for before, after in (
        ('<link rel="stylesheet" href="style.css">', f"<style>{style}</style>"),
        ('<link rel="icon" href="icon.svg">', '<link rel="icon" href="data:,">'),
        (
            '<script type="module" src="app.js"></script>',
            f'<script type="application/json" id="held">{data}</script><script>{script}</script>',
        ),
        ("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{policy}">'),
    ):
        assert page.count(before) == 1, before
        page = page.replace(before, after)
    return page


def _as_part(name: str, module: str) -> str:
    """A module as a function of its own, called at once: what it exports is kept under its name."""
    module = _IMPORT.sub(r"const {\1} = modules[\2];", module)
    names = ", ".join(_EXPORT.findall(module))
    module = _EXPORT.sub(lambda match: match[0].removeprefix("export "), module)
    return (
        f"modules[{json.dumps('./' + name)}] = (() => {{\n{module}\nreturn {{ {names} }};\n}})();\n"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
