"""Every question that the page asks, by name, answered from a run directory, or from two; the first of them:
what a run has, what it lacks and which command makes it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from saematch.errors import UsageError
from saematch.explorer import comparing, feature, flows, search
from saematch.explorer.catalogue import Catalogue, index_folder
from saematch.explorer.catalogue_query import strategies_of
from saematch.explorer.database import Database
from saematch.explorer.run_files import RunFiles
from saematch.matching.matchers import MAIN, matcher
from saematch.store.following import StepWarning
from saematch.store.manifest import on_directory, run_again
from saematch.store.names import JUDGEMENTS_NAME, PATHS_NAME, candidates_name, fates_name
from saematch.types import find_feature


class Explorer:
    """Answers questions about a run; safe to use from several threads.  Close it when done."""

    def __init__(self, directory: Path, second: Path | None = None) -> None:
        """Raises InputError where a directory holds no run, or its manifest was altered."""
        runs = [RunFiles(one) for one in (directory, second) if one is not None]
        self.database = Database()
        for run in runs:
            run.read_at = self.database.let_in(run.path)
        indexes = self.database.let_in(index_folder(self.database.temporary))
        self.catalogues = [Catalogue(run, self.database, indexes) for run in runs]
        self.first = self.catalogues[0]
        self.second = self.catalogues[1] if second is not None else None
        self.questions: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "run": self._run,
            "features": partial(search.find, self.first),
            "path": partial(feature.follow, self.first),
            "becomes": partial(self._known, feature.becomings),
            "evidence": self._evidence,
            "candidates": partial(self._known, feature.candidates),
            "judgements": partial(self._known, feature.judgements),
            "whole": partial(flows.whole, self.first),
            "compare": partial(comparing.compare, self.first),
            "runs": partial(comparing.compare_runs, self.first, self.second),
        }

    def ask(self, question: str, asked: Mapping[str, str]) -> dict[str, Any]:
        """The answer, as plain values.

        Raises UsageError for a question that cannot be meant, InputError where a file of the run cannot
        be used.
        """
        if question not in self.questions:
            raise UsageError(
                f"expected a question among {', '.join(self.questions)}, got '{question}'"
            )
        self.refresh()
        return self.questions[question](asked)

    def take(self, asked: Mapping[str, str]) -> search.Taken:
        """A selection as a file; raises as `ask` does."""
        self.refresh()
        return search.take(self.first, asked)

    def refresh(self) -> None:
        for catalogue in self.catalogues:
            catalogue.run.refresh()

    def close(self) -> None:
        """Stop what runs in the background, and remove what is temporary."""
        for catalogue in self.catalogues:
            catalogue.stop()
        self.database.close()

    def _run(self, asked: Mapping[str, str]) -> dict[str, Any]:
        search.check_names(asked, ())
        second = self.second and overview(self.second)
        return {**overview(self.first), "second": second}

    def _evidence(self, asked: Mapping[str, str]) -> dict[str, Any]:
        limit = search.whole_number(asked, "limit", 3, 1, feature.MOST_EXAMPLES)
        return self._known(partial(feature.evidence, limit=limit), asked, "limit")

    def _known(self, answers: Callable[..., Any], asked: Mapping[str, str], *more: str) -> Any:
        """What is known of one feature; `answers` takes several of one SAE."""
        search.check_names(asked, ("feature", *more))
        key, number = find_feature(asked.get("feature", ""), self.first.widths())
        return answers(self.first, key, [number])[number]


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


def missing(run: RunFiles) -> list[dict[str, str]]:
    """What the run lacks, in words, and the command that makes it; `makes` is its verb."""
    steps = run.adjacent
    matched = sum(run.sha256(run.matching(a, b)) is not None for a, b in steps)
    near = sum(run.sha256(candidates_name(a, b)) is not None for a, b in steps)
    chained = dict.fromkeys(key for chain in run.chains for key in chain)
    bare = [key for key in chained if not run.descriptions(key)]
    which = (
        "" if len(bare) == len(chained) else f" of layer{'s' * (len(bare) > 1)} {', '.join(bare)}"
    )
    told = sum(run.sha256(fates_name(a, b)) is not None for a, b in steps)
    joined = run.sha256(PATHS_NAME) is not None
    lacks = (
        (not matched, "run", "No layers are matched yet, so no feature has a partner."),
        (
            0 < matched < len(steps), "run",
            f"The run is not finished: {matched} of {len(steps)} pairs of layers are matched. "
            "What is there is shown; more appears as it is made.",
        ),
        (
            matched == len(steps) > 0 and not joined, "run",
            "The run is not finished: its layers are matched, but not joined to paths.",
        ),
        (
            joined and told < len(steps), "run",
            "What becomes of features is not told for every pair of layers.",
        ),
        (
            near < matched, "run",
            "The nearest other features are not known for every pair of layers.",
        ),
        (
            bare, "describe",
            f"The features{which} are not described: there is no text to search, and there are no "
            "examples to read.",
        ),
        (
            not run.pair_sources, "evaluate",
            "The matchings were not evaluated on the language model: strategies cannot be compared by "
            "how often partners are active together.",
        ),
        (
            run.sha256(JUDGEMENTS_NAME) is None, "judge",
            "No judge has compared descriptions of matched features.",
        ),
    )  # fmt: skip
    again = run_again(run.path, run.manifest["config"])
    return [
        {
            "what": what,
            "makes": verb,
            "command": again if verb == "run" else on_directory(run.path, verb),
        }
        for holds, verb, what in lacks
        if holds
    ]
