"""What people see of descriptions and judgements on the terminal."""

import json
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from saematch.display import CONSOLE, new_table
from saematch.run.described import Described, described
from saematch.run.evaluation_summary import spanned
from saematch.run.judged import Judged, judged_by

if TYPE_CHECKING:
    from saematch.run import Run
    from saematch.run.judging import Intent


def described_json(run: "Run") -> dict[str, Any]:
    """What `saematch describe --json` prints."""
    return {
        "saes": [
            {"sae": key, "source": source, "described": found.count, "about": dict(found.about)}
            for (key, source), found in described(run).items()
        ]
    }


def described_summary(run: "Run") -> None:
    """A line an SAE and source, and an example of each; descriptions from halves are left out."""
    rows = new_table("SAE", "source", "described", "of", "tokens read")
    examples = []
    for (key, source), found in described(run).items():
        if source[-2:] in ("-0", "-1"):
            continue
        size = run.manifest["saes"][key]["d_sae"]
        tokens = found.about.get("tokens")
        rows.add_row(
            escape(key),
            escape(source),
            f"{found.count:,}",
            f"{size:,}",
            "" if tokens is None else f"{tokens:,}",
        )
        examples.append(f"{key}/{_example(found)}")
    CONSOLE.print(rows)
    CONSOLE.print("For example:")
    for example in examples[:3]:
        CONSOLE.print(f"  {escape(example)}")
    CONSOLE.print(
        f"Tables: {escape(str(run.path))}/descriptions, contexts, features\n"
        f"Next: saematch judge {escape(str(run.path))}"
    )


def _example(found: Described) -> str:
    feature, text = found.example
    return f"{feature}  {text}" if text else ""


def intent_shown(intent: "Intent", at_most: int | None) -> bool:
    """What will be asked, and how wide intervals will be at most."""
    count = len(intent.to_ask) if at_most is None else min(at_most, len(intent.to_ask))
    CONSOLE.print(
        f"{intent.pairs:,} pairs of features and {intent.controls:,} controls; {intent.without_text:,} "
        f"of them without a description.  Not asked yet: {len(intent.to_ask):,} questions; now: "
        f"{count:,}."
    )
    CONSOLE.print(
        f"A mean label of one strategy at one layer pair is of at most {intent.a_mean} features: its 95% "
        f"interval reaches ±{intent.half_width_of_mean:.2f} at most (a share: "
        f"±{intent.half_width_of_share:.2f})."
    )
    return True


def judged_json(run: "Run", experiment: str, judge: str) -> dict[str, Any]:
    """What `saematch judge --json` prints."""
    found = judged_by(run, experiment, judge)
    return {
        "experiment": experiment,
        "about": dict(found.about),
        "results": json.loads(found.results.to_json(orient="records")),
    }


def judged_summary(run: "Run", experiment: str, judge: str) -> None:
    """Labels by strategy, or by pair of layers, and how good the judge is."""
    found = judged_by(run, experiment, judge)
    style = "green" if found.tells else "bold red"
    CONSOLE.print(f"\n[bold]{escape(judge)}[/]: [{style}]{escape(found.verdict)}[/]")
    _quality(found)
    rows = new_table("strategy", "layers", "mean label", "DIFFERENT", "MAYBE", "SAME")
    for strategy in (*found.strategies, "control: same", "control: different"):
        control = strategy.startswith("control: ")
        by_pair = experiment == "persistence" and not control
        for a, b in found.pairs if by_pair else [("", "")]:
            spans = [found.span(m, strategy, a, b) for m in ("mean", "different", "maybe", "same")]
            if spans[0] is not None:
                where = f"{a} → {b}" if a else ""
                cells = [spanned(spans[0], True), *(_percent(one) for one in spans[1:])]
                rows.add_row(escape(strategy), escape(where), *cells)
    CONSOLE.print(rows)
    CONSOLE.print(
        "Labels: DIFFERENT 1, MAYBE 2, SAME 3; 95% intervals.  Labels of each layer pair: "
        f"{escape(str(run.path))}/judging/{experiment}/{escape(judge)}.parquet; questions and answers: "
        "judgements.parquet\n"
        f"Report: {escape(str(run.path))}/report.html"
    )


def _quality(found: Judged) -> None:
    said = {
        "order_bias": "order bias {} in the mean label",
        "order_changed": "{} of labels change with the order",
        "no_description": "{} of questions without a description",
        "unreadable": "{} of answers without a label",
    }
    parts = [
        text.format(spanned(span, True))
        for measure, text in said.items()
        if (span := found.span(measure)) is not None
    ]
    kappas = found.results[found.results["measure"].str.startswith("kappa_")]
    for row in kappas.to_dict("records"):
        other = str(row["measure"]).removeprefix("kappa_")
        span = found.span(str(row["measure"]))
        parts.append(f"Cohen's κ with {other} {spanned(span, True)} on {row['judged']} questions")
    CONSOLE.print("; ".join(escape(part) for part in parts) + ".")


def _percent(span: tuple[float, float | None, float | None] | None) -> str:
    return "" if span is None else f"{span[0]:.0%}"
