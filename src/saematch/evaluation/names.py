"""What a pair is measured under besides its matchings, by name."""

INTERVENTIONS = ("layer_drop", "reconstruct_current", "reconstruct_previous")
"""Those that need no map of features."""
RIDGE = "ridge"
_REFOLDED = "_refolded"


def refolded(strategy: str) -> str:
    """The condition that decodes the map of a strategy on raw weights on folded ones: map and scale apart."""
    return f"{strategy}{_REFOLDED}"


def is_refolded(strategy: str) -> bool:
    return strategy.endswith(_REFOLDED)
