"""Where a planned run's SAEs lie: a preset, a folder, or links to chosen ones.

A suite of several SAEs per layer is a folder `layer_L/NAME` (docs/figures.md).  It is made of links, so that
no checkpoint lies on the disk twice.
"""

import os
from collections.abc import Callable
from pathlib import Path

from paper.settings import PlannedRun, Recipe, Sae, Settings
from saematch.loading import source_files


def suite_of(
    planned: PlannedRun, recipe: Recipe, settings: Settings, tell: Callable[[str], None]
) -> str:
    """The reference of a run's suite; what is not here yet of a linked one is downloaded."""
    if planned.suite is not None:
        return planned.suite
    root = recipe.root(settings)
    # The repository's name stays in the path: it says which model the SAEs belong to.
    folder = Path(settings.out, "suites", planned.name, recipe.saes.root.rpartition("/")[2])
    links = {}
    for sae in planned.saes:
        tell(f"looking for {sae.path}")
        weights = source_files(f"{root}/{sae.path}")[0]
        links[folder / _place(sae) / weights.name] = weights.absolute()
    for path in folder.rglob("*"):
        if path.is_symlink() and links.get(path) != Path(os.readlink(path)):
            path.unlink()
    for link, target in links.items():
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    return str(folder)


def _place(sae: Sae) -> str:
    return f"layer_{sae.layer}/{sae.name}" if sae.name else sae.path
