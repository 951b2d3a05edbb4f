"""The report's section on what features mean."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saematch.semantics.judges.experiments import PAIR
from saematch.store.descriptions import descriptions_of
from saematch.store.judge_results import Judged, judged, labelled_sample
from saematch.store.names import DESCRIPTIONS

if TYPE_CHECKING:
    from saematch.store.reader import Run

EXAMPLES = 6
LABELS = ("different", "maybe", "same")
CONTROLS = ("control: same", "control: different")


def has_descriptions(run: "Run") -> bool:
    return bool(run.directory.current_names(DESCRIPTIONS))


def judgements(run: "Run") -> list[dict[str, Any]]:
    """One entry an experiment and judge; empty where nothing was judged."""
    return [_entry(run, one) for one in judged(run)]


def _entry(run: "Run", one: Judged) -> dict[str, Any]:
    kappas = one.results[one.results["measure"].str.startswith("kappa_")]["measure"]
    return {
        "experiment": one.experiment,
        "judge": one.judge,
        "passes_controls": one.passes_controls,
        "verdict": one.verdict,
        "source": one.about["config"]["descriptions"],
        "origin": _origin(run, one),
        "quality": [
            (name, span)
            for name, measure in (
                ("AUC of controls", "auc"),
                ("order bias", "order_bias"),
                ("labels that change with the order", "order_changed"),
                ("questions without a description", "no_description"),
                ("answers without a label", "unreadable"),
                *((f"Cohen's κ with {name.removeprefix('kappa_')}", name) for name in kappas),
            )
            if (span := one.span(measure)) is not None
        ],
        "strategies": [
            _labels(one, strategy, strategy) for strategy in (*one.strategies, *CONTROLS)
        ],
        "pairs": [
            _labels(one, f"{a} → {b}, {strategy}", strategy, a, b)
            for a, b in one.pairs
            for strategy in one.strategies
        ],
        "examples": _examples(run, one),
    }


def _labels(one: Judged, name: str, strategy: str, a: str = "", b: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "mean": one.span("mean", strategy, a, b),
        **{label: one.span(label, strategy, a, b) for label in LABELS},
    }


def _origin(run: "Run", one: Judged) -> str:
    """What the descriptions were made from."""
    for a, _ in one.pairs:
        found = descriptions_of(run, f"{one.about['config']['descriptions']}-0", a)
        if found is not None and "tokens" in found.about:
            return f"{found.about['tokens']:,} tokens of {', '.join(found.about['corpora'])}"
    return ""


def _examples(run: "Run", one: Judged) -> Sequence[dict[str, Any]]:
    """Pairs of the main strategy, evenly through their decoder MSE."""
    table = labelled_sample(run, one.experiment, one.judge)
    main = one.strategies[0] if one.strategies else ""
    table = table[(table["kind"] == PAIR) & (table["strategy"] == main) & ~table["swapped"]]
    table = table[table["label"].notna()].sort_values(["mse_decoder", "question"])
    places = [round(n * (len(table) - 1) / max(1, EXAMPLES - 1)) for n in range(EXAMPLES)]
    columns = ["a", "b", "feature", "partner", "mse_decoder", "text_a", "text_b", "label"]
    rows: list[Any] = table[columns].to_dict("records")
    return [rows[place] for place in dict.fromkeys(places)] if rows else []
