"""What figures need of a run: its measures, what features are said to mean, what judges said; and the error
that says which command would make it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from saematch.errors import InputError
from saematch.figures.captions import plain
from saematch.matching.matchers import MAIN, UNFOLDED
from saematch.pipelines.evaluation.summary import corpora_of, documents_said, texts_of
from saematch.store.judge_results import judged, labelled_pairs
from saematch.store.manifest import on_directory, run_again
from saematch.store.names import features_name
from saematch.store.tables import descriptions_of, shown_descriptions
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


def run_command(run: "Run") -> str:
    """The command that makes this run again, going on from what is finished."""
    return run_again(run.path, run.config.to_dict())


def suite_facts(run: "Run") -> str:
    """The sentence that says which SAEs: every caption opens with it."""
    saes = [run.manifest["saes"][key] for key in run.keys]
    layers = [sae["layer"] for sae in saes]
    widths = sorted({sae["d_sae"] for sae in saes})
    width = f"{widths[0]:,}" + (f" to {widths[-1]:,}" if len(widths) > 1 else "")
    parts, suite = run.config.parts, run.config.suite
    # Of a folder on this machine only its own name.
    name = Path(suite).name if suite.startswith(("/", ".", "~")) else suite
    of = "" if parts == dict.fromkeys(PARTS, 1.0) else f"; matched by {parts_slug(parts)} alone"
    return (
        f"{name}: blocks {min(layers)} to {max(layers)}, {plural(len(saes), 'SAE')}, {width} features "
        f"each{of}."
    )


def corpora(run: "Run") -> dict[str, str]:
    """What the run was measured on, by name: where the texts come from (which says where they stand in for
    others), how many, how many tokens without BOS.  Raises NotInRunError where on nothing."""
    measures = run.measures()
    found = {}
    for name, about in corpora_of(run).items():
        here = measures[(measures["corpus"] == name) & (measures["a"] == measures["b"])]
        if here.empty:
            continue  # of matchings that were made again since
        size = documents_said(texts_of(run, name), int(here["documents"].max()))
        tokens = int(here["tokens"].max())
        found[name] = f"{name} ({about['origin']}; {size}, {tokens:,} tokens)"
    if not found:
        raise NotInRunError(run, "measures on text", on_directory(run.path, "evaluate"))
    return found


def corpora_facts(run: "Run") -> str:
    """The sentence that says on which texts and by which model."""
    found = corpora(run)
    model = corpora_of(run)[next(iter(found))]["model"]["name"]
    return f"{model} on {'; '.join(found.values())}."


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
    return table[(table["status"] == "live") & (table["partner_status"] == "live")]


ACTIVATES_ON = "tokens that a feature activates on"
WORDS = {
    "activations": "lists of tokens from activations",
    "model": "words of a language model",
    "neuronpedia": "texts from Neuronpedia",
}
"""What descriptions are, by their source."""
TOKENS = 4
"""Tokens that stand for a feature without a description."""


@dataclass(frozen=True)
class Described:
    """Texts by key of the SAE and feature."""

    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __call__(self, key: str, feature: int) -> str:
        """The feature's text in one line; '' where it has none."""
        return self.texts.get(key, {}).get(feature, "")

    def facts(self) -> str:
        """The sentence that says whose descriptions these are, or how to come by some."""
        if not self.texts:
            return "Without descriptions; saematch describe makes them."
        said = " or ".join(WORDS.get(source, source) for source in self.sources)
        return f"Descriptions: {said}, not checked by anyone."


def described(run: "Run") -> Described:
    """The run's descriptions; of an SAE without any, the tokens that its features activate on."""
    texts: dict[str, dict[int, str]] = {}
    sources: dict[str, None] = {}
    for key in run.keys:
        source = next((source for source, _ in shown_descriptions(run.directory, key)), None)
        if source is not None and (found := descriptions_of(run, source, key)) is not None:
            texts[key] = {feature: plain(text) for feature, text in found.texts.items()}
            sources[source] = None
        elif run.directory.is_current(features_name(key)):
            texts[key] = _activates_on(run.directory.table(features_name(key))[0].to_pandas())
            sources[ACTIVATES_ON] = None
    return Described(texts, tuple(sources))


def _activates_on(table: pd.DataFrame) -> dict[int, str]:
    return {
        int(feature): plain(", ".join(f"'{token}'" for token in list(tokens)[:TOKENS]))
        for feature, tokens in zip(table["feature"], table["activates_on"], strict=True)
        if len(tokens)
    }


def results(run: "Run", experiment: str) -> dict[str, pd.DataFrame]:
    """The measures of labels by judge; raises NotInRunError where nobody judged the experiment."""
    found = {one.judge: one.results for one in judged(run, experiment)}
    if not found:
        raise _not_judged(run, experiment)
    return found


def labelled(run: "Run", experiment: str) -> pd.DataFrame:
    """The pairs of features of an experiment that got a label, as they were asked: columns of its
    sample, with judge and label.

    Raises NotInRunError where nobody judged the experiment.
    """
    found = [labelled_pairs(run, experiment, one.judge) for one in judged(run, experiment)]
    if not any(map(len, found)):
        raise _not_judged(run, experiment)
    return pd.concat(found, ignore_index=True)


def _not_judged(run: "Run", experiment: str) -> NotInRunError:
    needed = f"judgements of the experiment '{experiment}'"
    command = on_directory(run.path, "judge", f"--experiment {experiment}")
    return NotInRunError(run, needed, command)


def judges_facts(found: dict[str, pd.DataFrame]) -> str:
    """The sentence that says who judged, and how they did on their controls."""
    said = []
    for judge, rows in found.items():
        controls = rows[(rows["measure"] == "auc") & (rows["strategy"] == "")]["value"].dropna()
        auc = f" (controls told apart with AUC {controls.iloc[0]:.2f})" if len(controls) else ""
        said.append(f"{plain(judge)}{auc}")
    return f"Judged by {', '.join(said)}."


def counts(rows: pd.DataFrame) -> str:
    """How many labels a value is made of, from the fewest to the most."""
    if rows.empty:
        return "no labels"
    least, most = int(rows["judged"].min()), int(rows["judged"].max())
    return plural(most, "label") if least == most else f"{least:,} to {most:,} labels"
