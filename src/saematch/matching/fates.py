"""What becomes of each feature of A in B, and how probable that is (probability.py).

With p the probability of a pair to be the same, the partners that count are those of p ≥ ½, or, where
there is none, the most probable; with q the probability that any feature of B is the same:

    not live    dead or degenerate: nothing is said of it
    dies        q < ½
    splits      two or more partners count
    merges      one counts, and it counts as the partner of another feature of A too
    persists    one counts, and of no other feature of A
    unknown     no calibration holds for these SAEs; the notes say why

A feature of B is born where the probability that any feature of A is the same is below ½.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from saematch.errors import UsageError
from saematch.matching.correspondence import UNMATCHED, Correspondence
from saematch.matching.probability import CANDIDATES, Calibration, Descriptors
from saematch.sae import SAE, FoldedSAE
from saematch.types import EVEN, Fate

SAMPLE = 512
"""Features of A whose candidates say whether a calibration holds."""


@dataclass(frozen=True, eq=False)
class Fates:
    """What becomes of the features of A, and where those of B come from."""

    candidates: Int64[np.ndarray, "d_a candidates"]
    """Live features of B, the most probable first; -1: not known."""
    pair_probability: Float64[np.ndarray, "d_a candidates"]
    """That the feature and the candidate are the same; NaN: not known."""
    probability: Float64[np.ndarray, " d_a"]
    """That any feature of B is the same; NaN: not known."""
    origin_probability: Float64[np.ndarray, " d_b"]
    """That any feature of A is the same as this one of B; NaN: not known."""
    live: Bool[np.ndarray, " d_a"]
    live_b: Bool[np.ndarray, " d_b"]
    partner_probability: Float64[np.ndarray, " n"]
    """That a feature and the partner which a correspondence gives it are the same, in its order; NaN: not
    known, or one of the two is not live."""
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether a calibration holds for these SAEs."""
        return not self.notes

    @cached_property
    def counting(self) -> Bool[np.ndarray, "d_a candidates"]:
        """Which candidates count as partners; none of a feature that dies."""
        some = self.pair_probability >= EVEN
        some[:, 0] = True
        return some & (self.probability >= EVEN)[:, None]

    @cached_property
    def fate(self) -> np.ndarray:
        """[d_a] of str: one of `Fate`."""
        counts = self.counting.sum(axis=1)
        taken = np.bincount(self.candidates[self.counting], minlength=len(self.live_b))
        shared = (taken[np.maximum(self.candidates[:, 0], 0)] > 1) & (counts == 1)
        rules = {
            Fate.NOT_LIVE: ~self.live,
            Fate.UNKNOWN: np.isnan(self.probability),
            Fate.DIES: counts == 0,
            Fate.SPLITS: counts > 1,
            Fate.MERGES: shared,
        }
        found = np.select(list(rules.values()), [str(one) for one in rules], str(Fate.PERSISTS))
        return found.astype(object)

    @property
    def born(self) -> Bool[np.ndarray, " d_b"]:
        """Live features of B that no feature of A is the same as."""
        return self.live_b & (self.origin_probability < EVEN)


def fates(
    a: SAE | FoldedSAE,
    b: SAE | FoldedSAE,
    calibration: Calibration | None = None,
    correspondence: Correspondence | None = None,
) -> Fates:
    """What becomes of each feature of `a` in `b`.

    `calibration`: None is the one that ships.  `correspondence`: whose pairs `partner_probability` is of;
    None: of none.  Where no calibration holds (no thresholds, an SAE without live features, descriptors
    unlike those that it was fitted on, as an untrained SAE's are) every probability is NaN, and the notes
    say why.
    """
    a, b = (side.sae if isinstance(side, FoldedSAE) else side for side in (a, b))
    calibration = Calibration.load() if calibration is None else calibration
    pairs = (np.zeros(0, dtype=np.int64),) * 2
    if correspondence is not None:
        pairs = correspondence.features, correspondence.partners
    there, note = descriptors_of(a, b, calibration)
    if there is None:
        return _unknown(a, b, len(pairs[0]), note)
    back = Descriptors(b, a)
    near, found = there.b.live.numpy()[there.near.numpy()], there.candidates()
    probability, any_ = calibration.probabilities(found)
    order = np.argsort(-probability, axis=1, kind="stable")
    live, live_b = (side.live.numpy() for side in (there.a, there.b))
    result = _unknown(a, b, len(pairs[0]))
    result.candidates[live] = np.take_along_axis(near, order, axis=1)
    result.pair_probability[live] = np.take_along_axis(probability, order, axis=1)
    result.probability[live] = any_
    result.origin_probability[live_b] = calibration.probabilities(back.candidates())[1]
    result.partner_probability[:] = pair_probabilities(there, calibration, *pairs)
    return result


def descriptors_of(a: SAE, b: SAE, calibration: Calibration) -> tuple[Descriptors | None, str]:
    """Descriptors of two SAEs, if the calibration holds for them; else None and why not."""
    if not (_live(a).any() and _live(b).any()):
        return None, "no probabilities: an SAE has no live features"
    try:
        found = Descriptors(a, b)
    except UsageError as error:
        return None, f"no probabilities: {error}"
    if not calibration.carries_over(found.candidates(SAMPLE)):
        return None, (
            "no probabilities: these SAEs are unlike those that the calibration was fitted on; try "
            "saematch calibrate"
        )
    return found, ""


def pair_probabilities(
    descriptors: Descriptors,
    calibration: Calibration,
    features: Int64[np.ndarray, " n"],
    partners: Int64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    """That pairs, given as features of A and of B, are the same; NaN where one of the two is not live."""
    places = []
    for of, live in ((features, descriptors.a.live), (partners, descriptors.b.live)):
        place = torch.searchsorted(live, torch.from_numpy(of)).clamp(max=len(live) - 1)
        places.append((place, live[place].numpy() == of))
    (i, some), (j, others) = places
    known = torch.from_numpy(some & others)
    found = np.full(len(features), np.nan)
    found[known.numpy()] = calibration.pair(descriptors.of(i[known], j[known]))
    return found


def _live(sae: SAE) -> Bool[np.ndarray, " d_sae"]:
    return np.array(sae.status) == "live"


def _unknown(a: SAE, b: SAE, pairs: int, note: str = "") -> Fates:
    count = min(CANDIDATES, int(_live(b).sum()) or 1)
    return Fates(
        candidates=np.full((a.d_sae, count), UNMATCHED, dtype=np.int64),
        pair_probability=np.full((a.d_sae, count), np.nan),
        probability=np.full(a.d_sae, np.nan),
        origin_probability=np.full(b.d_sae, np.nan),
        live=_live(a),
        live_b=_live(b),
        partner_probability=np.full(pairs, np.nan),
        notes=(note,) if note else (),
    )
