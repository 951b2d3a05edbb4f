"""What an evaluation has to find out: one output for each corpus, pair and strategy.

The names and the hashes of their inputs follow from the run's manifest, the settings and the texts,
so that finished outputs are known without loading a language model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saematch.configs.evaluation import EvaluationConfig
from saematch.evaluation.collecting import Pair
from saematch.evaluation.names import INTERVENTIONS, RIDGE, is_refolded, refolded
from saematch.matching.registry import MAIN, matcher
from saematch.pipelines.suite import Member
from saematch.store.build import hash_of
from saematch.store.directory import KeptFile

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
