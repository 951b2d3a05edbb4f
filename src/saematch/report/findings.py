"""The paper's findings on a run of one's own: what was measured, and whether it holds.

A claim about a difference holds where the whole 95% interval lies on the claim's side; one that the
interval does not bear out does not hold, and is said to be open where the interval reaches both sides.
What was not measured is said to be not measurable here, with what would have to be run.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from saematch.matching.matchers import FOLDED, NAIVE, UNFOLDED
from saematch.pipelines.evaluation.results import Evaluated, difference
from saematch.stats import Values, interval
from saematch.store.manifest import on_directory
from saematch.text import plural

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
        return _open("a", claim, "strategies folded, unfolded and naive in saematch run")
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
        return _open("b", claim, "strategy unfolded")
    return directed("b", claim, "matching score, folded minus unfolded", gain, 1)


def first_layers(main: Evaluated, early: Evaluated | None) -> Finding:
    claim = "the first layers match worse"
    if early is None:
        return _open("c", claim, _EARLY)
    gain = difference(early.mean("matching_score", FOLDED), main.mean("matching_score", FOLDED))
    if gain is None or early.texts != main.texts:
        return _open("c", claim, "both runs evaluated by one model on the same documents")
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
        found = [_open("e", claim, "losses of folded and reconstruct_previous")]
    else:
        ratio = folded / previous
        effect = (
            f"ΔL {folded[0]:.2f} over {previous[0]:.2f} nats a token (ratio; layer drop costs "
            f"{_first(main.mean('delta_loss', 'layer_drop', ''))})"
        )
        found = [bounded("e", claim, effect, ratio, NEAR, -1)]
    claim = "at low layers encode-permute-decode costs more loss than reconstruct-previous"
    if early is None:
        return [*found, _open("e, low", claim, _EARLY)]
    gain = difference(
        early.mean("delta_loss", FOLDED), early.mean("delta_loss", "reconstruct_previous", "")
    )
    if gain is None:
        return [*found, _open("e, low", claim, "losses in the run of the first blocks")]
    effect = f"ΔL of folded minus that of reconstruct-previous, pairs {_span(early)}"
    return [*found, directed("e, low", claim, effect, gain, 1)]


def parts(main: Evaluated) -> Finding:
    claim = "matching score: decoder alone is as good as all parts, encoder alone is much worse"
    whole, decoder, encoder = (
        main.mean("matching_score", FOLDED, slug) for slug in (main.slug, "decoder", "encoder")
    )
    if whole is None or decoder is None or encoder is None:
        return _open("f", claim, on_directory(main.run.path, "evaluate", "--other-parts"))
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
        return [_open(f"g{number}", claim, needs) for number, claim in enumerate(claims, start=1)]
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
        return _open(
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
    undecided = not holds and far > bound
    verdict = HOLDS if holds else FAILS
    return Finding(name, claim, effect, value, low, high, verdict, BOTH_SIDES if undecided else "")


def _open(name: str, claim: str, needs: str) -> Finding:
    return Finding(name, claim, "", None, None, None, OPEN, needs)


def _known(values: Values | None) -> Values:
    assert values is not None
    return values


def _first(values: Values | None) -> str:
    return "–" if values is None else f"{values[0]:.2f}"


def _span(evaluated: Evaluated) -> str:
    first, last = evaluated.adjacent[0], evaluated.adjacent[-1]
    return " to ".join(dict.fromkeys(f"{a}→{b}" for a, b in (first, last)))
