"""The numbers to read first: every strategy between floor and ceiling, with intervals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from saematch.matching.registry import MAIN
from saematch.pipelines.evaluation.results import Evaluated
from saematch.pipelines.evaluation.summary import listed
from saematch.stats import Values, interval
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.models import LanguageModel
    from saematch.sae import SAE

COLUMNS = ("lift", "phi", "causal_agreement", "explained_variance", "delta_loss")


@dataclass(frozen=True)
class Line:
    """One strategy or reference."""

    name: str
    measures: dict[str, Interval]
    """By name, of those in `COLUMNS` that were measured: the value and its 95% interval."""


def headline(main: Evaluated) -> list[Line]:
    """A line per strategy: means over adjacent pairs and corpora.  Of `random` the first draw."""
    lines = []
    for strategy in listed():
        found: dict[str, Interval] = {}
        for measure in COLUMNS:
            if measure == "causal_agreement":
                values = main.agreements.get(strategy)
            else:
                values = main.mean(measure, strategy)
                if values is None:
                    values = main.mean(measure, strategy, "")
            if values is not None:
                found[measure] = interval(values)
        if found:
            lines.append(Line(strategy, found))
    return lines


def reference(name: str, a: "SAE", b: "SAE", main: Evaluated, model: "LanguageModel") -> Line:
    """`folded` between two SAEs that are not of the run, on the texts that the run was evaluated on:
    a second seed of one layer (a ceiling), an untrained SAE (a floor)."""
    from saematch.evaluation.evaluate import keys_of, measure_pair

    about = next(iter(main.about.values()))
    measured = measure_pair(
        a,
        b,
        model=model,
        corpora=list(main.about),
        documents=about["documents"],
        tokens=about["tokens"],
        strategies=(MAIN,),
        parts=main.run.config.parts,
        scale=main.run.config.scale,  # pyright: ignore[reportArgumentType]
        quantiles=(),
        random_draws=1,
        batch_tokens=2048,
        seed=about["seed"],
        offline=all("bundled" in one["origin"] for one in main.about.values()) or None,
        notes=[],
    )
    pair = keys_of(a, b)
    slug = "+".join(part for part in main.run.config.parts)
    found: dict[str, Interval] = {}
    for measure in COLUMNS:
        each: list[Values] = [
            values[measure]
            for one in measured
            if measure in (values := one.values(pair, MAIN, slug))
        ]
        if each:
            found[measure] = interval(np.mean(each, axis=0))
    return Line(name, found)
