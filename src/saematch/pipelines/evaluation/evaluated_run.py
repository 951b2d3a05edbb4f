"""What an evaluation works on: a run's SAEs, the pairs and matchings to measure, and its model."""

from dataclasses import dataclass, field
from functools import cached_property

from saematch.configs.evaluation import EvaluationConfig
from saematch.errors import InputError, UsageError
from saematch.matching.registry import MAIN, matchers
from saematch.models import LanguageModel
from saematch.pipelines.checkpoints import examine
from saematch.pipelines.evaluation import plan
from saematch.pipelines.evaluation.plan import Pair
from saematch.pipelines.model import ModelOfRun
from saematch.pipelines.suite import Member
from saematch.store.build import Progress
from saematch.store.directory import KeptFile, RunDirectory
from saematch.store.names import matching_name
from saematch.store.reader import Run

Matchings = dict[tuple[Pair, str, str], KeptFile]
"""Matchings to measure, by pair, strategy and slug of parts."""


def members_of(held: RunDirectory, run: Run) -> tuple[dict[str, Member], dict[str, int]]:
    """A run's SAEs, which must be those that it matched, and their d_sae.

    Raises InputError where one changed or is gone.
    """
    from saematch.loading import load_suite

    suite = load_suite(run.config.suite, layers=run.config.layers)
    before = held.manifest["saes"]
    entries = tuple(entry for entry in suite.entries if entry.key in before)
    members, saes, _ = examine(entries, held.manifest, lambda _: None)
    changed = [k for k in before if k not in saes or saes[k]["sha256"] != before[k]["sha256"]]
    if changed:
        raise InputError(
            f"expected the SAEs that {held.path} was made of, got {changed[0]} changed or gone; "
            "run saematch run again"
        )
    return members, {key: int(sae["d_sae"]) for key, sae in saes.items()}


@dataclass
class EvaluatedRun:
    """A run that is held while it is evaluated."""

    held: RunDirectory
    run: Run
    config: EvaluationConfig
    progress: Progress | None
    given: LanguageModel | None
    """A model that is loaded already."""
    notes: list[str] = field(default_factory=list[str])
    """What a reader should know, in the order in which it was found out."""

    def __post_init__(self) -> None:
        self.members, self.widths = members_of(self.held, self.run)
        self.pairs = self._pairs()

    @property
    def slug(self) -> str:
        """Slug of the run's parts."""
        return self.run.config.slug

    @property
    def keys(self) -> list[str]:
        """SAEs of the pairs, in order of depth."""
        used = {key for pair in self.pairs for key in pair}
        return [key for key in self.members if key in used]

    @property
    def fitted(self) -> list[str]:
        """The strategies that are fitted to text."""
        return [one.name for one in matchers() if one.needs_data and self.config.takes(one.name)]

    @cached_property
    def model(self) -> ModelOfRun:
        return ModelOfRun(
            [self.members[key] for key in self.keys],
            self.held.manifest["saes"],
            self.run.config.scale,
            self.config,
            self.given,
            self.tell,
            self.note,
        )

    def matchings(self) -> Matchings:
        """What is to be measured; raises InputError where a pair lacks the main matching."""
        found: Matchings = {}
        others = plan.other_slugs(self.config, self.slug, self.run.config.parts)
        for pair in self.pairs:
            for strategy in (*self.run.config.strategies, *self.fitted):
                name = matching_name(*pair, strategy, self.slug)
                if self.config.takes(strategy) and self.held.record(name) is not None:
                    found[pair, strategy, self.slug] = self.held.kept(name)
            if (pair, MAIN, self.slug) not in found:
                raise InputError(
                    f"expected the {MAIN} matching of {pair[0]}--{pair[1]} in {self.held.path}, got none; "
                    "run saematch run again"
                )
            for other in others:
                name = matching_name(*pair, MAIN, other)
                found[pair, MAIN, other] = self.held.kept(name)
        return found

    def note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(0, 1, what)

    def _pairs(self) -> list[Pair]:
        adjacent = self.run.adjacent
        if self.config.pairs is None:
            return [*adjacent, *(pair for pair in self.run.pairs if pair not in adjacent)]
        wanted: list[Pair] = [(self.run.key(a), self.run.key(b)) for a, b in self.config.pairs]
        for a, b in wanted:
            if (a, b) not in self.run.pairs:
                there = ", ".join(f"{x},{y}" for x, y in self.run.pairs)
                raise UsageError(f"expected pairs among {there}, got {a},{b}")
        return wanted
