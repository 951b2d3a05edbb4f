"""What people see of descriptions and judgements on the terminal."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

from saematch.cli.display.terminal import (
    CONSOLE,
    SIGNS,
    Spinner,
    new_table,
    number,
    show_notes,
    styled,
)
from saematch.cli.options import print_json
from saematch.errors import UsageError
from saematch.pipelines.evaluation.summary import spanned
from saematch.store.judge_results import Judged, judged_by
from saematch.store.tables import described
from saematch.text import plural, printable, records

if TYPE_CHECKING:
    from saematch.pipelines.explain import ExplainingIntent
    from saematch.pipelines.judge import Intent
    from saematch.semantics.chat.endpoint import Estimate
    from saematch.semantics.judges.judge import Judge
    from saematch.store.reader import Run


def show_described(run: "Run", as_json: bool, flags: str = "") -> None:
    """A line per SAE and source, and an example of each; descriptions from halves are left out.

    `flags`: by which a judge finds what was made just now.
    """
    saes = described(run)
    if as_json:
        told = [
            {"sae": key, "source": source, "described": found.count, "about": dict(found.about)}
            for (key, source), found in saes.items()
        ]
        print_json({"saes": told})
        return
    rows = new_table("SAE", "source", "described", "of", "tokens read")
    examples, notes = [], []
    for (key, source), found in saes.items():
        if source[-2:] in ("-0", "-1"):
            continue
        size = run.manifest["saes"][key]["d_sae"]
        rows.add_row(
            key, source, f"{found.count:,}", f"{size:,}", number(found.about.get("tokens"), ",")
        )
        feature, text = found.example
        examples.append(f"{key}/{feature}  {printable(text)}" if text else f"{key}/")
        notes += [f"{key}, {source}: {note}" for note in found.about.get("notes", [])]
    CONSOLE.print(rows)
    CONSOLE.print("\n  ".join(["For example:", *examples[:3]]))
    show_notes(map(printable, notes))
    CONSOLE.print(
        f"Tables: {run.path}/descriptions, examples, features\nNext: saematch judge {run.path}{flags}"
    )


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


def show_judged(run: "Run", experiment: str, judge: str | None, as_json: bool = False) -> None:
    """Labels by strategy, or by pair of layers, and how good the judge is; nothing without a judge."""
    found = None if judge is None else judged_by(run, experiment, judge)
    if as_json:
        about = found and {
            "experiment": experiment,
            "about": dict(found.about),
            "results": records(found.results),
        }
        print_json(about)
    if as_json or found is None:
        return
    style = "green" if found.passes_controls else "bold red"
    CONSOLE.print(styled("\n", (str(judge), "bold"), ": ", (found.verdict, style)))
    CONSOLE.print("; ".join(_quality(found)) + ".")
    rows = new_table("strategy", "layers", "mean label", "DIFFERENT", "MAYBE", "SAME")
    for strategy in (*found.strategies, "control: same", "control: different"):
        by_pair = experiment == "persistence" and not strategy.startswith("control: ")
        for a, b in found.pairs if by_pair else [("", "")]:
            mean = found.span("mean", strategy, a, b)
            shares = [found.span(one, strategy, a, b) for one in ("different", "maybe", "same")]
            if mean is not None:
                shown = (number(share and share[0], ".0%") for share in shares)
                rows.add_row(strategy, f"{a} → {b}" if a else "", spanned(mean, True), *shown)
    CONSOLE.print(rows)
    CONSOLE.print(
        "Labels: DIFFERENT 1, MAYBE 2, SAME 3; 95% intervals. Labels of each layer pair: "
        f"{run.path}/judging/{experiment}/{judge}.parquet; questions and answers: "
        "judgements.parquet\n"
        f"Report: {run.path}/report.html"
    )


def _quality(found: Judged) -> Iterator[str]:
    said = {
        "order_bias": "order bias {} in the mean label of pairs asked both ways ({})",
        "order_changed": "{} of their labels change",
        "no_description": "{} of questions without a description",
        "unreadable": "{} of answers without a label",
    }
    asked = dict(zip(found.results["measure"], found.results["judged"], strict=True))
    for measure, text in said.items():
        if (span := found.span(measure)) is not None:
            yield text.format(spanned(span, True), asked[measure])
    kappas = found.results[found.results["measure"].str.startswith("kappa_")]
    for measure, judged in zip(kappas["measure"], kappas["judged"], strict=True):
        other, span = str(measure).removeprefix("kappa_"), found.span(str(measure))
        yield f"Cohen's κ with {other} {spanned(span, True)} on {plural(int(judged), 'question')}"
