"""The few kinds of error that users meet.

Every message says what was needed, what was found and what to try, in one or two lines.  The
command line prints it on stderr without a traceback and exits with `exit_code`.
"""


class SaematchError(Exception):
    """Any failure that is the input's or the environment's doing, not a bug of ours."""

    exit_code = 1


class UsageError(SaematchError):
    """The command line, a config or an argument is wrong."""

    exit_code = 2


class InputError(SaematchError):
    """A checkpoint, a corpus or a run directory cannot be used."""

    exit_code = 3


class UnsupportedError(InputError):
    """A checkpoint is understood, and has no canonical form (see docs/formats.md)."""


class MissingDependencyError(SaematchError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"try: pip install 'saematch[{extra}]'"
        )
