"""Every question that the page asks, by name, answered from a run directory, or from two."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saematch.errors import UsageError
from saematch.explorer import comparing, evidence, following, overview
from saematch.explorer import search as finding
from saematch.explorer import search as taking
from saematch.explorer.catalogue import Catalogue, index_folder
from saematch.explorer.database import Database
from saematch.explorer.flows import Flows
from saematch.explorer.run_files import RunFiles
from saematch.explorer.selection import check_names


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
        flows = Flows()
        self.questions: Mapping[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "run": self._run,
            "features": lambda asked: finding.find(self.first, self.database, asked),
            "path": lambda asked: following.follow(self.first, self.database, asked),
            "evidence": lambda asked: evidence.evidence(self.first, self.database, asked),
            "candidates": lambda asked: evidence.candidates(self.first, self.database, asked),
            "judgements": lambda asked: evidence.judgements(self.first, self.database, asked),
            "whole": lambda asked: flows.answer(self.first, self.database, asked),
            "compare": lambda asked: comparing.compare(self.first, self.database, asked),
            "runs": lambda asked: comparing.compare_runs(
                self.first, self.second, self.database, asked
            ),
        }

    @property
    def first(self) -> Catalogue:
        return self.catalogues[0]

    @property
    def second(self) -> Catalogue | None:
        return self.catalogues[1] if len(self.catalogues) > 1 else None

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

    def take(self, asked: Mapping[str, str]) -> taking.Taken:
        """A selection as a file; raises as `ask` does."""
        self.refresh()
        return taking.take(self.first, self.database, asked)

    def refresh(self) -> None:
        """See what the runs have written since."""
        for catalogue in self.catalogues:
            catalogue.run.refresh()

    def close(self) -> None:
        """Stop what runs in the background, and remove what is temporary."""
        for catalogue in self.catalogues:
            catalogue.stop()
        self.database.close()

    def _run(self, asked: Mapping[str, str]) -> dict[str, Any]:
        check_names(asked, ())
        second = self.second and overview.overview(self.second)
        return {**overview.overview(self.first), "second": second}
