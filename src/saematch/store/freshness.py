"""The one rule of which outputs are of the run as it is now: of its settings, its SAEs, and its files.

A directory keeps what was made under other settings, so that coming back to them costs nothing.  Whoever
shows something reads only what is current.
"""

from saematch.store.directory import SAE, RunDirectory
from saematch.store.names import BY_KEY, FROM_PLAN, key_in


def is_current(held: RunDirectory, name: str) -> bool:
    """Whether an output is there, is one that the present settings call for, and all that it was made
    from is current too and still the same."""
    record = held.record(name)
    if record is None:
        return False
    if name.startswith(FROM_PLAN):
        plan = held.manifest["plan"]
        planned = plan["run"].get(name, plan["others"].get(name))
        if planned is None or planned not in ("", record.inputs):
            return False
    if name.startswith(BY_KEY) and key_in(name) not in held.manifest["saes"]:
        return False
    return all(
        _is_same(held, other, sha256) and (other.startswith(SAE) or is_current(held, other))
        for other, sha256 in record.depends.items()
    )


def current_names(held: RunDirectory, prefix: str = "") -> list[str]:
    """The current outputs whose names start so, sorted."""
    return [name for name in held.names(prefix) if is_current(held, name)]


def _is_same(held: RunDirectory, name: str, sha256: str) -> bool:
    if name.startswith(SAE):
        sae = held.manifest["saes"].get(name.removeprefix(SAE))
        return sae is not None and sae["sha256"] == sha256
    record = held.record(name)
    return record is not None and record.sha256 == sha256
