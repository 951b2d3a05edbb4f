"""What a dictionary reads and writes: the one place that decides it, for loading and for listing.

Every piece of evidence becomes a `Claim`: a hook name or a number in a config, a word or a number in
the path, what SAELens's registry says.  `decide` accepts what its claims agree on, and refuses by
name what disagrees or is not recognised.  Nothing is residual because it looks like nothing else,
with one written exception: a block's number alone (`layer_3`, `trainer.layer`) means the residual
stream after that block, as in every format that writes a bare number.

Names: TransformerLens and its TransformerBridge (`blocks.3.hook_resid_post`, `blocks.3.hook_out`),
Hugging Face modules (`model.layers.3`, `transformer.h.3.mlp`), dictionary_learning
(`mlp_out_layer3`), sparsify (`layers.3.mlp`), Gemma Scope and Llama Scope (`L3R`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

from saematch.errors import InputError, UnsupportedError, UsageError

EMBEDDING = -1
"""The layer of the embedding."""

MAX_LAYER = 9999
"""No model has as many blocks; a larger number in a path or config is something else."""

Kind = Literal[
    "residual", "embedding", "residual_mid", "attention_in", "attention_z", "attention_head",
    "attention_out", "attention_inner", "mlp_in", "mlp_hidden", "mlp_out", "normalised",
    "transcoder", "cross_layer", "tokens",
]  # fmt: skip

WORDS: Mapping[Kind, str] = {
    "residual": "the residual stream after a block",
    "embedding": "the embedding",
    "residual_mid": "the residual stream between attention and MLP",
    "attention_in": "the attention's input",
    "attention_z": "attention z (what the attention's output projection reads)",
    "attention_head": "one attention head",
    "attention_out": "the attention's output",
    "attention_inner": "queries, keys, values or attention patterns",
    "mlp_in": "the MLP's input",
    "mlp_hidden": "the MLP's hidden layer",
    "mlp_out": "the MLP's output",
    "normalised": "a normalised copy of the residual stream",
    "transcoder": "a transcoder: what it reads is not what it writes",
    "cross_layer": "several layers (a cross-layer transcoder or crosscoder)",
    "tokens": "token numbers",
}
"""What people call each kind."""

SUPPORTED: frozenset[Kind | None] = frozenset({"residual", "embedding"})
"""The kinds that `load_sae` takes today."""

SUBLAYERS: frozenset[Kind | None] = frozenset(
    {"attention_out", "mlp_out", "transcoder", "cross_layer"}
)
"""Kinds whose folders hold other folders: `saes/mlp/gemma/layer_3`."""

COMPOSITE: frozenset[Kind | None] = frozenset({"transcoder", "cross_layer", "attention_head"})
"""Kinds that a word about the place they read does not contradict."""


@dataclass(frozen=True)
class Site:
    """What a dictionary reads and writes: a kind of place in the model, and its layer."""

    kind: Kind
    layer: int | None
    """The zero-based block that the place is in; for `residual`, the block after which it lies: the
    stream before block L is that after block L - 1, and before block 0 the layer is -1.  None: not
    stated, and only for kinds that are refused."""

    @property
    def supported(self) -> bool:
        """Whether `load_sae` takes it today."""
        return self.kind in SUPPORTED

    @property
    def name(self) -> str:
        """The kind in words, without layer and explanation."""
        return re.split(r": | \(", WORDS[self.kind])[0]

    def __str__(self) -> str:
        if self.kind == "residual" and self.layer == EMBEDDING:
            return "the residual stream before block 0"
        if self.kind in ("embedding", "tokens"):
            return WORDS[self.kind]
        if self.kind == "residual":
            return f"the residual stream after block {self.layer}"
        return WORDS[self.kind] + ("" if self.layer is None else f", at block {self.layer}")

    def input(self) -> "Site":
        """The site that the module whose output this is reads."""
        inputs: dict[Kind, Kind] = {
            "mlp_out": "mlp_in",
            "attention_out": "attention_in",
            "embedding": "tokens",
        }
        if self.kind == "residual":
            return Site("residual", None if self.layer is None else self.layer - 1)
        if self.kind in inputs:
            return Site(inputs[self.kind], self.layer)
        raise UnsupportedError(
            f"expected the input of a block, an MLP or an attention, got the input of {self}"
        )


@dataclass(frozen=True)
class Claim:
    """What one piece of evidence says of a site; None: it does not say."""

    source: str
    """The evidence in words, for messages: `hook_name 'blocks.4.hook_resid_post' in cfg.json`."""
    kind: Kind | None = None
    layer: int | None = None
    """As in `Site`."""
    block: int | None = None
    """The number as it is written: for `hook_resid_pre` of 4 the block is 4 and the layer 3."""
    in_path: bool = False
    far: bool = False
    """In the path, and further up than the weights' own folder."""
    before: bool = False
    """It says that a block's number, wherever that stands, is the block that the place comes before."""
    unrecognised: str = ""
    """Words about a place that are not recognised: only a config that names the place outweighs them."""

    def __str__(self) -> str:
        means = Site(self.kind, self.layer) if self.kind and self.layer is not None else None
        if means is not None:
            return f"{self.source} ({means})"
        return f"{self.source} ({WORDS[self.kind]})" if self.kind else self.source

    def contradicts(self, other: "Claim") -> bool:
        """Whether no dictionary can be what both say."""
        if self.contradicts_kind(other):
            return True
        if not self._numbers or not other._numbers:
            return False
        if self.layer is not None and other.layer is not None:
            return self.layer != other.layer
        return not self._numbers & other._numbers

    def contradicts_kind(self, other: "Claim") -> bool:
        """The same of the kind alone.

        The embedding is where the residual stream begins; a transcoder may lie in the folder of
        what it reads, and stays a transcoder.  Between two kinds that are refused
        publishers do not tell apart: Gemma Scope calls attention z `attn_out`.
        """
        kinds = {self.kind, other.kind} - {None}
        if len(kinds) < 2 or kinds & COMPOSITE:
            return False
        return bool(kinds & SUPPORTED) and kinds != SUPPORTED

    @property
    def _numbers(self) -> frozenset[int]:
        """Every number that may stand for the layer in a folder's name or a config's field."""
        return frozenset(n for n in (self.layer, self.block) if n is not None)


def decide(
    claims: Sequence[Claim], where: str, *, layer: int | None = None, of_input: bool = False
) -> Site:
    """The site that every claim agrees on.

    `layer` is the caller's: it stands in for a missing layer and for what the path says, never for
    what a config says, and changes no kind.  `of_input`: the claims name a module, and the
    dictionary reads its input.

    Raises InputError (claims contradict, or none gives a layer), UsageError (`layer` is no layer or
    contradicts the config, or the path names several).
    """
    _check_layer(layer)
    stated = [claim for claim in claims if not claim.in_path]
    in_path = [claim for claim in claims if claim.in_path]
    named = any(claim.kind for claim in stated)
    for claim in stated if named else claims:
        if claim.unrecognised:
            raise UnsupportedError(
                f"expected a name that says what is read (such as resid_post_layer_3), got "
                f"{claim.source}, whose '{claim.unrecognised}' is not recognised; rename it if it is "
                f"the residual stream"
            )
    if layer is not None:
        # The caller chooses between numbers, and between a number and the embedding; where the
        # embedding alone is named there is no number to choose.
        numbered = any(claim.block is not None for claim in claims if claim.kind != "embedding")
        in_path = [
            claim if claim.kind == "embedding" else replace(claim, layer=None, block=None)
            for claim in in_path
            if claim.kind != "embedding" or layer == EMBEDDING or not numbered
        ]
    if any(claim.layer is not None for claim in claims) or _layer_of(stated) is not None:
        # A number alone further up says nothing where a hook's name is known.
        in_path = [claim for claim in in_path if not (claim.far and claim.kind is None)]
    if named:
        # A folder of a study 'sae-vs-transcoders' is none where a config names the hook.
        in_path = [claim for claim in in_path if not (claim.far and claim.kind in COMPOSITE)]
    if layer is None and _layer_of(stated) is not None:
        # Where a config says the layer, only the nearest folder's name must agree: the path of a
        # whole suite may be called after another layer.
        near = next((claim for claim in in_path if claim.block is not None), None)
        in_path = [
            claim if claim is near else replace(claim, layer=None, block=None) for claim in in_path
        ]
    for first, second in combinations((*stated, *in_path), 2):
        if not first.contradicts(second):
            continue
        if first.in_path and not first.contradicts_kind(second):
            raise UsageError(
                f"expected one layer, got {first.source} and {second.source} in {where}; say which "
                f"with layer="
            )
        raise _contradiction(first, second, where)
    kinds: list[Kind] = [claim.kind for claim in (*stated, *in_path) if claim.kind]
    kinds.sort(key=lambda kind: kind not in COMPOSITE)
    if kinds and kinds[0] in SUPPORTED and "embedding" in kinds:
        kinds = ["embedding"]
    site = Site(kinds[0] if kinds else "residual", _layer_of((*stated, *in_path)))
    if of_input:
        site = site.input()
    if not site.supported or layer == site.layer is not None:
        return site
    if site.layer is None and layer is None:
        raise InputError(
            f"expected the layer of {where}, got no hook name in a config and none of layer_N, "
            "layers.N, LN in the path; give layer="
        )
    if layer is None:
        return site
    if site.layer is not None:
        said = stated or in_path
        raise UsageError(
            f"expected the layer that the {'config' if stated else 'path'} says, got layer={layer} "
            f"where {' and '.join(str(claim) for claim in said)} means layer {site.layer} in {where}; "
            f"leave layer= out"
        )
    return Site("embedding" if layer == EMBEDDING else "residual", layer)


def require_supported(site: Site, claims: Iterable[Claim], where: str) -> Site:
    """The site, where `load_sae` takes its kind; else UnsupportedError with what said so."""
    if site.supported:
        return site
    said = [claim for claim in claims if claim.kind]
    why = next((claim for claim in said if claim.kind == site.kind), said[0]).source
    raise UnsupportedError(
        f"expected a dictionary of the residual stream after a block (such as "
        f"blocks.3.hook_resid_post) or of the embedding, got {site}, by {why} in {where}; "
        f"try the residual release or folder of the same model"
    )


# Hook names --------------------------------------------------------------------------------------

_WRAPPERS = (
    r"(?:(?:model|transformer|gpt_neox|language_model|text_model|decoder|base_model|backbone|"
    r"module|_orig_mod)\.)*"
)
"""What language models wrap their blocks in; a vision tower's or an encoder's layers are others."""

_BLOCK = re.compile(rf"{_WRAPPERS}(?:layers|h|blocks)[._](\d+)(?:\.(.+))?")
_EMBEDDING = re.compile(
    rf"{_WRAPPERS}(?:(?:hook_embed|embed_tokens|embed_in|embed|embedding|embeddings|wte|"
    r"word_embeddings)(?:\.hook_out|\.output)?)"
)

_MLP = r"(?:mlp|feed_forward|ffn|block_sparse_moe|moe)"
_ATTENTION = r"(?:self_attn|attn|attention|self_attention)"
_MLP_DOWN = r"(?:down_proj|c_proj|dense_4h_to_h|fc_out|fc2|w2|out)"
_ATTENTION_DOWN = r"(?:o_proj|out_proj|c_proj|dense|o)"

_IN_BLOCK: tuple[tuple[str, Kind, int], ...] = (
    (r"|output|hook_resid_post|hook_out", "residual", 0),
    (r"input|hook_resid_pre|hook_in", "residual", -1),
    (r"(?:input_layernorm|ln_1|ln1)\.(?:input|hook_in)", "residual", -1),
    (r"hook_resid_mid|(?:ln_2|ln2|pre_feedforward_layernorm)\.(?:input|hook_in)",
     "residual_mid", 0),
    (rf"hook_attn_in|{_ATTENTION}\.(?:input|hook_in)", "attention_in", 0),
    (rf"hook_attn_out|{_ATTENTION}(?:\.(?:output|hook_out))?"
     rf"|{_ATTENTION}\.{_ATTENTION_DOWN}(?:\.(?:output|hook_out))?", "attention_out", 0),
    (rf"hook_z|{_ATTENTION}\.hook_z|{_ATTENTION}\.{_ATTENTION_DOWN}\.(?:input|hook_in)",
     "attention_z", 0),
    (rf"{_ATTENTION}\.(?:(?:q|k|v|qkv|query|key|value|query_key_value)(?:_proj)?"
     r"(?:\.(?:input|output|hook_in|hook_out))?|c_attn(?:\.output)?"
     r"|hook_(?:q|k|v|rot_q|rot_k|pattern|attn_scores|result))"
     r"|hook_(?:q|k|v)_input", "attention_inner", 0),
    (rf"hook_mlp_in|{_MLP}\.(?:input|hook_in)|pre_feedforward_layernorm(?:\.output)?",
     "mlp_in", 0),
    (rf"hook_mlp_out|{_MLP}(?:\.(?:output|hook_out))?|{_MLP}\.{_MLP_DOWN}"
     r"(?:\.(?:output|hook_out))?|post_feedforward_layernorm(?:\.output)?", "mlp_out", 0),
    (rf"{_MLP}\.(?:hook_pre|hook_post|hook_pre_linear|hook_mid|(?:act|act_fn|gelu|c_fc|"
     r"fc_in|fc1|in|gate|up|dense_h_to_4h|gate_proj|up_proj|w1|w3)"
     rf"(?:\.(?:output|hook_out))?|{_MLP_DOWN}\.(?:input|hook_in))", "mlp_hidden", 0),
    (r"(?:ln1|ln2|ln1_post|ln2_post)\.hook_(?:normalized|scale|out)"
     r"|(?:ln_1|ln_2|input_layernorm|post_attention_layernorm)(?:\.output)?", "normalised", 0),
)  # fmt: skip
"""What stands after a block's number, what it means, and how its layer differs from the block."""


def claim_of_hook(hook: object, source: str, *, in_path: bool = False) -> Claim:
    """What a hook name or a module's name says; UnsupportedError where it is not recognised."""
    if not isinstance(hook, str):
        raise InputError(f"expected a hook name as text, got {hook!r:.80} as {source}")
    name = hook.strip()
    said = f"{source} '{name}'"
    if _EMBEDDING.fullmatch(name):
        return Claim(said, "embedding", EMBEDDING, 0, in_path)
    if match := _BLOCK.fullmatch(name):
        block = _digits(match[1], said)
        for pattern, kind, shift in _IN_BLOCK:
            if re.fullmatch(pattern, match[2] or ""):
                return Claim(said, kind, block + shift, block, in_path)
    raise UnsupportedError(
        f"expected a hook name that says what is read (such as blocks.3.hook_resid_post or "
        f"model.layers.3), got {said}, which is not recognised"
    )


# Paths -------------------------------------------------------------------------------------------

_NAMES: Mapping[str, Kind] = {
    "resid_post": "residual", "resid_out": "residual", "resid": "residual", "res": "residual",
    "residual": "residual", "resid_pre": "residual", "resid_in": "residual",
    "residual_pre": "residual", "res_pre": "residual",
    "res_post": "residual", "residual_post": "residual", "resid_mid": "residual_mid",
    "residual_mid": "residual_mid", "res_mid": "residual_mid", "mid": "residual_mid",
    "attn_out": "attention_out", "attention_out": "attention_out", "attn": "attention_out",
    "att": "attention_out", "attention": "attention_out", "self_attn": "attention_out",
    "z": "attention_z", "attn_z": "attention_z", "hook_z": "attention_z", "head": "attention_head",
    "heads": "attention_head", "attn_in": "attention_in", "attention_in": "attention_in",
    "mlp_out": "mlp_out", "mlp": "mlp_out", "ffn": "mlp_out", "ffn_out": "mlp_out",
    "mlp_in": "mlp_in", "ffn_in": "mlp_in", "mlp_act": "mlp_hidden", "mlp_hidden": "mlp_hidden",
    "mlpout": "mlp_out", "attnout": "attention_out", "down_proj": "mlp_out", "o_proj": "attention_out",
    "ln": "normalised", "ln1": "normalised", "ln2": "normalised", "tc": "transcoder", "plt": "transcoder",
    "neurons": "mlp_hidden", "mlp_post": "mlp_hidden", "mlp_pre": "mlp_hidden",
    "transcoder": "transcoder", "transcoders": "transcoder", "skip_transcoder": "transcoder",
    "clt": "cross_layer", "clts": "cross_layer", "crosscoder": "cross_layer",
    "crosscoders": "cross_layer", "cross_layer": "cross_layer",
    "cross_coder": "cross_layer", "cross_coders": "cross_layer",
    "cross_layer_transcoder": "cross_layer", "cross_layer_transcoders": "cross_layer",
}  # fmt: skip
"""Sites as the folders of the known publishers call them."""

_BESIDE_NUMBER: Mapping[str, Kind] = {"out": "residual", "post": "residual"}
"""What is a site only next to a layer's number: `layer_3_out`; a folder `out` is anything."""

_SITE_WORDS = frozenset(
    re.findall(
        r"\w+",
        "resid residual res mid in out pre post hidden neuron neurons attn att attention self z head heads "
        "mlp ffn ff feed act feedforward ln norm layernorm embed embedding unembed logits transcoder "
        "transcoders skip clt clts crosscoder crosscoders cross tc plt proj qk qkv kv ov query queries keys "
        "value values key gelu moe expert experts router lora vision vit image audio encoder pos",
    )
)
_SAYS_LITTLE = frozenset(
    re.findall(r"\w+", "in out pre post self cross feed skip act only tower mid")
)
"""Site words that alone, as a folder's whole name, may mean anything."""

_SITE_STEMS = ("attn", "attention", "mlp", "ffn", "transcod", "crosscod", "resid")
"""Words, and parts of words, that say where; next to a layer's number they must make a known name."""

_BEFORE_BLOCK = ("resid_pre", "resid_in", "residual_pre", "res_pre")

_SUBLAYERS: Mapping[str, Kind] = {
    "R": "residual",
    "A": "attention_out",
    "M": "mlp_out",
    "TC": "transcoder",
}
"""Llama Scope's letters after the layer."""

_HOOK_IN_PATH = re.compile(
    r"blocks\.(\d+)\.((?:(?:attn|mlp|ln1|ln2)\.)?hook_[a-z]+(?:_[a-z]+)?)"
    r"(?=$|[^A-Za-z])"
)
_MODULE_IN_PATH = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:layers|h|blocks)\.\d+(?:\.[A-Za-z_]\w*)*")
_LAYER = re.compile(r"(?<![A-Za-z0-9])(?:(?i:layers?|blocks?)[._= -]?|h\.)(\d+)(?=$|[-./_\\ ])")
_SEVERAL = re.compile(
    r"(?<![A-Za-z0-9])(?i:(?:layers|blocks)[._= -]?\d{1,3}(?:(?:[-_,+]|_?(?:to|and)_?)\d{1,3})+"
    r"|(?:layers?|blocks?|L)[._= -]?\d{1,3}(?:(?:[-+]|_?(?:to|and)_?)\d{1,3})+)"
    r"(?=$|[-./_\\ ])"
)
"""Several layers in one name: `layers_3_4_5`, `layer_3-5`, `L3to5`."""
_LETTER = re.compile(r"(?<![A-Za-z0-9])L(\d+)(R|A|M|TC)?(?=$|[-./_\\ ])(?!_\d)")
_LETTER_OF_ID = re.compile(r"l(\d+)(r|a|m|tc)_\w+")
_EMBEDDING_FOLDER = re.compile(
    rf"{_WRAPPERS}(?:embed|embedding|embeddings|embed_tokens|embed_in|wte)"
)
_FAMILY_NAMES: Mapping[str, Kind] = {
    r"(?:cross-?layer-?transcoders?|crosscoders?|cross-coders?|clts?)": "cross_layer",
    r"[a-z]*transcoders?": "transcoder",
    r"gemma-scope-[a-z0-9-]+?-(?:pt|it)-res": "residual",
    r"gemma-scope-[a-z0-9-]+?-(?:pt|it)-att": "attention_z",
    r"gemma-scope-[a-z0-9-]+?-(?:pt|it)-mlp": "mlp_out",
    r"lxr(?:-\d+x)?": "residual",
    r"lxa(?:-\d+x)?": "attention_out",
    r"lxm(?:-\d+x)?": "mlp_out",
    r"lxtc(?:-\d+x)?": "transcoder",
    r"sae-res": "residual",
}
_FAMILIES: tuple[tuple[re.Pattern[str], Kind], ...] = tuple(
    (re.compile(rf"(?:.*-)?{pattern}(?:-.*)?"), kind) for pattern, kind in _FAMILY_NAMES.items()
)
"""Repositories' and folders' names that say what all their dictionaries read, in small letters and with
hyphens: a copy may be called `google_gemma-scope-2b-pt-mlp` or `models--google--gemma-scope-2b-pt-mlp`."""

_SIZE = re.compile(r"(?i:(?:width|trainer|seed|hook|all)|[\d.]+[a-z]{0,2})")
"""Words of a folder's name that say nothing of the place: `mlp_out_16k`, `hook_mlp_out`."""


def claims_of_path(path: str) -> tuple[Claim, ...]:
    """What the parts of a path say, from the deepest part up.

    Raises UnsupportedError for a part that is a module which is not recognised.
    """
    parts = [part for part in re.split(r"[/\\]", path) if part]
    layered = [_names_layer(part) for part in parts]
    deepest = max((index for index, names in enumerate(layered) if names), default=-1)
    claims: list[Claim] = []
    for index in reversed(range(len(parts))):
        # A plain word ('mlp') is a site only where folders of sites are kept: below a layer's
        # folder, right above it, or where the weights lie.
        below = (n for n in range(index + 1, len(parts)) if _without_sizes(parts[n]))
        plain = any(layered[:index]) or layered[next(below, index)]
        near = index >= len(parts) - 2
        found = claims_of_name(parts[index], plain=plain or near)
        if not found and index < deepest and _kind_named(_without_sizes(parts[index])) in SUBLAYERS:
            # `saes/mlp/gemma/layer_3`: whether the word means the layer's folder is not known.
            found = (
                Claim(f"'{parts[index]}' in the path", in_path=True, unrecognised=parts[index]),
            )
        claims += found if near else (replace(claim, far=True) for claim in found)
    return tuple(claims)


@lru_cache(maxsize=4096)
def claims_of_name(name: str, *, plain: bool = True) -> tuple[Claim, ...]:
    """What the name of one folder, file or submodule says; `plain`: a word alone is a site."""
    said = f"'{name}' in the path"
    hooks = [
        replace(claim_of_hook(f"blocks.{match[1]}.{_known_hook(match[2])}", ""), source=said)
        for match in _HOOK_IN_PATH.finditer(name)
    ]
    if hooks:
        # Exact; a bare number next to it repeats the block.
        return _in_path(hooks)
    stem = re.sub(r"\.(?:npz|safetensors|sae\.pt|pth?)$", "", name)
    if _EMBEDDING_FOLDER.fullmatch(stem):
        return _in_path([Claim(said, "embedding", EMBEDDING, 0)])
    if _MODULE_IN_PATH.fullmatch(stem):
        return _in_path([replace(claim_of_hook(stem, "the folder"), source=said)])
    hyphened = re.sub(r"[^a-z0-9]+", "-", stem.lower())
    family: Kind | None = next(
        (kind for pattern, kind in _FAMILIES if pattern.fullmatch(hyphened)), None
    )
    several = _SEVERAL.search(stem)
    if several and _increases(re.findall(r"\d+", several[0])):
        return _in_path([Claim(said, unrecognised=several[0])])
    blocks = [(match[1], match.groups()[1:]) for match in _numbers_of(stem)]
    if not blocks:
        site = _without_sizes(stem)
        kind: Kind | None = family or (_kind_named(site) if plain or "_" in site else None)
        if kind is not None:
            return _in_path([Claim(said, kind, before=site in _BEFORE_BLOCK)])
        unknown = site if plain and _only_names_a_place(site) else ""
        return _in_path([Claim(said, unrecognised=unknown)] if unknown else [])
    words = _site_words(_LAYER.sub(" ", _LETTER.sub(" ", stem)))
    names: dict[str, Kind] = {**_NAMES, **_BESIDE_NUMBER}
    unrecognised = words if family is None and words not in names else ""
    claims: list[Claim] = []
    for number, letters in blocks:
        block = _digits(number, said)
        letter: Kind | None = _SUBLAYERS[letters[0].upper()] if any(letters) else None
        kinds: list[Kind] = [
            kind for kind in (family, names.get(words), letter) if kind is not None
        ]
        layer = block - (words in _BEFORE_BLOCK)
        claims += [Claim(said, kind, layer, block) for kind in kinds] or [
            Claim(said, block=block, unrecognised=unrecognised)
        ]
    return _in_path(claims)


def _without_sizes(name: str) -> str:
    """The words of a name that may say where, joined as `_NAMES` writes them; of `width_16k` none."""
    words = re.split(r"[^a-z0-9.]+", name.lower())
    return "_".join(word for word in words if word and not _SIZE.fullmatch(word))


def _increases(numbers: Sequence[str]) -> bool:
    values = [int(number) for number in numbers]
    return values == sorted(set(values))


def _only_names_a_place(words: str) -> bool:
    """Whether a folder's name is about a place in the model and nothing else: `vit`, `attn_only`.

    `mlp_interp_project` is about more; `out` or `skip` alone may be about anything.
    """
    parts = re.findall(r"[a-z]+", words)
    return all(part in _SITE_WORDS | {"only", "tower"} for part in parts) and not all(
        part in _SAYS_LITTLE for part in parts
    )


def _kind_named(words: str) -> Kind | None:
    """The kind of a folder that has no number: a publisher's word, or the name of a module."""
    if words in _NAMES:
        return _NAMES[words]
    for pattern, kind, _ in _IN_BLOCK:
        if kind != "residual" and re.fullmatch(rf"(?:{pattern})", words):
            return kind
        if kind != "residual" and re.fullmatch(rf"(?:{pattern})", f"hook_{words}"):
            return kind
    return None


def _in_path(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    return tuple(dict.fromkeys(replace(claim, in_path=True) for claim in claims))


def _numbers_of(name: str) -> list[re.Match[str]]:
    """Where a name gives a layer's number, and Llama Scope's letter if there is one."""
    found = [*_LAYER.finditer(name), *_LETTER.finditer(name)]
    if match := _LETTER_OF_ID.fullmatch(name):
        found.append(match)
    return found


def _names_layer(name: str) -> bool:
    return bool(_numbers_of(name)) or _HOOK_IN_PATH.search(name) is not None


def _known_hook(name: str) -> str:
    """A hook found inside a longer name, without a word that follows it: `hook_z_scaled`."""
    known = ("hook_resid_", "hook_attn_", "hook_mlp_")
    last = name.rpartition(".")[2]
    return name if last.startswith(known) else "_".join(name.split("_")[:2])


def _site_words(text: str) -> str:
    """The words of a folder's name that say where, in order, joined as `_NAMES` writes them."""
    words = re.split(
        r"[^a-z]+", re.sub(r"\bh(?=\d{1,2}\b)", "head", re.sub("_", " ", text.lower()))
    )
    return "_".join(
        word for word in words if word in _SITE_WORDS or any(stem in word for stem in _SITE_STEMS)
    )


def names_layer(path: str) -> bool:
    """Whether a path names a layer, in words that are recognised or not."""
    return any(
        _names_layer(part) or _MODULE_IN_PATH.fullmatch(part) or _EMBEDDING_FOLDER.fullmatch(part)
        for part in re.split(r"[/\\]", path)
    )


def without_layer(path: str) -> str:
    """A path with what names its layer taken out: what tells SAEs of one layer apart."""
    text = re.sub(r"blocks\.\d+\.hook_resid_(?:pre|post)(?![A-Za-z])", "", path)
    for pattern in (_LETTER, _LAYER):
        text = pattern.sub("", text)
    text = re.sub(r"(?:^|/)(?:embed|embedding|embed_tokens)(?=$|/)", "", text)
    parts = (part.strip("-_. ") for part in text.split("/"))
    return "/".join(part for part in parts if part)


# Configs -----------------------------------------------------------------------------------------

CONFIGS = ("cfg.json", "hyperparams.json", "config.json")
"""The small files of the known formats that say what a dictionary reads."""

_HOOK_PAIRS = (
    ("hook_name", "hook_name_out"),
    ("hook_point", "hook_point_out"),
    ("hook_point_in", "hook_point_out"),
    ("hf_hook_point_in", "hf_hook_point_out"),
    ("hf_hook_name", "hf_hook_name_out"),
)
"""Fields for what is read, and for what is written where that is another place."""

_BLOCK_FIELDS = ("hook_layer", "hook_point_layer")
_HEAD_FIELDS = ("hook_head_index", "hook_point_head_index")


@dataclass(frozen=True)
class Stated:
    """What a config says."""

    claims: tuple[Claim, ...]
    of_input: bool = False
    """The claims and the path name a module, and the dictionary reads its input."""


def claims_of_config(config: Mapping[str, Any], file: str) -> Stated:
    """What a config of any known format says of the site.

    Raises UnsupportedError for names that are not recognised, InputError for values of no meaning.
    """
    claims: list[Claim] = []
    metadata = config.get("metadata")
    for source in (config, metadata if isinstance(metadata, Mapping) else {}):
        claims += _hooks_of(source, file)
        for name in _BLOCK_FIELDS:
            if source.get(name) is not None:
                said = f"{name} {source[name]!r:.40} in {file}"
                claims.append(Claim(said, block=_number(source[name], said)))
    kind, why = _kind_of(config, file)
    if kind is not None:
        block = next((claim.block for claim in claims if claim.block is not None), None)
        return Stated((Claim(why, kind, block=block),))
    trainer, buffer = config.get("trainer"), config.get("buffer")
    if isinstance(trainer, Mapping):
        claims += _claims_of_trainer(trainer, file)
    io = buffer.get("io", "out") if isinstance(buffer, Mapping) else "out"
    if isinstance(buffer, Mapping) and buffer.get("layer") is not None:
        # HeadActivationBuffer alone records one.
        return Stated((Claim(f"buffer.layer in {file}", "attention_head"),))
    if io in ("in_and_out", "in_to_out"):
        return Stated((Claim(f"buffer.io '{io}' in {file}", "transcoder"),))
    if io not in ("in", "out", None):
        raise InputError(
            f"expected buffer.io 'in', 'out' or 'in_and_out' in {file}, got {io!r:.40}"
        )
    return Stated(tuple(dict.fromkeys(claims)), of_input=io == "in")


def _hooks_of(source: Mapping[str, Any], file: str) -> list[Claim]:
    claims: list[Claim] = []
    for name_in, name_out in _HOOK_PAIRS:
        hook_in, hook_out = source.get(name_in), source.get(name_out)
        if isinstance(hook_in, str):
            hook_in = fill_layer(hook_in, source)
        if hook_in in (None, "") or (name_in == "hook_point" and "hook_point_in" in source):
            continue
        if isinstance(hook_in, list | tuple):
            claims.append(Claim(f"{name_in} {hook_in!r:.80} in {file}", "cross_layer"))
            continue
        read = claim_of_hook(hook_in, f"{name_in} of {file}:")
        if hook_out not in (None, "", hook_in):
            said = f"{name_in} '{hook_in}' and {name_out} '{hook_out}' in {file}"
            read = Claim(said, "transcoder", block=read.block)
        claims.append(read)
    return claims


def fill_layer(hook: str, config: Mapping[str, Any]) -> str:
    """SAELens once wrote `blocks.{layer}.hook_resid_pre`, with the block's number in another field."""
    blocks = [config[name] for name in _BLOCK_FIELDS if isinstance(config.get(name), int)]
    return hook.replace("{layer}", str(blocks[0])) if blocks else hook


def _kind_of(config: Mapping[str, Any], file: str) -> tuple[Kind | None, str]:
    """A kind that a config states in other words than a hook's name, and which words."""
    metadata = config.get("metadata")
    for source in (config, metadata if isinstance(metadata, Mapping) else {}):
        for name in _HEAD_FIELDS:
            if source.get(name) is not None:
                return "attention_head", f"{name} {source[name]!r:.40} in {file}"
    for name in ("architecture", "type", "sae_type", "coder_type"):
        value = str(config.get(name, "")).lower()
        if "crosscoder" in value or "clt" in re.split(r"[^a-z]+", value) or "cross_layer" in value:
            return "cross_layer", f"{name} '{config[name]}' in {file}"
        if "transcoder" in value:
            return "transcoder", f"{name} '{config[name]}' in {file}"
    for name in ("transcode", "skip_connection", "affine_connection", "is_transcoder"):
        if config.get(name):
            return "transcoder", f"{name} {config[name]!r:.40} in {file}"
    if config.get("reshape_activations") == "hook_z":
        return "attention_z", f"reshape_activations 'hook_z' in {file}"
    return None, ""


def _claims_of_trainer(trainer: Mapping[str, Any], file: str) -> list[Claim]:
    """dictionary_learning: `layer` and `submodule_name`, which a user types: a name or a module."""
    claims: list[Claim] = []
    layer = trainer.get("layer")
    for name in ("submodule_name", "submodule"):
        submodule = trainer.get(name)
        if submodule in (None, ""):
            continue
        said = f"trainer.{name}"
        if not isinstance(submodule, str):
            raise InputError(f"expected {said} as text in {file}, got {submodule!r:.80}")
        found = claims_of_name(submodule) or (claim_of_hook(submodule, f"{said} of {file}:"),)
        claims += [
            replace(claim, source=f"{said} '{submodule}' in {file}", in_path=False)
            for claim in found
        ]
    if layer is not None and not (layer == EMBEDDING and "embedding" in {c.kind for c in claims}):
        said = f"trainer.layer {layer!r:.40} in {file}"
        claims.append(Claim(said, block=_number(layer, said)))
    return claims


# Numbers -----------------------------------------------------------------------------------------


def _layer_of(claims: Sequence[Claim]) -> int | None:
    """A layer that is said outright, else a block's number alone."""
    layers = [claim.layer for claim in claims if claim.layer is not None]
    before = any(claim.before for claim in claims)
    blocks = [claim.block - before for claim in claims if claim.block is not None]
    return next(iter((*layers, *blocks)), None)


def _number(value: object, said: str) -> int:
    """A block's number as a config holds it; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LAYER:
        raise InputError(f"expected a block's number from 0 to {MAX_LAYER}, got {said:.120}")
    return value


def _digits(text: str, said: str) -> int:
    """A block's number as a name holds it."""
    return _number(int(text) if len(text) < 9 else text, said)


def _check_layer(layer: object) -> None:
    if layer is None:
        return
    if isinstance(layer, bool) or not isinstance(layer, int) or not -1 <= layer <= MAX_LAYER:
        raise UsageError(
            f"expected layer= as a whole number from -1 (the embedding) to {MAX_LAYER}, "
            f"got {layer!r:.40}"
        )


def _contradiction(first: Claim, second: Claim, where: str) -> InputError:
    cure = "; if the path is wrong, say the layer with layer=" if second.in_path else ""
    return InputError(f"expected one site, got {first} against {second} in {where}{cure}")
