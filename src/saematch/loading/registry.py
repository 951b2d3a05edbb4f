"""SAELens's registry: `release:sae_id` to a repository, a folder and what the registry adds.

The registry is a YAML file inside the package; reading it does not import sae_lens, which takes
seconds.  Where the files are of a format of ours they are read by our own, memory-mapped loaders;
else `load_through_saelens` lets SAELens read them and converts what comes out.
"""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from saematch.errors import InputError, MissingDependencyError, UnsupportedError, UsageError
from saematch.loading import saelens
from saematch.loading.checkpoint import Checkpoint
from saematch.loading.hub import HubFolder
from saematch.loading.site import (
    Claim,
    Kind,
    Site,
    claim_of_hook,
    claims_of_path,
    decide,
    names_layer,
    require_supported,
)
from saematch.sae import SAE

OUR_LOADERS = (None, "sae_lens", "gemma_2", "gemma_3", "llama_scope", "dictionary_learning_1")
"""SAELens's loaders for files that the formats here read themselves."""

LOADERS_OF_KIND: dict[str, Kind] = {
    "connor_rob_hook_z": "attention_z",
    "gemma_2_transcoder": "transcoder",
    "mwhanna_transcoder": "transcoder",
    "mntss_clt_layer_transcoder": "cross_layer",
}
"""SAELens's loaders whose dictionaries all read and write the same kind of place."""

OF_RESIDUAL = (
    "dictionary_learning_1", "qwen_scope", "goodfire", "deepseek_r1", "llama_scope_r1_distill",
    "temporal",
)  # fmt: skip
"""SAELens's loaders that only read residual SAEs: their config says `hook_resid_post`."""

REFUSED_LOADERS = {"temporal": "temporal SAEs, which look at other tokens"}
REFUSED_WORDS = {"gated": "gated SAEs, which have another activation than relu, jumprelu and topk"}
"""Words of release names that say what their files compute."""
REFUSED_OVERRIDES = ("constant_norm_rescale", "layer_norm")
"""`normalize_activations` that rescales each token; some releases say it only in the registry."""


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

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What the line says of the site: the hook that its id is, its loader, its path, its id."""
        claims: list[Claim] = []
        if self.hook_hint is not None:
            claims.append(claim_of_hook(self.hook_hint, "the id"))
        if self.loader in LOADERS_OF_KIND:
            said = f"SAELens's loader '{self.loader}'"
            claims.append(Claim(said, LOADERS_OF_KIND[self.loader]))
        elif self.loader == "gemma_3" and "attn_out" in self.path:
            # The folder is called after the attention's output; its config hooks o_proj's input.
            claims.append(Claim("Gemma Scope 2's attn_out", "attention_z"))
        elif self.loader in OF_RESIDUAL:
            claims.append(Claim(f"SAELens's loader '{self.loader}'", "residual"))
        claims += claims_of_path(f"{self.repository}/{self.path}")
        if self.hook_hint is None and not names_layer(self.path):
            claims += claims_of_path(self.sae_id)
        return tuple(claims)

    @cached_property
    def site(self) -> Site:
        """What the dictionary reads and writes, as far as the registry says; loading decides again
        with the config next to it.  Raises as `site.decide`."""
        return decide(self.claims, self.reference)

    def site_or_refusal(self) -> Site:
        """The site, of any kind; UnsupportedError where the release is refused for another reason."""
        return self.check() if self.site.supported else self.site

    def check(self) -> Site:
        """The site of a line that nothing in the registry speaks against; else UnsupportedError."""
        site = require_supported(self.site, self.claims, self.reference)
        refused = REFUSED_LOADERS.get(self.loader or "")
        for word, what in REFUSED_WORDS.items():
            if word in re.split(r"[^a-z]+", self.release.lower()):
                refused = what
        scaling = self.overrides.get("normalize_activations")
        if scaling in REFUSED_OVERRIDES:
            refused = f"SAEs with activation scaling '{scaling}', which rescales each token"
        if refused is not None:
            raise UnsupportedError(
                f"expected SAEs that have a canonical form, got release '{self.release}' of "
                f"{refused}; try another release"
            )
        return site

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
    """The line for `release:sae_id`; UsageError with close matches if there is none."""
    by_id = {entry["id"]: entry for entry in _entry(release)["saes"]}
    if sae_id not in by_id:
        close = difflib.get_close_matches(sae_id, by_id, n=4, cutoff=0.4)
        raise UsageError(
            f"expected an SAE of release '{release}', got no id '{sae_id}'; "
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
            f"expected ids of release '{release}' that fit '{pattern}', got none; ids are like "
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


def releases_of(location: str) -> tuple[tuple[str, str], ...]:
    """(release, loader) of every release whose repository's name is a part of a path."""
    parts = {part.casefold() for part in re.split(r"[/\\]|--", location)}
    return tuple(
        (release, str(entry.get("conversion_func") or "sae_lens"))
        for release, entry in read_registry().items()
        if entry["repo_id"].rpartition("/")[2].casefold() in parts
    )


def hint_for(location: str, file: str = "") -> str:
    """A phrase that names the releases of files that no format here reads; '' for none.

    `file`: Qwen-Scope's are known by name (`layer7.sae.pt`), whatever folder they lie in.
    """
    try:
        of_location = releases_of(location)
        if not of_location and re.fullmatch(r"layer\d+\.sae\.pt", file):
            of_location = tuple(
                (release, "qwen_scope")
                for release, entry in read_registry().items()
                if entry.get("conversion_func") == "qwen_scope"
            )
    except MissingDependencyError:
        return "; install saematch[saelens] and load it by release:sae_id"
    if not of_location:
        return ""
    sae_id = next(
        (
            str(line["id"])
            for line in read_registry()[of_location[0][0]]["saes"]
            if file and str(line["path"]).rpartition("/")[2] == file
        ),
        "",
    )
    names = " or ".join(f"{release}:{sae_id}" for release, _ in of_location[:4])
    more = ", …" if len(of_location) > 4 else ""
    return f"; try {names}{more}, as SAELens's registry names it"


def load_through_saelens(registered: Registered, checkpoint: Checkpoint) -> SAE:
    """Let SAELens download and read the SAE, and convert the object it makes.

    SAELens has folded its activation scale by then; what it cannot fold is refused as in a file.
    """
    try:
        import sae_lens
    except ImportError as error:
        raise MissingDependencyError("sae-lens", "saelens", registered.reference) from error
    try:
        sae = sae_lens.SAE.from_pretrained(registered.release, registered.sae_id, device="cpu")
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"expected {registered.reference} through SAELens, got: {line[:200]}; its files are at "
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
        layer=checkpoint.layer_read(config),
        checkpoint_format="saelens-registry",
    )


def _entry(release: str) -> dict[str, Any]:
    registry = read_registry()
    if release not in registry:
        close = difflib.get_close_matches(release, registry, n=4, cutoff=0.4)
        raise UsageError(
            f"expected a release of SAELens's registry, got '{release}'; "
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
