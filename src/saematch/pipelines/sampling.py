"""The questions of an experiment, from a run's matchings and descriptions.

A pair of features is described from different halves of the documents, so that the two do not look alike
for being seen in the same places; a feature is its own control from the two halves.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.configs import STRATA, JudgeConfig
from saematch.errors import InputError, UsageError
from saematch.matching.matched import Matching
from saematch.matching.matchers import MAIN, compositions
from saematch.semantics.descriptions.describing import HALVES, half_source
from saematch.semantics.judges.experiments import (
    CALIBRATION,
    SAME,
    Compared,
    also_swapped,
    controls_of,
    pairs_of,
    partners_of,
)
from saematch.store.manifest import describing
from saematch.store.names import descriptions_name
from saematch.store.reader import Run
from saematch.store.tables import described, descriptions_of, pairs_among

Pair = tuple[str, str]
_Ends = tuple[np.ndarray, np.ndarray]
"""Features of the one SAE and of the other."""
MatchingOf = Callable[[Pair, str], Matching | None]
"""A run's matching of a pair by a strategy; None where it has none."""
MSE_PAIRS = 3
MSE_STRATA = 10
EXAMPLES = 8
CALIBRATION_PAIRS = 200
"""Controls of each kind that thresholds are set on."""
EXACT, COMPOSITION = "exact", compositions()[MAIN]


def persistence_pairs(run: Run, config: JudgeConfig) -> list[Pair]:
    """From each start to every later SAE of its chain."""
    found: list[Pair] = []
    for keys in run.chains:
        last = len(keys) - 1
        usual = [keys[place] for place in dict.fromkeys((0, len(keys) // 4, len(keys) // 2))]
        starts = usual if config.starts is None else [run.key(one) for one in config.starts]
        for start in starts:
            if start in keys[:last]:
                place = keys.index(start)
                found += [(start, later) for later in keys[place + 1 :]]
    if not found:
        raise UsageError(
            f"expected layers with later ones to start from, got {', '.join(config.starts or ())}"
        )
    return found


def pairs_for(run: Run, config: JudgeConfig) -> list[Pair]:
    """The pairs of SAEs that an experiment is about."""
    if config.experiment == "persistence":
        return persistence_pairs(run, config)
    if config.pairs is not None:
        return pairs_among(run, config.pairs)
    adjacent = list(run.adjacent)
    if config.experiment == "mse":
        places = np.linspace(0, len(adjacent) - 1, MSE_PAIRS).round().astype(int)
        return [adjacent[place] for place in dict.fromkeys(places.tolist())]
    return adjacent[-1:] if config.experiment == "examples" else adjacent


def compared_features(run: Run, config: JudgeConfig, matching: MatchingOf) -> list[Compared]:
    """The sample: pairs, those asked the other way round, controls and calibration pairs."""
    generator = np.random.default_rng(config.seed)
    pairs = pairs_for(run, config)
    found: list[Compared] = []
    for pair in pairs:
        found += _pairs(pair, config, matching, generator)
    main = COMPOSITION if config.experiment == "persistence" else MAIN
    found += also_swapped(found, main, config.swapped, generator)
    each = -(-config.controls // len(pairs))
    for pair in pairs:
        _, of_controls = _set_aside(pair, config.seed, matching)
        found += controls_of(*pair, *of_controls, each, generator)
    return found + _calibration(run, config, matching)


def _calibration(run: Run, config: JudgeConfig, matching: MatchingOf) -> list[Compared]:
    """The same in every experiment, so that the same thresholds judge all of them."""
    generator = np.random.default_rng([config.seed, 1])
    pairs = run.adjacent
    each = -(-CALIBRATION_PAIRS // len(pairs))
    found = []
    for pair in pairs:
        of_calibration, _ = _set_aside(pair, config.seed, matching)
        found += controls_of(*pair, *of_calibration, each, generator, CALIBRATION)
    return found


def _set_aside(pair: Pair, seed: int, matching: MatchingOf) -> tuple[_Ends, _Ends]:
    """Live features of both SAEs for calibration, and for controls; none is in both, in any pair."""
    folded = _main(pair, matching)
    (calibration_a, controls_a), (calibration_b, controls_b) = (
        np.array_split(
            np.random.default_rng([seed, *key.encode()]).permutation(
                np.flatnonzero(side.status == "live")
            ),
            2,
        )
        for key, side in zip(pair, (folded.a, folded.b), strict=True)
    )
    return (calibration_a, calibration_b), (controls_a, controls_b)


def _pairs(
    pair: Pair, config: JudgeConfig, matching: MatchingOf, generator: np.random.Generator
) -> list[Compared]:
    if config.experiment == "persistence":
        named = {COMPOSITION: (COMPOSITION, MAIN), EXACT: (MAIN,)}
        ways = {
            name: next(one for way in some if (one := matching(pair, way)) is not None)
            for name, some in named.items()
        }
        # The same features of a start for all its targets, whatever they cost there.
        start = np.random.default_rng([config.seed, *pair[0].encode()])
        live = start.permutation(np.flatnonzero(ways[EXACT].a.status == "live"))
        chosen = [(int(feature), 0) for feature in np.sort(live[: config.samples])]
        return partners_of(*pair, ways, chosen)
    folded = _main(pair, matching)
    if config.experiment == "layers":
        others = {name: matching(pair, name) for name in config.strategies if name != MAIN}
        ways = {MAIN: folded} | {k: m for k, m in others.items() if m is not None}
        return pairs_of(*pair, ways, config.samples, generator, STRATA)
    count, strata = (
        (EXAMPLES, EXAMPLES) if config.experiment == "examples" else (config.samples, MSE_STRATA)
    )
    return pairs_of(*pair, {MAIN: folded}, count, generator, strata, "mse_decoder")


def _main(pair: Pair, matching: MatchingOf) -> Matching:
    found = matching(pair, MAIN)
    if found is None:
        raise InputError(
            f"expected the {MAIN} matching of {pair[0]}--{pair[1]}, got none; run saematch run again"
        )
    return found


def with_texts(
    run: Run, config: JudgeConfig, sample: Sequence[Compared]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of `judging/{experiment}/sample.parquet`, and the tables that the texts are from.

    Raises InputError where an SAE of the sample has no descriptions from that source (one that only
    calibration pairs are of may be without), where they are of examples that changed since, or of several
    writers.
    """
    ends = [(key, one.kind.startswith(CALIBRATION)) for one in sample for key in (one.a, one.b)]
    asked = {key for key, calibrates in ends if not calibrates}
    texts = _texts_of(run, config.descriptions, dict.fromkeys(key for key, _ in ends), asked)
    rows = []
    for number, one in enumerate(sample):
        itself = one.kind.removeprefix(CALIBRATION) == SAME
        partners = texts[one.b].again if itself else texts[one.b].second
        text_a, text_b = texts[one.a].first.get(one.feature), partners.get(one.partner)
        rows.append({**vars(one), "question": number, "text_a": text_a, "text_b": text_b})
    return rows, [name for of in texts.values() for name in of.tables]


def _texts_of(run: Run, source: str, keys: Iterable[str], asked: Set[str]) -> dict[str, "_Texts"]:
    """By key.  `asked`: those that a judge is asked about; others may have no texts."""
    there = {key: _Texts.of(run, source, key) for key in keys}
    again = describing(run.path, source)
    writers = {}
    for key, found in there.items():
        if key not in asked:
            continue
        if found is None:
            names = (*_halves(source, key), descriptions_name(source, key))
            if stale := [name for name in names if run.directory.record(name) is not None]:
                raise InputError(
                    f"{stale[0]} no longer describes the stored examples: these have "
                    f"changed since; make it again with {again}"
                )
            sources = sorted({name for _, name in described(run)})
            raise InputError(
                f"expected descriptions of the features of {key} from {source}, got "
                f"{', '.join(sources) or 'none'}; make them with: {again}"
            )
        writers[found.writer] = key
    if len(writers) > 1:
        said = ", ".join(f"those of {key} by {writer[0]}" for writer, key in writers.items())
        raise InputError(
            f"expected descriptions by one writer, got {said}; let one describe all of the sample with "
            f"{again}"
        )
    return {
        key: found if found is not None and found.writer in writers else _Texts({}, {}, {})
        for key, found in there.items()
    }


@dataclass(frozen=True)
class _Texts:
    """Texts of one SAE's features, by feature."""

    first: Mapping[int, str]
    """Description of the first feature of two."""
    second: Mapping[int, str]
    """Description of the second of two."""
    again: Mapping[int, str]
    """Description of a feature that is compared with itself: from other examples, or by another explainer."""
    tables: Sequence[str] = ()
    """That they are from."""
    writer: tuple[str, str] = ("", "")
    """The model that wrote them and the key of its settings, where one did."""

    @classmethod
    def of(cls, run: Run, source: str, key: str) -> "_Texts | None":
        """From either half of the documents, or else from all of them; None if there are none."""
        halves = [half_source(source, half) for half in range(HALVES)]
        first, second = (descriptions_of(run, half, key) for half in halves)
        if first is not None and second is not None:
            tables = _halves(source, key)
            about = first.about
            writer = (about["model"], about["explainer"]) if "explainer" in about else ("", "")
            return cls(first.texts, second.texts, second.texts, tables, writer)
        one = descriptions_of(run, source, key)
        if one is None:
            return None
        several: dict[int, list[str]] = {}
        for description in one.descriptions:
            several.setdefault(description.feature, []).append(description.text)
        again = {feature: texts[1] for feature, texts in several.items() if len(texts) > 1}
        return cls(one.texts, one.texts, again, [descriptions_name(source, key)])


def _halves(source: str, key: str) -> list[str]:
    """The tables of what was made from either half of the documents."""
    return [descriptions_name(half_source(source, half), key) for half in range(HALVES)]
