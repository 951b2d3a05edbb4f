"""The command line of saematch: parse, call, print.

A verb is a function with `options.verb`, one file per group of them; its flags are settings, most of them
those of its config.  Heavy modules are imported inside the verbs, so that `saematch --help` answers at once.
Here it begins and ends: errors become one or two lines with an exit code.
"""

import difflib
import io
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from saematch import __version__
from saematch._io.files import os_error_in_words
from saematch.cli.options import app
from saematch.errors import MESSAGE_CHARACTERS, SaematchError, UsageError
from saematch.text import printable

# isort: off
from saematch.cli import matching, evaluation, semantics, reading  # noqa: F401  in the order of the help
# isort: on

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""
CLOSED_PIPE = 141
"""The exit code where nobody reads the output any more, as shells have it."""
KEEPING = {"run", "demo", "evaluate", "calibrate", "describe", "explain", "judge", "figures"}
"""Commands that go on from what an interrupted one finished."""


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    del debug  # read from the arguments by `main`, where errors end
    if version:
        typer.echo(f"saematch {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point: runs the command and turns errors into one or two lines and an exit code."""
    debug = "--debug" in sys.argv
    for stream in (sys.stdout, sys.stderr):
        # Of a terminal or pipe in any encoding: what it lacks is spelled out, and stops nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Who reads the output has seen enough (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        raise SystemExit(_report(error)) from None
    # Typer hands back the code of an Exit, and makes one of an interrupt.
    if code == INTERRUPTED:
        command = next((one for one in sys.argv[1:] if not one.startswith("-")), "")
        kept = "; what was finished is kept" if command in KEEPING else ""
        typer.echo(f"saematch: interrupted{kept}", err=True)
    if code:
        raise SystemExit(code)


def _report(error: Any) -> int:
    """Print an error on stderr and return the exit code that belongs to it."""
    if isinstance(error, OSError):
        error = os_error_in_words(error)
    if isinstance(error, SaematchError):
        typer.echo(f"saematch: {error}", err=True)
        return error.exit_code
    # Which package's exceptions these are depends on typer's version; their shape does not.
    describe = getattr(error, "format_message", None)
    if describe is not None:
        flags = getattr(error, "possibilities", None) or []
        near = difflib.get_close_matches(getattr(error, "option_name", ""), flags, 1)
        said = f"{error.message}; did you mean {near[0]}" if near else describe()
        problem = printable(said.removesuffix(".").replace("Value error, ", ""), MESSAGE_CHARACTERS)
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(describe())
        elif problem:
            context = getattr(error, "ctx", None)
            verb = f" {context.info_name}" if context is not None and context.parent else ""
            then = " Try:" if problem.endswith("?") else "; try:"
            typer.echo(f"saematch: {problem}{then} saematch{verb} --help", err=True)
        return UsageError.exit_code
    kind = type(error).__name__
    said = printable(error, MESSAGE_CHARACTERS)
    typer.echo(f"saematch: {kind}: {said}; for the traceback: saematch --debug …", err=True)
    return 1
