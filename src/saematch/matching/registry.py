"""The ways of matching there are: the one list of strategies, which everything else asks.

A matcher of yours is one object: subclass `Matcher`, pass an instance to `register`, and `match`, `run`,
`evaluate`, `judge`, figures, report, explorer and command line know it (CONTRIBUTING.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from saematch.errors import UsageError
from saematch.matching.matcher import Matcher
from saematch.matching.matchers import BUILT_IN, FOLDED

MAIN = FOLDED
"""The strategy of the paper, that every run has: paths, candidates, warnings and labels are of it."""

_registered: dict[str, Matcher] = {one.name: one for one in BUILT_IN}


def register(matcher: Matcher) -> Matcher:
    """Make a matcher known, after those that are; raises UsageError where its name is taken."""
    names = {*_registered, *compositions().values()}
    for name in filter(None, (matcher.name, matcher.composition)):
        if name in names:
            raise UsageError(f"expected a name that no other matcher has, got '{name}'")
    _registered[matcher.name] = matcher
    return matcher


@contextmanager
def registering(matcher: Matcher) -> Iterator[Matcher]:
    """`register` for as long as the block runs."""
    try:
        yield register(matcher)
    finally:
        if _registered.get(matcher.name) is matcher:
            del _registered[matcher.name]


def matchers() -> tuple[Matcher, ...]:
    """Every matcher, in the order in which a run makes them and tables list them."""
    return tuple(_registered.values())


def ranked_matchers() -> tuple[Matcher, ...]:
    """Every matcher, controls last: the order of legends, summaries and the judge's sample."""
    return tuple(sorted(matchers(), key=lambda one: one.control))


def is_matcher(name: str) -> bool:
    return name in _registered


def matcher(name: str) -> Matcher:
    """The matcher of a name; raises UsageError naming those there are."""
    if name not in _registered:
        raise UsageError(f"expected a strategy of {', '.join(_registered)}, got '{name}'")
    return _registered[name]


def data_free() -> tuple[str, ...]:
    """Names of those that `run` can make: all that need no text."""
    return tuple(one.name for one in matchers() if not one.needs_data)


def usual_in_runs() -> tuple[str, ...]:
    """Names of those that `run` makes where none are named."""
    return tuple(one.name for one in matchers() if one.in_runs and not one.needs_data)


def usual_for_judges() -> tuple[str, ...]:
    """Names of those that `judge` compares where none are named."""
    return tuple(one.name for one in ranked_matchers() if one.judged)


def compositions() -> dict[str, str]:
    """What the composition of adjacent steps is called, by matcher."""
    return {one.name: one.composition for one in matchers() if one.composition is not None}
