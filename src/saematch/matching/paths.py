"""Follow features through the layers, in one of two ways.

`follow` chooses each path as a whole, so that it does not drift.  With c_l(i, j) the decoder cosine,

    maximise  Σ_l  START · cos(start, j_l) + (1 − START) · cos(j_{l−1}, j_l)

over the members j_l after the start, each among the `CANDIDATES` live features of layer l that are nearest
to the start.  The sum couples neighbours only, so dynamic programming over the candidates is exact.  A
feature that is not live is not followed.  That is the way `consensus`; `exact` takes START = 1, the
nearest to the start in every layer, whatever lies between.

`chain` composes adjacent matchings, as SAE Match does: a path steps from feature i of layer t to
`permutation[i]` of layer t+1, and ends where i is unmatched: -1 from there on.  Errors of the steps add up.

Every feature of the first layer starts a path, and so does every later one that no path passes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from saematch.assignment.costs import full_precision
from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Permutation
from saematch.matching.fates import descriptors_of, pair_probabilities
from saematch.matching.matched import Matching, Side
from saematch.matching.probability import Calibration
from saematch.matching.strategies import pair_cosines, unit_rows
from saematch.notebook import curve, page
from saematch.sae import SAE, FoldedSAE
from saematch.types import FOLLOW_WAYS, find_feature, find_key

if TYPE_CHECKING:
    import pandas as pd

START = 0.8
"""Weight of a member's cosine with the start, against that with the member before: chosen on paths from
block 14 of the bundled suite, judged on those from block 12, on the same texts (docs/method.md)."""
CANDIDATES = 16
ENTRIES = 1 << 24
"""Float32 entries of candidates' rows held at a time."""
EXAMPLES = 5
"""Paths that a notebook shows whole."""


@dataclass(frozen=True, eq=False)
class FeaturePaths:
    """Features through consecutive SAEs; step arrays have one column per pair of adjacent SAEs."""

    sides: tuple[Side, ...]
    """The SAEs in order of depth."""
    features: Int64[np.ndarray, "n_paths n_layers"]
    """-1 before a path starts and after it ends."""
    cost: Float64[np.ndarray, "n_paths n_steps"]
    cosine: Float64[np.ndarray, "n_paths n_steps"]
    margin: Float64[np.ndarray, "n_paths n_steps"]
    certain: Bool[np.ndarray, "n_paths n_steps"]
    """Whether every optimal matching of the two layers takes this step."""
    probability: Float64[np.ndarray, "n_paths n_steps"]
    """That the step's two features are the same (probability.py); NaN: not known."""
    start_probability: Float64[np.ndarray, "n_paths n_layers"]
    """That the feature and the path's start are the same; NaN: not known, or it is the start."""
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(side.layer for side in self.sides)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(side.key for side in self.sides)

    def __len__(self) -> int:
        return len(self.features)

    def _repr_html_(self) -> str:
        """How many paths there are, some whole ones from near to far, and the mean cosine of each
        step."""
        live = np.flatnonzero(self.live())
        facts: dict[str, Any] = {
            "paths": f"{len(self):,}, {len(live):,} of them through every layer by live features"
        }
        if len(live):
            ranked = live[np.argsort(-self.cosine[live].sum(axis=1), kind="stable")]
            places = np.unique(np.linspace(0, len(ranked) - 1, EXAMPLES).round().astype(int))
            for place in places:
                path = ranked[place]
                steps = zip(self.keys, self.features[path], strict=True)
                share = f"rank {place + 1:,} of {len(ranked):,} by cosine"
                facts[share] = " → ".join(f"{key}/{feature}" for key, feature in steps)
        cosines = self.cosine[live].mean(axis=0) if len(live) else np.zeros(0)
        title = f"FeaturePaths through {', '.join(self.keys)}"
        return page(title, facts, curve(cosines, "mean decoder cosine of each step, live paths"))

    def position(self, key: str | int) -> int:
        """The column of a layer; raises UsageError naming the layers there are."""
        return self.keys.index(find_key(key, self.keys))

    def through(self, key: str | int, feature: int) -> np.ndarray:
        """The numbers of the paths that pass through a feature, ascending.

        One for one-to-one matchings; none or several for others.
        """
        column = self.position(key)
        widths = {side.key: side.d_sae for side in self.sides}
        _, feature = find_feature((self.keys[column], feature), widths)
        return np.flatnonzero(self.features[:, column] == feature)

    def status(self, path: int, column: int) -> str | None:
        """live, dead or degenerate; None where the path does not pass."""
        feature = self.features[path, column]
        return None if feature == UNMATCHED else str(self.sides[column].status[feature])

    def live(self) -> np.ndarray:
        """[n_paths] bool: paths through every layer, all of whose features are live."""
        live = (self.features != UNMATCHED).all(axis=1)
        for column, side in enumerate(self.sides):
            live[live] = side.status[self.features[live, column]] == "live"
        return live

    def permutation(self, start: str | int, stop: str | int) -> Permutation:
        """Where paths that pass `start` are at `stop`; of `chain` that is the composition of its steps.

        Paths of `follow` may share a feature of `start`: the one that began last counts.
        """
        first, last = self.position(start), self.position(stop)
        if first >= last:
            raise UsageError(f"expected a later layer than {start}, got {stop}")
        composed = np.full(self.sides[first].d_sae, UNMATCHED, dtype=np.int64)
        passing = self.features[:, first] != UNMATCHED
        composed[self.features[passing, first]] = self.features[passing, last]
        return composed

    def to_frame(self) -> "pd.DataFrame":
        """One row a (path, layer) that the path passes; step columns belong to the step *into* it.

        `born`: the path starts there, after the first layer; `dies`: it ends there, before the last.
        """
        import pandas as pd

        path, column = np.nonzero(self.features != UNMATCHED)
        feature = self.features[path, column]
        status = np.empty(len(path), dtype=object)
        for number, side in enumerate(self.sides):
            here = column == number
            status[here] = side.status[feature[here]]
        last = self.features.shape[1] - 1
        before, after = np.maximum(column - 1, 0), np.minimum(column + 1, last)
        stepped = (column > 0) & (self.features[path, before] != UNMATCHED)

        def step(values: np.ndarray) -> np.ndarray:
            if not values.shape[1]:
                return np.full(len(path), np.nan)
            return np.where(stepped, values[path, np.maximum(column - 1, 0)], np.nan)

        return pd.DataFrame(
            {
                "path": path,
                "layer": np.array(self.layers)[column],
                "key": np.array(self.keys, dtype=object)[column],
                "feature": feature,
                "status": status,
                "cost": step(self.cost),
                "cosine": step(self.cosine),
                "margin": step(self.margin),
                "certain": stepped & (step(self.certain.astype(float)) == 1.0),
                "probability": step(self.probability),
                "start_probability": self.start_probability[path, column],
                "born": (column > 0) & (self.features[path, before] == UNMATCHED),
                "dies": (column < last) & (self.features[path, after] == UNMATCHED),
            }
        )


def chain(matchings: Sequence[Matching]) -> FeaturePaths:
    """Chain matchings of consecutive layers: A→B, B→C, … into paths through A, B, C, …

    Raises UsageError unless every matching starts where the one before it ends.
    """
    if not matchings:
        raise UsageError("expected at least one matching to chain, got none")
    for before, after in itertools.pairwise(matchings):
        if (before.b.key, before.b.d_sae) != (after.a.key, after.a.d_sae):
            raise UsageError(
                f"expected a matching that starts at {before.b.key} ({before.b.d_sae} features), got "
                f"one that starts at {after.a.key} ({after.a.d_sae} features); "
                "chain them in order of depth"
            )
    sides = (matchings[0].a, *(m.b for m in matchings))
    features = np.arange(sides[0].d_sae)[:, None]
    for matching in matchings:
        last = features[:, -1]
        going = last != UNMATCHED
        step = np.full(len(last), UNMATCHED, dtype=np.int64)
        step[going] = matching.permutation[last[going]]
        features = np.column_stack([features, step])
        born = np.setdiff1d(np.arange(matching.b.d_sae), step)
        before = np.full((len(born), features.shape[1] - 1), UNMATCHED, dtype=np.int64)
        features = np.vstack([features, np.column_stack([before, born])])

    def steps(values: Sequence[np.ndarray]) -> np.ndarray:
        columns = []
        for number, value in enumerate(values):
            source, target = features[:, number], features[:, number + 1]
            taken = (source != UNMATCHED) & (target != UNMATCHED)
            columns.append(np.where(taken, value[np.maximum(source, 0)], np.nan))
        return np.column_stack(columns)

    return FeaturePaths(
        sides=sides,
        features=features,
        cost=steps([m.cost for m in matchings]),
        cosine=steps([m.cosine for m in matchings]),
        margin=steps([m.margin for m in matchings]),
        certain=steps([m.certain.astype(float) for m in matchings]) == 1.0,
        probability=np.full((len(features), len(matchings)), np.nan),
        start_probability=np.full(features.shape, np.nan),
    )


def follow(
    saes: Sequence[SAE | FoldedSAE],
    calibration: Calibration | None = None,
    way: str = "consensus",
) -> FeaturePaths:
    """Paths through SAEs in order of depth that agree with their start, and step by step.

    `way`: `consensus`, or `exact`, which heeds the start alone.  `calibration`: of the probabilities; None
    is the one that ships.  Where none holds, probabilities are NaN and the notes say why; the paths are the
    same.  Costs are NaN: paths are chosen by cosine.

    Raises UsageError for fewer than two SAEs, for SAEs of different d_model or not in order of depth.
    """
    return follow_ways(saes, calibration, (way,))[0]


@torch.no_grad()
def follow_ways(
    saes: Sequence[SAE | FoldedSAE],
    calibration: Calibration | None = None,
    ways: Sequence[str] = FOLLOW_WAYS,
) -> list[FeaturePaths]:
    """What `follow` gives, in several ways: what is compared of every two SAEs is compared once."""
    plain = _Plain(saes)
    sides = tuple(map(Side.of, plain))
    _check_order(plain)
    if unknown := [way for way in ways if way not in FOLLOW_WAYS]:
        raise UsageError(f"expected a way of {', '.join(FOLLOW_WAYS)}, got {unknown[0]!r}")
    found = [_members(plain, sides, START if way == "consensus" else 1.0) for way in ways]
    calibration = Calibration.load() if calibration is None else calibration
    for before, after in itertools.combinations(range(len(plain)), 2):
        descriptors, note = descriptors_of(plain[before], plain[after], calibration)
        for paths in found:
            from_here = (paths.features[:, :before] == UNMATCHED).all(axis=1)
            wanted = [(from_here, paths.start_probability, after)]
            if after == before + 1:
                wanted.append((True, paths.probability, before))
            for chosen, values, column in wanted:
                rows = np.flatnonzero(
                    chosen & (paths.features[:, [before, after]] != UNMATCHED).all(1)
                )
                pairs = paths.features[rows, before], paths.features[rows, after]
                if descriptors is not None:
                    values[rows, column] = pair_probabilities(descriptors, calibration, *pairs)
                if column == before:
                    decoders = plain[before].W_dec, plain[after].W_dec
                    cosines = pair_cosines(*decoders, *map(torch.from_numpy, pairs))
                    paths.cosine[rows, column] = cosines.numpy()
        if note:
            found = [
                replace(paths, notes=tuple(dict.fromkeys((*paths.notes, note)))) for paths in found
            ]
    return found


@dataclass(frozen=True)
class _Plain(Sequence[SAE]):
    """SAEs without their folding, taken when they are needed: a run's are loaded two at a time."""

    saes: Sequence[SAE | FoldedSAE]

    def __len__(self) -> int:
        return len(self.saes)

    def __getitem__(self, place: int) -> SAE:  # pyright: ignore[reportIncompatibleMethodOverride]
        sae = self.saes[place]
        return sae.sae if isinstance(sae, FoldedSAE) else sae


def _check_order(saes: Sequence[SAE]) -> None:
    if len(saes) < 2:
        raise UsageError(f"expected at least two SAEs to follow features through, got {len(saes)}")
    for before, after in itertools.pairwise(saes):
        if before.layer >= after.layer:
            raise UsageError(
                f"expected SAEs in order of depth, got {before.key} before {after.key}"
            )
        if before.d_model != after.d_model:
            raise UsageError(
                f"expected SAEs of one d_model, got {before.d_model} and {after.d_model}"
            )


def _members(saes: Sequence[SAE], sides: tuple[Side, ...], weight: float) -> FeaturePaths:
    """The paths, without cosines and probabilities."""
    rows: list[np.ndarray] = []
    passed = [np.zeros(side.d_sae, dtype=bool) for side in sides]
    for start, side in enumerate(sides):
        features = np.flatnonzero(~passed[start])
        found = np.full((len(features), len(sides)), UNMATCHED, dtype=np.int64)
        found[:, start] = features
        live = side.status[features] == "live"
        found[live, start + 1 :] = _followed(saes, sides, start, features[live], weight)
        for column in range(start + 1, len(sides)):
            passed[column][found[found[:, column] != UNMATCHED, column]] = True
        rows.append(found)
    features = np.concatenate(rows)
    steps = features.shape[0], features.shape[1] - 1
    cost, cosine, margin, probability = (np.full(steps, np.nan) for _ in range(4))
    certain, from_start = np.zeros(steps, dtype=bool), np.full(features.shape, np.nan)
    return FeaturePaths(sides, features, cost, cosine, margin, certain, probability, from_start)


def _followed(
    saes: Sequence[SAE],
    sides: Sequence[Side],
    start: int,
    features: np.ndarray,
    weight: float,
) -> Int64[np.ndarray, "n later"]:
    """Members of the best path of each feature in the layers after `start`; -1 from a layer without live
    features on."""
    own = unit_rows(saes[start].W_dec[torch.from_numpy(features)])
    before = own
    members = torch.arange(len(own))[:, None]
    total = torch.zeros(len(own), 1)
    candidates: list[Tensor] = []
    arrivals: list[Tensor] = []
    for later in range(start + 1, len(sides)):
        live = torch.from_numpy(np.flatnonzero(sides[later].status == "live"))
        if not len(live):
            break
        rows = unit_rows(saes[later].W_dec[live])
        near, score = _nearest(own, rows, min(CANDIDATES, len(live)))
        best, arrival = [], []
        size = max(1, ENTRIES // (rows.shape[1] * near.shape[1]))
        for some in torch.arange(len(own)).split(size):
            cosine = torch.bmm(before[members[some]], rows[near[some]].mT)
            reached = (total[some][:, :, None] + (1 - weight) * cosine).max(dim=1)
            best.append(reached.values)
            arrival.append(reached.indices)
        total = weight * score + (torch.cat(best) if best else score)
        arrivals.append(torch.cat(arrival) if arrival else near)
        candidates.append(live[near])
        before, members = rows, near
    found = np.full((len(own), len(sides) - start - 1), UNMATCHED, dtype=np.int64)
    place = total.argmax(dim=1, keepdim=True)
    for column in reversed(range(len(candidates))):
        found[:, column] = candidates[column].gather(1, place)[:, 0].numpy()
        place = arrivals[column].gather(1, place)
    return found


def _nearest(
    rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"], count: int
) -> tuple[Int64[Tensor, "n count"], Float[Tensor, "n count"]]:
    """The `count` nearest of the others to each row, by cosine of unit rows, and the cosines."""
    places, cosines = [], []
    for part in rows.split(max(1, ENTRIES // len(others))):
        with full_precision():
            top = (part @ others.T).topk(count, dim=1)
        places.append(top.indices)
        cosines.append(top.values)
    if not places:
        return torch.zeros(0, count, dtype=torch.int64), torch.zeros(0, count)
    return torch.cat(places), torch.cat(cosines)
