"""`report.html`: one self-contained page that a newcomer can read a run from.

The tables become the template's context here, section by section; all text that comes from checkpoints passes
through Jinja's escaping, and the page's script writes it as text nodes only.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from saematch.matching.matched import describe_gap
from saematch.matching.matchers import (
    COSINE,
    FOLDED,
    MAIN,
    NAIVE,
    RANDOM,
    UNFOLDED,
    compositions,
    matcher,
)
from saematch.pipelines.evaluation.summary import (
    MAIN_MEASURES,
    corpora_of,
    documents_said,
    evaluated,
    features_said,
    spanned,
    strategy_rows,
    texts_of,
)
from saematch.semantics.judges.experiments import PAIR
from saematch.store.becoming import FATES, Becomings, FateShares, becomes, fate_shares
from saematch.store.following import Step, followed_steps
from saematch.store.judge_results import Judged, judged, labelled_sample
from saematch.store.manifest import made_with, run_again
from saematch.store.names import DESCRIPTIONS, matching_name
from saematch.store.tables import descriptions_of
from saematch.text import plural, to_json
from saematch.types import Interval

if TYPE_CHECKING:
    import pandas as pd

    from saematch.store.reader import Run


EMBEDDED_STEPS = 300_000
"""Steps that the page carries for its search; a larger run's page names the command instead."""
EXAMPLE_FEATURE = 345
EXAMPLE_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def render_report(run: "Run") -> str:
    """The page as text.  The same tables give the same text: no dates, no times."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "number": number, "percent": percent, "cheaper": cheaper, "gap": describe_gap, "life": life,
        "spanned": spanned, "plural": plural, "share": share,
    }  # fmt: skip
    template = files("saematch.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(context(run))


def context(run: "Run") -> dict[str, Any]:
    """Everything that the template shows, as plain values."""
    measures = run.measures()
    adjacent = run.adjacent
    steps = followed_steps(run)
    searchable = sum(len(path) for path in steps.values()) <= EMBEDDED_STEPS
    strategies = run.config.strategies
    pairs = [pair_row(measures, a, b, strategies) for a, b in adjacent]
    told, example = fate_shares(run), example_path(run, steps)
    return {
        "suite": run.config.suite,
        "command": run_again(run.path.name, run.manifest["config"]),
        "directory": run.path.name,
        "config": run.config.to_dict(),
        "manifest": run.manifest,
        "saes": run.manifest["saes"],
        "strategies": strategies,
        "drawn": [name for name in strategies if matcher(name).seeded],
        "shared": [name for name in strategies if not matcher(name).one_to_one],
        "pairs": pairs,
        "order": ordering(measures, adjacent),
        "partial": any(row["unmatched_a"] + row["unmatched_b"] > 0 for row in pairs),
        "far": [far_row(run, a, b) for a, b in run.pairs if (a, b) not in adjacent],
        "fates": FATES,
        "told": told,
        "untold": list(dict.fromkeys(note for one in told for note in one.notes)),
        "figures": figures(run, measures, adjacent, told),
        "evaluations": evaluations(run, adjacent),
        "judgements": [_entry(run, one) for one in judged(run)],
        "described": bool(run.directory.current_names(DESCRIPTIONS)),
        "example": example,
        "becomes": becomes(run, example[0].key, example[0].feature) if example else "",
        "examples": example_paths(steps, run.chains),
        "data": embedded(run, steps) if searchable else "null",
        "searchable": searchable,
        "versions": made_with(run.manifest),
    }


def pair_row(measures: "pd.DataFrame", a: str, b: str, strategies: Sequence[str]) -> dict[str, Any]:
    """One adjacent pair: the measures of the main strategy, and the decoder MSE of every strategy."""
    here = measures[(measures["a"] == a) & (measures["b"] == b) & (measures["corpus"] == "")]
    names = zip(here["strategy"], here["measure"], strict=True)
    values = dict(zip(names, here["value"], strict=True))
    return {
        "a": a,
        "b": b,
        **{measure: value for (strategy, measure), value in values.items() if strategy == MAIN},
        "pw_mcc": values.get(("", "pw_mcc")),
        "pw_mcc_random": values.get(("", "pw_mcc_random")),
        "mse": {strategy: values.get((strategy, "mse_decoder")) for strategy in strategies},
    }


def ordering(measures: "pd.DataFrame", pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """In how many pairs one strategy's decoder MSE is below another's, as the paper expects.

    For naive against random: in how many it lies within the range of the random draws.
    """
    rows = measures[(measures["measure"] == "mse_decoder") & (measures["corpus"] == "")]
    values = {(row["strategy"], row["a"], row["b"]): row for row in rows.to_dict("records")}
    found = []
    for lower, upper in (
        (FOLDED, UNFOLDED),
        (UNFOLDED, NAIVE),
        (FOLDED, RANDOM),
        (FOLDED, COSINE),
        (NAIVE, RANDOM),
    ):
        inside = (lower, upper) == (NAIVE, RANDOM)
        both = [
            (values[lower, *pair]["value"], values[upper, *pair])
            for pair in pairs
            if (lower, *pair) in values and (upper, *pair) in values
        ]
        holds = [y["low"] <= x <= y["high"] if inside else x < y["value"] for x, y in both]
        if both:
            found.append(
                {
                    "lower": lower,
                    "upper": upper,
                    "inside": inside,
                    "holds": sum(holds),
                    "of": len(both),
                }
            )
    return found


def far_row(run: "Run", a: str, b: str) -> dict[str, Any]:
    """Exact matching of a distant pair and the composition of the steps between, on the same features."""
    exact = run.matching_table(a, b)
    same = (exact["status"] == "live") & (exact["partner"] >= 0)
    row: dict[str, Any] = {"a": a, "b": b}
    composition = compositions()[MAIN]
    if run.directory.is_current(matching_name(a, b, composition, run.config.slug)):
        composed = run.matching_table(a, b, composition)
        same &= composed["partner"] >= 0
        row["composition"] = float(composed["mse_decoder"][same].mean())
        row["agreement"] = float((exact["partner"] == composed["partner"])[same].mean())
    return row | {"exact": float(exact["mse_decoder"][same].mean()), "compared": int(same.sum())}


def figures(
    run: "Run",
    measures: "pd.DataFrame",
    pairs: Sequence[tuple[str, str]],
    told: list[FateShares],
) -> dict[str, str]:
    """The page's figures as <svg> elements."""
    from markupsafe import Markup

    from saematch.figures import (
        certain_share,
        cost_distribution,
        fates_by_pair,
        mse_by_pair,
        to_svg,
    )
    from saematch.figures.data import live_rows

    costs = {pair: live_rows(run.matching_table(*pair))["cost"].to_numpy() for pair in pairs}
    drawn = {
        "mse": mse_by_pair(measures, pairs),
        "costs": cost_distribution(costs),
        "certain": certain_share(measures, pairs),
    }
    if any(one.shares for one in told):
        drawn["fates"] = fates_by_pair(told)
    return {name: Markup(to_svg(figure)) for name, figure in drawn.items()}


def example_path(run: "Run", steps: Mapping[int, Sequence[Step]]) -> list[Step]:
    """The path that the page opens with: through feature 345 of the first SAE where it has one."""
    first = run.chains[0][0]
    wanted = min(EXAMPLE_FEATURE, run.manifest["saes"][first]["d_sae"] - 1)
    for path in steps.values():
        if (path[0].key, path[0].feature) == (first, wanted):
            return list(path)
    return []


def example_paths(
    steps: Mapping[int, Sequence[Step]], chains: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Whole paths of live features, from the cheapest to the most costly, at fixed quantiles of cost."""
    chosen = []
    for chain in chains:
        whole = [
            (sum(step.cost or 0.0 for step in path), path)
            for path in steps.values()
            if tuple(step.key for step in path) == tuple(chain)
            and all(step.status == "live" for step in path)
        ]
        whole.sort(key=itemgetter(0))
        for quantile in EXAMPLE_QUANTILES if whole else ():
            total, path = whole[round(quantile * (len(whole) - 1))]
            chosen.append({"quantile": quantile, "of": len(whole), "cost": total, "steps": path})
    return chosen


def embedded(run: "Run", steps: Mapping[int, Sequence[Step]]) -> str:
    """The page's search data as JSON that is safe inside a <script> element."""
    keys = list(run.keys)
    position = {key: number for number, key in enumerate(keys)}

    def row(step: Step) -> list[Any]:
        values = (step.cost, step.quantile, step.cosine, step.margin, step.extra_cost)
        cost, quantile, cosine, margin, extra = (_short(value) for value in values)
        return [
            position[step.key], step.feature, step.status, cost, quantile, cosine, margin,
            int(step.certain), step.runner_up, extra, list(step.warnings), life(step),
            _short(step.runner_up_cosine), step.runner_up_status,
        ]  # fmt: skip

    becomings, widths = (
        Becomings(run),
        {key: sae["d_sae"] for key, sae in run.manifest["saes"].items()},
    )
    data = {
        "keys": keys,
        "paths": [[row(step) for step in path] for path in steps.values()],
        "becomes": [
            [one.sentence for one in becomings.of(key, range(widths[key])).values()] for key in keys
        ],
    }
    return to_json(data, compact=True).replace("<", "\\u003c")


def life(step: Step) -> str:
    """What a reader should know of a path's ends, in words; '' if there is nothing to say."""
    said = ("born here" if step.born else "", "dies here" if step.dies else "")
    return ", ".join(filter(None, said))


def number(value: Any) -> str:
    """Four significant digits; a dash if there is no value."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.4g}"


def percent(value: Any) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.0%}"


def share(span: Interval | None) -> str:
    """A share with its interval in per cent; a dash if there is none."""
    if span is None or not np.isfinite(span.value):
        return "–"
    if span.low is None or span.high is None:
        return f"{span.value:.0%}"
    return f"{span.value:.0%} [{100 * span.low:.0f}, {100 * span.high:.0f}]"


def cheaper(quantile: float) -> str:
    """The share of pairs that cost more, rounded down: nothing is cheaper than all of them."""
    return f"{int(100 * (1 - quantile))}%"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def evaluations(run: "Run", adjacent: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """One entry per corpus; empty where nothing was evaluated."""
    from markupsafe import Markup

    from saematch.figures import measured_by_pair, to_svg

    measures = evaluated(run)
    slug = run.config.slug
    found = []
    for corpus, about in corpora_of(run).items():
        here = measures[measures["corpus"] == corpus]
        if here.empty:
            continue  # of matchings that were made again since
        main = here[here["parts"].isin(["", slug])]
        read = main[main["a"] == main["b"]]
        texts = texts_of(run, corpus)
        pairs = [pair for pair in map(tuple, about["pairs"]) if pair in adjacent]
        found.append(
            {
                "corpus": corpus,
                "origin": about["origin"],
                "model": about["model"]["name"],
                "texts": texts,
                "documents": documents_said(texts, int(read["documents"].max())),
                "tokens": int(read["tokens"].max()),
                "features": features_said(main),
                "notes": about["notes"],
                "figure": Markup(to_svg(measured_by_pair(main, pairs))),
                "pairs": [_pair(main, *pair) for pair in pairs],
                "labels": [short for short, _ in MAIN_MEASURES.values()],
                "strategies": [
                    (name, [spanned(Interval(values.get(m, np.nan))) for m in MAIN_MEASURES])
                    for name, values in strategy_rows(here)
                ],
            }
        )
    return found


def _pair(measures: Any, a: str, b: str) -> dict[str, Any]:
    rows = measures[(measures["a"] == a) & (measures["b"] == b) & (measures["strategy"] == MAIN)]
    spans: dict[str, Any] = dict.fromkeys(MAIN_MEASURES)
    for row in rows.to_dict("records"):
        spans[row["measure"]] = Interval(row["value"], row["low"], row["high"])
    return {"a": a, "b": b, **spans}


EXAMPLES = 6
LABELS = ("different", "maybe", "same")
CONTROLS = ("control: same", "control: different")


def _entry(run: "Run", one: Judged) -> dict[str, Any]:
    """One experiment's results by one judge."""
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
