"""One pair of SAEs on a language model, without a run directory; and whether they are of that model."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.evaluation.collecting import (
    Collected,
    Pair,
    PairInputs,
    collect,
    conditions_of,
    on_device,
)
from saematch.evaluation.fitting import fit, fitting_documents
from saematch.evaluation.interventions import LinearMap
from saematch.evaluation.measuring import MEASURE_COLUMNS, CorpusMeasures
from saematch.loading.model_names import same_model
from saematch.matching.match import folded as fold
from saematch.matching.match import match, measure
from saematch.matching.matchers import MAIN, matchers, registered_names, usual_in_runs
from saematch.models import Documents, LanguageModel, load_corpus, load_language_model
from saematch.sae import SAE, FoldedSAE
from saematch.types import PARTS, RANDOM_DRAWS, RIDGE, ScaleKind

if TYPE_CHECKING:
    import pandas as pd


FIT_DOCUMENTS_A_DIMENSION = 1 / 16
"""Other documents to fetch for every dimension of the stream, where something is fitted."""


def evaluate(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    *,
    model: LanguageModel | str | None = None,
    corpora: Sequence[str] = ("web",),
    documents: int = 12,
    tokens: int = 256,
    strategies: Sequence[str] | None = None,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    scale: ScaleKind | None = None,
    quantiles: Sequence[float] = (),
    random_draws: int = RANDOM_DRAWS,
    batch_tokens: int = 2048,
    seed: int = 0,
    offline: bool | None = None,
) -> "pd.DataFrame":
    """Measure a pair on the language model: one row per measure, corpus and strategy, with 95% intervals.

    The columns are those of `evaluation/measures.parquet` (docs/run-directory.md).  `model`: one that is
    loaded, a name on the Hub, a path; default: the model that A records.  `strategies`: of `folded`,
    `unfolded`, `naive`, `random`, `cosine` (None: these), of other matchers, and of `ridge`; what needs
    text is fitted to other documents of the same corpora.  Two SAEs of one layer are compared on that
    layer's stream.
    `attrs["notes"]` of the table says what a reader should know: records that were left out, a BOS that
    differs, texts cut into pieces.

    Raises InputError where SAEs and model do not belong together, UsageError for unknown strategies.
    """
    import pandas as pd

    notes: list[str] = []
    found = measure_pair(
        a,
        b,
        model=model,
        corpora=corpora,
        documents=documents,
        tokens=tokens,
        strategies=usual_in_runs() if strategies is None else strategies,
        parts=parts,
        scale=scale,
        quantiles=quantiles,
        random_draws=random_draws,
        batch_tokens=batch_tokens,
        seed=seed,
        offline=offline,
        notes=notes,
    )
    rows: list[Any] = [row for one in found for row in one.rows()]
    table = pd.DataFrame(rows, columns=pd.Index(MEASURE_COLUMNS))
    table.attrs["notes"] = list(dict.fromkeys(notes))
    return table


def measure_pair(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    *,
    model: LanguageModel | str | None,
    corpora: Sequence[str],
    documents: int,
    tokens: int,
    strategies: Sequence[str],
    parts: Sequence[str] | Mapping[str, float],
    scale: ScaleKind | None,
    quantiles: Sequence[float],
    random_draws: int,
    batch_tokens: int,
    seed: int,
    offline: bool | None,
    notes: list[str],
) -> list[CorpusMeasures]:
    """What `evaluate` makes its rows of, by corpus; `notes` gains what a reader should know."""
    strategies = registered_names(strategies)
    known = (*(one.name for one in matchers()), RIDGE)
    unknown = [one for one in strategies if one not in known]
    if unknown or MAIN not in strategies:
        raise UsageError(
            f"expected strategies among {', '.join(known)}, {MAIN} with them, got "
            f"{', '.join(strategies)}"
        )
    folded_a, folded_b = both = fold(a, scale), fold(b, scale)
    pair = keys_of(folded_a.sae, folded_b.sae)
    model = model or folded_a.sae.model_name
    if model is None:
        raise UsageError("the SAE records no language model; give `model`")
    language_model = load_language_model(model) if isinstance(model, str) else model
    notes += check_belongs(language_model, [one.sae for one in both])
    on = {key: on_device(one, language_model.device) for key, one in zip(pair, both)}
    saes = {key: one.sae for key, one in on.items()}

    taken = [one for one in matchers() if one.name in strategies]
    fitted = [one.name for one in taken if one.needs_data]
    ridge = RIDGE in strategies
    more = int(FIT_DOCUMENTS_A_DIMENSION * folded_a.d_model) if fitted or ridge else 0
    texts = [load_corpus(name, documents + more, seed, offline) for name in corpora]
    others = [one.without(documents) for one in texts]
    equal = folded_a.d_sae == folded_b.d_sae
    matchings = {
        one.name: match(folded_a, folded_b, parts=parts, strategy=one.name)
        for one in taken
        if not one.seeded and not one.needs_data and (equal or not one.needs_equal_widths)
    }
    ridges: dict[Pair, LinearMap] = {}
    if fitted or ridge:
        fit_to = fitting_documents(others, language_model)
        ridges, maps, unfitted = fit(
            language_model, fit_to, on, [pair], batch_tokens, ridge=ridge, strategies=fitted
        )
        notes += unfitted
        for (_, strategy), found in maps.items():
            matchings[strategy] = measure(folded_a, folded_b, found, parts=parts, strategy=strategy)
    slug = "+".join(matchings[MAIN].parts)
    inputs = PairInputs(on[pair[0]], on[pair[1]], slug, matchings, ridge=ridges.get(pair))
    drawn = [one.name for one in taken if one.seeded]
    every = conditions_of(inputs, drawn=drawn, draws=random_draws, seed=seed, quantiles=quantiles)
    widths = {key: one.d_sae for key, one in on.items()}
    measured = []
    for corpus in texts:
        some = Documents.of(corpus.first(documents), language_model, tokens, documents)
        notes += [*corpus.notes, *some.notes(documents)]
        parts_of = list(collect(language_model, some, saes, {pair: every}, batch_tokens))
        measured.append(CorpusMeasures(corpus.name, Collected.joined(parts_of), widths, seed))
    return measured


def keys_of(a: SAE, b: SAE) -> tuple[str, str]:
    """Keys of the two, told apart where they are the same."""
    return (a.key, b.key) if a.key != b.key else (f"{a.key}.a", f"{b.key}.b")


def check_belongs(model: LanguageModel, saes: Sequence[SAE], any_model: bool = False) -> list[str]:
    """Notes on what differs but may be meant; raises InputError where SAEs and model cannot go
    together: width, depth, another model's name (unless `any_model`), SAEs of centred weights."""
    notes: list[str] = []
    for sae in saes:
        what = sae.reference or f"the SAE of layer {sae.key}"
        other = "name the model that the SAEs were trained on"
        if sae.d_model != model.d_model:
            raise InputError(
                f"expected a model of d_model {sae.d_model} for {what}, got {model.d_model} in "
                f"{model.name}; {other}"
            )
        if sae.layer >= model.n_blocks:
            raise InputError(
                f"expected a block {sae.layer} for {what}, got {model.n_blocks} blocks in "
                f"{model.name}; {other}"
            )
        if sae.centred:
            raise UnsupportedError(
                f"expected SAEs of the model's own residual stream, got {what}, which was trained on "
                "centred weights (TransformerLens); saematch evaluates uncentred models alone"
            )
        if sae.model_name and not any_model and not same_model(sae.model_name, model.name):
            raise InputError(
                f"expected {sae.model_name}, on which {what} was trained, got {model.name}; "
                "name that model, or allow any model (any_model) if they are the same weights"
            )
        recorded = sae.metadata.get("model_weights_sha256")
        if recorded and model.weights_sha256 != recorded:
            found = "of others" if model.weights_sha256 else "not known"
            notes.append(
                f"{sae.key} was trained on weights of sha256 {str(recorded)[:12]}…, those of "
                f"{model.name} are {found}: numbers may differ a little"
            )
        trained_bos = sae.metadata.get("bos_token_id")
        if trained_bos is not None and trained_bos != model.bos_token_id:
            notes.append(
                f"{sae.key} was trained with BOS {trained_bos}, the tokenizer's is {model.bos_token_id}"
            )
    if model.bos_token_id is None:
        notes.append("the tokenizer has no BOS: the first token of each document takes its part")
    return notes
