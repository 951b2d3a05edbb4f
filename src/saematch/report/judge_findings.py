"""The paper's findings that a judge decides: (d), (i) and (j).

A language model's labels are taken where a run has them, else a person's, else those of sentence
embeddings; the effect says whose.  A judge that fails its controls decides nothing.
"""

from typing import TYPE_CHECKING

import numpy as np

from saematch.matching.matchers import FOLDED, UNFOLDED
from saematch.pipelines.sampling import COMPOSITION, EXACT
from saematch.report.findings import OPEN, Finding, bounded, directed
from saematch.semantics.judges.experiments import DIFFERENT, PAIR
from saematch.semantics.judges.judge import Label
from saematch.stats import Values, draw_weights
from saematch.store.judge_results import Judged, best_judge, labelled_pairs, labelled_sample
from saematch.store.manifest import on_directory
from saematch.text import plural

if TYPE_CHECKING:
    from saematch.store.reader import Run

USEFUL = 5
"""Layers for which the paper calls a path's meaning useful."""
CLOSE = 0.1
"""Mean labels, 1 to 3, that differ by at most this are close."""


def judged_findings(run: "Run") -> list[Finding]:
    """(d) in four parts, (i) and (j)."""
    return [*persistence(run), folding(run), cost(run)]


def persistence(run: "Run") -> list[Finding]:
    """(d): from labels of pairs at every distance, composed and matched directly."""
    claims = {
        "d1": "similarity along a path falls with distance",
        "d2": f"it stays useful for about {USEFUL} layers: above that of features drawn at random",
        "d3": "composition is close to exact two layers on",
        "d4": "further on it drifts away from exact",
    }
    judge = best_judge(run, "persistence")
    if judge is None or not judge.passes_controls:
        return [
            _not_judged(run, name, claim, "persistence", judge) for name, claim in claims.items()
        ]
    means = _Distances(run, judge)
    last = max(means.distances)
    if last < 2:
        needs = {"d1": "three", "d2": USEFUL + 1, "d3": "four", "d4": "four"}
        return [_open(n, claim, f"{needs[n]} layers on a chain") for n, claim in claims.items()]
    whose = f"mean label (1 to 3) of {judge.judge}"
    curve = ", ".join(f"{means.of(COMPOSITION, d, last)[0]:.2f}" for d in means.distances)
    fall, on = means.gain((1, COMPOSITION, last), (-1, COMPOSITION, 1))
    effect = (
        f"{whose} {last} layers on minus 1 layer on, {on}; composition, layer by layer: {curve}"
    )
    found = [directed("d1", claims["d1"], effect, fall, -1)]
    floor = means.of_random()
    found.append(
        directed(
            "d2",
            claims["d2"],
            f"{whose} {USEFUL} layers on minus that of random features ({floor[0]:.2f})",
            means.of(COMPOSITION, USEFUL) - floor,
            1,
        )
        if last >= USEFUL
        else _open("d2", claims["d2"], f"{USEFUL + 1} layers on a chain")
    )
    if last < 3:
        return found + [_open(n, claims[n], "four layers on a chain") for n in ("d3", "d4")]
    apart = [(1, EXACT, 2), (-1, COMPOSITION, 2)]
    near, on = means.gain(*apart)
    effect = f"{whose}, exact minus composition, 2 layers on, {on}; close: at most {CLOSE}"
    found.append(bounded("d3", claims["d3"], effect, near, CLOSE, -1))
    drift, on = means.gain(
        (1, EXACT, last), (-1, COMPOSITION, last), *((-sign, way, n) for sign, way, n in apart)
    )
    effect = f"{whose}, exact minus composition, {last} layers on, less the same 2 layers on, {on}"
    found.append(directed("d4", claims["d4"], effect, drift, 1))
    return found


def folding(run: "Run") -> Finding:
    """(i): from labels of every layer pair by strategy."""
    claim = "the judge says SAME more often for folded than for unfolded"
    judge = best_judge(run, "layers")
    if judge is None or not judge.passes_controls:
        return _not_judged(run, "i", claim, "layers", judge)
    table = labelled_pairs(run, "layers", judge.judge)
    same = {
        strategy: rows.set_index(["a", "b", "feature"])["label"] == Label.SAME
        for strategy, rows in table.groupby("strategy")
    }
    if not {FOLDED, UNFOLDED} <= set(same):
        return _open("i", claim, "an experiment `layers` of the strategies folded and unfolded")
    both = (
        same[FOLDED]
        .astype(float)
        .to_frame("f")
        .join(same[UNFOLDED].astype(float).rename("u"), how="inner")
    )
    gain = draw_weights(len(both), 0) @ (both["f"] - both["u"]).to_numpy() / len(both)
    effect = (
        f"share of SAME by {judge.judge}, folded ({both['f'].mean():.3f}) minus unfolded "
        f"({both['u'].mean():.3f}) on {plural(len(both), 'feature')}; the first third of the depth is "
        "not among these layers"
    )
    return directed("i", claim, effect, gain, 1)


def cost(run: "Run") -> Finding:
    """(j): from labels of pairs over the whole range of decoder MSE."""
    claim = "MSE falls from DIFFERENT to MAYBE to SAME"
    judge = best_judge(run, "mse")
    if judge is None or not judge.passes_controls:
        return _not_judged(run, "j", claim, "mse", judge)
    table = labelled_pairs(run, "mse", judge.judge)
    by_pair = table.groupby(["a", "b"])["mse_decoder"].transform("mean")
    relative = (table["mse_decoder"] / by_pair).to_numpy()
    weights = draw_weights(len(table), 0)
    means = []
    for label in Label:
        mine = (table["label"] == label).to_numpy()
        if not mine.any():
            return _open("j", claim, f"labels of all three kinds; {judge.judge} never said {label}")
        with np.errstate(divide="ignore", invalid="ignore"):
            means.append((weights @ (relative * mine)) / (weights @ mine.astype(float)))
    steps = [means[0] - means[1], means[1] - means[2]]
    worst = np.minimum(*steps)  # in every draw: both steps must fall
    effect = (
        "decoder MSE over the mean of its layer pair, by label of "
        f"{judge.judge}: {', '.join(f'{label} {m[0]:.3f}' for label, m in zip(Label, means))}; least fall "
        "from one label to the next"
    )
    return directed("j", claim, effect, worst, 1)


class _Distances:
    """Mean labels by strategy and number of layers, on the same bootstrap draws of features."""

    def __init__(self, run: "Run", judge: Judged) -> None:
        table = labelled_sample(run, "persistence", judge.judge)
        table = table[~table["swapped"] & table["label"].notna()].copy()
        table["value"] = [Label(label).value_in_means for label in table["label"]]
        self.random = table[table["kind"] == DIFFERENT]["value"].to_numpy(dtype=float)
        pairs = table[table["kind"] == PAIR].copy()
        place = {key: n for keys in run.chains for n, key in enumerate(keys)}
        pairs["distance"] = pairs["b"].map(place) - pairs["a"].map(place)
        # A feature of a start is one unit: its labels at all distances are drawn together.
        pairs["unit"] = pairs.groupby(["a", "feature"]).ngroup()
        self.pairs = pairs
        self.by_unit = pairs.pivot_table("value", "unit", ["strategy", "distance"])
        self.weights = draw_weights(int(pairs["unit"].max()) + 1, 0)
        self.distances = sorted(int(d) for d in pairs["distance"].unique())

    def of(self, strategy: str, distance: int, reaching: int | None = None) -> Values:
        """`reaching`: from the starts alone that have a layer at this distance too, to compare the two."""
        rows = self.pairs[
            (self.pairs["strategy"] == strategy) & (self.pairs["distance"] == distance)
        ]
        if reaching is not None:
            starts = self.pairs[self.pairs["distance"] == reaching]["a"].unique()
            rows = rows[rows["a"].isin(starts)]
        weights = self.weights[:, rows["unit"].to_numpy()]
        with np.errstate(divide="ignore", invalid="ignore"):
            return weights @ rows["value"].to_numpy(dtype=float) / weights.sum(axis=1)

    def gain(self, *terms: tuple[int, str, int]) -> tuple[Values, str]:
        """Mean of a sum of labels, each a sign, strategy and distance, over the features that have all of
        them; and in words which these are."""
        columns = [(strategy, distance) for _, strategy, distance in terms]
        there = self.by_unit.reindex(columns=columns).dropna()
        values = there.to_numpy(dtype=float) @ np.array([sign for sign, _, _ in terms], dtype=float)
        weights = self.weights[:, there.index.to_numpy(dtype=int)]
        starts = self.pairs[self.pairs["unit"].isin(there.index)]["a"].unique()
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = weights @ values / weights.sum(axis=1)
        return mean, f"the same {plural(len(there), 'feature')} of {', '.join(starts)}"

    def of_random(self) -> Values:
        if not len(self.random):
            return np.full(self.weights.shape[0], np.nan)
        return draw_weights(len(self.random), 1) @ self.random / len(self.random)


def _not_judged(
    run: "Run", name: str, claim: str, experiment: str, judge: Judged | None
) -> Finding:
    if judge is None:
        return _open(name, claim, on_directory(run.path, "judge", f"--experiment {experiment}"))
    return _open(name, claim, f"a judge that passes its controls; {judge.judge}: {judge.verdict}")


def _open(name: str, claim: str, needs: str) -> Finding:
    return Finding(name, claim, "", None, None, None, OPEN, needs)
