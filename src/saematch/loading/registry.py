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
from saematch.loading import (
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    llama_scope,
    saelens,
)
from saematch.loading.checkpoint import Checkpoint
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
from saematch.text import first_line

OUR_LOADERS: Mapping[str | None, str] = {
    None: saelens.NAME,
    "sae_lens": saelens.NAME,
    "gemma_2": gemma_scope.NAME,
    "gemma_3": gemma_scope_2.NAME,
    "llama_scope": llama_scope.NAME,
    "dictionary_learning_1": dictionary_learning.NAME,
}
"""SAELens's loaders for files that the formats here read themselves, and which format that is."""

THROUGH_SAELENS = "saelens-registry"
"""What the format of all other files is called."""

KIND_OF_LOADER: dict[str, Kind] = {
    "connor_rob_hook_z": "attention_z",
    "gemma_2_transcoder": "transcoder",
    "mwhanna_transcoder": "transcoder",
    "mntss_clt_layer_transcoder": "cross_layer",
    **dict.fromkeys(("qwen_scope", "goodfire", "deepseek_r1"), "residual"),
    **dict.fromkeys(("dictionary_learning_1", "llama_scope_r1_distill", "temporal"), "residual"),
}
"""SAELens's loaders whose dictionaries all read and write the same kind of place; the config that a loader of
residual SAEs makes says `hook_resid_post`."""

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
    overrides: Mapping[str, Any]
    """What the registry says over the config in the file."""
    neuronpedia: str | None = None
    """`model/source` of the descriptions that Neuronpedia has of exactly this checkpoint."""

    @property
    def reference(self) -> str:
        return f"{self.release}:{self.sae_id}"

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What the line says of the site: the hook that its id is, its loader, its path, its id."""
        claims: list[Claim] = []
        # The id may begin with a hook's name, as in `blocks.3.hook_resid_pre__trainer_0`.
        hook = self.sae_id.split("__")[0].split("/")[-1]
        is_hook = hook.startswith("blocks.") and ".hook_" in hook
        if is_hook:
            claims.append(claim_of_hook(re.sub(r"_\d+$", "", hook), "the id"))
        if self.loader in KIND_OF_LOADER:
            said = f"SAELens's loader '{self.loader}'"
            claims.append(Claim(said, KIND_OF_LOADER[self.loader]))
        elif self.loader == "gemma_3" and "attn_out" in self.path:
            # The folder is called after the attention's output; its config hooks o_proj's input.
            claims.append(Claim("Gemma Scope 2's attn_out", "attention_z"))
        claims += claims_of_path(f"{self.repository}/{self.path}")
        if not is_hook and not names_layer(self.path):
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
        words = re.split(r"[^a-z]+", self.release.lower())
        refused = next((what for word, what in REFUSED_WORDS.items() if word in words), None)
        refused = refused or REFUSED_LOADERS.get(self.loader or "")
        scaling = self.overrides.get("normalize_activations")
        if scaling in REFUSED_OVERRIDES:
            refused = f"SAEs with activation scaling '{scaling}', which rescales each token"
        if refused is not None:
            raise UnsupportedError(
                f"expected SAEs that have a canonical form, got release '{self.release}' of "
                f"{refused}; try another release"
            )
        return site


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
    lines = _lines_of(release)
    if sae_id not in lines:
        close = difflib.get_close_matches(sae_id, lines, n=4, cutoff=0.4) or list(lines)[:4]
        raise UsageError(
            f"expected an SAE of release '{release}', got no id '{sae_id}'; near it: {', '.join(close)}"
        )
    return lines[sae_id]


def find_all(release: str, pattern: str) -> tuple[Registered, ...]:
    """Every line of a release whose id fits: a glob, else any part of the id; empty: all."""
    lines = _lines_of(release)
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    chosen = tuple(line for sae_id, line in lines.items() if fnmatchcase(sae_id, glob))
    if not chosen:
        raise UsageError(
            f"expected ids of release '{release}' that fit '{pattern}', got none; ids are like "
            f"{', '.join(list(lines)[:3])}"
        )
    return chosen


@cache
def find_described() -> tuple[Registered, ...]:
    """Every line that says where Neuronpedia describes its checkpoint, in the registry's order."""
    lines = (line for release in read_registry() for line in _lines_of(release).values())
    return tuple(line for line in lines if line.neuronpedia)


def hint_for(location: str, file: str = "") -> str:
    """A phrase that names the releases of files that no format here reads; '' for none.

    `location`: a path of which the repository's name is a part.  `file`: Qwen-Scope's are known by name
    (`layer7.sae.pt`), whatever folder they lie in.
    """
    try:
        releases = read_registry()
    except MissingDependencyError:
        return "; install saematch[saelens] and load it by release:sae_id"
    parts = {part.casefold() for part in re.split(r"[/\\]|--", location)}
    names = [
        release
        for release, entry in releases.items()
        if entry["repo_id"].rpartition("/")[2].casefold() in parts
    ]
    if not names and re.fullmatch(r"layer\d+\.sae\.pt", file):
        names = [n for n, entry in releases.items() if entry.get("conversion_func") == "qwen_scope"]
    if not names:
        return ""
    ids = (
        str(line["id"])
        for line in releases[names[0]]["saes"]
        if file and str(line["path"]).rpartition("/")[2] == file
    )
    sae_id = next(ids, "")
    shown = " or ".join(f"{release}:{sae_id}" for release in names[:4])
    more = ", …" if len(names) > 4 else ""
    return f"; try {shown}{more}, as SAELens's registry names it"


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
        raise InputError(
            f"expected {registered.reference} through SAELens, got: {first_line(error, 200)}; its files "
            f"are at https://huggingface.co/{registered.repository}"
        ) from error
    config = sae.cfg.to_dict()
    return saelens.convert(
        {**config, "apply_b_dec_to_input": bool(sae.cfg.apply_b_dec_to_input)},
        {name: tensor.detach() for name, tensor in sae.state_dict().items()},
        checkpoint,
        layer=checkpoint.layer_read(config),
        checkpoint_format=THROUGH_SAELENS,
    )


def _lines_of(release: str) -> dict[str, Registered]:
    """Every line of a release by its id; UsageError with close matches if there is no such release."""
    registry = read_registry()
    if release not in registry:
        close = difflib.get_close_matches(release, registry, n=4, cutoff=0.4)
        raise UsageError(
            f"expected a release of SAELens's registry, got '{release}'; "
            f"near it: {', '.join(close) or 'none'}"
        )
    entry, lines = registry[release], {}
    for line in entry["saes"]:
        overrides = dict(entry.get("config_overrides") or {})
        if line.get("norm_scaling_factor") is not None:
            overrides["norm_scaling_factor"] = line["norm_scaling_factor"]
        sae_id, loader = str(line["id"]), entry.get("conversion_func")
        source = entry["repo_id"], str(line["path"]), loader, entry.get("model")
        lines[sae_id] = Registered(release, sae_id, *source, overrides, line.get("neuronpedia"))
    return lines
