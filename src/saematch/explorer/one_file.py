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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch.errors import InputError, UsageError
from saematch.explorer.catalogue_query import STEP_COLUMNS, by_key, read_named, step_column
from saematch.explorer.evidence import candidates_of, evidence_of, judgements_of
from saematch.explorer.explorer import Explorer
from saematch.explorer.overview import strategies_of
from saematch.explorer.search import OWN_COLUMNS
from saematch.matching.matchers import MAIN
from saematch.store.names import PATHS_NAME
from saematch.text import to_json

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@cache
def page_files() -> dict[str, bytes]:
    """Every file by its name; nothing else can be asked for."""
    folder = resources.files("saematch.explorer") / "static"
    return {
        entry.name: entry.read_bytes()
        for entry in folder.iterdir()
        if entry.is_file() and f".{entry.name.rpartition('.')[2]}" in TYPES
    }


def type_of(name: str) -> str:
    """The media type of one of them."""
    return TYPES[f".{name.rpartition('.')[2]}"]


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
    """What was put into a file."""

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
    starts = list(features) or _best_paths(explorer, count)
    places: dict[str, tuple[int, int]] = {}
    paths: list[dict[str, Any]] = []
    for start in starts:
        if start in places:
            continue
        answer = explorer.ask("path", {"feature": start})
        for here, card in enumerate(answer["cards"]):
            places[f"{card['key']}/{card['feature']}"] = len(paths), here
        paths.append(answer)
    data = _carried(explorer, paths, places, progress)
    text = _page(data, explorer.first.run.path)
    files.write_atomically(path, text)
    return Written(path, len(paths), len(places), len(text))


def _best_paths(explorer: Explorer, count: int) -> list[str]:
    """The first feature of each of the paths of least mean cost that are live in every layer."""
    run = explorer.first.run
    if run.sha256(PATHS_NAME) is None:
        raise InputError(f"{run.path} has no paths yet; let saematch run finish, or name features")
    longest = max((len(chain) for chain in run.chains), default=0)
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
    run = explorer.first.run
    strategies = strategies_of(run)
    others = [one for one in strategies if one != MAIN]
    overview = explorer.ask("run", {})
    # What could be done in the run is nothing to those the file is given to.
    overview |= {"missing": [], "problems": [], "second": None}
    carried = {"paths": len(paths), "features": len(places)}

    each = _evidence(explorer, places, progress)

    def asked(question: str, *choices: dict[str, str]) -> dict[str, Any]:
        return {
            json.dumps(one, separators=(",", ":")): explorer.ask(question, one) for one in choices
        }

    return {
        "keys": list(explorer.first.wanted()),
        "main": MAIN,
        "features": _rows(explorer, list(places), strategies),
        "paths": paths,
        "places": places,
        "answers": {
            "run": {"{}": {**overview, "carried": carried}},
            **each,
            "whole": asked("whole", {"measure": "mse"}, {"measure": "cost"}),
            "compare": asked("compare", {}, *({"other": one} for one in others)),
        },
    }


def _evidence(
    explorer: Explorer, names: Iterable[str], progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """What stands behind every feature, by question and its name; a question per SAE, not per feature."""
    wanted = by_key(_named(names))
    of = explorer.first, explorer.database
    found: dict[str, dict[str, Any]] = {"evidence": {}, "candidates": {}, "judgements": {}}
    for done, (key, features) in enumerate(wanted.items()):
        if progress is not None:
            progress(done, len(wanted), "layers")
        questions = {
            "evidence": partial(evidence_of, *of, key, features, EXAMPLES),
            "candidates": partial(candidates_of, *of, key, features),
            "judgements": partial(judgements_of, *of, key, features),
        }
        for question, asked in questions.items():
            try:
                answers = asked()
            except InputError:
                continue  # the page says that it is not in the file
            found[question] |= {f"{key}/{feature}": one for feature, one in answers.items()}
    return found


def _named(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(key, int(feature)) for key, _, feature in (name.rpartition("/") for name in names)]


def _rows(explorer: Explorer, names: list[str], strategies: list[str]) -> list[dict[str, Any]]:
    """The features as the view of finding shows them, with their step under every strategy."""
    found = []
    for row in read_named(_named(names), explorer.first.all()).values():
        steps = {
            strategy: {name: row[step_column(name, strategy)] for name in STEP_COLUMNS}
            for strategy in (MAIN, *strategies)
        }
        own = {name: row[name] for name in (*OWN_COLUMNS, "live_pair", "born", "dies")}
        found.append({**own, **steps[MAIN], "steps": steps})
    return found


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
