"""What an evaluation works on: a run's SAEs, the pairs and matchings to measure, its model, and the outputs
to make, one for each corpus, pair and strategy.

The names and the hashes of the outputs' inputs follow from the run's manifest, the settings and the texts,
so that finished outputs are known without loading a language model.  The model is named at once, loaded and
checked when it is first needed: a stage whose outputs are all there never loads it, and yet its identity
decides what is there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from saematch.configs import EvaluationConfig, ModelSettings
from saematch.errors import InputError, UsageError
from saematch.evaluation.collecting import Pair, on_device
from saematch.evaluation.evaluate import check_belongs
from saematch.loading.model_names import hub_name
from saematch.matching.matchers import MAIN, matcher, matchers
from saematch.models import SMOLLM2_NAME, LanguageModel, load_language_model, smollm2_weights_sha256
from saematch.models.language_model import EMBEDDED, embedded_is_here
from saematch.pipelines.suite import Member, examine
from saematch.sae import FoldedSAE
from saematch.store.build import Progress, hash_of
from saematch.store.directory import KeptFile, RunDirectory
from saematch.store.names import matching_name
from saematch.store.reader import Run
from saematch.types import INTERVENTIONS, RIDGE, is_refolded, refolded


class ModelOfRun:
    """The model that a run's SAEs read, and those SAEs on its device.

    `members`: the SAEs in use, in order of depth; `described`: the manifest's `saes`; `given`: a model
    that is loaded already; `say`: told what takes time; `note`: told what a reader should know.
    """

    def __init__(
        self,
        members: Sequence[Member],
        described: Mapping[str, Any],
        scale: str | None,
        settings: ModelSettings,
        given: LanguageModel | None,
        say: Callable[[str], None],
        note: Callable[..., None],
    ) -> None:
        self._members, self._described, self._scale = members, described, scale
        self._settings, self._given, self._loaded = settings, given, given
        self._say, self._note = say, note
        self._on_device: dict[str, FoldedSAE] = {}

    @property
    def name(self) -> str:
        """Raises UsageError where neither the settings nor the SAEs name one."""
        if self._given is not None:
            return self._given.name
        if self._settings.model is not None:
            given = self._settings.model
            if given == EMBEDDED:
                return SMOLLM2_NAME
            return given if Path(given).exists() else hub_name(given)
        recorded = [self._described[member.key]["model_name"] for member in self._members]
        named = {hub_name(name) if name else None for name in recorded}
        if len(named) != 1 or None in named:
            raise UsageError(
                "expected SAEs that record one language model, got none or several; name it as model "
                "(on the command line --model)"
            )
        return str(named.pop())

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides a result."""
        name = self.name
        if self._given is not None:
            sha = self._given.weights_sha256
        else:
            embedded = name == SMOLLM2_NAME and embedded_is_here()
            sha = smollm2_weights_sha256() if embedded else None
        return {"name": name, "weights_sha256": sha, "dtype": self._settings.dtype}

    @property
    def was_needed(self) -> bool:
        return bool(self._on_device)

    @property
    def saes(self) -> Mapping[str, FoldedSAE]:
        """By key, on the model's device."""
        self.load()
        return self._on_device

    def load(self) -> LanguageModel:
        """The model, checked to be the SAEs' own; loads it the first time."""
        if self._loaded is None:
            self._say(f"loading {self.name}")
            self._loaded = load_language_model(
                self.name,
                device=self._settings.device,
                dtype=self._settings.dtype,
                attention=self._settings.attention,
            )
        if not self._on_device:
            found: dict[str, FoldedSAE] = {}
            for member in self._members:  # one at a time: together they may be larger than memory
                checked = check_belongs(self._loaded, [member.load()], self._settings.any_model)
                self._note(*checked)
                folded = member.folded(self._scale)
                found[member.key] = on_device(folded, self._loaded.device)
            self._on_device = found
        return self._loaded


NO_PARTS = "any"
"""Folder of what was found without parts of a cost."""


@dataclass(frozen=True)
class Unit:
    """One output: the sums of a corpus's documents under a strategy or intervention."""

    pair: Pair
    strategy: str
    parts: str
    """Slug; '' if there are none."""
    name: str
    inputs: str
    """sha256 of what decides it."""
    matching: KeptFile | None = None
    """The matching that it applies."""
    draws: int = 1
    seed: int = 0

    @property
    def counts_joint(self) -> bool:
        """Whether joint activations are counted: once for each map of features."""
        return not is_refolded(self.strategy) and not self.strategy.startswith("quantile")

    @property
    def key(self) -> tuple[Pair, str, str]:
        return self.pair, self.strategy, self.parts


def corpus_slug(name: str) -> str:
    """A corpus's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_+-]", "_", name)


def folder(corpus: str) -> str:
    return f"evaluation/documents/{corpus}"


def documents_name(corpus: str) -> str:
    return f"{folder(corpus)}/documents.parquet"


def stream_name(corpus: str, key: str) -> str:
    return f"{folder(corpus)}/streams/{key}.parquet"


def condition_name(corpus: str, strategy: str, parts: str, pair: Pair) -> str:
    return f"{folder(corpus)}/{strategy}/{parts or NO_PARTS}/{pair[0]}--{pair[1]}.parquet"


def causal_name(corpus: str, pair: Pair) -> str:
    return f"evaluation/causal/{corpus}/{pair[0]}--{pair[1]}.parquet"


def units_of(
    config: EvaluationConfig,
    corpus: str,
    base: Mapping[str, Any],
    fitted_on: Mapping[str, Any],
    members: Mapping[str, Member],
    pairs: Sequence[Pair],
    matchings: Mapping[tuple[Pair, str, str], KeptFile],
    slug: str,
    scale: str | None,
) -> list[Unit]:
    """Every output of a corpus but its documents and streams.

    `base`: model and documents; `fitted_on`: what maps are fitted to; `matchings`: by pair, strategy
    and slug, of what is to be measured.
    """
    found: list[Unit] = []
    for pair in pairs:
        ends = {"a": members[pair[0]].identity, "b": members[pair[1]].identity, "scale": scale}

        def add(
            strategy: str, parts: str, pair: Pair = pair, ends: Any = ends, **more: Any
        ) -> None:
            kept = more.pop("matching", None)
            decides = {"base": base, **ends, "strategy": strategy, "parts": parts, **more}
            if kept is not None:
                decides["matching"] = kept.sha256
            found.append(
                Unit(
                    pair,
                    strategy,
                    parts,
                    condition_name(corpus, strategy, parts, pair),
                    hash_of(stage="condition", **decides),
                    kept,
                    more.get("draws", 1),
                    more.get("seed", 0),
                )
            )

        same_layer = members[pair[0]].entry.layer == members[pair[1]].entry.layer
        for intervention in INTERVENTIONS:
            if not same_layer or intervention == "reconstruct_current":
                add(intervention, "")
        mine = [
            (strategy, parts, kept)
            for (of, strategy, parts), kept in matchings.items()
            if of == pair
        ]
        for strategy, parts, kept in mine:
            if not matcher(strategy).seeded:
                add(strategy, parts, matching=kept, losses=parts == slug)
                if matcher(strategy).raw:
                    add(refolded(strategy), parts, matching=kept)
        for strategy, _, _ in mine:
            if matcher(strategy).seeded:
                add(strategy, slug, draws=config.random_draws, seed=config.seed)
        if config.takes(RIDGE):
            add(RIDGE, "", fitted_on=fitted_on)
        folded = matchings.get((pair, MAIN, slug))
        for q in config.quantiles if folded is not None else ():
            add(f"quantile({q:g})", slug, matching=folded, q=q)
    return found


def other_slugs(config: EvaluationConfig, slug: str, parts: Mapping[str, float]) -> list[str]:
    """Slugs of the single parts that the main strategy is measured with too."""
    if not config.other_parts:
        return []
    return [part for part in ("decoder", "encoder") if part in parts and part != slug]


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
            f"expected the SAEs that {held.path} was made of, but {changed[0]} has changed or is "
            "gone; run saematch run again"
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
        others = other_slugs(self.config, self.slug, self.run.config.parts)
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
