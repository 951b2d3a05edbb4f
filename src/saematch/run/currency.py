"""Whether an output is still made of what is there."""

from saematch.run.directory import RunDirectory


def is_current(held: RunDirectory, name: str) -> bool:
    """Whether the outputs that an output was made from, and those they were, are still the same."""
    record = held.record(name)
    if record is None:
        return False
    now = {other: held.record(other) for other in record.depends}
    return all(
        kept is not None and kept.sha256 == record.depends[other] and is_current(held, other)
        for other, kept in now.items()
    )
