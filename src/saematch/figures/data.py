"""What figures need of a run, and the error that says which command would make it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from saematch.errors import InputError
from saematch.matching.matchers import UNFOLDED
from saematch.matching.registry import MAIN
from saematch.pipelines.evaluation.summary import corpora_of, documents_said, texts_of
from saematch.store.commands import on_directory, run_again
from saematch.text import plural
from saematch.types import PARTS, parts_slug

if TYPE_CHECKING:
    from saematch.store.reader import Run

Pair = tuple[str, str]
INTERVALS = "Bars through points: 95% intervals, bootstrap over texts."
CONDITIONS = ("reconstruct_current", "reconstruct_previous", MAIN, UNFOLDED, "layer_drop")
"""What the paper prunes a layer by."""


class NotInRunError(InputError):
    """A run lacks what a figure shows."""

    def __init__(self, run: "Run", needed: str, command: str) -> None:
        super().__init__(f"expected {needed} in {run.path}, got none; try: {command}")
        self.needed = needed
        self.command = command


@dataclass(frozen=True)
class Corpus:
    """What a run was measured on."""

    name: str
    origin: str
    """Where its texts come from; says where they stand in for others."""
    model: str
    documents: int
    tokens: int
    """BOS left out."""
    texts: int
    """That the documents are pieces of."""

    def __str__(self) -> str:
        size = documents_said(self.texts, self.documents)
        return f"{self.name} ({self.origin}; {size}, {self.tokens:,} tokens)"


def command(run: "Run", verb: str, flags: str = "") -> str:
    """A command on this run's directory, as you would type it."""
    return on_directory(run.path, verb, flags)


def run_command(run: "Run") -> str:
    """The command that makes this run again, going on from what is finished."""
    return run_again(run.path, run.config.to_dict())


def adjacent(run: "Run") -> list[Pair]:
    """Adjacent pairs of all chains, in order of depth."""
    return list(run.adjacent)


def suite_facts(run: "Run") -> str:
    """The sentence that says which SAEs: every caption opens with it."""
    saes = [run.manifest["saes"][key] for key in run.keys]
    layers = [sae["layer"] for sae in saes]
    widths = sorted({sae["d_sae"] for sae in saes})
    width = f"{widths[0]:,}" + (f" to {widths[-1]:,}" if len(widths) > 1 else "")
    blocks = (
        f"blocks {min(layers)} to {max(layers)}, {plural(len(saes), 'SAE')}, {width} features each"
    )
    parts = run.config.parts
    of = "" if parts == dict.fromkeys(PARTS, 1.0) else f"; matched by {parts_slug(parts)} alone"
    return f"{suite_name(run)}: {blocks}{of}."


def suite_name(run: "Run") -> str:
    """The suite's reference; of a folder on this machine only its own name."""
    suite = run.config.suite
    return Path(suite).name if suite.startswith(("/", ".", "~")) else suite


def corpora(run: "Run") -> dict[str, Corpus]:
    """What the run was measured on, by name; raises NotInRunError where on nothing."""
    measures = run.measures()
    found = {}
    for name, about in corpora_of(run).items():
        here = measures[(measures["corpus"] == name) & (measures["a"] == measures["b"])]
        if here.empty:
            continue  # of matchings that were made again since
        documents, tokens = (int(here[size].max()) for size in ("documents", "tokens"))
        model, texts = about["model"]["name"], texts_of(run, name)
        found[name] = Corpus(name, about["origin"], model, documents, tokens, texts)
    if not found:
        raise NotInRunError(run, "measures on text", command(run, "evaluate"))
    return found


def corpora_facts(run: "Run") -> str:
    """The sentence that says on which texts and by which model."""
    found = corpora(run)
    model = next(iter(found.values())).model
    return f"{model} on {'; '.join(map(str, found.values()))}."


def on_text(run: "Run", measure: str, parts: str | None = None) -> pd.DataFrame:
    """Rows of a measure on text: interventions and strategies by the run's parts, or by others."""
    rows = run.measures()
    kept = rows["parts"].isin(["", run.config.slug] if parts is None else [parts])
    return rows[(rows["corpus"] != "") & (rows["measure"] == measure) & kept]


def gaps(rows: pd.DataFrame, pairs: Sequence[Pair]) -> list[str]:
    """Names of pairs without a value; rows of one measure, strategy and corpus."""
    rows = rows[rows["value"].notna()]
    known = set(zip(rows["a"], rows["b"], strict=True))
    return [f"{a}→{b}" for a, b in pairs if (a, b) not in known]


def live_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a matching's table whose two features are live."""
    return table[(table["status"] == "live") & (table["partner_status"] == "live")]
