"""What a run has, what it lacks and which command makes it: the first thing that the page asks."""

from collections.abc import Sequence
from typing import Any

from saematch.explorer.catalogue import Catalogue
from saematch.explorer.catalogue_query import strategies
from saematch.explorer.run_files import RunFiles
from saematch.matching.matchers import MAIN, matcher
from saematch.store.following import StepWarning
from saematch.store.manifest import on_directory, run_again
from saematch.store.names import JUDGEMENTS_NAME, PATHS_NAME, candidates_name


def overview(catalogue: Catalogue) -> dict[str, Any]:
    """The run in a few lines: its SAEs, strategies, corpora, judges, notes; what is missing."""
    run = catalogue.run
    ready = catalogue.ready()
    left_out = catalogue.problems
    return {
        "suite": str(run.config.suite),
        "directory": str(run.path),
        "saes": [{"key": key, "features": run.width(key)} for key in catalogue.wanted()],
        "chains": [list(chain) for chain in run.chains],
        "strategies": strategies_of(run),
        "main": MAIN,
        "matchers": [
            {"name": one.name, "label": one.label, "color": one.color, "one_to_one": one.one_to_one}
            for one in map(matcher, strategies_of(run))
        ],
        "warnings": [str(kind) for kind in StepWarning],
        "corpora": list(run.pair_sources),
        "sources": list(
            dict.fromkeys(source for key in run.keys for source, _ in run.descriptions(key))
        ),
        "judges": [
            {
                "experiment": experiment,
                "judge": one.judge,
                "passes_controls": one.passes_controls,
                "verdict": one.verdict,
            }
            for experiment, one in run.judges.items()
        ],
        "notes": [str(note) for note in run.manifest["notes"]],
        "missing": missing(run),
        "index": {"ready": len(ready), "of": len(catalogue.wanted()) - len(left_out)},
        "problems": [*run.wrong, *dict.fromkeys(left_out.values())],
    }


def strategies_of(run: RunFiles) -> list[str]:
    """Strategies that have matched at least one pair, by the run's parts."""
    return [one for one in strategies() if run.names(f"matchings/{one}/{run.config.slug}/")]


def missing(run: RunFiles) -> list[dict[str, str]]:
    """What the run lacks, in words, and the command that makes it; `makes` is its verb."""
    steps = run.adjacent
    matched = sum(run.sha256(run.matching(a, b)) is not None for a, b in steps)
    near = sum(run.sha256(candidates_name(a, b)) is not None for a, b in steps)
    found = []

    def lacks(what: str, verb: str) -> None:
        again = verb == "run"
        command = (
            run_again(run.path, run.manifest["config"]) if again else on_directory(run.path, verb)
        )
        found.append({"what": what, "makes": verb, "command": command})

    if not matched:
        lacks("No layers are matched yet, so no feature has a partner.", "run")
    elif matched < len(steps):
        lacks(
            f"The run is not finished: {matched} of {len(steps)} pairs of layers are matched. "
            "What is there is shown; more appears as it is made.",
            "run",
        )
    elif run.sha256(PATHS_NAME) is None:
        lacks("The run is not finished: its layers are matched, but not joined to paths.", "run")
    if matched and near < matched:
        lacks("The nearest other features are not known for every pair of layers.", "run")
    chained = dict.fromkeys(key for chain in run.chains for key in chain)
    undescribed = [key for key in chained if not run.descriptions(key)]
    if undescribed:
        which = (
            "features"
            if len(undescribed) == len(chained)
            else "features of " + _layers(undescribed)
        )
        lacks(
            f"The {which} are not described: there is no text to search, and there are no examples to read.",
            "describe",
        )
    if not run.pair_sources:
        lacks(
            "The matchings were not evaluated on the language model: strategies cannot be compared by "
            "how often partners are active together.",
            "evaluate",
        )
    if run.sha256(JUDGEMENTS_NAME) is None:
        lacks("No judge has compared descriptions of matched features.", "judge")
    return found


def _layers(keys: Sequence[str]) -> str:
    return f"layer{'s' * (len(keys) > 1)} {', '.join(keys)}"
