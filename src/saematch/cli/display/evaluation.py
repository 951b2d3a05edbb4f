"""What people see of an evaluation on the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from saematch.cli.display.terminal import CONSOLE, new_table, number, show_notes, styled
from saematch.pipelines.evaluation.summary import (
    MAIN_MEASURES,
    corpora_of,
    documents_said,
    evaluated,
    spanned,
    strategy_rows,
    texts_of,
)
from saematch.report.findings import COLUMNS
from saematch.store.names import CALIBRATION_NAME
from saematch.text import markdown_cell, plural
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.pipelines.benchmark import Leaderboard
    from saematch.pipelines.evaluation.results import Evaluated
    from saematch.report.findings import Finding, Line
    from saematch.store.reader import Run

WIDE = 150
"""Columns of a terminal that has room for intervals in a table."""
SHORT = {name: short for name, (short, _) in MAIN_MEASURES.items()}


def evaluation_summary(run: "Run") -> None:
    """For every corpus a table of strategies: means over layer pairs, from floor to ceiling."""
    measures = evaluated(run)
    for corpus, about in corpora_of(run).items():
        here = measures[measures["corpus"] == corpus]
        documents, tokens = int(here["documents"].max()), int(here["tokens"].max())
        said = documents_said(texts_of(run, corpus), documents)
        means = f"{tokens:,} tokens. Means over {plural(len(about['pairs']), 'layer pair')}:"
        CONSOLE.print(styled("\n", (corpus, "bold"), f": {about['origin']}; {said}, {means}"))
        rows = new_table("strategy", *(label for label, _ in MAIN_MEASURES.values()))
        for strategy, values in strategy_rows(here):
            rows.add_row(strategy, *(number(values.get(name), ".3f") for name in MAIN_MEASURES))
        CONSOLE.print(rows)
        show_notes(about["notes"])
    CONSOLE.print(
        "EV: explained variance of what takes the place of the later layer's stream. ΔL: rise of the "
        "loss, nats a token. score: joint activations over activations; lift: over chance. causal: cosine of "
        "what ablating either of a pair does to the logits (first corpus).\n"
        f"Intervals of every pair: {run.path / 'evaluation' / 'measures.parquet'}\n"
        f"Report: {run.path / 'report.html'}"
    )


def calibration_summary(about: Mapping[str, Any], directory: Path) -> None:
    """How well the probabilities tell what is the same, on layers that they were not fitted to."""
    fitted, judged = about["fitted"], about["judged"]
    CONSOLE.print(
        f"Fitted to {', '.join(fitted['pairs'])} on {fitted['tokens']:,} tokens, from {fitted['from']}; "
        f"judged on {', '.join(judged['pairs'])}:"
    )
    rows = new_table("", "AUC", "cosine's AUC", "calibration error", "share", "right", "surer half")
    rows.add_row(
        "two features are the same",
        *(number(judged[n], ".3f") for n in ("auc", "auc_of_cosine", "calibration_error", "same_share")),
        "", "",
    )  # fmt: skip
    rows.add_row(
        "a feature has any partner",
        number(judged["any_auc"], ".3f"),
        "",
        *(
            number(judged[f"any_{n}"], ".3f")
            for n in ("calibration_error", "share", "right", "right_of_surer_half")
        ),
    )
    CONSOLE.print(rows)
    CONSOLE.print(
        f"The same: {about['same']}.  calibration error: mean distance of probability from frequency. "
        "right: share of features told rightly, of all and of the half that it is surer of.\n"
        f"Calibration: {directory / CALIBRATION_NAME}; fates and paths were made again by it"
    )


LEADERBOARD_COLUMNS = {
    "explained_variance_typical": "EV",
    "delta_loss": "ΔL",
    "lift": "lift",
    "phi": "φ",
    "f1": "F1",
    "causal_agreement": "causal",
    "deactivation": "deact.",
    "substitution": "subst.",
    "ausqc": "AUSQC",
    "label": "label",
}
MARKS = {"best": "*", "near": "+", "": " "}
WIDE_BOARD = 140
"""Columns of a terminal that has room for intervals in the leaderboard."""


def leaderboard_shown(board: "Leaderboard", directory: Path) -> None:
    """Its columns in as many tables as the terminal's width asks for."""
    wide = CONSOLE.width >= WIDE_BOARD
    strategies = list(dict.fromkeys(board.rows["strategy"]))
    every: list[Any] = board.rows.to_dict("records")
    rows = {(row["strategy"], row["measure"]): row for row in every}
    columns: dict[str, list[str]] = {}
    for measure, title in LEADERBOARD_COLUMNS.items():
        found = [rows.get((one, measure)) for one in strategies]
        if any(found):
            columns[title] = [_placed(row, wide) if row else "" for row in found]
    columns["data"] = [
        str(board.rows["data"][board.rows["strategy"] == s].iloc[0]) for s in strategies
    ]
    columns["s"] = [number(board.seconds.get(one), ".2f") for one in strategies]
    room = CONSOLE.width - _width("matcher", strategies)
    references = set(board.rows["strategy"][board.rows["reference"]])
    for titles in _fitting({name: _width(name, cells) for name, cells in columns.items()}, room):
        table = new_table("matcher", *titles)
        measured = [title for title in titles if title not in ("data", "s")]
        parted = False
        for place, strategy in enumerate(strategies):
            if measured and not any(columns[title][place] for title in measured):
                continue
            if strategy in references and not parted:
                table.add_section()
                parted = True
            cells = (
                styled((columns[t][place], "bold" * ("*" in columns[t][place]))) for t in titles
            )
            table.add_row(styled((strategy, "dim" * (strategy in references))), *cells)
        CONSOLE.print(table)
    pairs = ", ".join(f"{a}→{b}" for a, b in board.about["pairs"])
    texts = ", ".join(
        f"{corpus} ({of['origin']}, {plural(of['documents'], 'document')} × {of['tokens']} tokens)"
        for corpus, of in board.about["corpora"].items()
    )
    label = f" label: mean of {board.about['judge']}, 1 to 3." if board.about["judge"] else ""
    CONSOLE.print(
        f"Means over {pairs} and {texts}; {'95% intervals' if wide else 'intervals'} by bootstrap"
        f"{'' if wide else ', shown in 140 columns'}. *: best matcher of a column; +: its paired difference "
        "from the best is not clear (the 95% interval has 0). Below the gap: what they are compared with.\n"
        "EV: explained variance of typical tokens. ΔL: rise of the loss, nats a token; less is better. "
        "causal, deact., subst.: ablated pairs of the first corpus; AUSQC: substitution by coverage; the "
        f"strongest partner alone.{label} data: what finding the partners takes. s: median seconds a pair of "
        "SAEs.\n"
        f"Differences from folded, paired: {directory / 'leaderboard.parquet'}"
    )


def _placed(row: Mapping[Any, Any], wide: bool) -> str:
    span = Interval(row["value"], *(None if pd.isna(row[n]) else row[n] for n in ("low", "high")))
    return spanned(span, wide) + MARKS[row["place"]]


def _width(title: str, cells: Sequence[str]) -> int:
    return max(len(title), *map(len, cells)) + 2


def _fitting(widths: Mapping[str, int], room: int) -> Iterator[list[str]]:
    """Names of columns, as many together as there is room for."""
    some: list[str] = []
    for name, width in widths.items():
        if some and sum(widths[one] for one in some) + width > room:
            yield some
            some = []
        some.append(name)
    yield some


def findings_shown(
    main: "Evaluated", lines: "list[Line]", found: "list[Finding]", path: Path
) -> None:
    wide = CONSOLE.width >= WIDE
    CONSOLE.print(f"Means over pairs {_where(main)}; 95% intervals{'' if wide else f' in {path}'}:")
    rows = new_table("", *(SHORT[name] for name in COLUMNS))
    for line in lines:
        rows.add_row(line.name, *(spanned(line.measures.get(name), wide) for name in COLUMNS))
    CONSOLE.print(rows)
    for one in found:
        style = {"holds": "green", "does not hold": "red"}.get(one.verdict, "yellow")
        name = (f"({one.name})", "bold")
        CONSOLE.print(styled("\n", name, f" {one.claim}: ", (one.verdict, style)))
        CONSOLE.print(f"    {spanned(_span(one))}: {one.said}" if one.effect else f"    {one.said}")
    CONSOLE.print(f"\nWritten to {path}")


def findings_text(main: "Evaluated", lines: "list[Line]", found: "list[Finding]") -> str:
    """The headline and the findings as Markdown."""
    text = [
        f"Means over pairs {_where(main)}; 95% intervals.",
        "",
        "| | " + " | ".join(SHORT[name] for name in COLUMNS) + " |",
        "| --- |" + " --- |" * len(COLUMNS),
        *(
            f"| {line.name} | " + " | ".join(spanned(line.measures.get(n)) for n in COLUMNS) + " |"
            for line in lines
        ),
        "",
        "| finding of the paper | here | measured | what |",
        "| --- | --- | --- | --- |",
        *(
            f"| ({one.name}) {one.claim} | **{one.verdict}** | {spanned(_span(one))} "
            f"| {markdown_cell(one.said)} |"
            for one in found
        ),
    ]
    return "\n".join(text) + "\n"


def _where(main: "Evaluated") -> str:
    about = next(iter(main.about.values()))
    ends = dict.fromkeys(f"{a}→{b}" for a, b in (main.adjacent[0], main.adjacent[-1]))
    texts = ", ".join(
        f"{corpus} ({of['origin']}; "
        f"{'no interval: one text' if (count := texts_of(main.run, corpus)) == 1 else f'{count} texts'})"
        for corpus, of in main.about.items()
    )
    return (
        f"{' to '.join(ends)} of {main.run.config.suite} ({len(main.adjacent)}) and {texts}, "
        f"{plural(about['documents'], 'document')} × {about['tokens']} tokens each"
    )


def _span(one: "Finding") -> Interval | None:
    return None if one.value is None else Interval(one.value, one.low, one.high)
