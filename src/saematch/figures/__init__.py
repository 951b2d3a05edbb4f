"""Figures: a run's tables in, a matplotlib Figure out; one function a figure."""

from saematch.figures.evaluation import measured_by_pair
from saematch.figures.matching import certain_share, cost_distribution, mse_by_pair
from saematch.figures.style import to_svg

__all__ = ["certain_share", "cost_distribution", "measured_by_pair", "mse_by_pair", "to_svg"]
