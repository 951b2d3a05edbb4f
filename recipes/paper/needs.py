"""What repeating the paper takes, from its settings: bytes, hours, calls, money.

Bytes follow from the sizes of models and SAEs.  Hours are estimates from counts of operations and from one
measured matching on two cores; nothing here was measured on a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paper.settings import PlannedRun, Recipe, Settings, far_pairs
from saematch.matching.matchers import matcher, usual_for_judges

GIB = 1 << 30
CORPORA = 3
CORPORA_BYTES = 4 * GIB
"""Bytes of the three corpora that streaming passes through, at most."""
BYTES = {"bfloat16": 2, "float32": 4}
LOGITS_AT_ONCE = 4
"""Copies of a batch's logits in float32 that a loss takes."""
SUMS_BYTES = 4 * GIB
"""Bytes of sums held at once while maps are fitted."""
DESCRIBED_BYTES = 1 << 28
"""Bytes kept of one SAE while its features are described, at most."""
SUITE_COPIES = 6
"""Copies of one SAE: raw and folded, of both ends of a pair, and the solver's factors."""
MEASURED_SECONDS, MEASURED_SIZE = 60.0, 16_384**2 * 4609
"""All matchings of one pair on two cores: the folded one took 14 seconds (docs/results.md)."""
OPERATIONS_A_SECOND = 1e14
"""Speed of a GPU with bfloat16, as it is used here, about."""
JUDGE_PROMPT, JUDGE_REPLY = 750, 60
"""Tokens of one question to a judge and of its answer, about."""
SWAPPED = 0.2


@dataclass(frozen=True)
class Needs:
    """Needs of a whole recipe."""

    download: int
    """Bytes in the Hub's cache."""
    out: int
    """Bytes in the folder of the results."""
    gpu: int
    """Bytes on the language model's device."""
    host: int
    """Bytes of memory."""
    matching_hours: float
    """On two cores."""
    model_hours: float
    """Hours of passes of the language model on one GPU."""
    calls: int
    """Calls of a language model that judges; 0: none does."""
    money: float | None
    """For them; None: no prices were given."""


def needs_of(recipe: Recipe, runs: Sequence[PlannedRun], settings: Settings) -> Needs:
    """What these runs take together."""
    different = {sae.path for run in runs for sae in run.saes}
    model_stored = recipe.model.parameters * recipe.model.stored_bytes
    calls = (
        sum(questions(run, settings) for run in runs if run.judged_on)
        if settings.judge_model
        else 0
    )
    prices = settings.prompt_price, settings.completion_price
    money = None
    if calls and prices[0] is not None and prices[1] is not None:
        money = calls * (JUDGE_PROMPT * prices[0] + JUDGE_REPLY * prices[1]) / 1e6
    evaluated = [run for run in runs if run.evaluated]
    sums = max(_sums_of_a_corpus(recipe, run, settings) for run in evaluated)
    return Needs(
        download=len(different) * recipe.saes.bytes + model_stored + CORPORA_BYTES,
        out=sum(_out_bytes(recipe, run, settings) for run in runs),
        gpu=_gpu_bytes(recipe, evaluated, settings),
        host=4 * GIB + max(
            model_stored,
            SUITE_COPIES * recipe.saes.bytes,
            2 * CORPORA * sums,
            max(len(run.saes) for run in runs) * DESCRIBED_BYTES,
        ),
        matching_hours=sum(_matching_seconds(recipe, run, settings) for run in runs) / 3600,
        model_hours=sum(_operations(recipe, run, settings) for run in runs)
        / OPERATIONS_A_SECOND / 3600,
        calls=calls,
        money=money,
    )  # fmt: skip


def questions(run: PlannedRun, settings: Settings) -> int:
    """That a judge is asked at most in the four experiments on a run."""
    samples, controls = settings.samples, 2 * settings.controls
    layers = run.pairs * samples * (len(usual_for_judges()) + SWAPPED)
    far = len(far_pairs(settings, run.layers))
    persistence = (2 * far + 2 * len(settings.starts)) * samples * (1 + SWAPPED)
    mse = 3 * samples * (1 + SWAPPED)
    return round(layers + persistence + mse + 8 * (1 + SWAPPED)) + 4 * controls


def _conditions(run: PlannedRun, settings: Settings) -> tuple[int, int]:
    """What is measured of a pair on text: with losses, and without."""
    ways = [matcher(name) for name in run.strategies]
    interventions, refolded = 3, sum(way.raw for way in ways)
    with_losses = (
        interventions + 2 * run.fitted + len(run.strategies) + refolded + len(run.quantiles)
    )
    draws = (settings.random_draws_on_text - 1) * sum(way.seeded for way in ways)
    return with_losses, draws + 2 * run.other_parts


def _sums_of_a_corpus(recipe: Recipe, run: PlannedRun, settings: Settings) -> int:
    """Bytes of what is kept of documents: two vectors in float64 and some thousand counts each."""
    a_document = 2 * 8 * recipe.saes.d_model + 10_000
    return settings.documents * a_document * run.pairs * sum(_conditions(run, settings))


def _out_bytes(recipe: Recipe, run: PlannedRun, settings: Settings) -> int:
    d_sae = recipe.saes.d_sae
    tables = (run.pairs + len(run.far)) * d_sae * (64 * len(run.strategies) + 200)
    text = CORPORA * _sums_of_a_corpus(recipe, run, settings) if run.evaluated else 0
    described = len(run.saes) * len(run.described) * d_sae * 2500
    return tables + text + described


def _gpu_bytes(recipe: Recipe, evaluated: Sequence[PlannedRun], settings: Settings) -> int:
    model = recipe.model.parameters * BYTES[settings.dtype]
    saes = max(len(run.saes) for run in evaluated) * recipe.saes.bytes
    logits = LOGITS_AT_ONCE * 4 * settings.batch_tokens * recipe.model.vocabulary
    streams = 4 * 4 * settings.batch_tokens * recipe.saes.d_model * recipe.model.blocks
    return model + saes + max(logits, SUMS_BYTES + logits // 2) + streams


def _matching_seconds(recipe: Recipe, run: PlannedRun, settings: Settings) -> float:
    size = recipe.saes.d_sae**2 * (2 * recipe.saes.d_model + 1)
    solved = [name for name in run.strategies if matcher(name).assigns]
    one = MEASURED_SECONDS * size / MEASURED_SIZE * (len(solved) + 2) / 4
    found = one * (run.pairs * (1.5 if run.other_parts else 1) + len(run.far))
    if (
        run.judged_on and not run.far
    ):  # the judge's non-adjacent pairs are matched by the main strategy alone
        found += one / 4 * len(far_pairs(settings, run.layers))
    return found


def _operations(recipe: Recipe, run: PlannedRun, settings: Settings) -> float:
    """Operations of the language model: a whole pass, and half of one for every loss."""
    tokens = CORPORA * settings.documents * settings.tokens
    passes = 1 + run.pairs * _conditions(run, settings)[0] / 2 if run.evaluated else 0.0
    described = (
        settings.described_tokens / settings.tokens if "activations" in run.described else 0.0
    )
    return 2 * recipe.model.parameters * tokens * (passes + described)
