"""Fit the probabilities of a run to its SAEs: which pairs are the same on text, and how well that is told.

1. The model reads texts, others than the evaluation measures on; φ of every two features of every adjacent
   pair of SAEs is added up.
2. The calibration is fitted to some of the pairs (`fit_pairs`), and judged on the others, which it has not
   seen: AUC, expected calibration error, and a reliability table.  Of a run of one pair, every second feature
   is fitted to and the rest is judged on.
3. It is kept as `calibration.json`; fates and followed paths are made again by it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saematch import __version__
from saematch.configs import CalibrationConfig, EvaluationConfig
from saematch.errors import UsageError
from saematch.evaluation.fitting import passes, watch
from saematch.matching.activity import JointSums, Observed, correlation
from saematch.matching.matchers import matcher
from saematch.matching.probability import (
    DESCRIPTORS,
    SAME_PHI,
    Calibration,
    Descriptors,
    Labelled,
    expected_calibration_error,
)
from saematch.models import Documents, LanguageModel, load_corpus
from saematch.pipelines.evaluation.evaluated_run import HeldRun
from saematch.pipelines.matching.run import run as run_again
from saematch.sae import FoldedSAE
from saematch.settings import plain
from saematch.stats import auc_of_many
from saematch.store.build import Progress, hash_of, silent
from saematch.store.directory import sae_file
from saematch.store.names import CALIBRATION_NAME
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.tables import pairs_among

OFTEN = 10
"""Tokens that a feature must be active on for its φ to mean something."""
BINS = 10
"""Rows of the reliability table, of equally many pairs each."""

Pair = tuple[str, str]


def calibrate(
    directory: str | Path,
    config: CalibrationConfig,
    progress: Progress | None = None,
    model: LanguageModel | None = None,
) -> Run:
    """Fit a run's own calibration, and make its fates and followed paths again.

    `model`: one that is loaded already.  Raises UsageError for pairs that the run lacks, for SAEs without
    thresholds and for text on which no two features are the same; InputError as `evaluate` does.
    """
    with holding_run(directory) as held:
        of = HeldRun(held, open_run(directory), config, progress or silent, model)
        pairs = list(of.run.adjacent)
        fitted = pairs[::2] if config.fit_pairs is None else pairs_among(of.run, config.fit_pairs)
        if beyond := [pair for pair in fitted if pair not in pairs]:
            raise UsageError(f"expected adjacent pairs to fit to, got {','.join(beyond[0])}")
        texts = [_documents(of, name) for name in config.corpora]
        labelled = label_pairs(of.model, texts, of.saes, pairs, config.batch_tokens, of.tell)
        of.tell("fitting")
        judged = [pair for pair in pairs if pair not in fitted] or fitted
        halves = slice(0, None, 2), slice(1, None, 2)
        to, on = halves if judged == fitted else (slice(None), slice(None))
        prior = None if config.fresh else Calibration.load()
        calibration = Calibration.fit([labelled[pair].some(to) for pair in fitted], {}, prior)
        about = {
            "same": f"phi of the two on text is at least {SAME_PHI:g}",
            "fitted": {
                "suite": of.run.config.suite,
                "model": of.model_name,
                "pairs": ["--".join(pair) for pair in fitted],
                "texts": {some.corpus: len(some) for some in texts},
                "tokens": sum(some.tokens for some in texts),
                "from": "nothing" if config.fresh else "the calibration that ships",
                "saematch": __version__,
            },
            "judged": {
                "pairs": ["--".join(pair) for pair in judged],
                **judge(calibration, [labelled[pair].some(on) for pair in judged]),
            },
        }
        found = Calibration(calibration.pair, calibration.any, about)
        saes = [sae_file(held.path, key, member.sha256) for key, member in of.members.items()]
        held.keep(
            CALIBRATION_NAME,
            found.to_text().encode(),
            hash_of(stage="calibrate", config=plain(vars(config)), model=of.model_identity),
            saes,
        )
    return run_again(of.run.config, directory, progress)


def _documents(of: HeldRun, name: str) -> Documents:
    """Texts beyond those that `evaluate` measures on by default."""
    config, skipped = of.config, EvaluationConfig().documents
    of.tell(f"reading {name}")
    corpus = load_corpus(name, skipped + config.documents, config.seed, config.offline or None)
    of.note(*corpus.notes)
    rest = corpus.without(skipped)
    if not rest.texts:
        raise UsageError(
            f"expected more than {skipped} texts in {name}, the first of which evaluations are measured on, "
            f"got {len(corpus.texts)}; try another corpus"
        )
    return Documents.of(rest, of.model, config.tokens, config.documents)


def label_pairs(
    model: LanguageModel,
    texts: Sequence[Documents],
    saes: Mapping[str, FoldedSAE],
    pairs: Sequence[Pair],
    batch_tokens: int,
    tell: Callable[[str], None],
) -> dict[Pair, Labelled]:
    """What is the same on the texts, of the candidates of every pair of SAEs.

    `saes`: by key, on the model's device.
    """
    found: dict[Pair, Labelled] = {}
    for group in passes(pairs, saes, ridge=False, strategies=[matcher("phi").name]):
        used = {key: saes[key].sae for pair in group for key in pair}
        sums = {(a, b): JointSums(saes[a], saes[b], correlation, True) for a, b in group}
        for number, (rows, typical, dense) in enumerate(watch(model, texts, used, batch_tokens), 1):
            for (a, b), added in sums.items():
                to = used[b].layer
                added.add(Observed(dense(a), dense(b), rows[to], typical[to]))
            tell(f"read {number} batches of texts")
        for (a, b), added in sums.items():
            tell(f"describing the pairs of {a}--{b}")
            descriptors = Descriptors(used[a], used[b])
            found[a, b] = Labelled.of(descriptors, added.scores, added.a.cpu().numpy() >= OFTEN)
    return found


def judge(calibration: Calibration, labelled: Sequence[Labelled]) -> dict[str, Any]:
    """How well the probabilities tell what is the same, of pairs and of features with any partner."""
    told = [calibration.probabilities(one.descriptors) for one in labelled]
    pair = np.concatenate([p.ravel() for p, _ in told])
    any_ = np.concatenate([q for _, q in told])
    same = np.concatenate([one.same.ravel() for one in labelled])
    has = np.concatenate([one.any for one in labelled])
    place = DESCRIPTORS.index("decoder_cosine")
    cosine = np.concatenate([one.descriptors[..., place].ravel() for one in labelled])
    right, sure = (any_ >= 0.5) == has, np.abs(any_ - 0.5)
    groups = np.array_split(np.argsort(pair, kind="stable"), BINS)
    return {
        "candidates": len(pair),
        "same_share": same.mean(),
        "auc": auc_of_many(pair, same),
        "auc_of_cosine": auc_of_many(cosine, same),
        "calibration_error": expected_calibration_error(pair, same),
        "features": len(any_),
        "any_share": has.mean(),
        "any_auc": auc_of_many(any_, has),
        "any_calibration_error": expected_calibration_error(any_, has),
        "any_right": right.mean(),
        "any_right_of_surer_half": right[sure >= np.median(sure)].mean(),
        "reliability": [[pair[g].mean(), same[g].mean(), len(g)] for g in groups if len(g)],
    }
