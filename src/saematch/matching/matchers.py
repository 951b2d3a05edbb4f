"""Ways of matching: what one is, those that ship, and the one list of them, which everything else asks.

A matcher of yours is one object: subclass `Matcher`, pass an instance to `register`, and `match`, `run`,
`evaluate`, `judge`, figures, report, explorer and command line know it (CONTRIBUTING.md).

Nothing heavy is imported here or by the objects themselves, since the command line and readers of a run
ask them for names and colours; a matcher imports what it computes with when it is called.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from saematch.errors import UsageError

if TYPE_CHECKING:
    from saematch.matching.activity import Observed
    from saematch.matching.correspondence import Correspondence
    from saematch.matching.matched import Found, Settings
    from saematch.sae import FoldedSAE


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """One way of matching; a subclass implements `match`, `draw` or `sums`, and `register` makes it known.

    Everything that shows, runs, stores or evaluates matchings asks these fields.
    """

    name: str
    """Small letters, digits and underscores: a folder of the run directory, a column of the explorer."""
    label: str
    """What legends call it."""
    color: str
    marker: str
    dashes: Any = "-"
    """Dashes of its line, as matplotlib takes them; give each matcher another marker or dashes, for
    greyscale."""
    one_to_one: bool = False
    """Whether no two features of A share a partner."""
    several: bool = False
    """Whether a feature may have several partners, or one of another weight than 1: its correspondence is
    stored in a table of its own."""
    assigns: bool = False
    """Whether it solves an assignment problem: it has a proof and takes an unmatched cost."""
    raw: bool = False
    """Whether it matches and decodes on raw weights, not on folded ones."""
    needs_scale: bool = False
    """Whether the folding scale decides its pairs, so that SAEs without thresholds need one named."""
    needs_data: bool = False
    """Whether it is fitted to text, by `evaluate`; such a matcher implements `sums`."""
    needs_equal_widths: bool = False
    """Whether both SAEs must have as many features."""
    seeded: bool = False
    """Whether it is drawn by a seed and measured over several draws; such a matcher implements `draw`."""
    control: bool = False
    """Whether others are compared with it: drawn after them, and no feature pairs are listed of it."""
    composition: str | None = None
    """What the composition of its adjacent steps is called in the run directory; None: it is not composed."""
    in_runs: bool = True
    """Whether `run`, or `evaluate` if it is fitted to text, takes it where no strategies are named."""
    judged: bool = False
    """Whether `judge` compares it where no strategies are named."""

    def __post_init__(self) -> None:
        for name in filter(None, (self.name, self.composition)):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise UsageError(
                    f"expected a matcher's name of small letters, digits and underscores, got '{name}'"
                )
        if self.several and self.assigns:
            raise UsageError(
                f"expected one partner a feature of {self.name}, which solves an assignment problem, got "
                "several"
            )

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        """The partners of A's features in B, on CPU."""
        if self.seeded:
            from saematch.matching.matched import Found

            return Found(self.draw(a.d_sae, b.d_sae, settings.seed))
        if self.needs_data:
            raise UsageError(
                f"expected a strategy that needs no text, got '{self.name}'; try saematch.evaluate or "
                "saematch evaluate"
            )
        raise NotImplementedError(self.name)

    def draw(self, d_a: int, d_b: int, seed: int) -> "Correspondence":
        """`seeded`: a map that the two widths and the seed decide."""
        raise NotImplementedError(self.name)

    def sums(self, a: "FoldedSAE", b: "FoldedSAE") -> "Sums":
        """`needs_data`: what the two see is added up in this, on the device that they lie on."""
        raise NotImplementedError(self.name)

    def bytes_of_sums(self, a: "FoldedSAE", b: "FoldedSAE") -> int:
        """Memory that `sums` takes; a pair that needs too much is left out with a note."""
        raise NotImplementedError(self.name)


@runtime_checkable
class Sums(Protocol):
    """What one pair of SAEs sees, batch by batch."""

    def add(self, observed: "Observed") -> None: ...

    def correspondence(self) -> "Correspondence":
        """The map that they amount to."""
        ...


FOLDED, UNFOLDED, NAIVE, RANDOM = "folded", "unfolded", "naive", "random"
COSINE, CORRELATION = "cosine", "correlation"


@dataclass(frozen=True, kw_only=True)
class AssignmentMatcher(Matcher):
    """The one-to-one map of least total squared distance of weights, folded or raw (SAE Match)."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        from saematch.matching.assigning import find_assignment

        return find_assignment(a, b, settings, self.raw)


class Naive(Matcher):
    """Feature i is feature i."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        import numpy as np

        from saematch.matching.correspondence import Correspondence
        from saematch.matching.matched import Found

        if a.d_sae != b.d_sae:
            raise UsageError(
                f"expected equal d_sae for the {self.name} strategy, got {a.d_sae} and {b.d_sae}"
            )
        return Found(Correspondence.of_permutation(np.arange(a.d_sae), b.d_sae))


class Random(Matcher):
    """One-to-one by chance: what a matching is worth that knows nothing of the features."""

    def draw(self, d_a: int, d_b: int, seed: int) -> "Correspondence":
        from saematch.matching.correspondence import Correspondence
        from saematch.matching.strategies import random_permutation

        return Correspondence.of_permutation(random_permutation(d_a, d_b, seed), d_b)


@dataclass(frozen=True, kw_only=True)
class Cosine(Matcher):
    """By the cosine of decoder rows, or of encoder columns (cosines.py)."""

    part: Literal["decoder", "encoder"] = "decoder"
    choice: Literal["nearest", "backward", "mutual", "greedy"] = "nearest"

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        from saematch.matching.cosines import CHOICES
        from saematch.matching.matched import Found

        of_a, of_b = (
            one.sae.W_dec if self.part == "decoder" else one.sae.W_enc.T for one in (a, b)
        )
        return Found(CHOICES[self.choice](of_a, of_b))


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(Matcher):
    """Where most of a feature's mass goes by entropic transport of decoder rows, all of equal mass
    (entropic.py)."""

    epsilon: float = 0.05
    """Weight of the entropy; the smaller, the nearer to one-to-one."""

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        import torch

        from saematch.matching.entropic import strongest

        mass_a, mass_b = (torch.ones(one.d_sae).double() for one in (a, b))
        return strongest(a.sae.W_dec, b.sae.W_dec, mass_a, mass_b, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class SinkhornActivity(Matcher):
    """The same, the mass of a feature being how often and how strongly it is active on text."""

    epsilon: float = Sinkhorn.epsilon

    def sums(self, a: "FoldedSAE", b: "FoldedSAE") -> Sums:
        from saematch.matching.activity import MassSums

        return MassSums(a, b, self.epsilon)

    def bytes_of_sums(self, a: "FoldedSAE", b: "FoldedSAE") -> int:
        return 4 * a.d_sae * b.d_sae  # the cosines, once tokens are added up


@dataclass(frozen=True, kw_only=True)
class Joint(Matcher):
    """For each feature the one whose activity on text goes best with its own (activity.py)."""

    score: Literal["correlation", "jaccard", "implication"]
    binary: bool = True
    """By whether features are active, not by how strongly."""

    def sums(self, a: "FoldedSAE", b: "FoldedSAE") -> Sums:
        from saematch.matching import activity

        return activity.JointSums(a, b, getattr(activity, self.score), self.binary)

    def bytes_of_sums(self, a: "FoldedSAE", b: "FoldedSAE") -> int:
        return 4 * a.d_sae * b.d_sae


@dataclass(frozen=True, kw_only=True)
class Centroid(Matcher):
    """For each feature the one that is active at the most similar tokens: nearest activation-weighted
    centroid of the whitened stream (activity.py)."""

    decoder: bool = False
    """By the sum of this cosine and the decoder cosine."""

    def sums(self, a: "FoldedSAE", b: "FoldedSAE") -> Sums:
        from saematch.matching.activity import CentroidSums

        return CentroidSums(a, b, self.decoder)

    def bytes_of_sums(self, a: "FoldedSAE", b: "FoldedSAE") -> int:
        return 4 * (a.d_sae + b.d_sae + 2 * a.d_model) * a.d_model


@dataclass(frozen=True, kw_only=True)
class FewPartners(Matcher):
    """Named by a number of partners: `transport_4`, or `transport:4` where a matcher is asked for."""

    partners: int = 4
    name: str = ""
    label: str = ""
    several: bool = True
    family: ClassVar[str]

    def __post_init__(self) -> None:
        if self.partners < 1:
            raise UsageError(f"expected partners from 1, got {self.partners}")
        words = f"{self.family.replace('_', ' ')}, {self.partners} partners"
        for field, usual in (("name", f"{self.family}_{self.partners}"), ("label", words)):
            object.__setattr__(self, field, getattr(self, field) or usual)
        if self.partners != FewPartners.partners:
            # Next to the usual number others show theirs.
            object.__setattr__(self, "marker", f"${self.partners}$")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Transport(FewPartners):
    """Each feature as a non-negative mix of at most `partners` features of B (transport.py)."""

    power: float = 0.5
    """Of the scale that undoes the shrinking of least squares: 0 none, 1 the feature's own norm."""
    color: str = "#AA3377"
    marker: str = "X"
    family: ClassVar[str] = "transport"

    def match(self, a: "FoldedSAE", b: "FoldedSAE", settings: "Settings") -> "Found":
        from saematch.matching.matched import Found
        from saematch.matching.transport import transport

        return Found(transport(a, b, self.partners, self.power, self.candidates))

    @property
    def candidates(self) -> int | None:
        """How many features of greatest cosine its partners are chosen from; None: the usual number."""
        return None


class TopCosine(Transport):
    """The same weights for the `partners` features of greatest cosine."""

    family: ClassVar[str] = "top_cosine"

    @property
    def candidates(self) -> int | None:
        return self.partners


@dataclass(frozen=True, kw_only=True)
class Regression(FewPartners):
    """The activation of each feature of B as a non-negative sum of those of at most `partners` features of
    A, fitted to text (activity.py): what so few partners reach with data."""

    color: str = "#4B0092"
    marker: str = "$r$"
    needs_data: bool = True
    family: ClassVar[str] = "regression"

    def sums(self, a: "FoldedSAE", b: "FoldedSAE") -> Sums:
        from saematch.matching.activity import RegressionSums

        return RegressionSums(a, b, self.partners)

    def bytes_of_sums(self, a: "FoldedSAE", b: "FoldedSAE") -> int:
        return 4 * a.d_sae * (a.d_sae + b.d_sae)


FAMILIES: dict[str, type[Transport] | type[Regression]] = {
    one.family: one for one in (Transport, TopCosine, Regression)
}
"""Matchers with a number of partners in their name: `matcher` makes those that are asked for."""

BUILT_IN: tuple[Matcher, ...] = (
    AssignmentMatcher(
        name=FOLDED, label="folded (SAE Match)", color="#0072B2", marker="o",
        one_to_one=True, assigns=True, needs_scale=True, composition="composition", judged=True,
    ),
    AssignmentMatcher(
        name=UNFOLDED, label="unfolded", color="#E69F00", marker="s", dashes="--",
        one_to_one=True, assigns=True, raw=True, judged=True,
    ),
    Naive(
        name=NAIVE, label="naive (identity)", color="#D55E00", marker="v", dashes=(0, (4, 1.5)),
        one_to_one=True, needs_equal_widths=True, control=True,
    ),
    Random(
        name=RANDOM, label="random", color="#7F7F7F", marker="x", dashes=":",
        one_to_one=True, seeded=True, control=True, judged=True,
    ),
    Cosine(
        name=COSINE, label="cosine argmax", color="#009E73", marker="^", dashes="-.",
        composition="cosine_composition", judged=True,
    ),
    Joint(
        name=CORRELATION, label="correlation argmax", color="#56B4E9", marker="P",
        dashes=(0, (5, 1, 1, 1)), needs_data=True, score="correlation", binary=False,
    ),
    Transport(in_runs=False),
    TopCosine(color="#44AA99", marker="h", dashes=(0, (3, 1, 1, 1)), in_runs=False),
    Cosine(
        name="encoder_cosine", label="encoder cosine argmax", color="#6B8E23", marker="p",
        dashes=(0, (2, 1)), part="encoder", in_runs=False,
    ),
    Cosine(
        name="mutual_cosine", label="mutual cosine", color="#00734F", marker="8",
        dashes=(0, (6, 2)), choice="mutual", one_to_one=True, in_runs=False,
    ),
    Cosine(
        name="cosine_backward", label="cosine argmax, backward", color="#66C2A5", marker="1",
        dashes=(0, (1, 2)), choice="backward", several=True, in_runs=False,
    ),
    Cosine(
        name="greedy_cosine", label="greedy cosine, one-to-one", color="#A6761D", marker="+",
        dashes=(0, (8, 2, 1, 2)), choice="greedy", one_to_one=True, in_runs=False,
    ),
    Sinkhorn(
        name="sinkhorn", label="Sinkhorn", color="#E7298A", marker="H", dashes=(0, (3, 3)),
        in_runs=False,
    ),
    SinkhornActivity(
        name="sinkhorn_activity", label="Sinkhorn, by activity", color="#F781BF", marker="2",
        dashes=(0, (3, 1)), needs_data=True, in_runs=False,
    ),
    Joint(
        name="phi", label="φ argmax", color="#1B5E9E", marker="3", dashes=(0, (7, 1)),
        needs_data=True, score="correlation", in_runs=False,
    ),
    Joint(
        name="jaccard", label="Jaccard argmax", color="#8DA0CB", marker="4",
        dashes=(0, (2, 2, 6, 2)), needs_data=True, score="jaccard", in_runs=False,
    ),
    Joint(
        name="implication", label="implication argmax", color="#377EB8", marker="|",
        dashes=(0, (1, 3)), needs_data=True, score="implication", in_runs=False,
    ),
    Centroid(
        name="centroid", label="activation centroid", color="#B15928", marker="$c$",
        dashes=(0, (4, 4)), needs_data=True, in_runs=False,
    ),
    Centroid(
        name="centroid_cosine", label="activation centroid and cosine", color="#FF7F00",
        marker="$o$", dashes=(0, (4, 1, 1, 1, 1, 1)), needs_data=True, decoder=True, in_runs=False,
    ),
    Regression(dashes=(0, (9, 1)), in_runs=False),
)  # fmt: skip
"""In the order in which a run makes them and tables list them."""


MAIN = FOLDED
"""The strategy of the paper, that every run has: paths, candidates, warnings and labels are of it."""

_registered: dict[str, Matcher] = {one.name: one for one in BUILT_IN}


def register(matcher: Matcher) -> Matcher:
    """Make a matcher known, after those that are; raises UsageError where its name is taken."""
    names = {*_registered, *compositions().values()}
    for name in filter(None, (matcher.name, matcher.composition)):
        if name in names:
            raise UsageError(f"expected a name that no other matcher has, got '{name}'")
    _registered[matcher.name] = matcher
    return matcher


@contextmanager
def registering(matcher: Matcher) -> Iterator[Matcher]:
    """`register` for as long as the block runs."""
    try:
        yield register(matcher)
    finally:
        if _registered.get(matcher.name) is matcher:
            del _registered[matcher.name]


def matchers() -> tuple[Matcher, ...]:
    """Every matcher, in the order in which a run makes them and tables list them."""
    return tuple(_registered.values())


def ranked_matchers() -> tuple[Matcher, ...]:
    """Every matcher, controls last: the order of legends, summaries and the judge's sample."""
    return tuple(sorted(matchers(), key=lambda one: one.control))


def _member(name: str) -> tuple[type[Transport] | type[Regression] | None, str | None]:
    """The family of a name and how many partners it says; None: of no family, or says none."""
    found = re.fullmatch(r"(\w+?)(?:[:_](\d+))?", name)
    return (None, None) if found is None else (FAMILIES.get(found[1]), found[2])


def is_matcher(name: str) -> bool:
    return name in _registered


def matcher(name: str) -> Matcher:
    """The matcher of a name, such as `cosine`, `transport`, `transport:8`; raises UsageError naming those
    there are."""
    family, partners = _member(name)
    if family is not None:
        count = family.partners if partners is None else int(partners)
        made = family(partners=count, in_runs=False)
        return _registered.setdefault(made.name, made)
    if name not in _registered:
        some = ", ".join(f"{one}:PARTNERS" for one in FAMILIES)
        raise UsageError(f"expected a strategy of {', '.join(_registered)}, {some}, got '{name}'")
    return _registered[name]


def registered_names(names: Sequence[str]) -> list[str]:
    """Names as `matcher` takes them, such as `transport:8`, as those of its matchers; others as they are."""
    return [one if _member(one)[0] is None else matcher(one).name for one in names]


def data_free() -> tuple[str, ...]:
    """Names of those that `run` can make: all that need no text."""
    return tuple(one.name for one in matchers() if not one.needs_data)


def usual_in_runs() -> tuple[str, ...]:
    """Names of those that `run` makes where none are named."""
    return tuple(one.name for one in matchers() if one.in_runs and not one.needs_data)


def usual_fitted() -> tuple[str, ...]:
    """Names of those fitted to text that `evaluate` measures where none are named."""
    return tuple(one.name for one in matchers() if one.in_runs and one.needs_data)


def usual_for_judges() -> tuple[str, ...]:
    """Names of those that `judge` compares where none are named."""
    return tuple(one.name for one in ranked_matchers() if one.judged)


def compositions() -> dict[str, str]:
    """What the composition of adjacent steps is called, by matcher."""
    return {one.name: one.composition for one in matchers() if one.composition is not None}
