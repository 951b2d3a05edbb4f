"""Which language model a stage runs, and how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSettings:
    """What every stage's config says of its model."""

    model: str | None = None
    """Name on the Hub, path, or `smollm2`; none: the one that the SAEs name."""
    device: str | None = None
    """`cpu` or `cuda`; none: cuda where there is one."""
    dtype: str = "float32"
    """Of the model: float32 or bfloat16."""
    attention: str | None = None
    """Attention implementation that transformers should use."""
    any_model: bool = False
    """Take a model of another name than the SAEs record."""
    batch_tokens: int = 2048
    """Padded tokens in one pass of the model."""
