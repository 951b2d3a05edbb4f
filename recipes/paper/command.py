"""The command line of a recipe: flags to settings, needs first, then the stages."""

import argparse
import sys
import typing
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from paper.checks import refuse, unmet
from paper.needs import GIB, Needs, needs_of
from paper.settings import PlannedRun, Recipe, Settings
from paper.steps import Reproduction
from paper.summary import NAME, not_drawn
from saematch.cli.evaluation import quiet_libraries
from saematch.errors import SaematchError, UsageError
from saematch.settings import flag_of, kind_of, settings_of


def main(recipe: Recipe, says: str | None, arguments: Sequence[str] | None = None) -> int:
    """Check the needs and repeat the paper; the exit code, as of `saematch`."""
    given = parser(says).parse_args(arguments)
    checks_only, anyway = given.check, given.anyway
    values = {name: getattr(given, name) for name in settings_of(Settings)}
    for name, value in values.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    try:
        _repeat(recipe, Settings(**values), checks_only, anyway)
    except SaematchError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _repeat(recipe: Recipe, settings: Settings, checks_only: bool, anyway: bool) -> None:
    quiet_libraries()
    if (settings.prompt_price is None) != (settings.completion_price is None):
        raise UsageError("expected both --prompt-price and --completion-price, got one; give both")
    work = Reproduction(recipe, settings, _say)
    needs = needs_of(recipe, work.runs, settings)
    print(stated(recipe, work.runs, needs))
    found = unmet(recipe, work.runs, needs, settings)
    if checks_only or not anyway:
        refuse(found)
    for one in found:
        print(f"not met: {one}", file=sys.stderr)
    if checks_only:
        print("All needs are met.")
        return
    Path(settings.out).mkdir(parents=True, exist_ok=True)
    missing = not_drawn(work.run())
    print(f"Summary: {Path(settings.out, NAME)}")
    if missing:
        raise SaematchError(f"these planned figures could not be drawn: {'; '.join(missing)}")


def stated(recipe: Recipe, runs: Sequence[PlannedRun], needs: Needs) -> str:
    """The needs, for people."""
    money = "no prices given" if needs.money is None else f"about {needs.money:.2f} in all"
    judge = (
        f"at most {needs.calls:,} calls of a language model ({money})"
        if needs.calls
        else "sentence embeddings judge: no calls"
    )
    lines = [
        recipe.title,
        *(f"  {run.name}: {run.purpose}; {run.pairs} adjacent pairs" for run in runs),
        f"Needs: {needs.download / GIB:.1f} GiB of downloads, {needs.out / GIB:.1f} GiB for results, "
        f"{needs.gpu / GIB:.0f} GiB on the language model's device, {needs.host / GIB:.0f} GiB of memory;",
        f"  about {needs.matching_hours:.1f} hours of matching on two cores and "
        f"{needs.model_hours:.1f} of the language model on one GPU (estimates, not measured on a GPU);",
        f"  {judge}.",
        *recipe.notes,
    ]
    return "\n".join(lines)


def parser(says: str | None) -> argparse.ArgumentParser:
    """A flag for every setting, and those of the checks."""
    found = argparse.ArgumentParser(
        description=says, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, (field, said) in settings_of(Settings).items():
        kind = kind_of(field)
        options: dict[str, Any] = {"default": field.default, "help": said.help}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is tuple:
            options |= {"type": typing.get_args(kind)[0], "nargs": "+", "metavar": "N"}
        else:
            options |= {"type": kind, "required": name == "out"}
        if not (field.default in (None, "") or isinstance(field.default, bool)):
            options["help"] += f" (default: {_plain(field.default)})"
        found.add_argument(flag_of(name), **options)
    found.add_argument("--check", action="store_true", help="check the needs, and start nothing")
    found.add_argument("--anyway", action="store_true", help="start though needs are not met")
    return found


def _plain(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _say(what: str) -> None:
    """A line with the time; on a terminal each takes the place of the one before."""
    text = f"{datetime.now():%H:%M:%S} {what}"
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text[:150]}", end="", flush=True)
    else:
        print(text, flush=True)
