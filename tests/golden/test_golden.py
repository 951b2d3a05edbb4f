"""A net of golden results: what a move of modules or a cut must not change.

The files next to this one hold what the code did when they were written.  Where a result, a text or a
name is meant to change, write them again and read the difference before you commit it:

    python -m pytest tests/golden --golden-write && git diff --stat tests/golden

Nothing here knows where in the package anything is: only the public names of `saematch` and the command
line are used.
"""

import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import golden_values as values
import pytest
from golden_run import command, made_in, quick_parent

import saematch

HERE = Path(__file__).parent
WHOLE = ("match", "match priced", "findings", "paths", "export", "inspect")
"""Verbs whose every printed value is compared; what others print stands in the tables too."""
Check = Callable[[str, Any, Callable[[Any, Any], list[str]]], None]


@pytest.fixture
def check(request: pytest.FixtureRequest) -> Check:
    """Compare a value with a golden file by a function that lists differences, or write the file."""

    def compare(name: str, now: Any, differences: Callable[[Any, Any], list[str]]) -> None:
        path = HERE / name
        lines = isinstance(now, list)
        if request.config.getoption("--golden-write", default=False):
            values.PROCESSOR_FILE.write_text(values.processor() + "\n")
            depth = 3 if name == "tables.json" else 2
            path.write_text("\n".join(now) + "\n" if lines else values.as_text(now, depth))
            return
        text = path.read_text()
        found = differences(text.splitlines() if lines else json.loads(text), now)
        if found:
            more = f"\n… and {len(found) - 20} more" if len(found) > 20 else ""
            pytest.fail(
                f"{len(found)} differences from {path.name}:\n" + "\n".join(found[:20]) + more,
                pytrace=False,
            )

    return compare


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=quick_parent()) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def printed(folder: Path) -> dict[str, Any]:
    """What every verb printed with --json; their files are in `folder`."""
    return made_in(folder)


@pytest.fixture
def directory(folder: Path, printed: dict[str, Any]) -> Path:
    return folder / "run"


def by_name(was: dict[str, Any], now: dict[str, Any], kind: str) -> list[str]:
    """Which names are in one of two dictionaries alone."""
    gone = [f"{kind} {name} is gone" for name in was if name not in now]
    return gone + [f"{kind} {name} is new" for name in now if name not in was]


def test_tables(directory: Path, check: Check) -> None:
    """Every table of a run directory: columns, types, values."""
    paths = sorted(directory.rglob("*.parquet"))
    now = {path.relative_to(directory).as_posix(): values.table(path) for path in paths}

    def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
        both = [name for name in was if name in now]
        found = [values.table_differences(name, was[name], now[name]) for name in both]
        return by_name(was, now, "table") + [one for of_table in found for one in of_table]

    check("tables.json", now, differences)


def test_manifest(directory: Path, check: Check) -> None:
    """What the manifest says, without times, versions, digests and sizes."""
    manifest = json.loads((directory / "manifest.json").read_text())
    changing = {"sha256", "files"}
    now = {
        "keys": list(manifest),
        "schema_version": manifest["schema_version"],
        "config": manifest["config"],
        "references": manifest["references"],
        "saes": {
            key: {name: one for name, one in sae.items() if name not in changing}
            for key, sae in manifest["saes"].items()
        },
        "notes": manifest["notes"],
        "plan": {verb: sorted(outputs) for verb, outputs in manifest["plan"].items()},
        "outputs": {
            name: {"keys": list(record), "depends": sorted(record["depends"])}
            for name, record in sorted(manifest["outputs"].items())
        },
    }
    check("manifest.json", now, lambda was, is_: values.tree_differences("manifest", was, is_))


def test_report(directory: Path, check: Check) -> None:
    """Every word and number that a reader of the report sees."""
    text = values.report_text((directory / "report.html").read_text())
    check("report.txt", text, lambda was, now: values.line_differences("report.html", was, now))


def test_findings(directory: Path, check: Check) -> None:
    text = (directory / "findings.md").read_text().splitlines()
    check("findings.txt", text, lambda was, now: values.line_differences("findings.md", was, now))


def test_figures(directory: Path, printed: dict[str, Any], check: Check) -> None:
    """Which figures are drawn, what they say they show, and how many elements each has."""
    now = {
        one["name"]: {
            **one,
            "elements": {
                name: values.drawing(directory.parent / name)
                for name in one["files"]
                if name.endswith(".svg")
            },
        }
        for one in printed["figures"]
    }
    files = sorted(path.name for path in (directory / "figures").iterdir())
    assert files == sorted(Path(name).name for one in now.values() for name in one["files"])
    check("figures.json", now, lambda was, is_: values.tree_differences("figures", was, is_))


def test_every_verb_prints_json_and_nothing_else(printed: dict[str, Any]) -> None:
    """`printed` was parsed whole; of `demo`, which takes minutes, what it calls is in it."""
    assert {name.split()[0] for name in printed} == {*verbs()} - {"demo"}


def test_json(printed: dict[str, Any], check: Check) -> None:
    """What --json prints: of some verbs all values, of others the keys."""
    now = {
        "values": {verb: values.tree(printed[verb]) for verb in WHOLE},
        "keys": {verb: values.shape(one) for verb, one in printed.items() if verb not in WHOLE},
    }
    check("json.json", now, lambda was, is_: values.tree_differences("--json", was, is_))


def test_exported(folder: Path, printed: dict[str, Any], check: Check) -> None:
    """The header and length of every exported file."""
    now = {}
    for path in sorted((folder / "exported").iterdir()):
        lines = path.read_text().splitlines()
        now[path.name] = {"columns": lines[0], "lines": len(lines)}
    check("exported.json", now, lambda was, is_: values.tree_differences("export", was, is_))


def test_help(check: Check) -> None:
    """The help of the command and of every verb."""
    lines = ["$ saematch --help", *command("--help").splitlines()]
    for verb in verbs():
        lines += [f"$ saematch {verb} --help", *command(verb, "--help").splitlines()]
    lines = [line.rstrip() for line in lines]
    check("help.txt", lines, lambda was, now: values.line_differences("help", was, now))


def verbs() -> list[str]:
    """Of the command line, by its help."""
    listed = command("--help").partition("Commands:")[2]
    found = re.findall(r"^  (\w+)  ", listed, flags=re.MULTILINE)
    assert found
    return found


def test_public_names(check: Check) -> None:
    """Every public name, its signature, and of a class what else it offers."""
    now = {name: _described(getattr(saematch, name)) for name in saematch.__all__}
    check("public_names.json", now, lambda was, is_: values.tree_differences("saematch", was, is_))


def _described(served: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"signature": _signature(served)}
    if inspect.isclass(served):
        ours = [one for one in served.__mro__ if one.__module__.startswith("saematch")]
        names = sorted({name for one in ours for name in vars(one) if not name.startswith("_")})
        described["members"] = {name: _member(served, name) for name in names}
    return described


def _member(of: type, name: str) -> str:
    found = inspect.getattr_static(of, name)
    if isinstance(found, (classmethod, staticmethod)):
        return type(found).__name__ + " " + _signature(getattr(of, name))
    return _signature(found) if inspect.isfunction(found) else "attribute"


def _signature(of: Any) -> str:
    """A signature, without the modules that its annotations are from and where in memory a default is."""
    return re.sub(
        r"(?<![/.\w])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])| at 0x\w+", "", str(inspect.signature(of))
    )


def test_bundled_matchings(check: Check) -> None:
    """Every strategy on the first pairs of the bundled SAEs: total, proof, live features, partners."""
    saes = list(saematch.load_suite("bundled:smollm2-135m", layers=[12, 13, 14]))
    now: dict[str, Any] = {}
    for a, b in pairwise(saes):
        folded = saematch.fold_thresholds(a), saematch.fold_thresholds(b)
        for strategy in ("folded", "unfolded", "naive", "random", "cosine"):
            matching = saematch.match(*folded, strategy=strategy)
            summary = matching.summary()
            now[f"{a.layer}--{b.layer} {strategy}"] = {
                "summary": values.tree(
                    {k: v for k, v in summary.items() if k not in ("gap", "slack")}
                ),
                "proven": None if matching.gap is None else matching.gap <= 1e-6,
                "live": sum(status == "live" for status in matching.a.status),
                "partners": values.partners_digest(matching.permutation),
            }
    check("bundled.json", now, lambda was, is_: values.tree_differences("bundled", was, is_))
