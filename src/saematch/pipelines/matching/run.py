"""`saematch run`: every stage over a whole suite, every result kept in a run directory.

1. Resolve the suite, hash the SAEs' files, say what they are in the manifest.
2. Plan: one step per output, each with the stage that makes it.  For every pair, adjacent ones first, in
   order of depth: its matchings, for non-adjacent pairs whose ends lie on one chain the compositions of
   the adjacent ones too; the measures of all these over the same features; candidates, consistency.
   Then the paths; the measures of the weights; all measures in one table.  In this order at most two
   SAEs are needed at a time and consecutive pairs share one.
3. Make the steps of the plan in order; a step whose output is there, unaltered, and was
   made from inputs of the same hash is passed over.
4. Merge the measures into one table.

`execute` calls a stage with its task and the files it reads; give another one to send stages to a
distributed engine.  Nothing is printed; `progress(done, total, what)` is told of every step.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from saematch.configs import RunConfig
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN, compositions, matcher
from saematch.matching.probability import Calibration
from saematch.pipelines.matching import stages
from saematch.pipelines.suite import Member, chains, examine, far_pairs, forget_loaded
from saematch.store.build import (
    Execute,
    Progress,
    Stage,
    Step,
    Task,
    execute_here,
    hash_of_inputs,
    make,
    silent,
)
from saematch.store.directory import RunDirectory
from saematch.store.names import (
    CALIBRATION_NAME,
    FOLLOWED_NAME,
    FROM_PLAN,
    MEASURES_NAME,
    PATHS_NAME,
    SOURCES,
    WEIGHTS_NAME,
    candidates_name,
    compared_name,
    consistency_name,
    correspondence_name,
    fates_name,
    matching_name,
    norms_name,
    weight_sources,
)
from saematch.store.reader import Run, open_run


def run(
    config: RunConfig,
    directory: str | Path,
    progress: Progress | None = None,
    execute: Execute = execute_here,
) -> Run:
    """Match a whole suite into a run directory, taking up what an earlier run left there.

    Raises UsageError for a config that does not fit the suite or a directory of something else,
    InputError for an SAE that cannot be used, a directory that another process holds, an altered
    file and a full disk.  What was finished before is kept, and the next run goes on from there.
    """
    from saematch.loading import load_suite

    tell = progress or silent
    suite = load_suite(config.suite, layers=config.layers)
    linked, left_out = chains(suite.entries)
    adjacent = [pair for keys in linked for pair in pairwise(keys)]
    far = far_pairs(config.far, suite.entries, adjacent)
    used = {key for pair in (*adjacent, *far) for key in pair}
    entries = tuple(entry for entry in suite.entries if entry.key in used)
    with RunDirectory(directory).holding() as held:
        examining = iter(range(len(entries)))
        members, saes, times = examine(
            entries,
            held.manifest,
            lambda key: tell(next(examining), len(entries), f"reading {key}"),
        )
        _check_same_run(held, config, saes)
        widths = {key: sae["d_sae"] for key, sae in saes.items()}
        calibrated = (CALIBRATION_NAME,) if held.is_current(CALIBRATION_NAME) else ()
        steps, not_done = plan(config, members, widths, linked, far, calibrated)
        held.update(
            config=config.to_dict(),
            references={entry.key: entry.reference for entry in entries},
            saes=saes,
            notes=[*suite.notes, *left_out, *not_done],
            plan=_planned(held.manifest, config, saes, steps),
            timing={**held.manifest["timing"], "files": times},
        )
        total = len(steps) + 1
        for number, step in enumerate(steps):
            tell(number, total, step.name)
            make(held, step, execute)
        forget_loaded()
        tell(total - 1, total, MEASURES_NAME)
        merge_measures(held, execute)
        tell(total, total, "done")
    return open_run(directory)


def _planned(
    before: Mapping[str, Any], config: RunConfig, saes: Mapping[str, Any], steps: Sequence[Step]
) -> dict[str, dict[str, str]]:
    """The outputs of this run's steps; those of other verbs stay as long as what decides matchings is as
    in `before`, the manifest until now, and so are the SAEs that they are of."""
    planned = {step.name: "" if step.reads else hash_of_inputs(step, []) for step in steps}
    settings = before["config"] or {}
    now = config.to_dict()
    decisive = ("parts", "scale", "unmatched_cost", "degenerate")
    same = all(settings.get(name) == now[name] for name in decisive)

    def stays(name: str) -> bool:
        keys = PurePosixPath(name).stem.split("--")
        known = before["saes"]
        return same and all(
            key in saes and key in known and saes[key]["sha256"] == known[key]["sha256"]
            for key in keys
        )

    others = {
        name: inputs
        for name, inputs in before["plan"]["others"].items()
        if stays(name) and name not in planned
    }
    return {"run": planned, "others": others}


def merge_measures(held: RunDirectory, execute: Execute = execute_here) -> bool:
    """Bring `evaluation/measures.parquet` up to date with its sources; whether it was made again.

    Sources are `evaluation/measures/*.parquet`: those from the weights of the run's pairs, and
    whatever later stages keep there, as long as every file it was made from is still the one
    recorded.  A run of an earlier saematch may lack a source from weights until it is run again.
    """
    _, details = held.table(WEIGHTS_NAME)
    sources = held.current_names(SOURCES)
    ours = [name for name in weight_sources(details["pairs"]) if name in sources]
    others = [name for name in sources if not name.startswith(FROM_PLAN)]
    return make(held, Step(MEASURES_NAME, stages.merge_sources, {}, (*ours, *others)), execute)


def _check_same_run(held: RunDirectory, config: RunConfig, saes: Mapping[str, Any]) -> None:
    before = held.manifest["config"]
    if before is None or before["suite"] == config.suite:
        return
    known = {sae["sha256"] for sae in held.manifest["saes"].values()}
    if not known & {sae["sha256"] for sae in saes.values()}:
        raise UsageError(
            f"expected a run directory of {config.suite}, got one of {before['suite']} in "
            f"{held.path}, which this run would overwrite; give another directory"
        )


def plan(
    config: RunConfig,
    members: Mapping[str, Member],
    widths: Mapping[str, int],
    chains: Sequence[Sequence[str]],
    far: Sequence[tuple[str, str]],
    calibrated: tuple[str, ...] = (),
) -> tuple[list[Step], list[str]]:
    """The steps of a run but for the merging of measures and the report, and notes on what is not
    done.

    `members` and `widths` (d_sae) are by key; `chains`: keys of adjacent SAEs in order of depth;
    `calibrated`: the run's own calibration, if it has one.
    """
    adjacent = [pair for keys in chains for pair in pairwise(keys)]
    pairs = [*adjacent, *far]
    notes: list[str] = []
    if config.unmatched_cost is not None:
        complete = [s for s in config.strategies if _price(config, s) is None]
        if complete:
            notes.append(
                f"{MAIN} leaves features unmatched at a price ({config.unmatched_cost}), and "
                f"{', '.join(complete)} match all: means are over those that all of them match"
            )
    norms = {
        key: Step(norms_name(key), stages.measure_norms, {"sae": member, "scale": config.scale})
        for key, member in members.items()
    }
    steps: list[Step] = []
    for a, b in pairs:
        steps += [norms.pop(key) for key in (a, b) if key in norms]
        ends = members[a], members[b]
        unequal = [
            strategy
            for strategy in config.strategies
            if matcher(strategy).needs_equal_widths and widths[a] != widths[b]
        ]
        matchings = [
            matching_steps(config, *ends, strategy)
            for strategy in config.strategies
            if strategy not in unequal
        ]
        if (a, b) in far:
            chain = next((keys for keys in chains if a in keys and b in keys), None)
            if chain is None:
                notes.append(
                    f"composition is not done for {a}--{b}: no chain of matchings joins them"
                )
            else:
                matchings += [
                    composition_steps(config, *ends, chain, strategy)
                    for strategy in compositions()
                    if strategy in config.strategies
                ]
        steps += [step for some in matchings for step in some]
        steps += _pair_steps(config, *ends, tuple(some[-1].name for some in matchings))
        notes += [
            f"{strategy} is not done for {a}--{b}: they have {widths[a]} and {widths[b]} features"
            for strategy in unequal
        ]
    chained = tuple(matching_name(a, b, MAIN, config.slug) for a, b in adjacent)
    lengths = [len(keys) - 1 for keys in chains]
    steps.append(Step(PATHS_NAME, stages.chain_paths, {"steps": lengths}, chained))
    shipped = "" if calibrated else Calibration.load().sha256
    for a, b in pairs:
        both = {"a": members[a], "b": members[b], "shipped": shipped}
        steps.append(Step(fates_name(a, b), stages.tell_fates, both, calibrated))
    through = [[members[key] for key in keys] for keys in chains]
    task = {"chains": through, "shipped": shipped}
    steps.append(Step(FOLLOWED_NAME, stages.follow_paths, task, calibrated))
    compared = tuple(compared_name(a, b) for a, b in pairs)
    steps.append(Step(WEIGHTS_NAME, stages.collect_measures, {"pairs": pairs}, compared))
    return steps, notes


def matching_steps(config: RunConfig, a: Member, b: Member, strategy: str) -> list[Step]:
    """A pair matched by a strategy; the table of its matching is made by the last step."""
    way, price = matcher(strategy), _price(config, strategy)
    task = {**_pair(config, a, b), "strategy": strategy}
    # Only what decides this strategy's matching: to change another setting makes nothing again.
    task |= {"seed": config.seed} if way.seeded else {}
    task |= {} if price is None else {"unmatched_cost": price}
    task |= {"degenerate": config.degenerate} if way.assigns else {}
    one, all_partners = stages.match_pair, stages.find_partners
    return _steps(config, task, all_partners if way.several else one, way.several)


def composition_steps(
    config: RunConfig, a: Member, b: Member, chain: Sequence[str], strategy: str
) -> list[Step]:
    """The composition of a strategy's matchings along a chain from a to b; its table is made by the last
    step."""
    between = chain[chain.index(a.key) : chain.index(b.key) + 1]
    reads = tuple(matching_name(*pair, strategy, config.slug) for pair in pairwise(between))
    task = {**_pair(config, a, b), "strategy": compositions()[strategy]}
    several = matcher(strategy).several
    made = stages.compose_partners if several else stages.compose_pair
    return _steps(config, task, made, several, reads)


def _steps(
    config: RunConfig, task: Task, made: Stage, several: bool, reads: tuple[str, ...] = ()
) -> list[Step]:
    """A matching by one stage or, if features have several partners, all partners by it, then the matching of
    the strongest."""
    ends = task["a"].key, task["b"].key, task["strategy"], config.slug
    if not several:
        return [Step(matching_name(*ends), made, task, reads)]
    partners = correspondence_name(*ends)
    return [
        Step(partners, made, task, reads),
        Step(matching_name(*ends), stages.measure_partners, task, (partners,)),
    ]


def _pair_steps(config: RunConfig, a: Member, b: Member, matchings: tuple[str, ...]) -> list[Step]:
    """What a pair's matchings are worth, its candidates, consistency and growth of norms."""
    pair, ends = _pair(config, a, b), (a.key, b.key)
    compared = {**pair, "seed": config.seed, "draws": config.random_draws}
    main = matching_name(*ends, MAIN, config.slug)
    both = {"a": a, "b": b}
    return [
        Step(compared_name(*ends), stages.compare_strategies, compared, matchings),
        Step(candidates_name(*ends), stages.find_candidates, {**pair, "count": config.candidates}),
        Step(consistency_name(*ends), stages.measure_consistency, {**both, "seed": config.seed}),
        Step(norms_name(*ends), stages.measure_growth, {**both, "scale": config.scale}, (main,)),
    ]


def _price(config: RunConfig, strategy: str) -> float | None:
    """The unmatched cost under a strategy: it is in units of folded weights."""
    way = matcher(strategy)
    return config.unmatched_cost if way.assigns and not way.raw else None


def _pair(config: RunConfig, a: Member, b: Member) -> dict[str, Any]:
    return {"a": a, "b": b, "parts": dict(config.parts), "scale": config.scale}
