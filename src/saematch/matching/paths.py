"""Follow features through the layers: adjacent matchings chained into paths.

1. Every feature of the first layer starts a path.
2. A path steps from feature i of layer t to `permutation[i]` of layer t+1, and ends where i is
   unmatched: -1 from there on.
3. A feature of a later layer that no path steps to starts a path of its own there.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Permutation
from saematch.matching.matched import Matching, Side
from saematch.notebook import curve, page
from saematch.types import find_feature, find_key

if TYPE_CHECKING:
    import pandas as pd

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

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(side.layer for side in self.sides)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(side.key for side in self.sides)

    def __len__(self) -> int:
        return len(self.features)

    def _repr_html_(self) -> str:
        """How many paths there are, some whole ones from cheap to costly, and the mean cosine of each
        step."""
        live = np.flatnonzero(self.live())
        facts: dict[str, Any] = {
            "paths": f"{len(self):,}, {len(live):,} of them through every layer by live features"
        }
        if len(live):
            ranked = live[np.argsort(self.cost[live].sum(axis=1), kind="stable")]
            places = np.unique(np.linspace(0, len(ranked) - 1, EXAMPLES).round().astype(int))
            for place in places:
                path = ranked[place]
                steps = zip(self.keys, self.features[path], strict=True)
                share = f"cost rank {place + 1:,} of {len(ranked):,}"
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
        """The composition of the steps from `start` to `stop`: equals `compose` of permutations."""
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
    )
