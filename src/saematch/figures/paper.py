"""The figures of the SAE Match paper, as this package draws them from a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from saematch.errors import UsageError
from saematch.figures import evaluated, fates, labels, matching, paths, sorted_pairs

if TYPE_CHECKING:
    from saematch.store.reader import Run


@dataclass(frozen=True)
class PaperFigure:
    """One figure: what it shows, and what makes what it needs."""

    numbers: tuple[str, ...]
    """In the paper; 13 is 11 on another suite, as 19 is 18.  None: a figure that it has not."""
    name: str
    """Name of its files and for `--only`."""
    draw: Callable[["Run"], Figure]
    """Raises NotInRunError where the run lacks what it needs."""
    shows: str
    command: str
    """The command that makes what it needs; DIR stands for the run directory."""

    @property
    def number(self) -> str:
        """As people say it: '4 and 7 left'; '-' without one."""
        return " and ".join(self.numbers) or "-"

    def is_called(self, wanted: str) -> bool:
        """Whether this is its name or (one of) its numbers; `7` is both halves."""
        return wanted in (self.name, *self.numbers, *(n.split()[0] for n in self.numbers))


_EVALUATE = "saematch evaluate DIR"
_JUDGE = "saematch judge DIR"
_RUN = "saematch run --suite SUITE --out DIR"

FIGURES: Sequence[PaperFigure] = (
    PaperFigure(
        ("1",), "norms", evaluated.norms,
        "per layer: norm of the residual stream and mean threshold; growth of the norm and of matched "
        "folded decoder norms", _EVALUATE,
    ),
    PaperFigure(
        ("3",), "mse", matching.mse,
        "MSE of decoder, encoder and bias per layer pair, by strategy, on folded weights",
        _RUN,
    ),
    PaperFigure(
        ("4", "7 left"), "judged-shares", labels.judged_shares,
        "shares of the judge's DIFFERENT, MAYBE and SAME per layer pair, by strategy",
        f"{_JUDGE} --experiment layers",
    ),
    PaperFigure(
        ("5",), "sorted-pairs", sorted_pairs.sorted_pairs,
        "all live pairs of one layer pair by decoder MSE, with examples from low to high",
        _RUN,
    ),
    PaperFigure(
        ("6",), "mse-by-label", labels.mse_by_label,
        "distribution of decoder MSE by the judge's label, three layer pairs", f"{_JUDGE} --experiment mse",
    ),
    PaperFigure(
        ("7 right",), "matching-score", evaluated.matching_score,
        "matching score per layer pair: folded, unfolded, cosine, and chance", _EVALUATE,
    ),
    PaperFigure(
        ("8",), "persistence", labels.persistence,
        "judge's mean label from start layers to each later layer: exact and composition",
        f"{_JUDGE} --experiment persistence",
    ),
    PaperFigure(
        ("10",), "pruned-by-corpus", evaluated.pruned_by_corpus,
        "explained variance and ΔL of encode-permute-decode per layer pair, one line per corpus",
        _EVALUATE,
    ),
    PaperFigure(
        ("11", "13"), "pruned-by-strategy", evaluated.pruned_by_strategy,
        "the same for reconstructions, matched features and a dropped layer", _EVALUATE,
    ),
    PaperFigure(
        ("12",), "score-by-parts", evaluated.score_by_parts,
        "matching score by decoder alone, encoder alone and all parts", f"{_EVALUATE} --other-parts",
    ),
    PaperFigure(
        ("14",), "against-l0", evaluated.against_l0,
        "explained variance and ΔL against the mean L0 of the SAEs of two adjacent layers",
        f"{_RUN}; {_EVALUATE}",
    ),
    PaperFigure(
        ("15",), "even-l0", evaluated.even_l0,
        "L0 by layer of the suite and of SAEs chosen for even L0; explained variance of both",
        _EVALUATE,
    ),
    PaperFigure(
        ("16", "17"), "mixed-quantiles", evaluated.mixed_quantiles,
        "explained variance and ΔL against the MSE quantile mixed in, one line per layer pair",
        f"{_EVALUATE} --quantiles {evaluated.QUANTILES}",
    ),
    PaperFigure(
        ("18", "19"), "paths", paths.followed,
        "single features through the layers, with descriptions if there are any", _RUN,
    ),
    PaperFigure(
        (), "fates", fates.fates,
        "shares of features that persist, split, merge and die, and that are born, per layer pair",
        f"{_RUN}; saematch calibrate DIR",
    ),
    PaperFigure(
        (), "reliability", fates.reliability,
        "predicted probability of being the same against how often pairs are",
        f"{_RUN}; saematch calibrate DIR",
    ),
)  # fmt: skip
"""In the paper's order; then those that it has not."""


def chosen_figures(wanted: Sequence[str]) -> list[PaperFigure]:
    """The figures of these names or numbers (`7` is both halves), in the paper's order; all of them
    where none are named.  Raises UsageError naming those there are."""
    if not wanted:
        return list(FIGURES)
    for one in wanted:
        if not any(figure.is_called(one) for figure in FIGURES):
            there = ", ".join(f"{figure.name} ({figure.number})" for figure in FIGURES)
            near = get_close_matches(one, [figure.name for figure in FIGURES], 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"expected figures by name or number in the paper, got '{one}'{meant}; there are {there}"
            )
    return [figure for figure in FIGURES if any(map(figure.is_called, wanted))]


def draw(run: "Run", figure: str | int) -> Figure:
    """A figure by its name or number.  Raises UsageError if there is none, or where a number is
    that of two; NotInRunError where the run lacks what it shows."""
    found = chosen_figures([str(figure)])
    if len(found) > 1:
        raise UsageError(
            f"expected one figure, got {figure}, which is {' and '.join(one.name for one in found)}"
        )
    return found[0].draw(run)
