"""The commands that make the files of a run directory, as one would type them."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saematch.configs.run import flags_of
from saematch.store.names import (
    COMPARED,
    DESCRIPTIONS,
    JUDGING,
    MEASURES_NAME,
    SOURCES,
    WEIGHTS_NAME,
    split_descriptions_name,
)

DESCRIBING = {
    "activations": ("describe",),
    "neuronpedia": ("describe", "--source neuronpedia"),
    "model": ("explain", "--model MODEL"),
}
"""Verb and flags of what makes descriptions, by their source."""
_VERBS = {
    "features": "describe",
    "examples": "describe",
    "descriptions": "describe",
    "judging": "judge",
    "judgements.parquet": "judge",
    "evaluation": "evaluate",
    "figures": "figures",
}
"""What makes an output, by its first folder; the rest `saematch run` makes."""
_FROM_WEIGHTS = (WEIGHTS_NAME, COMPARED, f"{SOURCES}consistency-", f"{SOURCES}norms-")


def on_directory(directory: str | Path, verb: str, flags: str = "") -> str:
    """A command on a run directory."""
    return " ".join(filter(None, ("saematch", verb, shlex.quote(str(directory)), flags)))


def run_again(directory: str | Path, settings: Mapping[str, Any]) -> str:
    """The `saematch run` of these settings, which goes on from what is finished."""
    return shlex.join(["saematch", "run", *flags_of(settings), "--out", str(directory)])


def describing(directory: str | Path, source: str) -> str:
    """What makes descriptions from this source, or from a half of it (`activations-0`)."""
    whole = source if source in DESCRIBING else source.rpartition("-")[0]
    return on_directory(directory, *DESCRIBING.get(whole, DESCRIBING["activations"]))


def makes(directory: str | Path, name: str, settings: Mapping[str, Any] | None) -> str:
    """The command that makes an output again; `settings`: the run's, None if they are not known."""
    verb = _VERBS.get(name.split("/")[0], "run")
    if name == MEASURES_NAME or name.startswith(_FROM_WEIGHTS):
        verb = "run"
    if verb == "run":
        if settings is not None:
            return run_again(directory, settings)
        return f"saematch run --out {shlex.quote(str(directory))} (with its settings)"
    if verb == "figures":
        return on_directory(directory, verb)
    if name.startswith(DESCRIPTIONS):
        command = describing(directory, split_descriptions_name(name)[0])
    elif name.startswith(JUDGING):
        command = on_directory(directory, verb, f"--experiment {name.split('/')[1]}")
    else:
        command = on_directory(directory, verb)
    return f"{command} (with the flags it was made with)"
