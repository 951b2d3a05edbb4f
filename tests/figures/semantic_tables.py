"""Descriptions and judgements in their documented schema, kept in a run directory: made up, seeded."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from saematch.matching.probability import Calibration
from saematch.pipelines import RunDirectory, open_run
from saematch.store.names import CALIBRATION_NAME
from saematch.store.schema import DESCRIPTIONS, FEATURES, JUDGEMENTS, RESULTS, SAMPLE, Table

TEXTS = (
    "names of cities and the countries they lie in",
    "the word 'the' at the start of a clause in technical documentation about software",
    "opening brackets in source code, mostly function calls with several arguments in them",
    "dates",
    "<script>alert('x')</script> & costs of $5 to $7 a month",
    "verbs of motion: going, running, arriving, leaving; also of moving money between accounts",
)
LABELS = ("DIFFERENT", "MAYBE", "SAME")
CREATED: dict[str, Any] = {
    "reason": "", "prompt": "", "reply": "", "model": "m", "attempts": 1, "seconds": 0.1,
    "prompt_tokens": None, "completion_tokens": None, "cost": None, "time": "2026-01-01T00:00:00Z",
}  # fmt: skip

RELIABILITY = [[0.1, 0.05, 100], [0.5, 0.6, 40], [0.9, 1.0, 10]]


def calibrate(directory: Path) -> None:
    """The run has a calibration of its own, which was judged."""
    about = {"fitted": {"pairs": ["3→4"]}, "judged": {"pairs": ["4→5"], "reliability": RELIABILITY}}
    text = dataclasses.replace(Calibration.load(), about=about).to_text()
    with RunDirectory(directory).holding() as held:
        held.keep(CALIBRATION_NAME, text.encode(), "made up")


def keep(
    directory: Path, name: str, table: Table, rows: Sequence[dict[str, Any]], **about: Any
) -> None:
    """Keep rows as a table of the run directory."""
    columns = {column: [row[column] for row in rows] for column in table.names}
    with RunDirectory(directory).holding() as held:
        held.keep(name, table.encode(columns, about), "made up")


def describe(directory: Path, source: str = "model", texts: Sequence[str] = TEXTS) -> None:
    """Every feature has a description."""
    for key, sae in open_run(directory).manifest["saes"].items():
        rows = [
            {
                "feature": feature, "text": texts[(feature * 7 + len(key)) % len(texts)],
                "source": source, "explainer": "", "licence": "",
            }
            for feature in range(sae["d_sae"])
        ]  # fmt: skip
        keep(directory, f"descriptions/{source}--{key}.parquet", DESCRIPTIONS, rows)


def activate(directory: Path, key: str) -> None:
    """One SAE's features as they are active: on two tokens each, the last on none."""
    d_sae = open_run(directory).manifest["saes"][key]["d_sae"]
    rows = [
        {
            "feature": feature, "activation_count": 3, "activation_frequency": 0.1, "mean_activation": 1.0,
            "greatest_activation": 2.0, "activates_on": ["<b>", "x"] if feature < d_sae - 1 else [],
            "activates_on_share": [0.7, 0.3], "amid": [], "top_logits": [],
        }
        for feature in range(d_sae)
    ]  # fmt: skip
    keep(directory, f"features/{key}.parquet", FEATURES, rows)


def result(
    strategy: str, a: str, b: str, measure: str, value: float, judged: int
) -> dict[str, Any]:
    """A row of results, with an interval."""
    half = 0.08 if measure != "auc" else 0.02
    low, high = (None, None) if np.isnan(value) else (value - half, value + half)
    return {
        "strategy": strategy, "a": a, "b": b, "measure": measure, "value": value, "low": low,
        "high": high, "judged": judged,
    }  # fmt: skip


def judge(
    directory: Path, judges: Sequence[str] = ("llm-gpt-4o-mini",), without: Sequence[str] = ()
) -> None:
    """The experiments layers, persistence and mse; no results for pairs that end at `without`."""
    run = open_run(directory)
    adjacent = [pair for chain in run.chains for pair in pairwise(chain)]
    generator = np.random.default_rng(1)
    said: list[dict[str, Any]] = []
    for judge in judges:
        rows = [result("", "", "", "auc", 0.93, 40)]
        for n, (a, b) in enumerate(adjacent):
            for strategy, less in (("folded", 0.0), ("unfolded", 0.08)):
                if b in without:
                    continue
                same = 0.2 + 0.05 * n - less
                for measure, value in zip(
                    ("same", "maybe", "different"), (same, 0.3, 0.7 - same), strict=True
                ):
                    rows.append(result(strategy, a, b, measure, value, 40 + n))
                rows.append(result(strategy, a, b, "mean", 1.5 + 2 * same, 40 + n))
        keep(directory, f"judging/layers/{judge}.parquet", RESULTS, rows)
        rows = []
        chain = run.chains[0]
        for start in chain[:: max(1, len(chain) // 3)][:3]:
            later = chain[chain.index(start) + 1 :]
            for distance, b in enumerate(later, start=1):
                if b in without:
                    continue
                rows.append(result("exact", start, b, "mean", 2.6 - 0.12 * distance, 50))
                if distance > 1:
                    rows.append(result("composition", start, b, "mean", 2.6 - 0.2 * distance, 50))
        keep(directory, f"judging/persistence/{judge}.parquet", RESULTS, rows)
    sample = []
    for a, b in adjacent:
        table = run.matching_table(a, b)
        live = table[(table["status"] == "live") & (table["partner_status"] == "live")]
        ranked = live.sort_values("mse_decoder").iloc[:: max(1, len(live) // 60)]
        for place, row in enumerate(ranked.to_dict("records")):
            question = len(sample)
            kind = "pair" if place % 10 else "same"
            sample.append(
                {
                    "question": question, "kind": kind, "strategy": "folded" if kind == "pair" else "",
                    "a": a, "b": b, "feature": row["feature"], "partner": row["partner"],
                    "mse_decoder": row["mse_decoder"], "stratum": 0, "text_a": "x", "text_b": "y",
                    "swapped": place % 7 == 0,
                }
            )  # fmt: skip
            for judge in judges:
                surer = 1 - place / len(ranked)
                label = LABELS[min(2, int(3 * generator.beta(1 + 3 * surer, 4 - 3 * surer)))]
                outcome = "unreadable" if place % 11 == 10 else "judged"
                said.append(
                    {
                        **CREATED, "experiment": "mse", "question": question, "judge": judge,
                        "outcome": outcome, "label": label if outcome == "judged" else None,
                        "score": None,
                    }
                )  # fmt: skip
    keep(directory, "judging/mse/sample.parquet", SAMPLE, sample)
    for judge in judges:
        keep(
            directory,
            f"judging/mse/{judge}.parquet",
            RESULTS,
            [],
            passes_controls=False,
            verdict="",
        )
    keep(directory, "judgements.parquet", JUDGEMENTS, said)
