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
_WIDTH = re.compile(r"(?<![A-Za-z0-9])(\d+)([km])(?![A-Za-z0-9])")


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


def source_of(sae: SAE, *, allow_other_sae: bool = False) -> NeuronpediaSource:
    """Where Neuronpedia describes the features of exactly this checkpoint.

    `allow_other_sae` takes descriptions of another checkpoint of the same layer and width, and notes it.

    Raises InputError (no descriptions, or another checkpoint's, or several candidates: all named),
    UsageError (what the checkpoint's config states is no id) and MissingDependencyError (no registry to
    look in).
    """
    try:
        search = _Search(sae, origin_of(sae.reference), find_described(), allow_other_sae)
    except MissingDependencyError as error:
        raise MissingDependencyError(
            "sae-lens", "saelens", "finding the Neuronpedia id of an SAE"
        ) from error
    return search.found()


@dataclass(frozen=True)
class _Search:
    """An SAE, where it was published, and the registry's lines with a Neuronpedia id."""

    sae: SAE
    origin: Origin | None
    lines: Sequence[Registered]
    allow_other_sae: bool

    def __str__(self) -> str:
        return str(self.origin) if self.origin else self.sae.reference or "an SAE made in memory"

    def found(self) -> NeuronpediaSource:
        """The source that is described as this checkpoint, or may stand in for it."""
        if self.origin and self.origin.registered and self.origin.registered.neuronpedia:
            return _described_by(self.origin.registered)
        stated = self.sae.metadata.get("neuronpedia_id")
        if exact := self.candidates():
            return self.chosen(exact, stated)
        if isinstance(stated, str) and stated:
            return self.stated(stated)
        if other := self.candidates(_any_sparsity):
            return self.of_other_sparsity(other)
        raise InputError(
            f"expected descriptions of {self} at Neuronpedia, got no id of it in SAELens's registry; "
            "describe the features from their activations"
        )

    def candidates(self, seen_as: Callable[[str], str] = str) -> list[Registered]:
        """The lines of the SAE's checkpoint, one an id; paths are compared as `seen_as` shows them."""
        if self.origin is None:
            return []
        here = Origin(self.origin.repository, seen_as(self.origin.path))
        name = here.path.rpartition("/")[2]
        found = [
            line
            for line in self.lines
            # The folder's own name first: one comparison rules out nearly all of some thousands.
            if seen_as(without_weights(line.path)).rpartition("/")[2] == name
            and here.is_at(line.repository, seen_as(line.path))
        ]
        if here.repository is None:
            found = [line for line in found if _disagreement(line, self.sae) is None]
            # Those whose repository's name the path keeps; else more than the path's end must say that the
            # line is the SAE's: layer and model or width.
            by_name = [
                line
                for line in found
                if here.is_at("", f"{line.repository.rpartition('/')[2]}/{seen_as(line.path)}")
            ]
            found = by_name or [
                line
                for line in found
                if (self.sae.model_name is not None or _width_agrees(line, self.sae))
                and (site := _site(line)) is not None
                and site.layer is not None
            ]
        return list({line.neuronpedia: line for line in found}.values())

    def stated(self, text: str) -> NeuronpediaSource:
        """The source of the id in the checkpoint's own config, checked by what the registry says of it."""
        why = "as the checkpoint's own config says"
        line = next((line for line in self.lines if line.neuronpedia == text.strip()), None)
        if line is None:
            unknown = "not in SAELens's registry, so nothing says which checkpoint it describes"
            return parse_id(text, f"{why}; {unknown}")
        origin = self.origin
        if origin is not None and origin.is_at(line.repository, line.path):
            return _described_by(line)
        other = _disagreement(line, self.sae)
        known = origin is not None and origin.repository is not None
        if origin is not None and not known:
            # A local path that is the described one but for its sparsity says itself that it is not.
            here = Origin(None, _any_sparsity(origin.path))
            known = here.is_at("", _any_sparsity(line.path))
        if other is None and not known:
            describes = f"it describes {_checkpoint(line)}, and nothing says whether {self} is that"
            return _described_by(line, f"{why}; {describes}")
        return self.stand_in([line], other)

    def chosen(self, exact: Sequence[Registered], stated: object) -> NeuronpediaSource:
        if len({_checkpoint(line) for line in exact}) > 1:
            of_config = [line for line in exact if line.neuronpedia == stated]
            if not of_config:
                raise self._several(exact, f"checkpoint that {self} is", " whose path ends so")
            exact = of_config
        notes = []
        # A checkpoint may be described twice, as the canonical one and by its sparsity.
        chosen, *others = sorted(
            exact, key=lambda line: (len(line.neuronpedia or ""), line.neuronpedia)
        )
        if others:
            notes.append(f"also described as {', '.join(str(line.neuronpedia) for line in others)}")
        if self.origin is not None and self.origin.repository is None:
            notes.append(f"taken for {_checkpoint(chosen)} by its path")
        if self.origin is not None and self.origin.revision is not None:
            revision = self.origin.revision
            notes.append(f"loaded at revision {revision}; the registry speaks of the newest")
        return _described_by(chosen, *notes)

    def of_other_sparsity(self, lines: Sequence[Registered]) -> NeuronpediaSource:
        """The SAE of another sparsity that is described in this one's place, if that is allowed."""
        # `4-gemmascope-res-16k` is the canonical one, `4-gemmascope-res-16k__l0-60` another.
        canonical = [line for line in lines if "__" not in str(line.neuronpedia)] or lines
        if self.allow_other_sae and len(canonical) > 1:
            raise self._several(canonical, f"SAE whose descriptions stand in for those of {self}")
        return self.stand_in(canonical)

    def stand_in(self, lines: Sequence[Registered], why: str | None = None) -> NeuronpediaSource:
        """Another SAE's source, with a note that it is; refused where that is not allowed."""
        if not self.allow_other_sae:
            raise InputError(
                f"expected descriptions of {self}, got those of {_list(lines)}"
                f"{f' ({why})' if why else ''}; load the checkpoint that they belong to, or take them all "
                "the same with allow_other_sae=True"
            )
        described = f"{lines[0].neuronpedia} describes {_checkpoint(lines[0])}, not {self}"
        return _described_by(lines[0], f"descriptions of another SAE: {described}")

    def _several(self, lines: Sequence[Registered], one: str, which: str = "") -> InputError:
        return InputError(
            f"expected one {one}, got {len(lines)}{which}: {_list(lines)}; describe the features from "
            "their activations"
        )


def _described_by(line: Registered, *notes: str) -> NeuronpediaSource:
    named = parse_id(str(line.neuronpedia))
    return NeuronpediaSource(named.model, named.source, line.repository, line.path, notes)


def _list(lines: Sequence[Registered]) -> str:
    named = [f"{_checkpoint(line)} ({line.neuronpedia})" for line in lines[:LISTED]]
    more = len(lines) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _checkpoint(line: Registered) -> str:
    return f"{line.repository}/{line.path}"


def _any_sparsity(path: str) -> str:
    return _SPARSITY.sub(r"\1*", path)


def _disagreement(line: Registered, sae: SAE) -> str | None:
    """What of an SAE is certainly not as the line says; None: nothing."""
    site = _site(line)
    if site is not None and site.layer not in (None, sae.layer):
        return f"layer {site.layer}, where this SAE is of layer {sae.layer}"
    if _width_agrees(line, sae) is False:
        return f"another width, where this SAE has {sae.d_sae:,} features"
    if site is not None and not site.supported:
        return str(site)
    if sae.model_name is not None and line.model is not None:
        # Names at the Hub, without owner and case.
        ours, theirs = (
            hub_name(name).rpartition("/")[2].casefold() for name in (sae.model_name, line.model)
        )
        if ours != theirs:
            return f"model {theirs}, where this SAE is of {ours}"
    return None


def _site(line: Registered) -> Site | None:
    try:
        return line.site
    except (InputError, UsageError):
        return None


def _width_agrees(line: Registered, sae: SAE) -> bool | None:
    """Whether the width in the id (`16k`, `131k`, `1m`) is the SAE's; None: the id has none."""
    stated = {match[0] for match in _WIDTH.finditer(str(line.neuronpedia).rpartition("/")[2])}
    if not stated:
        return None
    # 131,072 features are written 131k by most and 128k by some.
    ours = {f"{sae.d_sae // unit}k" for unit in (1000, 1024)}
    ours |= {f"{sae.d_sae // unit}m" for unit in (1000**2, 1024**2)}
    return bool(stated & ours)
