"""`saematch evaluate`: the run's matchings on a real language model, into the run directory.

1. Find the run's SAEs again, by the hashes that the manifest has (evaluated_run.py); match by single
   parts that `folded` is compared with.
2. Read the texts; fit what needs data, on other documents than are measured on (corpus.py).
3. Measure corpus by corpus (corpus.py).
4. One table of all; the report.

An output that is there and was made from the same inputs is not made again; where none is missing the
language model is not loaded.
"""

from pathlib import Path

from saematch.configs import EvaluationConfig
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN
from saematch.models import LanguageModel
from saematch.pipelines.evaluation import evaluated_run
from saematch.pipelines.evaluation import stages as evaluation
from saematch.pipelines.evaluation.corpus import CorpusEvaluation, Fitting, read_texts
from saematch.pipelines.evaluation.evaluated_run import EvaluatedRun
from saematch.pipelines.matching import stages
from saematch.pipelines.matching.run import merge_measures
from saematch.pipelines.suite import forget_loaded
from saematch.store.build import Progress, Step, make
from saematch.store.names import PAIR_SOURCES, PAIRS_NAME, matching_name
from saematch.store.reader import Run, holding_run, open_run
from saematch.types import parts_slug


def evaluate(
    directory: str | Path,
    config: EvaluationConfig,
    progress: Progress | None = None,
    model: LanguageModel | None = None,
) -> Run:
    """Measure a run's matchings on a language model; what an earlier call finished is kept.

    `model`: one that is loaded already; default: what the config or the SAEs name.

    Raises UsageError for pairs and strategies that the run lacks, InputError for a run without
    matchings, SAEs that changed since, a model that is not theirs, a corpus without text.
    """
    with holding_run(directory) as held:
        of = EvaluatedRun(held, open_run(directory), config, progress, model)
        _compare_parts(of)
        _measure_corpora(of)
        _merge(of)
        forget_loaded()
    return open_run(directory)


def _compare_parts(of: EvaluatedRun) -> None:
    """The main strategy by single parts."""
    for other in evaluated_run.other_slugs(of.config, of.slug, of.run.config.parts):
        for a, b in of.pairs:
            parts = ((other, 1.0),)
            assert parts_slug(dict(parts)) == other
            scale = of.run.config.scale
            ends = of.members[a], of.members[b]
            task = stages.MatchingTask(*ends, parts, scale, strategy=MAIN)
            name = matching_name(a, b, MAIN, other)
            of.tell(f"matching {a}--{b} by {other}")
            make(of.held, Step(name, stages.match_pair, task))


def _measure_corpora(of: EvaluatedRun) -> None:
    texts = [read_texts(of, name) for name in of.config.corpora]
    slugs = [evaluated_run.corpus_slug(corpus.name) for corpus, _ in texts]
    if len(set(slugs)) < len(slugs):
        raise UsageError(
            f"expected corpora of different names, got {', '.join(of.config.corpora)}; rename a file"
        )
    fitting = Fitting(of, [rest for _, rest in texts])
    fitting.fit_maps()
    for number, (corpus, _) in enumerate(texts):
        CorpusEvaluation(of, corpus, fitting, ablate=number == 0).run()


def _merge(of: EvaluatedRun) -> None:
    names = tuple(of.held.current_names(PAIR_SOURCES))
    make(of.held, Step(PAIRS_NAME, evaluation.merge_pairs, evaluation.MergePairsTask(), names))
    merge_measures(of.held)
