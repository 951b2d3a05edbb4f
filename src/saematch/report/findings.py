"""What `saematch findings` says of run directories, before it is shown: the numbers to read first (every
strategy between floor and ceiling, with intervals), then the paper's findings: what was measured, and whether
it holds.

A claim about a difference holds where the whole 95% interval lies on the claim's side; one that the
interval does not bear out does not hold, and is said to be open where the interval reaches both sides.
What was not measured is said to be not measurable here, with what would have to be run.

Of (d), (i) and (j) a judge decides: a language model's labels are taken where a run has them, else a
person's, else those of sentence embeddings; the effect says whose.  A judge that fails its controls decides
nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saematch.errors import UsageError
from saematch.matching.matchers import FOLDED, MAIN, NAIVE, UNFOLDED
from saematch.pipelines.evaluation.results import Evaluated, difference
from saematch.pipelines.evaluation.summary import listed
from saematch.pipelines.sampling import COMPOSITION, EXACT
from saematch.semantics.judges.experiments import DIFFERENT, PAIR
from saematch.semantics.judges.judge import Label
from saematch.stats import Values, draw_weights, interval
from saematch.store.judge_results import Judged, best_judge, labelled_pairs, labelled_sample
from saematch.store.manifest import on_directory
from saematch.store.reader import Run, open_run
from saematch.text import plural
from saematch.types import Interval

if TYPE_CHECKING:
    from saematch.models import LanguageModel
    from saematch.sae import SAE

HOLDS, FAILS, OPEN = "holds", "does not hold", "not measurable here"
BOTH_SIDES = (
    "open: the interval reaches both sides, which neither bears the claim out nor refutes it; more "
    "documents or samples narrow it"
)
NO_INTERVAL = "open: without an interval, which more documents or samples give, nothing is decided"
NEAR = 1.25
"""A loss approaches another where it is at most so many times as high."""
ALIKE = 0.05
"""Scores that differ by at most this share are alike."""
MUCH = 0.2
"""A score that is lower by at least this share is much lower."""
EVEN = 1.5
"""Mean L0 of adjacent SAEs that differs by at most this factor is about the same."""
PEAK = (50.0, 100.0)
"""Mean L0 that counts as near 70."""
_EARLY = "a run over the first blocks, as early (on the command line --early)"


@dataclass(frozen=True)
class Finding:
    """One claim of the paper, and what this run says of it."""

    name: str
    """Letter in the paper's list (docs/results.md)."""
    claim: str
    effect: str
    """What was measured, in words."""
    value: float | None
    low: float | None
    high: float | None
    verdict: str
    needs: str = ""
    """What would have to be run, where it was not measurable, or could decide what is open."""

    @property
    def said(self) -> str:
        """What was measured, and what is missing."""
        return "; ".join(one for one in (self.effect, self.needs) if one)


def findings(
    main: Evaluated,
    early: Evaluated | None = None,
    sparsities: Evaluated | None = None,
    late: Evaluated | None = None,
) -> list[Finding]:
    """Findings (a), (b), (c), (e), (f), (g), (h).  `early`: a run over the first blocks; `sparsities`:
    one over SAEs of several L0s at two adjacent layers, a name each; both evaluated on the same texts.
    `late`: the blocks after the first, where `main` has them all."""
    late = late or main
    return [
        mse_order(main),
        score_of_folding(main),
        first_layers(late, early),
        *pruning(late, early),
        parts(main),
        *sparsity(sparsities),
        quantiles(main),
    ]


def mse_order(main: Evaluated) -> Finding:
    claim = "decoder MSE of live features: folded < unfolded < naive in every layer pair"
    rows = main.run.measures()
    rows = rows[(rows["corpus"] == "") & (rows["parts"] == main.slug)]
    table, compared = (
        rows[rows["measure"] == name].set_index(["a", "b", "strategy"])["value"]
        for name in ("mse_decoder", "compared")
    )
    kept, gains, features = 0, [], []
    for a, b in main.run.adjacent:  # of weights alone: evaluated or not
        values = [table.get((a, b, s)) for s in (FOLDED, UNFOLDED, NAIVE)]
        if any(value is None for value in values):
            continue  # such as naive, where widths differ
        folded, unfolded, naive = map(float, values)  # pyright: ignore[reportArgumentType]
        kept += folded < unfolded < naive
        gains.append(1 - folded / unfolded)
        features.append(int(compared[a, b, FOLDED]))
    if not gains:
        return undecided("a", claim, "strategies folded, unfolded and naive in saematch run")
    effect = (
        f"in {kept} of {plural(len(gains), 'pair')}, on the same {min(features):,} to {max(features):,} "
        "live features of each; folded is lower than unfolded by this share, mean over pairs, least "
        "and greatest pair"
    )
    verdict = HOLDS if kept == len(gains) else FAILS
    return Finding(
        "a", claim, effect, float(np.mean(gains)), min(gains), max(gains), verdict
    )  # fmt: skip


def score_of_folding(main: Evaluated) -> Finding:
    claim = "matching score: folded is at least unfolded"
    gain = difference(main.mean("matching_score", FOLDED), main.mean("matching_score", UNFOLDED))
    if gain is None:
        return undecided("b", claim, "strategy unfolded")
    return directed("b", claim, "matching score, folded minus unfolded", gain, 1)


def first_layers(main: Evaluated, early: Evaluated | None) -> Finding:
    claim = "the first layers match worse"
    if early is None:
        return undecided("c", claim, _EARLY)
    gain = difference(early.mean("matching_score", FOLDED), main.mean("matching_score", FOLDED))
    if gain is None or early.texts != main.texts:
        return undecided("c", claim, "both runs evaluated by one model on the same documents")
    scores = [_known(one.mean("matching_score", FOLDED))[0] for one in (early, main)]
    lifts = [_known(one.mean("lift", FOLDED))[0] for one in (early, main)]
    effect = (
        f"matching score of pairs {_span(early)} minus {_span(main)} ({scores[0]:.3f}, {scores[1]:.3f}; "
        f"lift {lifts[0]:.2f}, {lifts[1]:.2f}); that even L0 helps cannot be seen: {_evenness(early, main)}"
    )
    return directed("c", claim, effect, gain, -1)


def _evenness(*runs: Evaluated) -> str:
    levels = [[one.l0(key) for key in pair] for one in runs for pair in one.adjacent]
    if all(max(pair) <= EVEN * min(pair) for pair in levels):
        return "all SAEs here have about the same"
    return "it takes a second run, over SAEs chosen so (figure 15)"


def pruning(main: Evaluated, early: Evaluated | None) -> list[Finding]:
    claim = "after the first third, encode-permute-decode costs little more loss than reconstruct-previous"
    folded = main.mean("delta_loss", FOLDED)
    previous = main.mean("delta_loss", "reconstruct_previous", "")
    if folded is None or previous is None:
        found = [undecided("e", claim, "losses of folded and reconstruct_previous")]
    else:
        ratio = folded / previous
        effect = (
            f"ΔL {folded[0]:.2f} over {previous[0]:.2f} nats a token (ratio; layer drop costs "
            f"{_first(main.mean('delta_loss', 'layer_drop', ''))})"
        )
        found = [bounded("e", claim, effect, ratio, NEAR, -1)]
    claim = "at low layers encode-permute-decode costs more loss than reconstruct-previous"
    if early is None:
        return [*found, undecided("e, low", claim, _EARLY)]
    gain = difference(
        early.mean("delta_loss", FOLDED), early.mean("delta_loss", "reconstruct_previous", "")
    )
    if gain is None:
        return [*found, undecided("e, low", claim, "losses in the run of the first blocks")]
    effect = f"ΔL of folded minus that of reconstruct-previous, pairs {_span(early)}"
    return [*found, directed("e, low", claim, effect, gain, 1)]


def parts(main: Evaluated) -> Finding:
    claim = "matching score: decoder alone is as good as all parts, encoder alone is much worse"
    whole, decoder, encoder = (
        main.mean("matching_score", FOLDED, slug) for slug in (main.slug, "decoder", "encoder")
    )
    if whole is None or decoder is None or encoder is None:
        return undecided("f", claim, on_directory(main.run.path, "evaluate", "--other-parts"))
    near, far = decoder / whole - 1, encoder / whole - 1
    effect = (
        f"decoder alone {near[0]:+.1%} of all parts' score, encoder alone {far[0]:+.1%} (as a share; "
        "the interval is of the latter)"
    )
    close = bool(np.abs(near[1:]).max() <= ALIKE) if len(near) > 1 else abs(near[0]) <= ALIKE
    found = bounded("f", claim, effect, far, -MUCH, -1)
    return found if close else replace(found, verdict=FAILS, needs="")


def sparsity(series: Evaluated | None) -> list[Finding]:
    claims = (
        "explained variance of the matched decode peaks at a mean L0 near 70",
        "ΔL of every scheme falls as L0 rises",
        "ΔL of the matched scheme stays above both encode-decode schemes",
    )
    if series is None:
        needs = (
            "a run over SAEs of several L0s at two adjacent layers, as l0_series (in the command "
            "line --l0-series)"
        )
        return [
            undecided(f"g{number}", claim, needs) for number, claim in enumerate(claims, start=1)
        ]
    ordered = sorted(series.adjacent, key=lambda pair: series.l0(pair[0]))
    levels = [series.l0(a) for a, _ in ordered]
    explained = [_known(series.mean("explained_variance", FOLDED, pairs=[p])) for p in ordered]
    best = np.argmax(np.stack(explained), axis=0)
    at = np.array(levels)[best]
    value, low, high = interval(at)
    said = ", ".join(
        f"{one[0]:.3f} at {level:.0f}" for level, one in zip(levels, explained, strict=True)
    )
    inside = 0 < best[0] < len(levels) - 1 and PEAK[0] <= at[0] <= PEAK[1]
    stays = low is not None and high is not None and PEAK[0] <= low and high <= PEAK[1]
    verdict = HOLDS if inside and stays else FAILS
    found = [Finding("g1", claims[0], f"L0 of the peak; EV {said}", value, low, high, verdict)]
    schemes = ((FOLDED, series.slug), ("reconstruct_previous", ""), ("reconstruct_current", ""))
    losses = {
        name: [_known(series.mean("delta_loss", name, slug, [p])) for p in ordered]
        for name, slug in schemes
    }
    steps = [b - a for one in losses.values() for a, b in pairwise(one)]
    worst = max(steps, key=lambda step: step[0])
    said = "; ".join(
        f"{name} " + ", ".join(f"{one[0]:.2f}" for one in some) for name, some in losses.items()
    )
    effect = f"greatest step from one L0 to the next; ΔL from the lowest L0 on: {said}"
    found.append(directed("g2", claims[1], effect, worst, -1))
    margins = [
        matched - other[n]
        for name, other in losses.items()
        if name != FOLDED
        for n, matched in enumerate(losses[FOLDED])
    ]
    least = min(margins, key=lambda margin: margin[0])
    return [*found, directed("g3", claims[2], "least difference over L0s and schemes", least, 1)]


def quantiles(main: Evaluated) -> Finding:
    claim = "lower MSE quantiles, fewer pairs through the matched decoder, explain more variance"
    shares = sorted(
        float(strategy[9:-1])
        for strategy, _ in main.strategies()
        if strategy.startswith("quantile(")
    )
    if len(shares) < 2:
        return undecided(
            "h", claim, on_directory(main.run.path, "evaluate", "--quantiles 0,0.25,0.5,0.75,1")
        )
    explained = [_known(main.mean("explained_variance", f"quantile({q:g})")) for q in shares]
    steps = [a - b for a, b in pairwise(explained)]
    least = min(steps, key=lambda step: step[0])
    said = ", ".join(f"{one[0]:.3f} at {q:g}" for q, one in zip(shares, explained, strict=True))
    return directed(
        "h", claim, f"least gain from one quantile to the next lower; EV {said}", least, 1
    )


def directed(name: str, claim: str, effect: str, values: Values, side: int) -> Finding:
    """`side`: of zero on which the claim has the values."""
    return bounded(name, claim, effect, values, 0.0, side)


def bounded(name: str, claim: str, effect: str, values: Values, bound: float, side: int) -> Finding:
    """`side`: of the bound on which the claim has the values; the bound itself is on it where it is not 0."""
    value, low, high = interval(values)
    if low is None or high is None:
        return Finding(name, claim, effect, value, low, high, FAILS, NO_INTERVAL)
    near, far = (low, high) if side > 0 else (-high, -low)
    bound *= side
    holds = near > bound or (near == bound and bound != 0)
    needs = BOTH_SIDES if not holds and far > bound else ""
    return Finding(name, claim, effect, value, low, high, HOLDS if holds else FAILS, needs)


def undecided(name: str, claim: str, needs: str) -> Finding:
    """What was not measured; `needs`: what would have to be run."""
    return Finding(name, claim, "", None, None, None, OPEN, needs)


def _known(values: Values | None) -> Values:
    assert values is not None
    return values


def _first(values: Values | None) -> str:
    return "–" if values is None else f"{values[0]:.2f}"


def _span(evaluated: Evaluated) -> str:
    first, last = evaluated.adjacent[0], evaluated.adjacent[-1]
    return " to ".join(dict.fromkeys(f"{a}→{b}" for a, b in (first, last)))


USEFUL = 5
"""Layers for which the paper calls a path's meaning useful."""
CLOSE = 0.1
"""Mean labels, 1 to 3, that differ by at most this are close."""


def judged_findings(run: Run) -> list[Finding]:
    """(d) in four parts, (i) and (j)."""
    found: list[Finding] = []
    for experiment, decide, claims in EXPERIMENTS:
        judge = best_judge(run, experiment)
        if judge is not None and judge.passes_controls:
            found += decide(run, judge, claims)
            continue
        needs = (
            on_directory(run.path, "judge", f"--experiment {experiment}")
            if judge is None
            else f"a judge that passes its controls; {judge.judge}: {judge.verdict}"
        )
        found += [undecided(name, claim, needs) for name, claim in claims.items()]
    return found


def persistence(run: Run, judge: Judged, claims: Mapping[str, str]) -> list[Finding]:
    """(d): from labels of pairs at every distance, composed and matched directly."""
    means = _Distances(run, judge)
    last = max(means.distances)
    if last < 2:
        needs = {"d1": "three", "d2": USEFUL + 1, "d3": "four", "d4": "four"}
        return [undecided(n, claim, f"{needs[n]} layers on a chain") for n, claim in claims.items()]
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
        else undecided("d2", claims["d2"], f"{USEFUL + 1} layers on a chain")
    )
    if last < 3:
        return found + [undecided(n, claims[n], "four layers on a chain") for n in ("d3", "d4")]
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


def folding(run: Run, judge: Judged, claims: Mapping[str, str]) -> list[Finding]:
    """(i): from labels of every layer pair by strategy."""
    claim = claims["i"]
    table = labelled_pairs(run, "layers", judge.judge)
    same = {
        strategy: rows.set_index(["a", "b", "feature"])["label"] == Label.SAME
        for strategy, rows in table.groupby("strategy")
    }
    if not {FOLDED, UNFOLDED} <= set(same):
        return [
            undecided("i", claim, "an experiment `layers` of the strategies folded and unfolded")
        ]
    both = same[FOLDED].to_frame("f").join(same[UNFOLDED].rename("u"), how="inner").astype(float)
    gain = draw_weights(len(both), 0) @ (both["f"] - both["u"]).to_numpy() / len(both)
    effect = (
        f"share of SAME by {judge.judge}, folded ({both['f'].mean():.3f}) minus unfolded "
        f"({both['u'].mean():.3f}) on {plural(len(both), 'feature')}; the first third of the depth is "
        "not among these layers"
    )
    return [directed("i", claim, effect, gain, 1)]


def cost(run: Run, judge: Judged, claims: Mapping[str, str]) -> list[Finding]:
    """(j): from labels of pairs over the whole range of decoder MSE."""
    claim = claims["j"]
    table = labelled_pairs(run, "mse", judge.judge)
    by_pair = table.groupby(["a", "b"])["mse_decoder"].transform("mean")
    relative = (table["mse_decoder"] / by_pair).to_numpy()
    weights = draw_weights(len(table), 0)
    means = []
    for label in Label:
        mine = (table["label"] == label).to_numpy()
        if not mine.any():
            needs = f"labels of all three kinds; {judge.judge} never said {label}"
            return [undecided("j", claim, needs)]
        means.append(_weighted(weights[:, mine], relative[mine]))
    steps = [means[0] - means[1], means[1] - means[2]]
    worst = np.minimum(*steps)  # in every draw: both steps must fall
    effect = (
        "decoder MSE over the mean of its layer pair, by label of "
        f"{judge.judge}: {', '.join(f'{label} {m[0]:.3f}' for label, m in zip(Label, means))}; least fall "
        "from one label to the next"
    )
    return [directed("j", claim, effect, worst, 1)]


class _Distances:
    """Mean labels by strategy and number of layers, on the same bootstrap draws of features."""

    def __init__(self, run: Run, judge: Judged) -> None:
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
        return _weighted(weights, rows["value"].to_numpy(dtype=float))

    def gain(self, *terms: tuple[int, str, int]) -> tuple[Values, str]:
        """Mean of a sum of labels, each a sign, strategy and distance, over the features that have all of
        them; and in words which these are."""
        columns = [(strategy, distance) for _, strategy, distance in terms]
        there = self.by_unit.reindex(columns=columns).dropna()
        values = there.to_numpy(dtype=float) @ np.array([sign for sign, _, _ in terms], dtype=float)
        weights = self.weights[:, there.index.to_numpy(dtype=int)]
        starts = self.pairs[self.pairs["unit"].isin(there.index)]["a"].unique()
        on = f"the same {plural(len(there), 'feature')} of {', '.join(starts)}"
        return _weighted(weights, values), on

    def of_random(self) -> Values:
        if not len(self.random):
            return np.full(self.weights.shape[0], np.nan)
        return draw_weights(len(self.random), 1) @ self.random / len(self.random)


def _weighted(weights: np.ndarray, values: np.ndarray) -> Values:
    """Means of the values, one for each row of weights; NaN where nothing has weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return weights @ values / weights.sum(axis=1)


EXPERIMENTS = (
    (
        "persistence",
        persistence,
        {
            "d1": "similarity along a path falls with distance",
            "d2": f"it stays useful for about {USEFUL} layers: above that of features drawn at random",
            "d3": "composition is close to exact two layers on",
            "d4": "further on it drifts away from exact",
        },
    ),
    ("layers", folding, {"i": "the judge says SAME more often for folded than for unfolded"}),
    ("mse", cost, {"j": "MSE falls from DIFFERENT to MAYBE to SAME"}),
)
"""Name, what decides the claims, and these by name."""


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
    each = [one.values(pair, MAIN, slug) for one in measured]
    known = {name: [values[name] for values in each if name in values] for name in COLUMNS}
    found = {name: interval(np.mean(some, axis=0)) for name, some in known.items() if some}
    return Line(name, found)


@dataclass(frozen=True)
class Found:
    """An evaluated run, its headline and the paper's findings on it."""

    main: Evaluated
    lines: list[Line]
    findings: list[Finding]


def find(
    directory: str | Path,
    early: str | Path | None = None,
    l0_series: str | Path | None = None,
    early_layers: int | None = None,
) -> Found:
    """The paper's findings on an evaluated run, by name.

    `early`: a run over the first blocks; `early_layers`: the last of them, where the run itself has them;
    `l0_series`: a run over SAEs of several L0s at two adjacent layers.

    Raises InputError for runs that were not evaluated, UsageError where both kinds of first blocks are
    given, or the run has none on either side of `early_layers`.
    """
    main = Evaluated(open_run(directory))
    first = None if early is None else Evaluated(open_run(early))
    late = None
    if early_layers is not None:
        if early is not None:
            raise UsageError(
                "expected the first blocks once, got both early and early_layers (on the command line "
                "--early and --early-layers); take one away"
            )
        layers = [sae["layer"] for sae in main.run.manifest["saes"].values()]
        first, late = (
            main.within(min(layers), early_layers),
            main.within(early_layers, max(layers)),
        )
    series = None if l0_series is None else Evaluated(open_run(l0_series))
    found = [*findings(main, first, series, late), *judged_findings(main.run)]
    return Found(main, headline(main), sorted(found, key=lambda one: one.name))
