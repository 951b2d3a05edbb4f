"""What a run makes, in order: one step an output, each with the stage that makes it.

1. For every pair, adjacent ones first, in order of depth: its matchings, for non-adjacent pairs whose ends
   lie on one chain the compositions of the adjacent ones too; the measures of all these over the same
   features; candidates, consistency.
2. The paths; the measures of the weights; all measures in one table.

In this order at most two SAEs are needed at a time and consecutive pairs share one.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from saematch.configs.run import RunConfig
from saematch.matching.registry import MAIN, compositions, matcher
from saematch.pipelines.matching import norms as norm_stages
from saematch.pipelines.matching import stages
from saematch.pipelines.suite import Member
from saematch.store.build import Output, Step
from saematch.store.names import (
    PATHS_NAME,
    WEIGHTS_NAME,
    candidates_name,
    compared_name,
    consistency_name,
    correspondence_name,
    matching_name,
    norms_name,
)


def plan(
    config: RunConfig,
    members: Mapping[str, Member],
    widths: Mapping[str, int],
    chains: Sequence[Sequence[str]],
    far: Sequence[tuple[str, str]],
) -> tuple[list[Step], list[str]]:
    """The steps of a run but for the merging of measures and the report, and notes on what is not
    done.

    `members` and `widths` (d_sae) are by key; `chains`: keys of adjacent SAEs in order of depth.
    """
    adjacent = [pair for keys in chains for pair in pairwise(keys)]
    steps: list[Step] = []
    notes: list[str] = []
    measured: set[str] = set()
    if config.unmatched_cost is not None:
        complete = [s for s in config.strategies if _price(config, s) is None]
        if complete:
            notes.append(
                f"{MAIN} leaves features unmatched at a price ({config.unmatched_cost}), and "
                f"{', '.join(complete)} match all: means are over those that all of them match"
            )
    for a, b in [*adjacent, *far]:
        for key in (a, b):
            if key not in measured:
                norms = norm_stages.NormsTask(members[key], config.scale)
                steps.append(Step(norms_name(key), norm_stages.measure_norms, norms))
                measured.add(key)
        ends = members[a], members[b]
        matchings = [
            matching_steps(config, *ends, strategy)
            for strategy in config.strategies
            if widths[a] == widths[b] or not matcher(strategy).needs_equal_widths
        ]
        if (a, b) in far:
            matchings += _composition_steps(config, *ends, chains, notes)
        steps += [
            *(step for some in matchings for step in some),
            _comparison_step(config, *ends, matchings),
            *_pair_steps(config, *ends),
        ]
        notes += [
            f"{strategy} is not done for {a}--{b}: they have {widths[a]} and {widths[b]} features"
            for strategy in config.strategies
            if matcher(strategy).needs_equal_widths and widths[a] != widths[b]
        ]
    paths = stages.PathsTask(tuple(len(keys) - 1 for keys in chains))
    chained = tuple(matching_name(a, b, MAIN, config.slug) for a, b in adjacent)
    steps.append(Step(PATHS_NAME, stages.chain_paths, paths, chained))
    weights = stages.WeightsTask((*adjacent, *far))
    compared = tuple(compared_name(a, b) for a, b in (*adjacent, *far))
    steps.append(Step(WEIGHTS_NAME, stages.collect_measures, weights, compared))
    return steps, notes


def matching_steps(config: RunConfig, a: Member, b: Member, strategy: str) -> list[Step]:
    """A pair matched by a strategy; the table of its matching is made by the last step."""
    way = matcher(strategy)
    task = stages.MatchingTask(
        **_pair(config, a, b),
        strategy=strategy,
        seed=config.seed if way.seeded else 0,
        unmatched_cost=_price(config, strategy),
        degenerate=config.degenerate,
    )
    if way.several:
        return _with_partners(config, task, stages.find_partners, ())
    return [Step(matching_name(a.key, b.key, strategy, config.slug), stages.match_pair, task)]


def composition_steps(
    config: RunConfig, a: Member, b: Member, chain: Sequence[str], strategy: str
) -> list[Step]:
    """The composition of a strategy's matchings along a chain from a to b; its table is made by the last
    step."""
    between = chain[chain.index(a.key) : chain.index(b.key) + 1]
    reads = tuple(matching_name(*pair, strategy, config.slug) for pair in pairwise(between))
    composition = compositions()[strategy]
    task = stages.CompositionTask(**_pair(config, a, b), strategy=composition)
    if matcher(strategy).several:
        return _with_partners(config, task, stages.compose_partners, reads)
    name = matching_name(a.key, b.key, composition, config.slug)
    return [Step(name, stages.compose_pair, task, reads)]


def _with_partners(
    config: RunConfig,
    task: stages.MatchingTask | stages.CompositionTask,
    stage: Callable[..., Output],
    reads: tuple[str, ...],
) -> list[Step]:
    """All partners by `stage`, then the matching of the strongest."""
    ends = task.a.key, task.b.key, task.strategy, config.slug
    partners = correspondence_name(*ends)
    return [
        Step(partners, stage, task, reads),
        Step(matching_name(*ends), stages.measure_partners, task, (partners,)),
    ]


def _composition_steps(
    config: RunConfig, a: Member, b: Member, chains: Sequence[Sequence[str]], notes: list[str]
) -> list[list[Step]]:
    chain = next((keys for keys in chains if a.key in keys and b.key in keys), None)
    if chain is None:
        notes.append(
            f"composition is not done for {a.key}--{b.key}: no chain of matchings joins them"
        )
        return []
    return [
        composition_steps(config, a, b, chain, strategy)
        for strategy in compositions()
        if strategy in config.strategies
    ]


def _comparison_step(
    config: RunConfig, a: Member, b: Member, matchings: Sequence[Sequence[Step]]
) -> Step:
    task = stages.ComparisonTask(**_pair(config, a, b), seed=config.seed, draws=config.random_draws)
    reads = tuple(steps[-1].name for steps in matchings)
    return Step(compared_name(a.key, b.key), stages.compare_strategies, task, reads)


def _pair_steps(config: RunConfig, a: Member, b: Member) -> list[Step]:
    steps = []
    candidates = stages.CandidatesTask(**_pair(config, a, b), count=config.candidates)
    steps.append(Step(candidates_name(a.key, b.key), stages.find_candidates, candidates))
    consistency = stages.ConsistencyTask(a, b, config.seed)
    steps.append(Step(consistency_name(a.key, b.key), stages.measure_consistency, consistency))
    growth = norm_stages.NormGrowthTask(a, b, config.scale)
    matching = matching_name(a.key, b.key, MAIN, config.slug)
    steps.append(Step(norms_name(a.key, b.key), norm_stages.measure_growth, growth, (matching,)))
    return steps


def _price(config: RunConfig, strategy: str) -> float | str | None:
    """The unmatched cost under a strategy: a number is in units of folded weights."""
    way = matcher(strategy)
    if way.assigns and (not way.raw or config.unmatched_cost == "auto"):
        return config.unmatched_cost
    return None


def _pair(config: RunConfig, a: Member, b: Member) -> dict[str, Any]:
    return {"a": a, "b": b, "parts": tuple(config.parts.items()), "scale": config.scale}
