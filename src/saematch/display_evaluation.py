"""What people see of an evaluation on the terminal."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from saematch.display import CONSOLE, new_table
from saematch.evaluation.summary import MAIN_MEASURES, corpora_of, evaluated, strategy_rows

if TYPE_CHECKING:
    from saematch.run import Run


def evaluation_summary(run: "Run") -> None:
    """For every corpus a table of strategies: means over layer pairs, from floor to ceiling."""
    measures = evaluated(run)
    for corpus, about in corpora_of(run).items():
        here = measures[measures["corpus"] == corpus]
        documents, tokens = int(here["documents"].max()), int(here["tokens"].max())
        CONSOLE.print(
            f"\n[bold]{corpus}[/]: {about['origin']}; {documents} documents, {tokens:,} tokens.  "
            f"Means over {len(about['pairs'])} layer pairs:"
        )
        rows = new_table("strategy", *(label for label, _ in MAIN_MEASURES.values()))
        for strategy, values in strategy_rows(here):
            rows.add_row(strategy, *(_cell(values.get(name)) for name in MAIN_MEASURES))
        CONSOLE.print(rows)
        for note in about["notes"]:
            CONSOLE.print(f"[yellow]note:[/] {note}")
    CONSOLE.print(
        "EV: explained variance of what takes the place of the later layer's stream. ΔL: rise of the "
        "loss, nats a token. score: joint firings over firings; lift: over chance. causal: cosine of "
        "what ablating either of a pair does to the logits (first corpus).\n"
        f"Intervals of every pair: {run.path / 'evaluation' / 'measures.parquet'}\n"
        f"Report: {run.path / 'report.html'}"
    )


def _cell(value: Any) -> str:
    return "" if value is None or pd.isna(value) else f"{value:.3f}"
