"""Which of Neuronpedia's descriptions belong to an SAE.

A Neuronpedia source describes the features of one checkpoint; SAELens's registry says of which.
Another SAE of the same layer and width has other features under the same numbers, so a description
is only taken by the checkpoint that it was written for:

1. Where the SAE was published: repository and folder, from its reference.
2. The registry's lines with a Neuronpedia id for exactly that checkpoint.  A local folder does not
   say its repository: there the path's end, the model, the layer and the width must agree.
3. None, but one for another sparsity of the same SAE: refused by name, or taken with a note.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.loading.model_names import hub_name
from saematch.loading.references import Origin, origin_of, without_weights
from saematch.loading.registry import Registered, find_described
from saematch.loading.site import Site
from saematch.sae import SAE

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What ids at Neuronpedia are made of; nothing that could lead out of a folder or an address."""
EXAMPLE = "gemma-2-2b/4-gemmascope-res-16k"
LISTED = 6
"""Candidates named in a message."""

_SPARSITY = re.compile(r"(?<![A-Za-z0-9])((?:average_)?l0_)(?:\d+|big|medium|small)(?=$|[_/])")


@dataclass(frozen=True)
class NeuronpediaSource:
    """One SAE's place at Neuronpedia."""

    model: str
    """`gemma-2-2b`."""
    source: str
    """`4-gemmascope-res-16k`."""
    repository: str = ""
    """Repository of the checkpoint that is described there; '' if the registry does not say."""
    path: str = ""
    """Path of that checkpoint in its repository."""
    notes: tuple[str, ...] = ()
    """What a reader of the descriptions must know, such as that they are another SAE's."""

    @property
    def id(self) -> str:
        """As Neuronpedia and the registry write it."""
        return f"{self.model}/{self.source}"


def parse_id(text: str, *notes: str) -> NeuronpediaSource:
    """The source that `model/source` names; UsageError for any other text."""
    model, _, source = text.strip().partition("/")
    if not (NAME.fullmatch(model) and NAME.fullmatch(source)):
        raise UsageError(
            f"expected a Neuronpedia id (model/source), got '{text[:80]}'; try one like {EXAMPLE}"
        )
    return NeuronpediaSource(model, source, notes=notes)


def source_of(
    sae: SAE, *, source: str | None = None, allow_other_sae: bool = False
) -> NeuronpediaSource:
    """Where Neuronpedia describes the features of exactly this checkpoint.

    `source` names the id (`model/source`) instead of looking for it; it is still refused where the
    registry says that it describes another checkpoint.  `allow_other_sae` takes descriptions of
    another checkpoint of the same layer and width, and notes it.

    Raises InputError (no descriptions, or another checkpoint's, or several candidates: all named),
    UsageError (`source` is no id) and MissingDependencyError (no registry to look in).
    """
    if source is not None:
        parse_id(source)
    try:
        lines = find_described()
        origin = origin_of(sae.reference)
    except MissingDependencyError as error:
        if source is not None:
            return parse_id(source, "named by the user; there is no registry here to check it by")
        raise MissingDependencyError(
            "sae-lens", "saelens", "finding the Neuronpedia id of an SAE"
        ) from error
    if source is not None:
        return _named(source, "named by the user", sae, origin, lines, allow_other_sae)
    if origin is not None and origin.registered is not None and origin.registered.neuronpedia:
        return _described_by(origin.registered)
    stated = sae.metadata.get("neuronpedia_id")
    exact = _candidates(sae, origin, lines)
    if exact:
        return _choose(exact, stated, sae, origin)
    if isinstance(stated, str) and stated:
        why = "as the checkpoint's own config says"
        return _named(stated, why, sae, origin, lines, allow_other_sae)
    beside = _candidates(sae, origin, lines, _any_sparsity)
    if beside:
        return _beside(beside, sae, origin, allow_other_sae)
    raise InputError(
        f"expected descriptions of {_called(sae, origin)} at Neuronpedia, got no id of it in "
        f"SAELens's registry; describe the features from their activations, or pass its id to the Python "
        f"function source_of (source, like {EXAMPLE})"
    )


def _candidates(
    sae: SAE,
    origin: Origin | None,
    lines: Sequence[Registered],
    seen_as: Callable[[str], str] = str,
) -> list[Registered]:
    """The lines of the SAE's checkpoint, one an id; paths are compared as `seen_as` shows them."""
    if origin is None:
        return []
    here = Origin(origin.repository, seen_as(origin.path))
    name = here.path.rpartition("/")[2]
    found = [
        line
        for line in lines
        # The folder's own name first: one comparison rules out nearly all of some thousands.
        if seen_as(without_weights(line.path)).rpartition("/")[2] == name
        and here.is_at(line.repository, seen_as(line.path))
    ]
    if origin.repository is None:
        found = [line for line in found if disagreement(line, sae) is None]
        by_name = [line for line in found if _stands_in_path(line, here, seen_as)]
        found = by_name or [line for line in found if _is_recognised(line, sae)]
    return list({line.neuronpedia: line for line in found}.values())


def _stands_in_path(line: Registered, here: Origin, seen_as: Callable[[str], str]) -> bool:
    """Whether a local path keeps the repository's name before the checkpoint's folder."""
    name = line.repository.rpartition("/")[2]
    return Origin(None, here.path).is_at("", f"{name}/{seen_as(line.path)}")


def _is_recognised(line: Registered, sae: SAE) -> bool:
    """Whether more than a path's end says that the line is the SAE's: layer and model or width."""
    known = sae.model_name is not None or width_agrees(line, sae) is True
    return known and layer_of_line(line) is not None


def _named(
    text: str,
    why: str,
    sae: SAE,
    origin: Origin | None,
    lines: Sequence[Registered],
    allow_other_sae: bool,
) -> NeuronpediaSource:
    """The source of an id that somebody gave, checked by what the registry says of it."""
    line = next((line for line in lines if line.neuronpedia == text.strip()), None)
    if line is None:
        return parse_id(
            text, f"{why}; not in SAELens's registry, so nothing says which checkpoint it describes"
        )
    if origin is not None and origin.is_at(line.repository, line.path):
        return _described_by(line)
    other = disagreement(line, sae)
    known = origin is not None and origin.repository is not None
    if origin is not None and not known:
        # A local path that is the described one but for its sparsity says itself that it is not.
        here = Origin(None, _any_sparsity(origin.path))
        known = here.is_at("", _any_sparsity(line.path))
    if other is None and not known:
        return _described_by(
            line,
            f"{why}; it describes {_checkpoint(line)}, and nothing says whether "
            f"{_called(sae, origin)} is that",
        )
    if not allow_other_sae:
        raise _refused([line], sae, origin, other)
    return _described_by(line, _other_note(line, sae, origin))


def _choose(
    exact: Sequence[Registered], stated: object, sae: SAE, origin: Origin | None
) -> NeuronpediaSource:
    """One of the lines of exactly this checkpoint."""
    if len({_checkpoint(line) for line in exact}) > 1:
        of_config = [line for line in exact if line.neuronpedia == stated]
        if not of_config:
            raise InputError(
                f"expected one checkpoint that {_called(sae, origin)} is, got "
                f"{len(exact)} whose path ends so: {_list(exact)}; describe the features from "
                "their activations, or pass the id to the Python function source_of (source)"
            )
        exact = of_config
    notes = []
    # A checkpoint may be described twice, as the canonical one and by its sparsity.
    chosen, *others = sorted(
        exact, key=lambda line: (len(line.neuronpedia or ""), line.neuronpedia)
    )
    if others:
        notes.append(f"also described as {', '.join(str(line.neuronpedia) for line in others)}")
    if origin is not None and origin.repository is None:
        notes.append(f"taken for {_checkpoint(chosen)} by its path")
    if origin is not None and origin.revision is not None:
        notes.append(f"loaded at revision {origin.revision}; the registry speaks of the newest")
    return _described_by(chosen, *notes)


def _beside(
    beside: Sequence[Registered], sae: SAE, origin: Origin | None, allow_other_sae: bool
) -> NeuronpediaSource:
    """The SAE of another sparsity that is described in this one's place, if that is allowed."""
    # `4-gemmascope-res-16k` is the canonical one, `4-gemmascope-res-16k__l0-60` another.
    canonical = [line for line in beside if "__" not in str(line.neuronpedia)] or beside
    if not allow_other_sae:
        raise _refused(canonical, sae, origin)
    if len(canonical) > 1:
        raise InputError(
            f"expected one SAE whose descriptions stand in for those of {_called(sae, origin)}, got "
            f"{len(canonical)}: {_list(canonical)}; describe the features from their activations, or "
            "pass the id to the Python function source_of (source)"
        )
    return _described_by(canonical[0], _other_note(canonical[0], sae, origin))


def _described_by(line: Registered, *notes: str) -> NeuronpediaSource:
    named = parse_id(str(line.neuronpedia))
    return NeuronpediaSource(named.model, named.source, line.repository, line.path, notes)


def _refused(
    lines: Sequence[Registered], sae: SAE, origin: Origin | None, why: str | None = None
) -> InputError:
    return InputError(
        f"expected descriptions of {_called(sae, origin)}, got those of {_list(lines)}"
        + (f" ({why})" if why else "")
        + "; load the checkpoint that they belong to, or take them all the same with "
        "allow_other_sae=True"
    )


def _other_note(line: Registered, sae: SAE, origin: Origin | None) -> str:
    return (
        f"descriptions of another SAE: {line.neuronpedia} describes {_checkpoint(line)}, not "
        f"{_called(sae, origin)}"
    )


def _list(lines: Sequence[Registered]) -> str:
    named = [f"{_checkpoint(line)} ({line.neuronpedia})" for line in lines[:LISTED]]
    more = len(lines) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _checkpoint(line: Registered) -> str:
    return f"{line.repository}/{line.path}"


def _called(sae: SAE, origin: Origin | None) -> str:
    return str(origin) if origin else sae.reference or "an SAE made in memory"


def _any_sparsity(path: str) -> str:
    return _SPARSITY.sub(r"\1*", path)


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
