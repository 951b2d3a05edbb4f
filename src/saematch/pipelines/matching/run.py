"""`saematch run`: every stage over a whole suite, every result kept in a run directory.

1. Resolve the suite, hash the SAEs' files, say what they are in the manifest.
2. Make the steps of the plan (plan.py) in order; a step whose output is there, unaltered, and was
   made from inputs of the same hash is passed over.
3. Merge the measures into one table.

`execute` calls a stage with its task and the files it reads; give another one to send stages to a
distributed engine.  Nothing is printed; `progress(done, total, what)` is told of every step.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from saematch.configs.run import RunConfig
from saematch.errors import UsageError
from saematch.pipelines.checkpoints import examine
from saematch.pipelines.matching.plan import plan
from saematch.pipelines.matching.stages import MergeTask, merge_sources
from saematch.pipelines.suite import chains, far_pairs, forget_loaded
from saematch.store.build import Execute, Progress, Step, execute_here, hash_of_inputs, make
from saematch.store.directory import RunDirectory
from saematch.store.names import FROM_PLAN, MEASURES_NAME, SOURCES, WEIGHTS_NAME, weight_sources
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

    def tell(done: int, total: int, what: str) -> None:
        if progress is not None:
            progress(done, total, what)

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
        steps, not_done = plan(config, members, widths, linked, far)
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
    return make(held, Step(MEASURES_NAME, merge_sources, MergeTask(), (*ours, *others)), execute)


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
