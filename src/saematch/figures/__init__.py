"""Figures: a run in, a matplotlib Figure out; one function per figure of the paper (paper.py).

    from saematch.figures import draw
    draw(open_run("DIR"), "mse")          # or 3, its number in the paper

`matching.py` also draws the report's figures, from tables.
"""

from saematch.errors import MissingDependencyError

try:
    import matplotlib  # noqa: F401
except ModuleNotFoundError:
    raise MissingDependencyError(
        "matplotlib", "", "drawing figures (the report has some)"
    ) from None

from saematch.figures.captions import caption_of
from saematch.figures.data import NotInRunError
from saematch.figures.fates import fates_by_pair
from saematch.figures.matching import (
    certain_share,
    cost_distribution,
    measured_by_pair,
    mse_by_pair,
)
from saematch.figures.paper import FIGURES, PaperFigure, draw
from saematch.figures.style import to_png, to_svg

__all__ = [
    "FIGURES",
    "NotInRunError",
    "PaperFigure",
    "caption_of",
    "certain_share",
    "cost_distribution",
    "draw",
    "fates_by_pair",
    "measured_by_pair",
    "mse_by_pair",
    "to_png",
    "to_svg",
]
