"""What features of a synthetic run are said to mean: how often they are active, examples,
descriptions, judgements."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from saematch.matching.matchers import COSINE, FOLDED, UNFOLDED
from saematch.store.schema import (
    DESCRIPTIONS,
    EXAMPLES,
    FEATURES,
    JUDGEMENTS,
    RESULTS,
    SAMPLE,
)

TOKENS = 25
"""Tokens of one example."""
JUDGE = "embedding-synthetic"
UNABLE = "embedding-another"


class Meanings:
    """The part of a run's writer that knows of meanings; `keep` and the rest are the writer's."""

    shape: Any
    random: np.random.Generator
    words: np.ndarray
    keys: list[str]
    status: dict[str, np.ndarray]
    partners: dict[tuple[str, str, str], np.ndarray]
    keep: Any

    def describe(self, key: str) -> None:
        n, random, words = self.shape.features, self.random, self.words
        activates_on = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        top_logits = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        amid = [list(row) for row in words[random.integers(0, len(words), (n, 5))]]
        activation_frequency = np.clip(random.lognormal(-5.5, 1.5, n), 1e-6, 0.9)
        activation_frequency[self.status[key] == "dead"] = 0.0
        never = activation_frequency == 0
        greatest = np.where(never, np.nan, random.lognormal(2.5, 0.5, n))
        for row in np.flatnonzero(never):
            activates_on[row], amid[row] = [], []
        columns = {
            "feature": np.arange(n),
            "activation_count": np.round(activation_frequency * 100_000).astype(np.int64),
            "activation_frequency": activation_frequency,
            "mean_activation": greatest / 3,
            "greatest_activation": greatest,
            "activates_on": activates_on,
            "activates_on_share": [[0.4, 0.2, 0.1, 0.05, 0.02][: len(row)] for row in activates_on],
            "amid": amid,
            "top_logits": top_logits,
        }
        about = {"corpora": list(self.shape.corpora), "documents": 300, "tokens": 100_000}
        self.keep(f"features/{key}.parquet", FEATURES, columns, **about)
        texts = [
            f"fires on {', '.join(map(repr, one))}; promotes {', '.join(map(repr, other))}"
            for one, other in zip(activates_on, top_logits, strict=True)
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
        self._examples(key, told, greatest)

    def _examples(self, key: str, told: np.ndarray, greatest: np.ndarray) -> None:
        count = self.shape.examples
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
        self.keep(f"examples/{key}.parquet", EXAMPLES, columns)

    def judge(self) -> None:
        """Two experiments: `layers` asks about three strategies and has two judges, of whom the second
        fails its controls; `mse` asks about one.  Controls and questions the other way round are among
        them."""
        answers: dict[str, list[Any]] = {name: [] for name in JUDGEMENTS.names}
        for experiment, strategies in (
            ("layers", (FOLDED, UNFOLDED, COSINE)),
            ("mse", (FOLDED,)),
        ):
            sample = self._sample(strategies)
            self.keep(f"judging/{experiment}/sample.parquet", SAMPLE, sample)
            for judge, passes_controls in ((JUDGE, True), (UNABLE, False)):
                if passes_controls or experiment == "layers":
                    self._answer(experiment, judge, sample, answers)
                    self._results(experiment, judge, passes_controls, len(sample["question"]))
        self.keep("judgements.parquet", JUDGEMENTS, answers)

    def _sample(self, strategies: Sequence[str]) -> dict[str, list[Any]]:
        sample: dict[str, list[Any]] = {name: [] for name in SAMPLE.names}
        for a, b in pairwise(self.keys):
            judged = min(self.shape.judged, self.shape.features)
            some = self.random.choice(self.shape.features, judged, replace=False)
            for strategy in strategies:
                for number, feature in enumerate(some):
                    partner = int(self.partners[strategy, a, b][feature])
                    if partner < 0:
                        continue
                    # A third of the pairs are asked the other way round too, and another a control too.
                    asked = (("pair", False), ("pair", True), ("different", False))
                    for kind, swapped in asked[: 1 + number % 3]:
                        row = (
                            len(sample["question"]), kind, strategy, a, b, int(feature), partner, 0.01,
                            0, "one text", "another text", swapped,
                        )  # fmt: skip
                        for name, value in zip(SAMPLE.names, row, strict=True):
                            sample[name].append(value)
        return sample

    def _answer(
        self,
        experiment: str,
        judge: str,
        sample: dict[str, list[Any]],
        answers: dict[str, list[Any]],
    ) -> None:
        count = len(sample["question"])
        labels = self.random.choice(["SAME", "MAYBE", "DIFFERENT"], count).tolist()
        for name, values in {
            "experiment": [experiment] * count, "question": sample["question"], "judge": [judge] * count,
            "outcome": ["judged"] * count, "label": labels, "score": self.random.random(count).tolist(),
            "reason": ["since the texts say so"] * count, "prompt": ["which?"] * count,
            "reply": labels, "model": ["none"] * count, "attempts": [1] * count,
            "seconds": [0.1] * count, "prompt_tokens": [None] * count,
            "completion_tokens": [None] * count, "cost": [np.nan] * count,
            "time": ["2025-01-01T00:00:00"] * count,
        }.items():  # fmt: skip
            answers[name] += values

    def _results(self, experiment: str, judge: str, passes_controls: bool, count: int) -> None:
        results = {"strategy": [FOLDED], "a": [""], "b": [""], "measure": ["mean"], "value": [2.0],
                   "low": [1.9], "high": [2.1], "judged": [count]}  # fmt: skip
        verdict = "passes" if passes_controls else "fails"
        about = {
            "judge": judge,
            "judge_key": judge[-1],
            "passes_controls": passes_controls,
            "verdict": f"the judge {verdict} its controls apart",
        }
        self.keep(f"judging/{experiment}/{judge}.parquet", RESULTS, results, **about)


def made_words(random: np.random.Generator, count: int) -> np.ndarray:
    """Tokens with blanks in front, as many tokenizers have them."""
    syllables = np.array(
        ["ca", "to", "ri", "men", "sol", "ver", "ing", "ex", "ple", "un", "Q", "é"]
    )
    made = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(count)]
    return np.array([" " + one if n % 3 else one for n, one in enumerate(made)], dtype=object)
