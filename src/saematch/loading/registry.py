"""SAELens's registry: `release:sae_id` to a repository, a folder and what the registry adds.

The registry is a YAML file inside the package; reading it does not import sae_lens, which takes
seconds.  Where the files are of a format of ours they are read by our own, memory-mapped loaders;
else `load_through_saelens` lets SAELens read them and converts what comes out.
"""

import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from saematch.errors import InputError, MissingDependencyError, UnsupportedError, UsageError
from saematch.loading import saelens
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.hub import HubFolder
from saematch.loading.layers import layer_of_hook, layer_of_path, layers_in_path
from saematch.sae import SAE

OUR_LOADERS = (None, "sae_lens", "gemma_2", "gemma_3", "llama_scope", "dictionary_learning_1")
"""SAELens's loaders for files that the formats here read themselves."""

REFUSED_LOADERS = {
    "connor_rob_hook_z": "attention (hook_z) SAEs",
    "gemma_2_transcoder": "transcoders",
    "mwhanna_transcoder": "transcoders",
    "mntss_clt_layer_transcoder": "transcoders",
    "temporal": "temporal SAEs",
}


@dataclass(frozen=True)
class Registered:
    """One line of the registry."""

    release: str
    sae_id: str
    repository: str
    path: str
    loader: str | None
    model: str | None
    norm_scaling_factor: float | None
    overrides: Mapping[str, Any]
    neuronpedia: str | None = None
    """`model/source` of the descriptions that Neuronpedia has of exactly this checkpoint."""

    @property
    def reference(self) -> str:
        return f"{self.release}:{self.sae_id}"

    @property
    def layer(self) -> int:
        """From the hook name that is the id, or else from the path."""
        if self.hook_hint is not None:
            return layer_of_hook(self.hook_hint, self.reference)
        if layers_in_path(self.path):
            return layer_of_path(self.path)
        return layer_of_path(self.sae_id)

    @property
    def hook_hint(self) -> str | None:
        """The hook name that an id like `blocks.3.hook_resid_pre__trainer_0` begins with."""
        hook = self.sae_id.split("__")[0].split("/")[-1]
        if hook.startswith("blocks.") and ".hook_" in hook:
            stem, _, last = hook.rpartition("_")
            return stem if last.isdigit() else hook
        return None

    def checkpoint_folder(self) -> HubFolder:
        return HubFolder(self.repository, self.path)

    def config_overrides(self) -> dict[str, Any]:
        """What the registry says over the config in the file."""
        overrides = dict(self.overrides)
        if self.norm_scaling_factor is not None:
            overrides["norm_scaling_factor"] = self.norm_scaling_factor
        return overrides


@cache
def read_registry() -> dict[str, dict[str, Any]]:
    """The registry of the installed SAELens: release to its entry."""
    spec = importlib.util.find_spec("sae_lens")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("sae-lens", "saelens", "a reference release:sae_id")
    import yaml

    path = Path(spec.origin).with_name("pretrained_saes.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, Loader=loader)


def find(release: str, sae_id: str) -> Registered:
    """The line for `release:sae_id`; UsageError with close matches where there is none."""
    by_id = {entry["id"]: entry for entry in _entry(release)["saes"]}
    if sae_id not in by_id:
        close = difflib.get_close_matches(sae_id, by_id, n=4, cutoff=0.4)
        raise UsageError(
            f"needed an SAE of release '{release}', found no id '{sae_id}'; "
            f"near it: {', '.join(close or list(by_id)[:4])}"
        )
    return _registered(release, by_id[sae_id])


def find_all(release: str, pattern: str) -> tuple[Registered, ...]:
    """Every line of a release whose id fits: a glob, else any part of the id; empty: all."""
    chosen = []
    for entry in _entry(release)["saes"]:
        sae_id = str(entry["id"])
        glob = any(character in pattern for character in "*?[")
        if fnmatchcase(sae_id, pattern) if glob else pattern in sae_id:
            chosen.append(_registered(release, entry))
    if not chosen:
        examples = ", ".join(str(entry["id"]) for entry in _entry(release)["saes"][:3])
        raise UsageError(
            f"needed ids of release '{release}' that fit '{pattern}', found none; ids are like "
            f"{examples}"
        )
    return tuple(chosen)


@cache
def find_described() -> tuple[Registered, ...]:
    """Every line that says where Neuronpedia describes its checkpoint, in the registry's order."""
    return tuple(
        _registered(release, line)
        for release, entry in read_registry().items()
        for line in entry["saes"]
        if line.get("neuronpedia")
    )


def load_through_saelens(registered: Registered, checkpoint: Checkpoint) -> SAE:
    """Let SAELens download and read the SAE, and convert the object it makes.

    SAELens has folded its activation scale by then; what it cannot fold is refused as in a file.
    """
    if registered.loader in REFUSED_LOADERS:
        raise UnsupportedError(
            f"needed a residual SAE that has a canonical form, found release "
            f"'{registered.release}' of {REFUSED_LOADERS[registered.loader]}"
        )
    try:
        import sae_lens
    except ImportError as error:
        raise MissingDependencyError("sae-lens", "saelens", registered.reference) from error
    try:
        sae = sae_lens.SAE.from_pretrained(registered.release, registered.sae_id, device="cpu")
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"needed {registered.reference} through SAELens, found: {line[:200]}; its files are at "
            f"https://huggingface.co/{registered.repository}"
        ) from error
    return convert_object(sae, checkpoint)


def convert_object(sae: Any, checkpoint: Checkpoint) -> SAE:
    """The canonical SAE of a SAELens object."""
    config = sae.cfg.to_dict()
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    return saelens.convert(
        {**config, "apply_b_dec_to_input": bool(sae.cfg.apply_b_dec_to_input)},
        tensors,
        checkpoint,
        checkpoint_format="saelens-registry",
    )


def _entry(release: str) -> dict[str, Any]:
    registry = read_registry()
    if release not in registry:
        close = difflib.get_close_matches(release, registry, n=4, cutoff=0.4)
        raise UsageError(
            f"needed a release of SAELens's registry, found '{release}'; "
            f"near it: {', '.join(close) or 'none'}"
        )
    return registry[release]


def _registered(release: str, line: Mapping[str, Any]) -> Registered:
    entry = _entry(release)
    return Registered(
        release=release,
        sae_id=str(line["id"]),
        repository=entry["repo_id"],
        path=str(line["path"]),
        loader=entry.get("conversion_func"),
        model=entry.get("model"),
        norm_scaling_factor=line.get("norm_scaling_factor"),
        overrides=entry.get("config_overrides") or {},
        neuronpedia=line.get("neuronpedia"),
    )
