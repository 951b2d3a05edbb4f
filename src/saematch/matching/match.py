"""Match the features of two SAEs from their weights alone (SAE Match).

1. Fold each SAE's thresholds into its weights (sae.py).
2. Lay each feature's parts side by side: decoder row, encoder column, encoder bias, each times the
   square root of its weight.  The cost of a pair is the squared distance of two such rows.
3. Find the pairs by the strategy's matcher (matchers.py); `folded` and `unfolded` solve the linear
   assignment problem of the features that are not degenerate, in which a feature may stay unmatched where
   that has a price, and then match what is left over.
4. Measure the pairs on folded weights, whatever found them.

`price_curve`: how many features are matched at each unmatched cost.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float64
from scipy.sparse import csr_array
from torch import Tensor

from saematch.assignment import Assignment, Certified, Verification, verify
from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Correspondence, Permutation
from saematch.matching.fates import fates as fates_of
from saematch.matching.matched import Found, Matching, Settings, Side, same_features
from saematch.matching.matchers import MAIN, Matcher, matchers
from saematch.matching.matchers import matcher as matcher_of
from saematch.matching.probability import Calibration
from saematch.matching.strategies import (
    Problem,
    Unmatched,
    proven_problem,
    random_pair_costs,
    rest_problem,
    solved_sides,
)
from saematch.sae import SAE, FoldedSAE, fold_thresholds
from saematch.types import DEGENERATE, PARTS, Degenerate, ScaleKind, part_weights

if TYPE_CHECKING:
    import pandas as pd


ROWS_PER_BLOCK = 128
"""Pairs measured at a time: few enough to stay in cache between the steps."""


@torch.no_grad()
def measure(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    permutation: Permutation | Correspondence,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: str = "given",
    scale: ScaleKind | None = None,
) -> Matching:
    """The Matching of a permutation, or a map of several partners, found elsewhere, e.g. by composing
    adjacent ones."""
    check_pair(a, b)
    if not isinstance(permutation, Correspondence):
        permutation = Correspondence.of_permutation(permutation, b.d_sae)
    if (permutation.d_a, permutation.d_b) != (a.d_sae, b.d_sae):
        raise UsageError(
            f"expected a map of {a.d_sae} features to {b.d_sae}, got one of {permutation.d_a} to "
            f"{permutation.d_b}"
        )
    sides = folded(a, scale), folded(b, scale)
    return measured(*sides, Found(permutation), part_weights(parts), strategy)


def check_pair(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> None:
    for one in (a, b):
        if not isinstance(one, SAE | FoldedSAE):
            raise UsageError(f"expected SAEs, got {one!r}; load_sae gives one from a reference")
    if a.d_model != b.d_model:
        raise UsageError(
            f"expected two SAEs of one d_model, got {a.d_model} and {b.d_model}; "
            "they read different models"
        )


def folded(sae: SAE | FoldedSAE, scale: ScaleKind | None) -> FoldedSAE:
    return sae if isinstance(sae, FoldedSAE) else fold_thresholds(sae, scale)


def measured(
    a: FoldedSAE,
    b: FoldedSAE,
    found: Found,
    weights: Mapping[str, float],
    strategy: str,
    degenerate: Degenerate = "apart",
) -> Matching:
    """The Matching of a map, the pairs of each feature and its strongest partner measured on folded
    weights."""
    permutation = found.correspondence.permutation
    indices = np.flatnonzero(permutation != UNMATCHED)
    matched = torch.from_numpy(indices)
    partner = torch.from_numpy(permutation[indices])
    decoder, encoder, bias, cosine = (torch.full((a.d_sae,), torch.nan).double() for _ in range(4))
    decoder_a, decoder_b = a.W_dec, b.W_dec
    encoder_a, encoder_b = a.W_enc.T.contiguous(), b.W_enc.T.contiguous()
    for i, j in zip(matched.split(ROWS_PER_BLOCK), partner.split(ROWS_PER_BLOCK), strict=True):
        row_a, row_b = decoder_a[i].double(), decoder_b[j].double()
        norms = row_a.norm(dim=1) * row_b.norm(dim=1)
        cosine[i] = (row_a * row_b).sum(dim=1) / torch.where(norms > 0, norms, 1.0)
        decoder[i] = row_a.sub_(row_b).square_().mean(dim=1)
        encoder[i] = encoder_a[i].double().sub_(encoder_b[j]).square_().mean(dim=1)
    if found.correspondence.single:
        # Its cosines are known, and a mix of one partner is that partner.
        pair_cosine = cosine.numpy()[indices]
        unexplained = 1 - np.maximum(np.nan_to_num(cosine.numpy()), 0) ** 2
    else:
        pair_cosine, unexplained = _of_mixes(decoder_a, decoder_b, found.correspondence)
    bias[matched] = (a.b_enc[matched].double() - b.b_enc[partner].double()).square()
    totals = {"decoder": decoder * a.d_model, "encoder": encoder * a.d_model, "bias": bias}
    cost = sum(weight * totals[part] for part, weight in weights.items())
    assert isinstance(cost, Tensor)
    return Matching(
        a=Side.of(a.sae),
        b=Side.of(b.sae),
        d_model=a.d_model,
        strategy=strategy,
        parts=weights,
        scale=a.scale_kind,
        correspondence=found.correspondence,
        cost=cost.numpy(),
        mse_decoder=decoder.numpy(),
        mse_encoder=encoder.numpy(),
        mse_bias=bias.numpy(),
        cosine=cosine.numpy(),
        pair_cosine=pair_cosine,
        unexplained=unexplained,
        margin=np.full(a.d_sae, np.nan) if found.margin is None else found.margin,
        assignment=found.proof,
        notes=found.notes,
        unmatched_cost=found.unmatched_cost,
        degenerate=degenerate,
        without_degenerate=found.without_degenerate,
    )


def _of_mixes(
    rows: Tensor, columns: Tensor, correspondence: Correspondence
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " d_a"]]:
    """Decoder cosine of every pair, and the share of each row that no multiple of its mix of partners
    explains."""
    cosines = np.empty(len(correspondence.partners))
    unexplained = np.ones(correspondence.d_a)
    matrix, starts = correspondence.matrix, correspondence.starts
    for first in range(0, correspondence.d_a, ROWS_PER_BLOCK):
        stop = min(first + ROWS_PER_BLOCK, correspondence.d_a)
        part = matrix[first:stop]
        if not part.nnz:
            continue
        of_b, place = np.unique(part.indices, return_inverse=True)
        theirs = columns[torch.from_numpy(of_b.astype(np.int64))].double().numpy()
        mine = rows[first:stop].double().numpy()
        weights = csr_array((part.data, place, part.indptr), shape=(stop - first, len(of_b)))
        of_a = np.repeat(np.arange(stop - first), np.diff(part.indptr))
        pairs = slice(starts[first], starts[stop])
        cosines[pairs] = _cosines(mine[of_a], theirs[place])
        unexplained[first:stop] = 1 - np.maximum(_cosines(mine, weights @ theirs), 0) ** 2
    return cosines, unexplained


def _cosines(
    one: Float64[np.ndarray, "n d"], other: Float64[np.ndarray, "n d"]
) -> Float64[np.ndarray, " n"]:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("nd,nd->n", one, other) / np.where(norms > 0, norms, 1.0)


@torch.no_grad()
def match(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    *,
    matcher: Matcher | str | None = None,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    strategy: str = MAIN,
    scale: ScaleKind | None = None,
    unmatched_cost: Unmatched | None = None,
    degenerate: Degenerate = "apart",
    solver: Certified | None = None,
    start: Matching | None = None,
    seed: int = 0,
    fates: bool | None = None,
    calibration: Calibration | None = None,
) -> Matching:
    """Match the features of `a` to those of `b`.

    `matcher`: an object such as `Transport(partners=4)`, or a name as in `strategy`.
    `parts`: which parts enter the cost, or their weights.  `strategy`: `folded` (assignment on folded
    weights), `unfolded` (assignment on raw weights), `naive` (identity), `random` (one-to-one, by
    `seed`), `cosine` (row-wise argmax of decoder cosine; not one-to-one), `transport:4` (a mix of at most
    four partners), `top_cosine:4`, or a matcher that was registered.  `scale`: what to fold (see
    `fold_thresholds`); a FoldedSAE is taken as it is.

    `unmatched_cost`: the price of leaving a feature of `a` without a partner, one number or [d_a], in
    the units of the cost that is solved.  None: the smaller side is matched completely.  With a price a
    pair is made only where it is worth it; what a price says of fates is little (`saematch.fates`).

    `degenerate`: `apart`: features of status degenerate are matched after the others, to what these left
    over; they take no other feature's partner and have no part in total, gap, slack and margins (their
    own margin is NaN, and none is certain).  At a price they are matched with one another alone.
    `together`: the paper's literal problem, all features at once; its gap is the greater of those with
    and without the degenerate features' pairs.

    `solver`: see `saematch.solve`.  `start`: an earlier matching of the same pair, such as one that
    stopped at a time budget: the solver goes on from its column duals.

    `fates`: whether to say what becomes of each feature, and how probable that is, by `calibration` (None:
    the one that ships); None: where a feature may have several partners.

    Raises UsageError for SAEs of different d_model, for unknown parts or strategies, for `naive` where
    d_sae differ, for a price with a strategy that solves no assignment problem, and for another way with
    degenerate features than these two.
    """
    if degenerate not in DEGENERATE:
        raise UsageError(f"expected degenerate to be apart or together, got {degenerate!r}")
    weights = part_weights(parts)
    way = matcher if isinstance(matcher, Matcher) else matcher_of(matcher or strategy)
    check_pair(a, b)
    if not way.needs_scale and scale is None and _lacks_thresholds(a, b):
        scale = "none"
    folded_a, folded_b = folded(a, scale), folded(b, scale)
    if unmatched_cost is not None and not way.assigns:
        takes = " or ".join(one.name for one in matchers() if one.assigns)
        raise UsageError(f"expected strategy {takes} with an unmatched cost, got '{way.name}'")
    settings = Settings(
        weights=weights,
        unmatched_cost=unmatched_cost,
        degenerate=degenerate,
        solver=solver,
        column_duals=_starting_duals(start, a, b, weights, degenerate)
        if start is not None and way.assigns
        else None,
        seed=seed,
    )
    found = way.match(folded_a, folded_b, settings)
    matching = measured(folded_a, folded_b, found, weights, way.name, degenerate)
    if not (way.several if fates is None else fates):
        return matching
    told = fates_of(a, b, calibration, found.correspondence)
    return dataclasses.replace(matching, fates=told, notes=(*matching.notes, *told.notes))


def match_pairs(
    saes: Sequence[SAE | FoldedSAE],
    pairs: Literal["adjacent", "all"] | Iterable[tuple[int, int]] = "adjacent",
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
    scale: ScaleKind | None = None,
    unmatched_cost: Unmatched | None = None,
    degenerate: Degenerate = "apart",
    solver: Certified | None = None,
) -> Iterator[Matching]:
    """Match many pairs of one suite by `folded`, each SAE folded and laid out once.

    `pairs`: positions in `saes`.  Matchings come one at a time, in the order of the pairs.
    """
    sides = [folded(sae, scale) for sae in saes]
    if pairs == "adjacent":
        pairs = pairwise(range(len(sides)))
    elif pairs == "all":
        pairs = combinations(range(len(sides)), 2)
    elif isinstance(pairs, str):
        raise UsageError(f"expected pairs of positions, adjacent or all, got '{pairs}'")
    for first, second in pairs:
        if not all(0 <= one < len(sides) for one in (first, second)):
            raise UsageError(
                f"expected positions from 0 to {len(sides) - 1}, got {first}, {second} (not layers)"
            )
        yield match(
            sides[first],
            sides[second],
            parts=parts,
            unmatched_cost=unmatched_cost,
            degenerate=degenerate,
            solver=solver,
        )


def verify_matching(a: SAE | FoldedSAE, b: SAE | FoldedSAE, matching: Matching) -> Verification:
    """Check a matching's proof from scratch, over all pairs in float64 of the folded float32 weights
    that it was made of (assignment/verify.py), and that its pairs are those of the proof.

    Raises UsageError for a matching that solved no assignment problem.
    """
    if matching.assignment is None:
        raise UsageError(
            f"expected a matching with a proof to verify, got strategy '{matching.strategy}'"
        )
    pair = folded(a, matching.scale), folded(b, matching.scale)
    solved = solved_sides(*pair, matcher_of(matching.strategy).raw)
    problem = proven_problem(*solved, matching.parts, matching.unmatched_cost, matching.degenerate)
    proofs: list[tuple[Problem | None, Assignment | None]] = [(problem, matching.assignment)]
    if matching.degenerate == "together":
        rest = rest_problem(*solved, matching.permutation, matching.parts, matching.unmatched_cost)
        proofs.append((rest, matching.without_degenerate))
    checked: list[Verification] = []
    for problem, proof in proofs:
        if problem is None and proof is None:
            continue
        if problem is None or proof is None:
            raise UsageError(
                "expected the SAEs of this matching, got SAEs with other features degenerate"
            )
        found = verify(problem.rows, problem.columns, proof, **problem.prices)
        columns = problem.rows_of(matching.permutation)
        if found.ok and (columns != proof.columns)[proof.columns != UNMATCHED].any():
            fault = "the pairs of the matching are not those of its proof"
            found = dataclasses.replace(found, faults=(fault,))
        checked.append(found)
    whole = checked[0]
    faults = tuple(fault for found in checked for fault in found.faults)
    return dataclasses.replace(whole, faults=faults, seconds=sum(one.seconds for one in checked))


def _starting_duals(
    start: Matching,
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    weights: Mapping[str, float],
    degenerate: Degenerate,
) -> np.ndarray:
    same = (start.a.d_sae, start.b.d_sae, start.parts) == (a.d_sae, b.d_sae, weights)
    if not same or start.assignment is None or start.degenerate != degenerate:
        raise UsageError(
            f"expected a start of the same pair, parts and way with degenerate features, with a proof, "
            f"got {start!r}"
        )
    return start.assignment.column_duals


def _lacks_thresholds(a: SAE | FoldedSAE, b: SAE | FoldedSAE) -> bool:
    return any(isinstance(sae, SAE) and not sae.has_thresholds for sae in (a, b))


CURVE_QUANTILES = (0.0001, 0.001, 0.01, 0.05, 0.25, 0.5)


@torch.no_grad()
def price_curve(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    prices: Sequence[float] | None = None,
    *,
    parts: Sequence[str] | Mapping[str, float] = PARTS,
) -> "pd.DataFrame":
    """Share of features matched against their unmatched cost.

    One row per price: `price`, `quantile` (share of random live pairs that cost less), `matched` (features
    of A with a partner), `share` (of A's), `live_share` (of A's live features, those with a partner),
    `compared` (live features of A with a partner at every price), `cost` (mean over these), `gap`.
    `prices`: ascending; None: quantiles of random pairs' costs from 0.0001 to 0.5.
    """
    import pandas as pd

    weights = part_weights(parts)
    sides = folded(a, None), folded(b, None)
    random = random_pair_costs(*sides, weights)
    chosen = np.quantile(random, CURVE_QUANTILES).tolist() if prices is None else prices
    rows = []
    matchings = [match(*sides, parts=weights, unmatched_cost=price) for price in chosen]
    same = same_features(matchings)
    for price, found in zip(chosen, matchings, strict=True):
        live = found.status == "live"
        rows.append(
            {
                "price": price,
                "quantile": float(np.searchsorted(random, price) / len(random)),
                "matched": int(found.matched.sum()),
                "share": float(found.matched.mean()),
                "live_share": float((live & found.matched).sum() / max(1, live.sum())),
                "compared": int(same.sum()),
                "cost": float(found.cost[same].mean()) if same.any() else float("nan"),
                "gap": found.gap,
            }
        )
    return pd.DataFrame(rows)
