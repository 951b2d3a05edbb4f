"""A run directory full of plausible numbers, in exactly the schema of a real one, made without any SAE.

For benchmarks and tests of what reads run directories.  Every table is encoded by the schema itself, every
file is in the manifest with its sha256.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_meanings import Meanings, made_words

from saematch._io import files
from saematch.matching.fates import Fates
from saematch.matching.matchers import MAIN, NAIVE, matchers, ranked_matchers, usual_in_runs
from saematch.store.manifest import MANIFEST, empty_manifest, encode_manifest
from saematch.store.names import FOLLOWED_NAME, FROM_PLAN
from saematch.store.schema import (
    CANDIDATES,
    FATES,
    FOLLOWED,
    MATCHINGS,
    PAIR_SOURCE,
    PAIRS,
    PATHS,
    Table,
)
from saematch.types import FOLLOW_WAYS

SLUG = "decoder+encoder+bias"
"""Strategies whose pairs' activations are counted; correlation needs data, so a run without has none."""


@dataclass(frozen=True)
class Shape:
    """How large a run is, and what it has."""

    layers: int = 4
    features: int = 48
    examples: int = 4
    """Kept for each feature that is active."""
    candidates: int = 5
    corpora: tuple[str, ...] = ("web", "code")
    unmatched: float = 0.0
    """Share of features that die at each step, and as many that are born."""
    judged: int = 12
    """Pairs judged at each step, under each of three strategies."""
    described: bool = True
    seed: int = 0
    source: str = "activations"


class _Writer(Meanings):
    """Writes the files of a run, and its manifest at the end."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.directory, self.shape = directory, shape
        self.random = np.random.default_rng(shape.seed)
        self.keys = [str(layer) for layer in range(shape.layers)]
        self.outputs: dict[str, Any] = {}
        self.words = made_words(self.random, 3000)
        self.status: dict[str, np.ndarray] = {}
        self.partners: dict[tuple[str, str, str], np.ndarray] = {}
        self.steps: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def keep(self, name: str, table: Table, columns: dict[str, Any], **details: Any) -> None:
        data = table.encode(columns, details)
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.outputs[name] = {
            "inputs": files.sha256(name.encode()),
            "depends": {},
            "sha256": files.sha256(data),
            "bytes": len(data),
            "packages": "synthetic",
        }

    def write(self) -> None:
        n = self.shape.features
        for key in self.keys:
            kinds = self.random.choice(["live", "dead", "degenerate"], n, p=[0.95, 0.04, 0.01])
            self.status[key] = kinds.astype(object)
        for a, b in pairwise(self.keys):
            self._matchings(a, b)
            self._candidates(a, b)
        self._paths()
        followed = {(a, b): self._fates(a, b) for a, b in pairwise(self.keys)}
        self._followed(followed)
        if self.shape.described:
            for key in self.keys:
                self.describe(key)
            self.judge()
        if self.shape.corpora:
            self._pairs()
        self._manifest()

    def _matchings(self, a: str, b: str) -> None:
        n, random = self.shape.features, self.random
        usual = [one for one in matchers() if one.in_runs]
        ways = [one for one in usual if self.shape.corpora or not one.needs_data]
        folded = random.permutation(n)
        folded[random.random(n) < self.shape.unmatched] = -1
        for way in ways:
            strategy = way.name
            if strategy == MAIN:
                partner = folded
            elif strategy == NAIVE:
                partner = np.arange(n)
            elif way.seeded:
                partner = random.permutation(n)
            else:
                partner = np.where(random.random(n) < 0.6, folded, random.integers(0, n, n))
            known = partner >= 0
            solved = way.assigns
            cost = np.where(known, random.lognormal(2.0, 0.6, n), np.nan)
            margin = np.where(known & solved, random.lognormal(-1.0, 2.5, n), np.nan)
            cosine = np.where(known, random.beta(2, 3, n), np.nan)
            step = {
                "feature": np.arange(n),
                "partner": partner,
                "status": self.status[a],
                "partner_status": np.where(known, self.status[b][partner], None),
                "cost": cost,
                "mse_decoder": cost / 500,
                "mse_encoder": cost / 9000,
                "cosine": cosine,
                "unexplained": 1 - np.nan_to_num(cosine) ** 2,
                "margin": margin,
                "certain": np.nan_to_num(margin) > 0.004,
            }
            self.partners[strategy, a, b] = partner
            if strategy == MAIN:
                self.steps[a, b] = step
            self.keep(f"matchings/{strategy}/{SLUG}/{a}--{b}.parquet", MATCHINGS, step, a=a, b=b)

    def _candidates(self, a: str, b: str) -> None:
        n, count = self.shape.features, self.shape.candidates
        step = self.steps[a, b]
        least = np.nan_to_num(step["cost"], nan=8.0)[:, None]
        cost = np.sort(least * self.random.uniform(0.8, 1.6, (n, count)), axis=1)
        columns = {
            "feature": np.repeat(np.arange(n), count),
            "rank": np.tile(np.arange(1, count + 1), n),
            "candidate": self.random.integers(0, n, n * count),
            "cost": cost.ravel(),
            "cosine": self.random.beta(2, 4, n * count),
        }
        self.keep(f"candidates/{a}--{b}.parquet", CANDIDATES, columns, a=a, b=b)

    def _paths(self) -> None:
        n = self.shape.features
        path, count = np.arange(n), n
        parts: list[dict[str, np.ndarray]] = []
        coming: dict[str, np.ndarray] = {}
        for place, key in enumerate(self.keys):
            first, last = place == 0, place == self.shape.layers - 1
            born = np.zeros(n, dtype=bool) if first else coming["from"] < 0
            part = {
                "path": path,
                "layer": np.full(n, place),
                "key": np.full(n, key, dtype=object),
                "feature": np.arange(n),
                "status": self.status[key],
                "born": born,
            }
            for name in ("cost", "cosine", "margin"):
                part[name] = np.full(n, np.nan) if first else coming[name]
            part["certain"] = np.zeros(n, dtype=bool) if first else coming["certain"]
            parts.append(part)
            if last:
                part["dies"] = np.zeros(n, dtype=bool)
                break
            step = self.steps[key, self.keys[place + 1]]
            partner = step["partner"]
            part["dies"] = partner < 0
            taken = partner >= 0
            following = np.full(n, -1)
            following[partner[taken]] = path[taken]
            coming = {"from": following}
            for name in ("cost", "cosine", "margin"):
                coming[name] = np.full(n, np.nan)
                coming[name][partner[taken]] = step[name][taken]
            coming["certain"] = np.zeros(n, dtype=bool)
            coming["certain"][partner[taken]] = step["certain"][taken]
            fresh = following < 0
            following[fresh] = np.arange(count, count + fresh.sum())
            count += int(fresh.sum())
            coming["from"] = np.where(fresh, -1, following)
            path = following
        columns = {name: np.concatenate([part[name] for part in parts]) for name in PATHS.names}
        order = np.lexsort((columns["layer"], columns["path"]))
        columns = {name: values[order] for name, values in columns.items()}
        self.keep("paths.parquet", PATHS, columns, chains=[self.keys], paths=count)

    def _fates(self, a: str, b: str) -> np.ndarray:
        """Where each feature probably goes; -1: it is not live."""
        n, random = self.shape.features, self.random
        live, live_b = self.status[a] == "live", self.status[b] == "live"
        count = min(3, int(live_b.sum()))
        sure = -np.sort(-random.beta(0.8, 1.2, (n, count)), axis=1)
        told = Fates(
            candidates=np.where(
                live[:, None], random.choice(np.flatnonzero(live_b), (n, count)), -1
            ),
            pair_probability=np.where(live[:, None], sure, np.nan),
            probability=np.where(live, sure[:, 0], np.nan),
            origin_probability=np.where(live_b, random.random(n), np.nan),
            live=live,
            live_b=live_b,
            partner_probability=np.zeros(0),
        )
        columns = {
            "feature": np.arange(n),
            "fate": told.fate,
            "probability": told.probability,
            "partners": [
                row if one else [] for row, one in zip(told.candidates, live, strict=True)
            ],
            "probabilities": [
                row if one else [] for row, one in zip(told.pair_probability, live, strict=True)
            ],
            "partner_count": told.counting.sum(axis=1),
        }
        born = np.flatnonzero(told.born).tolist()
        self.keep(f"fates/{a}--{b}.parquet", FATES, columns, a=a, b=b, notes=[], born=born)
        return told.candidates[:, 0]

    def _followed(self, leads: dict[tuple[str, str], np.ndarray]) -> None:
        n = self.shape.features
        path, feature, count = np.arange(n), np.arange(n), n
        starts = np.ones(n, dtype=bool)
        parts = []
        for place, key in enumerate(self.keys):
            parts.append(
                {
                    "way": np.full(len(path), FOLLOW_WAYS[0], dtype=object),
                    "path": path,
                    "layer": np.full(len(path), place),
                    "key": np.full(len(path), key, dtype=object),
                    "feature": feature,
                    "status": self.status[key][feature],
                    **{
                        name: np.where(starts, np.nan, self.random.random(len(path)))
                        for name in ("cosine", "probability", "start_probability")
                    },
                }
            )
            if place == self.shape.layers - 1:
                break
            following = leads[key, self.keys[place + 1]][feature]
            path, feature = path[following >= 0], following[following >= 0]
            fresh = np.setdiff1d(np.arange(n), feature)
            starts = np.concatenate([np.zeros(len(path)), np.ones(len(fresh))]).astype(bool)
            path = np.concatenate([path, np.arange(count, count + len(fresh))])
            feature, count = np.concatenate([feature, fresh]), count + len(fresh)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in FOLLOWED.names}
        order = np.lexsort((columns["layer"], columns["path"]))
        columns = {name: values[order] for name, values in columns.items()}
        self.keep(FOLLOWED_NAME, FOLLOWED, columns, notes=[])

    def _pairs(self) -> None:
        random = self.random
        sources = []
        for corpus in self.shape.corpora:
            parts: dict[str, list[np.ndarray]] = {name: [] for name in PAIRS.names}
            far = [(a, c, b) for (a, b), (_, c) in pairwise(pairwise(self.keys))][:1]
            for a, b, like in [*((a, b, b) for a, b in pairwise(self.keys)), *far]:
                ways = [one for one in ranked_matchers() if one.in_runs and not one.control]
                for strategy in (one.name for one in ways):
                    # In the non-adjacent pair the same numbers are partners: who mixes them up counts twice.
                    partner = self.partners[strategy, a, like]
                    rows = np.flatnonzero(partner >= 0)
                    activation_count = random.integers(0, 400, len(rows))
                    joint = (activation_count * random.random(len(rows))).astype(np.int64)
                    joint[rows % 20 == 7] = 0
                    values = (
                        np.full(len(rows), a, dtype=object), np.full(len(rows), b, dtype=object),
                        np.full(len(rows), corpus, dtype=object),
                        np.full(len(rows), strategy, dtype=object), rows, partner[rows], activation_count,
                        random.integers(0, 400, len(rows)), joint,
                        np.where(activation_count > 0, random.uniform(-0.1, 0.9, len(rows)), np.nan),
                        np.where(activation_count > 0, random.uniform(0.0, 50.0, len(rows)), np.nan),
                        np.full(len(rows), np.nan),
                    )  # fmt: skip
                    for name, value in zip(PAIRS.names, values, strict=True):
                        parts[name].append(value)
            columns = {name: np.concatenate(values) for name, values in parts.items()}
            self.keep(f"evaluation/pairs/{corpus}.parquet", PAIR_SOURCE, columns)
            sources.append(columns)
        merged = {name: np.concatenate([one[name] for one in sources]) for name in PAIRS.names}
        self.keep("evaluation/pairs.parquet", PAIRS, merged)

    def _manifest(self) -> None:
        saes = {
            key: {
                "reference": f"synthetic/{key}", "layer": int(key), "name": "",
                "d_sae": self.shape.features, "d_model": 64, "activation": "jumprelu", "k": None,
                "features": dict(Counter(self.status[key])),
                "sha256": files.sha256(f"{key} {self.shape.features}".encode()),
            }
            for key in self.keys
        }  # fmt: skip
        content = {
            **empty_manifest(),
            "config": {
                "suite": "synthetic", "layers": None, "strategies": list(usual_in_runs()),
                "parts": {"decoder": 1.0, "encoder": 1.0, "bias": 1.0}, "scale": None,
                "unmatched_cost": None, "far": [], "random_draws": 1, "seed": self.shape.seed,
                "candidates": self.shape.candidates,
            },
            "references": {key: sae["reference"] for key, sae in saes.items()},
            "saes": saes,
            "packages": {"synthetic": {}},
            "plan": {
                "run": {name: "" for name in self.outputs if name.startswith(FROM_PLAN)},
                "others": {},
            },
            "outputs": dict(sorted(self.outputs.items())),
        }  # fmt: skip
        (self.directory / MANIFEST).write_bytes(encode_manifest(content))


def write_run(directory: Path, shape: Shape = Shape()) -> Path:
    """Make a run of this shape in a new folder."""
    directory.mkdir(parents=True, exist_ok=True)
    _Writer(directory, shape).write()
    return directory
