"""The page's own files, and the explorer as one HTML file that opens without a server: the same page over the
data it carries.

1. The paths are chosen: through features that are named, or those of least mean cost that are live all along.
2. The server's own answers about every feature on them are put into the file as JSON.
3. The page's modules are put into one script, each in a function of its own, in order of their imports.
4. A policy in the file allows that script and that style sheet, by their sha256, and no request at all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch.errors import InputError, UsageError
from saematch.explorer import feature
from saematch.explorer.catalogue_query import (
    MAIN_COLUMNS,
    STEP_COLUMNS,
    by_key,
    read_named,
    step_column,
    strategies_of,
)
from saematch.explorer.explorer import Explorer
from saematch.explorer.search import OWN_COLUMNS, RANGES
from saematch.matching.matchers import MAIN
from saematch.store.names import PATHS_NAME
from saematch.text import to_json

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
INDEX = "index.html"


@cache
def page_files() -> dict[str, bytes]:
    """Every file by its name; nothing else can be asked for."""
    folder = Path(__file__).with_name("static")
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.suffix in TYPES}


Progress = Callable[[int, int, str], None]
"""(layers done, layers in all, what is being done)."""

EXAMPLES = 3
"""Kept of each feature."""
_OURS = ("directory", "problems", "left_out")
"""Answers in which we name files."""
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([a-z]+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Written:
    path: Path
    paths: int
    features: int
    bytes: int


def export_page(
    explorer: Explorer,
    path: Path,
    features: Sequence[str],
    count: int,
    progress: Progress | None = None,
) -> Written:
    """Write the file with the paths through `features`, or, where none is named, the `count` best ones.

    Raises UsageError for a feature that is not there, InputError where the run has no whole path.
    """
    path = files.user_path(path)
    if path.suffix != ".html" or not path.parent.is_dir():
        raise UsageError(f"expected an .html file in an existing folder, got '{path}'")
    explorer.first.all()
    places: dict[str, tuple[int, int]] = {}
    paths: list[dict[str, Any]] = []
    for start in features or _best_paths(explorer, count):
        if start not in places:
            answer = explorer.ask("path", {"feature": start})
            for here, card in enumerate(answer["cards"]):
                places[f"{card['key']}/{card['feature']}"] = len(paths), here
            paths.append(answer)
    text = _page(_carried(explorer, paths, places, progress), explorer.first.run.path)
    files.write_atomically(path, text)
    return Written(path, len(paths), len(places), len(text))


def _best_paths(explorer: Explorer, count: int) -> list[str]:
    """The first feature of each of the paths of least mean cost that are live in every layer."""
    run = explorer.first.run
    if run.sha256(PATHS_NAME) is None:
        raise InputError(f"{run.path} has no paths yet; let saematch run finish, or name features")
    longest = max(map(len, run.chains), default=0)
    rows = explorer.database.rows(
        "SELECT arg_min(key, layer) AS key, arg_min(feature, layer) AS feature "
        "FROM read_parquet($paths) GROUP BY path "
        "HAVING count(*) = $longest AND bool_and(status = 'live') "
        "ORDER BY avg(cost), path LIMIT $count",
        {"paths": run.file(PATHS_NAME), "longest": longest, "count": count},
    )
    if not rows:
        raise InputError(f"no path in {run.path} is live in every layer; name features")
    return [f"{row['key']}/{row['feature']}" for row in rows]


def _carried(
    explorer: Explorer,
    paths: Sequence[dict[str, Any]],
    places: Mapping[str, tuple[int, int]],
    progress: Progress | None,
) -> dict[str, Any]:
    """`places`: of every feature, the number of its path and its place on it."""
    strategies = strategies_of(explorer.first.run)
    overview = explorer.ask("run", {})
    # What could be done in the run is nothing to those the file is given to.
    overview |= {"missing": [], "problems": [], "second": None}
    overview["carried"] = {"paths": len(paths), "features": len(places)}
    names = dict.fromkeys((card["key"], card["feature"]) for one in paths for card in one["cards"])

    def asked(question: str, *choices: dict[str, str]) -> dict[str, Any]:
        answers = {json.dumps(one, separators=(",", ":")): one for one in choices}
        return {name: explorer.ask(question, one) for name, one in answers.items()}

    return {
        "keys": list(explorer.first.wanted()),
        "main": MAIN,
        "of_main": MAIN_COLUMNS,
        "ranges": RANGES,
        "features": [
            _as_found(row, strategies) for row in read_named(names, explorer.first.all()).values()
        ],
        "paths": paths,
        "places": places,
        "answers": {
            "run": {"{}": overview},
            **_evidence(explorer, by_key(names), progress),
            "whole": asked("whole", {"measure": "mse"}, {"measure": "cost"}),
            "compare": asked("compare", {}, *({"other": one} for one in strategies if one != MAIN)),
        },
    }


def _evidence(
    explorer: Explorer, wanted: Mapping[str, list[int]], progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """What stands behind every feature, by question and its name; a question per SAE, not per feature."""
    questions: dict[str, Callable[..., dict[int, Any]]] = {
        "becomes": feature.becomings,
        "evidence": partial(feature.evidence, limit=EXAMPLES),
        "candidates": feature.candidates,
        "judgements": feature.judgements,
    }
    found: dict[str, dict[str, Any]] = {question: {} for question in questions}
    for done, (key, features) in enumerate(wanted.items()):
        if progress is not None:
            progress(done, len(wanted), "layers")
        for question, asked in questions.items():
            with suppress(InputError):  # the page says that it is not in the file
                answers = asked(explorer.first, key, features)
                found[question] |= {f"{key}/{number}": one for number, one in answers.items()}
    return found


def _as_found(row: Mapping[str, Any], strategies: list[str]) -> dict[str, Any]:
    """A feature as the view of finding shows it, with its step under every strategy."""
    steps = {
        strategy: {name: row[step_column(name, strategy)] for name in STEP_COLUMNS}
        for strategy in (MAIN, *strategies)
    }
    own = {name: row[name] for name in (*OWN_COLUMNS, "live_pair", "born", "dies")}
    return {**own, **steps[MAIN], "steps": steps}


def _page(data: dict[str, Any], run: Path) -> bytes:
    script, style = bundled("main"), page_files()["style.css"].decode()
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = to_json(_without(str(run), run.name, data), compact=True)
    replaced = {
        '<meta charset="utf-8">': '<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" '
        f'content="{policy}">',
        '<link rel="stylesheet" href="/static/style.css">': f"<style>{style}</style>",
        '<script type="module" src="/static/main.js"></script>': "",
        "</body>": '<script type="application/json" id="carried">'
        + text.replace("<", "\\u003c")
        + f'</script>\n<script type="module">{script}</script>\n</body>',
    }
    page = page_files()[INDEX].decode()
    for old, new in replaced.items():
        assert page.count(old) == 1, old
        page = page.replace(old, new)
    return page.encode()


def bundled(name: str, done: set[str] | None = None) -> str:
    """A module of the page and all it imports as one script; imports and exports are on one line."""
    done = set() if done is None else done
    done.add(name)
    source = page_files()[f"{name}.js"].decode()
    before = "".join(
        bundled(other, done) for _, other in _IMPORT.findall(source) if other not in done
    )
    body = _IMPORT.sub(r"const {\1} = from_\2;\n", source)
    names = [name for _, name in _EXPORT.findall(body)]
    body = _EXPORT.sub(r"\1 \2", body)
    assert "</script" not in body
    assert not re.search(r"^(import|export) ", body, re.MULTILINE), name
    return f"{before}const from_{name} = (() => {{\n{body}return {{{', '.join(names)}}};\n}})();\n"


def _without(path: str, name: str, value: Any, ours: bool = False) -> Any:
    """The data, but for where the run lies: that is nothing to those the file is given to.  Only what we say
    ourselves says of it; texts of strangers stay as they are."""
    if isinstance(value, dict):
        return {key: _without(path, name, one, ours or key in _OURS) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without(path, name, one, ours) for one in value]
    return value.replace(path, name) if ours and isinstance(value, str) else value


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
