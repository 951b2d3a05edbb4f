"""The language model of a run: named at once, loaded and checked when it is first needed.

A stage whose outputs are all there never loads it, and yet its identity decides what is there.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saematch.configs.model import ModelSettings
from saematch.errors import UsageError
from saematch.evaluation.arms import on_device
from saematch.evaluation.compatibility import check_belongs
from saematch.loading.model_names import hub_name
from saematch.models import SMOLLM2_NAME, LanguageModel, load_language_model, smollm2_weights_sha256
from saematch.models.language_model import EMBEDDED, embedded_is_here
from saematch.pipelines.suite import Member
from saematch.sae import FoldedSAE


class ModelOfRun:
    """The model that a run's SAEs read, and those SAEs on its device.

    `members`: the SAEs in use, in order of depth; `described`: the manifest's `saes`; `given`: a model
    that is loaded already; `say`: told what takes time; `note`: told what a reader should know.
    """

    def __init__(
        self,
        members: Sequence[Member],
        described: Mapping[str, Any],
        scale: str | None,
        settings: ModelSettings,
        given: LanguageModel | None,
        say: Callable[[str], None],
        note: Callable[..., None],
    ) -> None:
        self._members, self._described, self._scale = members, described, scale
        self._settings, self._given, self._loaded = settings, given, given
        self._say, self._note = say, note
        self._on_device: dict[str, FoldedSAE] = {}

    @property
    def name(self) -> str:
        """Raises UsageError where neither the settings nor the SAEs name one."""
        if self._given is not None:
            return self._given.name
        if self._settings.model is not None:
            given = self._settings.model
            if given == EMBEDDED:
                return SMOLLM2_NAME
            return given if Path(given).exists() else hub_name(given)
        recorded = [self._described[member.key]["model_name"] for member in self._members]
        named = {hub_name(name) if name else None for name in recorded}
        if len(named) != 1 or None in named:
            raise UsageError(
                "expected SAEs that record one language model, got none or several; name it as model "
                "(in the command line --model)"
            )
        return str(named.pop())

    @property
    def identity(self) -> dict[str, Any]:
        """What of it decides a result."""
        name = self.name
        if self._given is not None:
            sha = self._given.weights_sha256
        else:
            embedded = name == SMOLLM2_NAME and embedded_is_here()
            sha = smollm2_weights_sha256() if embedded else None
        return {"name": name, "weights_sha256": sha, "dtype": self._settings.dtype}

    @property
    def was_needed(self) -> bool:
        return bool(self._on_device)

    @property
    def saes(self) -> Mapping[str, FoldedSAE]:
        """By key, on the model's device."""
        self.load()
        return self._on_device

    def load(self) -> LanguageModel:
        """The model, checked to be the SAEs' own; loads it the first time."""
        if self._loaded is None:
            self._say(f"loading {self.name}")
            self._loaded = load_language_model(
                self.name,
                device=self._settings.device,
                dtype=self._settings.dtype,
                attention=self._settings.attention,
            )
        if not self._on_device:
            found: dict[str, FoldedSAE] = {}
            for member in self._members:  # one at a time: together they may be larger than memory
                checked = check_belongs(self._loaded, [member.load()], self._settings.any_model)
                self._note(*checked)
                folded = member.folded(self._scale)
                found[member.key] = on_device(folded, self._loaded.device)
            self._on_device = found
        return self._loaded
