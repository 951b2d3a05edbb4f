"""What people see of descriptions and judgements on the terminal."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import typer

from saematch.cli.display.terminal import CONSOLE, SIGNS, Spinner, new_table, styled
from saematch.errors import UsageError
from saematch.pipelines.evaluation.summary import spanned
from saematch.store.judge_results import Judged, judged_by
from saematch.store.tables import Described, described
from saematch.text import plural, printable, records

if TYPE_CHECKING:
    from saematch.pipelines.explain import ExplainingIntent
    from saematch.pipelines.judge import Intent
    from saematch.semantics.chat.endpoint import Estimate
    from saematch.semantics.judges.judge import Judge
    from saematch.store.reader import Run


def described_json(run: "Run") -> dict[str, Any]:
    """What `saematch describe --json` prints."""
    return {
        "saes": [
            {"sae": key, "source": source, "described": found.count, "about": dict(found.about)}
            for (key, source), found in described(run).items()
        ]
    }


def described_summary(run: "Run", flags: str = "") -> None:
    """A line per SAE and source, and an example of each; descriptions from halves are left out.

    `flags`: by which a judge finds what was made just now.
    """
    rows = new_table("SAE", "source", "described", "of", "tokens read")
    examples, notes = [], []
    for (key, source), found in described(run).items():
        if source[-2:] in ("-0", "-1"):
            continue
        size = run.manifest["saes"][key]["d_sae"]
        tokens = found.about.get("tokens")
        rows.add_row(
            key,
            source,
            f"{found.count:,}",
            f"{size:,}",
            "" if tokens is None else f"{tokens:,}",
        )
        examples.append(f"{key}/{_example(found)}")
        notes += [f"{key}, {source}: {note}" for note in found.about.get("notes", [])]
    CONSOLE.print(rows)
    CONSOLE.print("For example:")
    for example in examples[:3]:
        CONSOLE.print(f"  {example}")
    for note in notes:
        CONSOLE.print(styled(("note:", "yellow"), f" {printable(note)}"))
    CONSOLE.print(
        f"Tables: {run.path}/descriptions, examples, features\n"
        f"Next: saematch judge {run.path}"
        f"{flags}"
    )


def _example(found: Described) -> str:
    feature, text = found.example
    return f"{feature}  {printable(text)}" if text else ""


def intent_shown(
    intent: "Intent",
    judge: "Judge",
    at_most: int | None,
    yes: bool,
    spinner: Spinner | None,
    quiet: bool,
) -> bool:
    """What will be asked, what it may cost and how wide intervals can be; whether to go on."""
    from saematch.semantics.judges.llm import LLMJudge

    questions = list(intent.to_ask)[:at_most]
    if not quiet:
        CONSOLE.print(
            f"{plural(intent.pairs, 'pair')} of features and {plural(intent.controls, 'control')}; "
            f"{intent.without_text:,} of them without a description. Not asked yet: "
            f"{plural(len(intent.to_ask), 'question')}; now: {len(questions):,}."
        )
        if len(questions) < len(intent.to_ask):
            CONSOLE.print("Of a part of the questions intervals are wider than of all.")
        elif intent.a_mean:
            CONSOLE.print(
                "A mean label of one strategy at one layer pair is of at least "
                f"{plural(intent.a_mean, 'feature')}: "
                f"its 95% interval reaches ±{intent.half_width_of_mean:.2f} at most (a share: "
                f"±{intent.half_width_of_share:.2f})."
            )
    if not questions or not isinstance(judge, LLMJudge):
        return True
    return _agreed(judge.estimate(questions), judge.chat.endpoint, yes, spinner)


def explaining_shown(
    intent: "ExplainingIntent", yes: bool, spinner: Spinner | None, quiet: bool
) -> bool:
    """What will be asked to describe features, and what it may cost; whether to go on."""
    if not quiet:
        CONSOLE.print(
            f"{plural(intent.features, 'feature')}, described from either half of their "
            f"max-activating examples; "
            f"answered already: {intent.answered:,}."
        )
    return not intent.estimate.calls or _agreed(intent.estimate, "the endpoint", yes, spinner)


def _agreed(estimate: "Estimate", endpoint: str, yes: bool, spinner: Spinner | None) -> bool:
    cost = "no prices given" if estimate.cost is None else f"about {estimate.cost:.2f} in all"
    SIGNS.print(
        f"{plural(estimate.calls, 'call')} to {endpoint}; about {estimate.prompt_tokens:,} tokens to read "
        f"and {estimate.completion_tokens:,} to write ({cost}), more where replies cannot be read."
    )
    if yes:
        return True
    if not SIGNS.is_terminal:
        raise UsageError(
            "a language model would be asked, and there is no terminal in which to confirm; "
            "add --yes"
        )
    with spinner.still() if spinner else nullcontext():
        return typer.confirm("Go on?", err=True)


def judged_json(run: "Run", experiment: str, judge: str) -> dict[str, Any]:
    """What `saematch judge --json` prints."""
    found = judged_by(run, experiment, judge)
    return {
        "experiment": experiment,
        "about": dict(found.about),
        "results": records(found.results),
    }


def judged_summary(run: "Run", experiment: str, judge: str) -> None:
    """Labels by strategy, or by pair of layers, and how good the judge is."""
    found = judged_by(run, experiment, judge)
    style = "green" if found.passes_controls else "bold red"
    CONSOLE.print(styled("\n", (judge, "bold"), ": ", (found.verdict, style)))
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
                rows.add_row(strategy, where, *cells)
    CONSOLE.print(rows)
    CONSOLE.print(
        "Labels: DIFFERENT 1, MAYBE 2, SAME 3; 95% intervals. Labels of each layer pair: "
        f"{run.path}/judging/{experiment}/{judge}.parquet; questions and answers: "
        "judgements.parquet\n"
        f"Report: {run.path}/report.html"
    )


def _quality(found: Judged) -> None:
    said = {
        "order_bias": "order bias {} in the mean label of pairs asked both ways ({})",
        "order_changed": "{} of their labels change",
        "no_description": "{} of questions without a description",
        "unreadable": "{} of answers without a label",
    }
    asked = dict(zip(found.results["measure"], found.results["judged"], strict=True))
    parts = [
        text.format(spanned(span, True), asked[measure])
        for measure, text in said.items()
        if (span := found.span(measure)) is not None
    ]
    kappas = found.results[found.results["measure"].str.startswith("kappa_")]
    for row in kappas.to_dict("records"):
        other = str(row["measure"]).removeprefix("kappa_")
        span = found.span(str(row["measure"]))
        parts.append(
            f"Cohen's κ with {other} {spanned(span, True)} on {plural(int(row['judged']), 'question')}"
        )
    CONSOLE.print("; ".join(parts) + ".")


def _percent(span: tuple[float, float | None, float | None] | None) -> str:
    return "" if span is None else f"{span[0]:.0%}"
