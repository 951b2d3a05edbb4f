"""What a way of matching is: one object that says what it is and finds partners.

Nothing heavy is imported here or by the objects themselves, since the command line and readers of a run
ask them for names and colours; a matcher imports what it computes with when it is called.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from saematch.errors import UsageError

if TYPE_CHECKING:
    import torch

    from saematch.matching.correspondence import Correspondence
    from saematch.matching.found import Found, Settings
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
    """Whether `run` takes it where no strategies are named."""
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
            from saematch.matching.found import Found

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

    def sums(self, d_a: int, d_b: int, device: "torch.device") -> "Sums":
        """`needs_data`: what activations are added up in."""
        raise NotImplementedError(self.name)

    def bytes_of_sums(self, d_a: int, d_b: int) -> int:
        """Memory that `sums` takes; a pair that needs too much is left out with a note."""
        raise NotImplementedError(self.name)


@runtime_checkable
class Sums(Protocol):
    """Activations of one pair of SAEs, batch by batch."""

    def add(self, f_a: "torch.Tensor", f_b: "torch.Tensor") -> None:
        """Activations [tokens, d_a] and [tokens, d_b] at the same tokens."""
        ...

    def correspondence(self) -> "Correspondence":
        """The map that they amount to."""
        ...
