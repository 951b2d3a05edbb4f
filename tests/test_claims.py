"""What README, docs, messages and --help promise is there: commands, flags, files, names, arguments."""

import ast
import html
import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_suites import write_suite

import saematch
from saematch.cli import app
from saematch.figures.data import NotInRunError
from saematch.figures.paper import FIGURES
from saematch.pipelines import Run, RunConfig, run
from saematch.report.page import render_report
from saematch.store.manifest import run_again

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/saematch"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES.remove(ROOT / "docs/results.md")  # says what was measured by commands of then
GROUP: Any = typer.main.get_command(app)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
PIP = re.compile(r"pip install [^;`'\n]*")
COMMAND = re.compile(r"saematch (?P<verb>[a-z]+)(?P<rest>[^;`\n]*)")
OTHER_PROGRAMS = ("pip", "make", "pytest", "python", "sae_lens", "vllm", "git")


def flags_of(command: Any) -> set[str]:
    return {"--help"} | {
        flag for one in command.params for flag in (*one.opts, *one.secondary_opts)
    }


FLAGS = {verb: flags_of(command) for verb, command in GROUP.commands.items()}
EVERY_FLAG = set().union(*FLAGS.values(), flags_of(GROUP))


def blocks(page: Path, language: str) -> Iterator[str]:
    """Fenced blocks of a language; of shell also those that are indented."""
    text = page.read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    yield from (block for name, block in fenced if name == language)
    if language == "sh":
        bare = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        yield from re.findall(r"(?:^ {4}.*\n)+", bare, flags=re.M)


def commands_in(page: Path) -> list[str]:
    lines = [
        line.strip()
        for block in (*blocks(page, "sh"), *blocks(page, "bash"), *blocks(page, ""))
        for line in block.replace("\\\n", " ").splitlines()
    ]
    inline = re.findall(r"`(saematch [^`]+)`", page.read_text())
    return [line for line in (*lines, *inline) if re.match(r"saematch [a-z]", line)]


def parsed(line: str) -> None:
    """Parse a command line as the terminal would, without running it."""
    for one in line.partition(" #")[0].split("; "):
        words = shlex.split(one, comments=True)
        assert words[0] == "saematch", line
        if words[1].startswith("-"):
            assert words[1] in EVERY_FLAG
            continue
        assert words[1] in GROUP.commands, line
        command = GROUP.commands[words[1]]
        if len(words) == 2:  # names the command, not a call of it
            continue
        mentioned = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
        assert set(mentioned) <= FLAGS[words[1]], line
        whole = not mentioned or any(not word.startswith("-") for word in words[2:3])
        if whole:
            command.make_context(words[1], words[2:])


DOCUMENTED = sorted({(page.name, line) for page in PAGES for line in commands_in(page)})


@pytest.mark.parametrize(("page", "line"), DOCUMENTED)
def test_every_command_in_the_documents_parses(page: str, line: str) -> None:
    parsed(line)


def test_there_are_commands_and_flags_to_check() -> None:
    assert len(DOCUMENTED) > 30
    with pytest.raises(AssertionError):
        parsed("saematch judge DIR --made-up")
    with pytest.raises(AssertionError):
        parsed("saematch undo DIR")


@pytest.mark.parametrize("verb", FLAGS)
def test_every_command_takes_json(verb: str) -> None:
    assert "--json" in FLAGS[verb]


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """String constants of a module, those with values in them as one, a word for each value."""
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(one) for one in node.values}
            yield (
                node.lineno,
                "".join(
                    str(one.value) if isinstance(one, ast.Constant) else "VALUE"
                    for one in node.values
                ),
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inside
        ):
            yield node.lineno, node.value


@pytest.mark.parametrize("module", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_messages_name_flags_and_commands_that_are_there(module: Path) -> None:
    for line, text in strings(module):
        unknown = set(FLAG.findall(PIP.sub("", text))) - EVERY_FLAG
        assert not unknown, (module, line, text)
        for found in COMMAND.finditer(text):
            verb = found["verb"]
            if verb in GROUP.commands:
                mine = set(FLAG.findall(found["rest"].split("saematch")[0]))
                assert mine <= FLAGS[verb], (module, line, text)


PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def packages_of(extra: str) -> set[str]:
    """What an extra installs, by names of packages, extras within it resolved; '': without any."""
    found = set()
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        own = re.match(r"saematch\[([^]]+)\]", line)
        if own:
            found |= set().union(*(packages_of(one) for one in own[1].split(",")))
        else:
            found.add(re.split(r"[\[<>=]", line)[0].replace("_", "-"))
    return found


def test_documents_and_messages_name_extras_that_are_there() -> None:
    for path in (*PAGES, *ROOT.glob("recipes/*/README.md"), *SOURCE.rglob("*.py")):
        for named in re.findall(r"saematch\[([a-z0-9,]+)\]", path.read_text()):
            assert set(named.split(",")) <= set(EXTRAS), path


def test_a_missing_package_is_in_the_extra_that_the_message_names() -> None:
    checked = 0
    for module in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if not (
                isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingDependencyError"
            ):
                continue
            package, extra = node.args[:2]
            assert isinstance(extra, ast.Constant)
            if isinstance(package, ast.Constant):
                brought = {
                    *packages_of(str(extra.value)),
                    *(
                        ast.unparse(one.value).strip("'").split()[-1]
                        for one in node.keywords
                        if one.arg == "also"
                    ),
                }
                assert str(package.value).replace("_", "-") in brought, (module, node.lineno)
                checked += 1
    assert checked > 8


def test_places_that_contributing_names_are_there() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| path | what |")[2]
    folder = Path("src/saematch")
    for row in table.partition("\n\n")[0].splitlines()[2:]:
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            place = name if name.startswith(("src/", "recipes/", "benchmarks/")) else folder / name
            assert list(ROOT.glob(str(place))), name


LIBRARY = ("_io", "assignment", "evaluation", "loading", "matching", "models", "semantics")


def test_the_library_names_no_flags_in_its_errors() -> None:
    """A library's error may name a command whole; not a flag alone, which nobody has in Python."""
    modules = [
        *SOURCE.glob("*.py"),
        *(p for of in LIBRARY for p in (SOURCE / of).rglob("*.py")),
    ]
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                text = PIP.sub("", ast.unparse(node.exc))
                if "saematch " not in text:
                    assert not FLAG.findall(text), (module, node.lineno, text)


SHARED = ("configs", "store", "pipelines", "report", "rendering", "explorer")


@pytest.mark.parametrize("room", SHARED)
def test_what_python_reaches_too_names_arguments_beside_flags(room: str) -> None:
    """A flag outside a whole command stands after the argument of that name."""
    for module in (SOURCE / room).rglob("*.py"):
        for line, text in strings(module):
            loose = COMMAND.sub(lambda found: found["rest"].partition("(")[2], text)
            for flag in [] if text.startswith("--") else FLAG.findall(loose):
                argument = flag[2:].replace("-", "_")
                assert re.search(rf"(?<![\w-]){argument}\b", text), (module, line, text)


def test_documents_name_flags_that_are_there() -> None:
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text()):
            if not code.startswith(OTHER_PROGRAMS):
                assert set(FLAG.findall(code)) <= EVERY_FLAG, (page, code)


PYTHON = [(page.name, n, block) for page in PAGES for n, block in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize(("page", "number", "block"), PYTHON, ids=lambda one: str(one)[:20])
def test_every_python_block_compiles_and_names_what_is_there(
    page: str, number: int, block: str
) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = __import__(node.module or "", fromlist=[one.name for one in node.names])
            assert all(hasattr(module, one.name) for one in node.names)
        name = node.func if isinstance(node, ast.Call) else node
        if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name):
            if name.value.id not in ("sm", "saematch"):
                continue
            served = getattr(saematch, name.attr)
            if isinstance(node, ast.Call) and not inspect.ismodule(served):
                taken = inspect.signature(served).parameters
                given = {one.arg for one in node.keywords if one.arg}
                assert given <= set(taken), ast.unparse(node)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page, target)


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for page in PAGES:
        named = re.findall(r"(?:`|^ {4})make ([a-z-]+)", page.read_text(), flags=re.M)
        assert set(named) <= targets, page


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing was done with since."""
    folder = tmp_path_factory.mktemp("bare")
    return run(
        RunConfig(str(write_suite(folder / "suite", (16, 16, 16))), random_draws=2), folder / "run"
    )


def needed(command: str) -> tuple[str, set[tuple[str, str]]]:
    """Verb of the last command and what its flags are set to."""
    words = shlex.split(command.split("; ")[-1])
    return words[1], {
        (word, after if not after.startswith("-") else "")
        for word, after in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.name)
def test_the_command_of_a_figure_is_the_one_that_makes_its_data(figure: Any, bare: Run) -> None:
    for one in figure.command.split("; "):
        parsed(one)
    error = None
    try:
        figure.draw(bare)
    except NotInRunError as lacking:
        error = lacking
    if error is None or error.command.startswith("saematch run"):
        assert figure.command.startswith("saematch run")
    else:
        verb, flags = needed(error.command)
        assert verb in {needed(one)[0] for one in figure.command.split("; ")}
        assert flags <= needed(figure.command)[1]
    experiment = re.search(r"experiment '(\w+)'", error.needed if error else "")
    if experiment:
        assert needed(figure.command) == ("judge", {("--experiment", experiment[1])})


def test_findings_writes_the_same_file_with_json_and_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace

    import saematch.cli.display.evaluation
    import saematch.report.findings
    from saematch import cli

    monkeypatch.setattr(
        saematch.report.findings,
        "find",
        lambda *_: SimpleNamespace(main=None, lines=[], findings=[]),
    )
    monkeypatch.setattr(saematch.cli.display.evaluation, "findings_text", lambda *_: "what holds")
    monkeypatch.setattr("sys.argv", ["saematch", "findings", str(tmp_path), "--json"])
    cli.main()
    assert (tmp_path / "findings.md").read_text() == "what holds"
    assert '"findings": []' in capsys.readouterr().out


def test_the_report_gives_the_command_that_made_it(bare: Run) -> None:
    page = html.unescape(render_report(bare))
    said = re.search(r"How this was made</h2>\s*<p><code>(.*?)</code>", page)
    assert said is not None
    assert said[1] == run_again(bare.path.name, bare.manifest["config"])
    assert "--random-draws 2" in said[1]
    parsed(said[1])
