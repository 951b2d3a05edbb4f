"""Which SAEs the settings ask for."""

import dataclasses

from settings import Settings


@dataclasses.dataclass(frozen=True)
class Job:
    """One SAE to train."""

    block: int
    name: str
    """Folder name: the block, with a suffix for another seed or an untrained SAE."""
    seed: int
    samples: int
    target_l0: float


def jobs(settings: Settings) -> list[Job]:
    """Every SAE that the settings ask for, the suite's first."""

    def job(block: int, name: str, number: int, trained: bool = True) -> Job:
        harder = block in settings.harder_blocks
        samples = settings.harder_training_samples if harder else settings.training_samples
        target = settings.harder_target_l0 if harder else settings.target_l0
        seed = settings.seed + 1000 * block + number
        return Job(block, name, seed, samples if trained else 0, target)

    wanted = [job(block, str(block), 0) for block in settings.blocks]
    second = settings.second_seed_block
    wanted.append(job(second, f"{second}-second-seed", 1))
    wanted.append(job(second, f"{second}-untrained", 2, trained=False))
    wanted += [job(block, str(block), 0) for block in settings.extra_blocks]
    for number, target in enumerate(settings.l0_targets, start=3):
        for block in settings.l0_blocks:
            name = f"{block}-l0-{target:g}"
            seed = settings.seed + 1000 * block + number
            wanted.append(Job(block, name, seed, settings.l0_training_samples, target))
    return wanted
