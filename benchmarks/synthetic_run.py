"""A run directory full of plausible numbers, in exactly the schema of a real one, made without any SAE.

For benchmarks and tests of what reads run directories.  Every table is encoded by the schema itself, every
file is in the manifest with its sha256.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from saematch import files
from saematch.run.manifest import MANIFEST, empty_manifest, encode_manifest
from saematch.run.schema import CANDIDATES, MATCHINGS, PAIR_SOURCE, PAIRS, PATHS, Table
from saematch.run.schema_semantics import (
    CONTEXTS,
    DESCRIPTIONS,
    FEATURES,
    JUDGEMENTS,
    RESULTS,
    SAMPLE,
)

SLUG = "decoder+encoder+bias"
STRATEGIES = ("folded", "unfolded", "naive", "random", "cosine")
MEASURED = ("folded", "unfolded", "cosine", "correlation")
"""Strategies whose pairs' firings are counted; correlation needs data, so a run without has none."""
TOKENS = 25
"""Of one context."""
JUDGE = "embedding-synthetic"


@dataclass(frozen=True)
class Shape:
    """How large a run is, and what it has."""

    layers: int = 4
    features: int = 48
    contexts: int = 4
    """Kept for each feature that fires."""
    candidates: int = 5
    corpora: tuple[str, ...] = ("web", "code")
    unmatched: float = 0.0
    """Share of features that die at each step, and as many that are born."""
    judged: int = 12
    """Pairs judged at each step, under each of three strategies."""
    described: bool = True
    seed: int = 0
    source: str = "activations"


class _Writer:
    """Writes the files of a run, and its manifest at the end."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self.directory, self.shape = directory, shape
        self.random = np.random.default_rng(shape.seed)
        self.keys = [str(layer) for layer in range(shape.layers)]
        self.outputs: dict[str, Any] = {}
        self.words = _words(self.random, 3000)
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
        if self.shape.described:
            for key in self.keys:
                self._described(key)
            self._judged()
        if self.shape.corpora:
            self._pairs()
        self._manifest()

    def _matchings(self, a: str, b: str) -> None:
        n, random = self.shape.features, self.random
        strategies = (*STRATEGIES, "correlation") if self.shape.corpora else STRATEGIES
        folded = random.permutation(n)
        folded[random.random(n) < self.shape.unmatched] = -1
        for strategy in strategies:
            if strategy == "folded":
                partner = folded
            elif strategy == "naive":
                partner = np.arange(n)
            elif strategy == "random":
                partner = random.permutation(n)
            else:
                partner = np.where(random.random(n) < 0.6, folded, random.integers(0, n, n))
            known = partner >= 0
            solved = strategy in ("folded", "unfolded")
            cost = np.where(known, random.lognormal(2.0, 0.6, n), np.nan)
            margin = np.where(known & solved, random.lognormal(-1.0, 1.5, n), np.nan)
            step = {
                "feature": np.arange(n),
                "partner": partner,
                "status": self.status[a],
                "partner_status": np.where(known, self.status[b][partner], None),
                "cost": cost,
                "mse_decoder": cost / 500,
                "mse_encoder": cost / 9000,
                "cosine": np.where(known, random.beta(2, 3, n), np.nan),
                "margin": margin,
                "certain": np.nan_to_num(margin) > 0.05,
            }
            self.partners[strategy, a, b] = partner
            if strategy == "folded":
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

    def _described(self, key: str) -> None:
        n, random, words = self.shape.features, self.random, self.words
        fires = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        promotes = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        amid = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        density = np.clip(random.lognormal(-5.5, 1.5, n), 1e-6, 0.9)
        density[self.status[key] == "dead"] = 0.0
        never = density == 0
        greatest = np.where(never, np.nan, random.lognormal(2.5, 0.5, n))
        for row in np.flatnonzero(never):
            fires[row], amid[row] = [], []
        columns = {
            "feature": np.arange(n),
            "firings": np.round(density * 100_000).astype(np.int64),
            "density": density,
            "mean_activation": greatest / 3,
            "greatest_activation": greatest,
            "fires_on": fires,
            "fires_on_share": [[0.4, 0.2, 0.1, 0.05, 0.02][: len(row)] for row in fires],
            "amid": amid,
            "promotes": promotes,
        }
        about = {"corpora": list(self.shape.corpora), "documents": 300, "tokens": 100_000}
        self.keep(f"features/{key}.parquet", FEATURES, columns, **about)
        texts = [
            f"fires on {', '.join(map(repr, one))}; promotes {', '.join(map(repr, other))}"
            for one, other in zip(fires, promotes, strict=True)
        ]
        told = np.flatnonzero(~never)
        described = {
            "feature": told,
            "text": [texts[row] for row in told],
            "source": [self.shape.source] * len(told),
            "explainer": ["tokens"] * len(told),
            "licence": ["CC0-1.0"] * len(told),
        }
        name = f"descriptions/{self.shape.source}--{key}.parquet"
        self.keep(name, DESCRIPTIONS, described, neuronpedia="synthetic/layer")
        self._contexts(key, told, greatest)

    def _contexts(self, key: str, told: np.ndarray, greatest: np.ndarray) -> None:
        count = self.shape.contexts
        rows, random = len(told) * count, self.random
        some = [list(one) for one in self.words[random.integers(0, len(self.words), (500, TOKENS))]]
        shades = np.where(random.random((500, TOKENS)) < 0.15, random.random((500, TOKENS)), 0.0)
        shades[:, TOKENS // 2] = 1.0
        shades = [list(one) for one in np.round(shades * 10, 2)]
        chosen = random.integers(0, 500, rows)
        half = np.tile(np.arange(count) % 2, len(told))
        columns = {
            "feature": np.repeat(told, count),
            "half": half,
            "rank": np.tile(np.arange(count) // 2 + 1, len(told)),
            "corpus": np.tile(np.array(self.shape.corpora or ("web",), dtype=object), rows)[:rows],
            "document": random.integers(0, 300, rows),
            "position": random.integers(1, 1000, rows),
            "activation": np.repeat(greatest[told], count) * random.uniform(0.3, 1.0, rows),
            "place": np.full(rows, TOKENS // 2),
            "tokens": [some[row] for row in chosen],
            "activations": [shades[row] for row in chosen],
        }
        self.keep(f"contexts/{key}.parquet", CONTEXTS, columns)

    def _judged(self) -> None:
        sample: dict[str, list[Any]] = {name: [] for name in SAMPLE.names}
        for a, b in pairwise(self.keys):
            judged = min(self.shape.judged, self.shape.features)
            some = self.random.choice(self.shape.features, judged, replace=False)
            for strategy in ("folded", "unfolded", "cosine"):
                for feature in some:
                    partner = int(self.partners[strategy, a, b][feature])
                    if partner < 0:
                        continue
                    row = (
                        len(sample["question"]), "pair", strategy, a, b, int(feature), partner, 0.01,
                        0, "one text", "another text", False,
                    )  # fmt: skip
                    for name, value in zip(SAMPLE.names, row, strict=True):
                        sample[name].append(value)
        count = len(sample["question"])
        labels = self.random.choice(["SAME", "MAYBE", "DIFFERENT"], count).tolist()
        answers: dict[str, Any] = {
            "experiment": ["layers"] * count, "question": sample["question"], "judge": [JUDGE] * count,
            "outcome": ["judged"] * count, "label": labels, "score": self.random.random(count),
            "reason": ["since the texts say so"] * count, "prompt": ["which?"] * count,
            "reply": labels, "model": ["none"] * count, "attempts": [1] * count,
            "seconds": [0.1] * count, "prompt_tokens": [None] * count,
            "completion_tokens": [None] * count, "cost": [None] * count,
            "time": ["2025-01-01T00:00:00"] * count,
        }  # fmt: skip
        answers["cost"] = np.full(count, np.nan)
        self.keep("judging/layers/sample.parquet", SAMPLE, sample)
        self.keep("judgements.parquet", JUDGEMENTS, answers)
        results = {"strategy": ["folded"], "a": [""], "b": [""], "measure": ["mean"], "value": [2.0],
                   "low": [1.9], "high": [2.1], "judged": [count]}  # fmt: skip
        about = {
            "judge": JUDGE,
            "judge_key": "0",
            "tells": True,
            "verdict": "the judge tells its controls apart",
        }
        self.keep(f"judging/layers/{JUDGE}.parquet", RESULTS, results, **about)

    def _pairs(self) -> None:
        random = self.random
        sources = []
        for corpus in self.shape.corpora:
            parts: dict[str, list[np.ndarray]] = {name: [] for name in PAIRS.names}
            for a, b in pairwise(self.keys):
                for strategy in MEASURED:
                    partner = self.partners[strategy, a, b]
                    rows = np.flatnonzero(partner >= 0)
                    firings = random.integers(0, 400, len(rows))
                    joint = (firings * random.random(len(rows))).astype(np.int64)
                    values = (
                        np.full(len(rows), a, dtype=object), np.full(len(rows), b, dtype=object),
                        np.full(len(rows), corpus, dtype=object),
                        np.full(len(rows), strategy, dtype=object), rows, partner[rows], firings,
                        random.integers(0, 400, len(rows)), joint,
                        np.where(firings > 0, random.uniform(-0.1, 0.9, len(rows)), np.nan),
                        np.where(firings > 0, random.uniform(0.0, 50.0, len(rows)), np.nan),
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
                "features": {}, "sha256": files.sha256(f"{key} {self.shape.features}".encode()),
            }
            for key in self.keys
        }  # fmt: skip
        content = {
            **empty_manifest(),
            "config": {
                "suite": "synthetic", "layers": None, "strategies": list(STRATEGIES),
                "parts": {"decoder": 1.0, "encoder": 1.0, "bias": 1.0}, "scale": None,
                "unmatched_cost": None, "far": [], "random_draws": 1, "seed": self.shape.seed,
                "candidates": self.shape.candidates,
            },
            "references": {key: sae["reference"] for key, sae in saes.items()},
            "saes": saes,
            "outputs": dict(sorted(self.outputs.items())),
        }  # fmt: skip
        (self.directory / MANIFEST).write_bytes(encode_manifest(content))


def write_run(directory: Path, shape: Shape = Shape()) -> Path:
    """Make a run of this shape in a new folder."""
    directory.mkdir(parents=True, exist_ok=True)
    _Writer(directory, shape).write()
    return directory


def _words(random: np.random.Generator, count: int) -> np.ndarray:
    """Tokens with blanks in front, as many tokenizers have them."""
    syllables = np.array(
        ["ca", "to", "ri", "men", "sol", "ver", "ing", "ex", "ple", "un", "Q", "é"]
    )
    made = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(count)]
    return np.array([" " + one if n % 3 else one for n, one in enumerate(made)], dtype=object)
