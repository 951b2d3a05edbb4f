"""The few kinds of error that users meet.

Every message says what was expected, what was there and what to try, in one or two lines.  It may quote
what strangers wrote, so that it is made printable and bounded here, whoever raises it.  The command line
prints it on stderr without a traceback and exits with `exit_code`.
"""

from saematch.text import printable, shortened

MESSAGE_CHARACTERS = 600
MESSAGE_LINES = 8


class SaematchError(Exception):
    """Any failure caused by the input or the environment, not by a bug of ours.

    `message`: of any length and with any characters; of one beyond `MESSAGE_CHARACTERS` or `MESSAGE_LINES`
    the beginning and the end are kept, which say what was expected and what to try.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(_bounded(str(message)))


class UsageError(SaematchError):
    """The command line, a config or an argument is wrong."""

    exit_code = 2


class InputError(SaematchError):
    """A checkpoint, a corpus or a run directory cannot be used."""

    exit_code = 3


class UnsupportedError(InputError):
    """A checkpoint is understood, and has no canonical form (see docs/formats.md)."""


class MissingDependencyError(SaematchError):
    """A package is not installed; the message says how to install it.

    `extra`: the one that brings the package; empty where saematch itself should have brought it.
    `also`: a command that is needed too, where the extra does not bring the package itself.
    """

    def __init__(self, package: str, extra: str, purpose: str, also: str = "") -> None:
        what = f"'saematch[{extra}]'" if extra else package
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"try: pip install {what}{also and f' && {also}'}"
        )


def _bounded(message: str) -> str:
    lines = message.split("\n")
    if len(lines) > MESSAGE_LINES:
        lines = [*lines[: MESSAGE_LINES // 2], "…", *lines[1 - MESSAGE_LINES // 2 :]]
    lines = [printable(line, MESSAGE_CHARACTERS) for line in lines]
    return shortened("\n".join(lines), MESSAGE_CHARACTERS)
