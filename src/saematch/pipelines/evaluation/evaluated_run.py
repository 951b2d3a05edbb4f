"""What a verb works on that runs a language model over a run: the run's SAEs, the pairs and matchings to
measure, and the model.

The model is named at once, loaded and checked when it is first needed: a stage whose outputs are all there
never loads it, and yet its identity decides what is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from saematch.errors import InputError, UsageError
from saematch.evaluation.collecting import Pair, on_device
from saematch.evaluation.evaluate import check_belongs
from saematch.loading.model_names import hub_name
from saematch.matching.matchers import MAIN, matchers, usual_fitted
from saematch.models import SMOLLM2_NAME, LanguageModel, load_language_model, smollm2_weights_sha256
from saematch.models.language_model import EMBEDDED, embedded_is_here
from saematch.pipelines.suite import Member, examine
from saematch.sae import FoldedSAE
from saematch.store.build import Progress, silent
from saematch.store.directory import KeptFile, RunDirectory
from saematch.store.names import matching_name
from saematch.store.reader import Run
from saematch.store.tables import pairs_among


@dataclass
class HeldRun:
    """A run that is held while a verb works on it."""

    held: RunDirectory
    run: Run
    config: Any
    """The verb's settings."""
    progress: Progress = silent
    given: LanguageModel | None = None
    """A model that is loaded already."""
    notes: list[str] = field(default_factory=list[str])
    """What a reader should know, in the order in which it was found out."""

    @cached_property
    def members(self) -> dict[str, Member]:
        """The run's SAEs, which must be those that it matched.

        Raises InputError where one changed or is gone.
        """
        from saematch.loading import load_suite

        suite = load_suite(self.run.config.suite, layers=self.run.config.layers)
        before = self.held.manifest["saes"]
        entries = tuple(entry for entry in suite.entries if entry.key in before)
        members, saes, _ = examine(entries, self.held.manifest, lambda _: None)
        changed = [k for k in before if k not in saes or saes[k]["sha256"] != before[k]["sha256"]]
        if changed:
            raise InputError(
                f"expected the SAEs that {self.held.path} was made of, but {changed[0]} has changed or is "
                "gone; run saematch run again"
            )
        return members

    @property
    def used(self) -> list[Member]:
        """The SAEs that the model is run with, in order of depth."""
        return list(self.members.values())

    def note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def tell(self, what: str) -> None:
        self.progress(0, 1, what)

    @property
    def model_name(self) -> str:
        """Raises UsageError where neither the settings nor the SAEs name one."""
        if self.given is not None:
            return self.given.name
        asked = self.config.model
        if asked is not None:
            if asked == EMBEDDED:
                return SMOLLM2_NAME
            return asked if Path(asked).exists() else hub_name(asked)
        saes = self.held.manifest["saes"]
        recorded = [saes[member.key]["model_name"] for member in self.used]
        named = {hub_name(name) if name else None for name in recorded}
        if len(named) != 1 or None in named:
            raise UsageError(
                "expected SAEs that record one language model, got none or several; name it as model "
                "(on the command line --model)"
            )
        return str(named.pop())

    @property
    def model_identity(self) -> dict[str, Any]:
        """What of the model decides a result."""
        name = self.model_name
        if self.given is not None:
            sha = self.given.weights_sha256
        else:
            embedded = name == SMOLLM2_NAME and embedded_is_here()
            sha = smollm2_weights_sha256() if embedded else None
        return {"name": name, "weights_sha256": sha, "dtype": self.config.dtype}

    @property
    def model_was_needed(self) -> bool:
        return "_loaded" in vars(self)

    @property
    def model(self) -> LanguageModel:
        """The model, checked to be the SAEs' own; loads it the first time."""
        return self._loaded[0]

    @property
    def saes(self) -> Mapping[str, FoldedSAE]:
        """Those in use by key, on the model's device."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[LanguageModel, Mapping[str, FoldedSAE]]:
        config, model = self.config, self.given
        if model is None:
            self.tell(f"loading {self.model_name}")
            settings = {name: getattr(config, name) for name in ("device", "dtype", "attention")}
            model = load_language_model(self.model_name, **settings)
        found: dict[str, FoldedSAE] = {}
        for member in self.used:  # one at a time: together they may be larger than memory
            self.note(*check_belongs(model, [member.load()], config.any_model))
            found[member.key] = on_device(member.folded(self.run.config.scale), model.device)
        return model, found


class EvaluatedRun(HeldRun):
    """A run that is evaluated."""

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs to measure: those asked for, or all, adjacent ones first."""
        if self.config.pairs is None:
            return list(dict.fromkeys((*self.run.adjacent, *self.run.pairs)))
        return pairs_among(self.run, self.config.pairs)

    @property
    def slug(self) -> str:
        """Slug of the run's parts."""
        return self.run.config.slug

    @property
    def used(self) -> list[Member]:
        ends = {key for pair in self.pairs for key in pair}
        return [member for key, member in self.members.items() if key in ends]

    @property
    def keys(self) -> list[str]:
        return [member.key for member in self.used]

    @property
    def fitted(self) -> list[str]:
        """The strategies that are fitted to text."""
        wanted = self.config.strategies
        taken = usual_fitted() if wanted is None else wanted
        return [one.name for one in matchers() if one.needs_data and one.name in taken]

    @property
    def other_parts(self) -> list[str]:
        """Slugs of the single parts that the main strategy is measured with too."""
        parts = self.run.config.parts if self.config.other_parts else ()
        return [part for part in ("decoder", "encoder") if part in parts and part != self.slug]

    def matchings(self, pair: Pair) -> dict[tuple[str, str], KeptFile]:
        """What is to be measured of a pair, by strategy and slug of parts; raises InputError where it lacks
        the main matching."""
        taken = [
            one for one in (*self.run.config.strategies, *self.fitted) if self.config.takes(one)
        ]
        names = {(one, self.slug): matching_name(*pair, one, self.slug) for one in taken}
        found = {
            which: self.held.kept(name)
            for which, name in names.items()
            if self.held.record(name) is not None
        }
        if (MAIN, self.slug) not in found:
            raise InputError(
                f"expected the {MAIN} matching of {pair[0]}--{pair[1]} in {self.held.path}, got none; "
                "run saematch run again"
            )
        others = {(MAIN, part): matching_name(*pair, MAIN, part) for part in self.other_parts}
        return found | {which: self.held.kept(name) for which, name in others.items()}
