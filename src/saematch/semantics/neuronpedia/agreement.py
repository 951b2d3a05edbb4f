"""Whether an SAE can be the checkpoint of a line of SAELens's registry, by what both say of it."""

import re

from saematch.errors import InputError, UsageError
from saematch.loading.model_names import hub_name
from saematch.loading.registry import Registered
from saematch.loading.site import Site
from saematch.sae import SAE

_WIDTH = re.compile(r"(?<![A-Za-z0-9])(\d+)([km])(?![A-Za-z0-9])")


def disagreement(line: Registered, sae: SAE) -> str | None:
    """What of an SAE is certainly not as the line says; None: nothing."""
    layer = layer_of_line(line)
    if layer is not None and layer != sae.layer:
        return f"layer {layer}, where this SAE is of layer {sae.layer}"
    if width_agrees(line, sae) is False:
        return f"another width, where this SAE has {sae.d_sae:,} features"
    if (site := _site(line)) is not None and not site.supported:
        return str(site)
    if sae.model_name is not None and line.model is not None:
        ours, theirs = _model(sae.model_name), _model(line.model)
        if ours != theirs:
            return f"model {theirs}, where this SAE is of {ours}"
    return None


def layer_of_line(line: Registered) -> int | None:
    """The layer of the line's checkpoint; None where its path and id say none."""
    site = _site(line)
    return None if site is None else site.layer


def _site(line: Registered) -> Site | None:
    try:
        return line.site
    except (InputError, UsageError):
        return None


def width_agrees(line: Registered, sae: SAE) -> bool | None:
    """Whether the width in the id (`16k`, `131k`, `1m`) is the SAE's; None: the id has none."""
    stated = {match[0] for match in _WIDTH.finditer(str(line.neuronpedia).rpartition("/")[2])}
    if not stated:
        return None
    # 131,072 features are written 131k by most and 128k by some.
    ours = {f"{sae.d_sae // unit}k" for unit in (1000, 1024)}
    ours |= {f"{sae.d_sae // unit}m" for unit in (1000**2, 1024**2)}
    return bool(stated & ours)


def _model(name: str) -> str:
    """A model's name at the Hub, without owner and case."""
    return hub_name(name).rpartition("/")[2].casefold()
