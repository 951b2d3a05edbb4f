"""How probable it is that two features are the same, from weights alone.

*The same* means: on text, φ of the two (the correlation of being active, as 0 and 1 on tokens) is at least
`SAME_PHI`.  Cosine alone ranks pairs by it poorly, since φ also wants the two to be active about
equally often, and to be closer to each other than others are.  So:

1. The candidates of a feature of A are the `CANDIDATES` live features of B of greatest decoder cosine.
2. A pair has `DESCRIPTORS`: decoder and encoder cosine, by how much each exceeds what the best other
   feature of B, and of A, would have; the cross response √(V⁺U⁺), where V is what one feature writes at its
   threshold, read by the encoder of the other, over the other's threshold, and U the same backwards; and of
   both features how high the threshold lies above the usual pre-activation, how much they write at their
   threshold, and the encoder's norm, each over the median of the SAE's live features.
   The usual pre-activation needs no text: the stream's mean is about b_dec, and its covariance about
   Σ θ² w_dec w_decᵀ over the live features.
3. Logistic regression on descriptors and their products gives the probability.  Values beyond
   those that the regression was fitted on are cut off there.
4. A second regression gives the probability that any feature of B is the same: from the two most probable
   candidates, from all of them together (1 − Π(1 − p)) and from descriptors of the feature.

The two regressions are a `Calibration`: a few numbers in a readable file.  It holds for SAEs whose
descriptors lie where it was fitted; elsewhere no probability is given, and a note says why.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit, logit
from torch import Tensor

from saematch.assignment.costs import full_precision
from saematch.errors import InputError, UsageError
from saematch.matching.strategies import unit_rows
from saematch.sae import SAE
from saematch.text import to_json

SAME_PHI = 0.3
CANDIDATES = 10
DESCRIPTORS = (
    "decoder_cosine",
    "decoder_cosine_over_row",
    "decoder_cosine_over_column",
    "encoder_cosine",
    "encoder_cosine_over_row",
    "encoder_cosine_over_column",
    "cross_response",
    "threshold_height",
    "partner_threshold_height",
    "written",
    "partner_written",
    "encoder_norm",
    "partner_encoder_norm",
)
ANY_DESCRIPTORS = (
    "most_probable",
    "second",
    "all_together",
    "threshold_height",
    "written",
    "encoder_norm",
)
OUTSIDE = 0.05
"""A calibration says nothing where more of the descriptors than this lie beyond what it was fitted on."""
RANGE = (0.001, 0.999)
"""Quantiles of a descriptor that its range runs between."""
PENALTY = 1e-3
"""Of squared weights, against the mean log loss."""
CLOSEST = 1e-6
"""Probabilities keep this distance from 0 and 1."""
ROWS = 1024
"""Features of A whose cosines with all of B are held at a time."""
PAIRS = 1 << 14
"""Pairs whose rows are held at a time."""


@dataclass(frozen=True, eq=False)
class _Profile:
    """What one SAE brings to the descriptors, of its live features."""

    live: Int64[Tensor, " n"]
    decoder: Float[Tensor, "n d"]
    """Unit rows."""
    encoder: Float[Tensor, "n d"]
    encoder_length: Float64[Tensor, " n"]
    at_threshold: Float64[Tensor, " n"]
    """Norm of what it writes at its threshold."""
    threshold: Float64[Tensor, " n"]
    own: Float64[Tensor, "n 3"]
    """threshold_height, written, encoder_norm."""

    @classmethod
    def of(cls, sae: SAE) -> "_Profile":
        live = torch.from_numpy(np.flatnonzero(np.array(sae.status) == "live"))
        assert sae.threshold is not None
        encoder = sae.W_enc.T[live].double()
        decoder = sae.W_dec[live].double()
        threshold = sae.threshold[live].double()
        written = decoder * threshold.clamp(min=0)[:, None]
        spread = ((encoder @ (written.T @ written)) * encoder).sum(dim=1).clamp(min=0).sqrt()
        usual = encoder @ sae.b_dec.double() + sae.b_enc[live].double()
        length, at_threshold = encoder.norm(dim=1), written.norm(dim=1)
        own = [
            _over_median((threshold - usual) / spread.clamp(min=1e-12)),
            _over_median(at_threshold).clamp(min=1e-6).log(),
            _over_median(length).clamp(min=1e-6).log(),
        ]
        return cls(
            live,
            unit_rows(sae.W_dec[live]),
            unit_rows(sae.W_enc.T[live]),
            length,
            at_threshold,
            threshold,
            torch.stack(own, dim=1),
        )


# Two: pairs of a suite are walked in order, and a profile is as large as its SAE.
_profile = lru_cache(maxsize=2)(_Profile.of)


def _over_median(values: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    median = values.median() if len(values) else values.new_ones(())
    return values / torch.where(median == 0, 1.0, median)


@dataclass(frozen=True, eq=False)
class _Best:
    """The two greatest of a set for each of its members, and where the first of them stands."""

    first: Float[Tensor, " n"]
    at: Int64[Tensor, " n"]
    second: Float[Tensor, " n"]

    @classmethod
    def of(cls, values: Float[Tensor, "n k"]) -> "_Best":
        if values.shape[1] == 1:
            values = torch.cat([values, torch.zeros_like(values)], dim=1)
        top = values.topk(2, dim=1)
        return cls(top.values[:, 0], top.indices[:, 0], top.values[:, 1])

    def beside(self, i: Tensor, j: Tensor) -> Float64[Tensor, " pairs"]:
        """The greatest for i when j is left out."""
        return torch.where(self.at[i] == j, self.second[i], self.first[i]).double()


class Descriptors:
    """Descriptors of pairs of live features of two SAEs, and the candidates of each.

    Raises UsageError for SAEs without thresholds, of which no threshold's height is known.
    """

    def __init__(self, a: SAE, b: SAE, candidates: int = CANDIDATES) -> None:
        for sae in (a, b):
            if not sae.has_thresholds:
                raise UsageError(
                    f"expected SAEs with thresholds for probabilities, got a {sae.activation} SAE"
                )
        self.a, self.b = _profile(a), _profile(b)
        count = min(candidates, len(self.b.live))
        near, rows, columns = [], ([], []), ([], [])
        for start in range(0, len(self.a.live), ROWS):
            block = slice(start, start + ROWS)
            for number, name in enumerate(("decoder", "encoder")):
                with full_precision():
                    cosine = getattr(self.a, name)[block] @ getattr(self.b, name).T
                rows[number].append(_Best.of(cosine))
                best = _Best.of(cosine.T)
                columns[number].append(_Best(best.first, best.at + start, best.second))
                if name == "decoder":
                    near.append(cosine.topk(count, dim=1).indices)
        self.near: Int64[Tensor, "n count"] = (
            torch.cat(near) if near else torch.zeros(0, count, dtype=torch.int64)
        )
        """Candidates of each live feature of A, as places in `b.live`."""
        self._rows = [_joined(found) for found in rows]
        self._columns = [_greatest(found, len(self.b.live)) for found in columns]

    def of(
        self, i: Int64[Tensor, " pairs"], j: Int64[Tensor, " pairs"]
    ) -> Float64[np.ndarray, "pairs descriptors"]:
        """Of pairs, given as places in `a.live` and `b.live`."""
        parts = [self._of(*some) for some in zip(i.split(PAIRS), j.split(PAIRS), strict=True)]
        return torch.cat(parts).numpy() if parts else np.zeros((0, len(DESCRIPTORS)))

    def _of(self, i: Tensor, j: Tensor) -> Float64[Tensor, "pairs descriptors"]:
        a, b, columns = self.a, self.b, []
        for number, name in enumerate(("decoder", "encoder")):
            cosine = (getattr(a, name)[i] * getattr(b, name)[j]).sum(dim=1).double()
            columns += [
                cosine,
                cosine - self._rows[number].beside(i, j),
                cosine - self._columns[number].beside(j, i),
            ]
        # What i writes at its threshold as j reads it, and j's as i reads it, over the reader's threshold.
        read_by_b = (a.decoder[i] * b.encoder[j]).sum(dim=1).double().clamp(min=0)
        read_by_a = (a.encoder[i] * b.decoder[j]).sum(dim=1).double().clamp(min=0)
        read_by_b *= a.at_threshold[i] * b.encoder_length[j] / b.threshold[j].clamp(min=1e-6)
        read_by_a *= b.at_threshold[j] * a.encoder_length[i] / a.threshold[i].clamp(min=1e-6)
        columns.append((read_by_b * read_by_a).sqrt().clamp(max=3))
        of_a, of_b = a.own[i], b.own[j]
        columns += [side[:, place] for place in range(3) for side in (of_a, of_b)]
        return torch.stack(columns, dim=1)

    def candidates(self, at_most: int | None = None) -> Float64[np.ndarray, "n count descriptors"]:
        """Of every live feature of A, or of so many evenly spaced ones, and its candidates."""
        step = 1 if at_most is None else -(-len(self.near) // at_most)
        i = torch.arange(0, len(self.near), step)
        n, count = len(i), self.near.shape[1]
        pairs = self.of(i[:, None].expand(n, count).reshape(-1), self.near[i].reshape(-1))
        return pairs.reshape(n, count, len(DESCRIPTORS))


def _joined(found: Sequence[_Best]) -> _Best:
    names = ("first", "at", "second")
    if not found:
        none = torch.zeros(0)
        return _Best(none, none.long(), none)
    return _Best(*(torch.cat([getattr(one, name) for one in found]) for name in names))


def _greatest(found: Sequence[_Best], count: int) -> _Best:
    """Of the bests of several sets the best of all."""
    if not found:
        none = torch.zeros(count)
        return _Best(none, none.long(), none)
    first = torch.stack([one.first for one in found], dim=1)
    top = first.max(dim=1)
    at = torch.stack([one.at for one in found], dim=1).gather(1, top.indices[:, None])[:, 0]
    others = first.scatter(1, top.indices[:, None], -torch.inf)
    second = torch.stack([one.second for one in found], dim=1).gather(1, top.indices[:, None])
    return _Best(top.values, at, torch.maximum(others.amax(dim=1), second[:, 0]))


@dataclass(frozen=True, eq=False)
class Labelled:
    """One pair of SAEs as a calibration is fitted to it and judged on."""

    descriptors: Float64[np.ndarray, "n count descriptors"]
    same: Bool[np.ndarray, "n count"]
    """Whether φ of the pair reaches `SAME_PHI` on the texts."""
    any: Bool[np.ndarray, " n"]
    """Whether that of any feature of B does, candidate or not."""

    def some(self, features: slice) -> "Labelled":
        """Of some features of A."""
        return Labelled(self.descriptors[features], self.same[features], self.any[features])

    @classmethod
    def of(
        cls,
        pairs: Descriptors,
        phi: Callable[[slice], Float64[Tensor, "rows d_b"]],
        seen: Bool[np.ndarray, " d_a"],
    ) -> "Labelled":
        """`phi`: of some features of A with all of B; NaN: none.  `seen`: features active often enough for it
        to mean something; the others are left out."""
        live_a, live_b = pairs.a.live, pairs.b.live
        same, any_ = [], []
        for start in range(0, len(live_a), ROWS):
            block = slice(start, start + ROWS)
            features = live_a[block]
            rows = phi(slice(int(features[0]), int(features[-1]) + 1))
            agree = rows[features - features[0]][:, live_b].cpu() >= SAME_PHI
            same.append(agree.gather(1, pairs.near[block]))
            any_.append(agree.any(dim=1))
        some = seen[live_a.numpy()]
        return cls(
            pairs.candidates()[some], torch.cat(same).numpy()[some], torch.cat(any_).numpy()[some]
        )


@dataclass(frozen=True, eq=False)
class Regression:
    """P = σ(constant + Σ weights × terms), the terms standardised inputs, cut off at their range, and,
    `products`, products of two of them."""

    names: tuple[str, ...]
    low: Float64[np.ndarray, " inputs"]
    high: Float64[np.ndarray, " inputs"]
    mean: Float64[np.ndarray, " inputs"]
    deviation: Float64[np.ndarray, " inputs"]
    weights: Float64[np.ndarray, " terms"]
    """The constant first, inputs, then products in the order of `numpy.triu_indices`."""
    products: bool

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        inputs: Float64[np.ndarray, "n inputs"],
        truth: Bool[np.ndarray, " n"],
        products: bool,
        prior: "Regression | None" = None,
    ) -> "Regression":
        """The weights of least mean log loss and `PENALTY` ‖weights − prior's‖² / 2, a convex problem.

        With a prior the inputs' ranges and scales stay the prior's, so that few labels move little.
        Raises UsageError where all labels are equal.
        """
        if truth.all() or not truth.any():
            raise UsageError(
                f"expected pairs that are the same and pairs that are not to fit to, got {len(truth):,} "
                "of one kind; try more text"
            )
        if prior is None:
            low, high = np.quantile(inputs, RANGE, axis=0)
            cut = np.clip(inputs, low, high)
            deviation = cut.std(axis=0)
            deviation[deviation == 0] = 1.0
            count = 1 + len(names) + (len(names) * (len(names) + 1) // 2 if products else 0)
            prior = cls(
                tuple(names), low, high, cut.mean(axis=0), deviation, np.zeros(count), products
            )
        terms, signs = prior._terms(inputs), np.where(truth, 1.0, -1.0)
        before = prior.weights
        free = np.ones(len(before))
        free[0] = 0.0  # The level is the labels' to say.

        def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
            score = signs * (terms @ weights)
            change = free * (weights - before)
            gradient = terms.T @ (-signs * expit(-score)) / len(truth) + PENALTY * change
            return float(np.logaddexp(0, -score).mean() + PENALTY / 2 * change @ change), gradient

        found = minimize(loss, before, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
        return cls(
            prior.names, prior.low, prior.high, prior.mean, prior.deviation, found.x, products
        )

    def __call__(self, inputs: Float64[np.ndarray, "*n inputs"]) -> Float64[np.ndarray, "*n"]:
        return np.clip(expit(self._terms(inputs) @ self.weights), CLOSEST, 1 - CLOSEST)

    def outside(self, inputs: Float64[np.ndarray, "n inputs"]) -> float:
        """Share of the values that lie beyond the range."""
        beyond = (inputs < self.low) | (inputs > self.high)
        return float(beyond.mean()) if beyond.size else 0.0

    def _terms(self, inputs: np.ndarray) -> np.ndarray:
        scaled = (np.clip(inputs, self.low, self.high) - self.mean) / self.deviation
        parts = [np.ones((*scaled.shape[:-1], 1)), scaled]
        if self.products:
            one, other = np.triu_indices(scaled.shape[-1])
            parts.append(scaled[..., one] * scaled[..., other])
        return np.concatenate(parts, axis=-1)

    def to_record(self) -> dict[str, Any]:
        inputs = {
            name: {"low": low, "high": high, "mean": mean, "deviation": deviation}
            for name, low, high, mean, deviation in zip(
                self.names, self.low, self.high, self.mean, self.deviation, strict=True
            )
        }
        return {"inputs": inputs, "weights": dict(zip(self._labels, self.weights, strict=True))}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Regression":
        names = tuple(record["inputs"])
        low, high, mean, deviation = (
            np.array([record["inputs"][name][of] for name in names], dtype=float)
            for of in ("low", "high", "mean", "deviation")
        )
        weights = np.array(list(record["weights"].values()), dtype=float)
        return cls(names, low, high, mean, deviation, weights, len(weights) > 1 + len(names))

    @property
    def _labels(self) -> list[str]:
        labels = ["constant", *self.names]
        if self.products:
            pairs = zip(*np.triu_indices(len(self.names)), strict=True)
            labels += [f"{self.names[one]} * {self.names[other]}" for one, other in pairs]
        return labels


@dataclass(frozen=True, eq=False)
class Calibration:
    """Descriptors of pairs in, probabilities out; `about` says what it was fitted to and judged on."""

    pair: Regression
    any: Regression
    about: Mapping[str, Any]

    @classmethod
    def fit(
        cls,
        labelled: Sequence[Labelled],
        about: Mapping[str, Any],
        prior: "Calibration | None" = None,
    ) -> "Calibration":
        """`prior`: a calibration that is moved towards these pairs, not left behind: with few texts its
        level moves, with many all of it."""
        inputs = np.concatenate([one.descriptors.reshape(-1, len(DESCRIPTORS)) for one in labelled])
        same = np.concatenate([one.same.reshape(-1) for one in labelled])
        pair = Regression.fit(DESCRIPTORS, inputs, same, True, prior and prior.pair)
        of_feature = np.concatenate(
            [_of_feature(pair(one.descriptors), one.descriptors) for one in labelled]
        )
        any_ = np.concatenate([one.any for one in labelled])
        found = Regression.fit(ANY_DESCRIPTORS, of_feature, any_, False, prior and prior.any)
        return cls(pair, found, about)

    def probabilities(
        self, descriptors: Float64[np.ndarray, "n count descriptors"]
    ) -> tuple[Float64[np.ndarray, "n count"], Float64[np.ndarray, " n"]]:
        """Of every candidate to be the same, and of any feature of B to be."""
        if not descriptors.size:
            return np.zeros(descriptors.shape[:2]), np.zeros(len(descriptors))
        pairs = self.pair(descriptors)
        return pairs, self.any(_of_feature(pairs, descriptors))

    def carries_over(self, descriptors: Float64[np.ndarray, "n count descriptors"]) -> bool:
        """Whether it says anything of such pairs."""
        return self.pair.outside(descriptors.reshape(-1, len(DESCRIPTORS))) <= OUTSIDE

    def to_text(self) -> str:
        """As JSON that people can read."""
        record = {"about": self.about, "same_phi": SAME_PHI}
        record |= {"pair": self.pair.to_record(), "any": self.any.to_record()}
        return to_json(record, indent=1) + "\n"

    @cached_property
    def sha256(self) -> str:
        """Of `to_text`."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        Path(path).write_text(self.to_text(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Calibration":
        """From a file that `save` wrote; None: the one that ships.

        Raises InputError for another file.
        """
        if path is None:
            return _bundled()
        return cls.read(Path(path).read_text(encoding="utf-8"), str(path))

    @classmethod
    def read(cls, text: str, where: str) -> "Calibration":
        """From what `save` writes; raises InputError naming `where`."""
        try:
            record = json.loads(text)
            found = cls(
                Regression.from_record(record["pair"]),
                Regression.from_record(record["any"]),
                record["about"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"expected a calibration in {where}, got {error!r}; make one with saematch calibrate"
            ) from error
        if (found.pair.names, found.any.names) != (DESCRIPTORS, ANY_DESCRIPTORS):
            raise InputError(
                f"expected a calibration on {', '.join(DESCRIPTORS)} in {where}, got one of another version"
            )
        return found


@cache
def _bundled() -> Calibration:
    path = files("saematch") / "bundled" / "calibration.json"
    return Calibration.read(path.read_text(encoding="utf-8"), str(path))


def _of_feature(
    pairs: Float64[np.ndarray, "n count"], descriptors: Float64[np.ndarray, "n count descriptors"]
) -> Float64[np.ndarray, "n any"]:
    """`ANY_DESCRIPTORS` of each feature."""
    ranked = -np.sort(-pairs, axis=1)
    second = ranked[:, min(1, ranked.shape[1] - 1)]
    together = np.clip(1 - np.prod(1 - pairs, axis=1), CLOSEST, 1 - CLOSEST)
    own = descriptors[:, 0, [DESCRIPTORS.index(name) for name in ANY_DESCRIPTORS[3:]]]
    return np.column_stack([logit(ranked[:, 0]), logit(second), logit(together), own])


def expected_calibration_error(
    probability: Float64[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], bins: int = 15
) -> float:
    """Mean distance of probability from frequency over `bins` groups of equally many, by probability
    (Guo et al., 2017, with equal counts)."""
    groups = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [
        len(group) * abs(probability[group].mean() - truth[group].mean())
        for group in groups
        if len(group)
    ]
    return float(sum(gaps) / max(1, len(truth)))
