"""A feature as people name it: `12/345`."""

from saematch.errors import UsageError

DIGITS = 9


def named_feature(text: str) -> tuple[str, int]:
    """Layer (or key) and feature of `LAYER/INDEX`, blanks around it or not; raises UsageError for any
    other text."""
    key, separator, index = (part.strip() for part in text.rpartition("/"))
    if not (separator and key and index.isascii() and index.isdecimal() and len(index) <= DIGITS):
        raise UsageError(f"expected a feature as LAYER/INDEX, e.g. 12/345, got '{text[:80]}'")
    return key, int(index)
