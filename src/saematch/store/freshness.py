"""The one rule of which outputs are of the run as it is now: of its settings, its SAEs, and its files.

A directory keeps what was made under other settings, so that coming back to them costs nothing.  Whoever
shows something reads only what is current.
"""

from collections.abc import Mapping
from typing import Any

from saematch.store.manifest import record_of
from saematch.store.names import BY_KEY, FROM_PLAN, JUDGEMENTS_NAME, SAE, key_in


def is_current(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether an output is there, is one that the present settings call for, and all that it was made
    from is current too and still the same."""
    record = record_of(manifest, name)
    if record is None:
        return False
    if name.startswith(FROM_PLAN):
        plan = manifest["plan"]
        planned = plan["run"].get(name, plan["others"].get(name))
        if planned is None or planned not in ("", record.inputs):
            return False
    if name.startswith(BY_KEY) and key_in(name) not in manifest["saes"]:
        return False
    of_now = [
        _is_same(manifest, other, sha256) and (other.startswith(SAE) or is_current(manifest, other))
        for other, sha256 in record.depends.items()
    ]
    # Answers stand with the sample of their own experiment (judge_results.answered_experiments).
    return all(of_now) or (name == JUDGEMENTS_NAME and any(of_now))


def _is_same(manifest: Mapping[str, Any], name: str, sha256: str) -> bool:
    if name.startswith(SAE):
        sae = manifest["saes"].get(name.removeprefix(SAE))
        return sae is not None and sae["sha256"] == sha256
    record = record_of(manifest, name)
    return record is not None and record.sha256 == sha256
