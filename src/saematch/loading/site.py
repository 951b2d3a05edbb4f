"""What a dictionary reads and writes: the one place that decides it, for loading and for listing.

One idea: every piece of evidence becomes a `Claim`: a hook name or a number in a config, a word or a
number in the path, what SAELens's registry says.  `decide` accepts what its claims agree on, and refuses
by name what disagrees or is not recognised.  Nothing is residual because it looks like nothing else,
with one written exception: a block's number alone (`layer_3`, `trainer.layer`) means the residual
stream after that block, as in every format that writes a bare number.

One table, `PLACES`: what each kind of place is called by TransformerLens and its TransformerBridge
(`blocks.3.hook_resid_post`, `blocks.3.hook_out`), Hugging Face modules (`model.layers.3`,
`transformer.h.3.mlp`), dictionary_learning (`mlp_out_layer3`), sparsify (`layers.3.mlp`), Gemma Scope and
Llama Scope (`L3R`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

SUPPORTED: frozenset[Kind | None] = frozenset({"residual", "embedding"})
"""The kinds that `load_sae` takes today."""

SUBLAYERS: frozenset[Kind] = frozenset({"attention_out", "mlp_out", "transcoder", "cross_layer"})
"""Kinds whose folders hold other folders: `saes/mlp/gemma/layer_3`."""

COMPOSITE: frozenset[Kind | None] = frozenset({"transcoder", "cross_layer", "attention_head"})
"""Kinds that a word about the place they read does not contradict."""

_MLP = r"(?:mlp|feed_forward|ffn|block_sparse_moe|moe)"
_MLP_DOWN = r"(?:down_proj|c_proj|dense_4h_to_h|fc_out|fc2|w2|out)"
_ATTENTION = r"(?:self_attn|attn|attention|self_attention)"
_ATTENTION_DOWN = r"(?:o_proj|out_proj|c_proj|dense|o)"
_IN = r"\.(?:input|hook_in)"
_OUT = r"(?:\.(?:output|hook_out))?"
_GEMMA_SCOPE = r"gemma-scope-[a-z0-9-]+?-(?:pt|it)"
_NEVER = r"(?!)"


@dataclass(frozen=True)
class Naming:
    """What people, configs and publishers call one kind of place."""

    kind: Kind
    words: str
    hooks: str = _NEVER
    """What stands after a block's number in the name of a hook or a module."""
    folders: str = ""
    """The names of folders."""
    repositories: str = _NEVER
    """What a repository's name holds whose dictionaries all read this place, in small letters and with
    hyphens: a copy may be called `google_gemma-scope-2b-pt-mlp` or `models--google--gemma-scope-…`."""
    letter: str = ""
    """Llama Scope's, after the layer."""
    before: int = 0
    """1: the number beside it is that of the block which comes after the place."""

    def is_hook(self, name: str) -> bool:
        return re.fullmatch(self.hooks, name) is not None


# Where a repository's name fits several places the first counts: nothing is residual that may be another.
PLACES = (
    Naming("cross_layer", "several layers (a cross-layer transcoder or crosscoder)",
        folders="clt clts crosscoder crosscoders cross_layer cross_coder cross_coders "
            "cross_layer_transcoder cross_layer_transcoders",
        repositories="cross-?layer-?transcoders?|crosscoders?|cross-coders?|clts?"),
    Naming("transcoder", "a transcoder: what it reads is not what it writes", letter="TC",
        folders="transcoder transcoders skip_transcoder tc plt",
        repositories=r"[a-z]*transcoders?|lxtc(?:-\d+x)?"),
    Naming("embedding", "the embedding"),
    Naming("tokens", "token numbers"),
    Naming("residual_mid", "the residual stream between attention and MLP",
        hooks=rf"hook_resid_mid|(?:ln_2|ln2|pre_feedforward_layernorm){_IN}",
        folders="resid_mid residual_mid res_mid mid"),
    Naming("attention_in", "the attention's input",
        hooks=rf"hook_attn_in|{_ATTENTION}{_IN}", folders="attn_in attention_in"),
    # Gemma Scope's repositories "att" hold z, though their folders say attn_out.
    Naming("attention_z", "attention z (what the attention's output projection reads)",
        hooks=rf"hook_z|{_ATTENTION}\.hook_z|{_ATTENTION}\.{_ATTENTION_DOWN}{_IN}",
        folders="z attn_z hook_z", repositories=f"{_GEMMA_SCOPE}-att"),
    Naming("attention_head", "one attention head", folders="head heads"),
    Naming("attention_out", "the attention's output", letter="A",
        hooks=rf"hook_attn_out|{_ATTENTION}(?:\.{_ATTENTION_DOWN})?{_OUT}",
        folders="attn_out attention_out attnout attn att attention self_attn o_proj",
        repositories=r"lxa(?:-\d+x)?"),
    Naming("attention_inner", "queries, keys, values or attention patterns",
        hooks=rf"{_ATTENTION}\.(?:(?:q|k|v|qkv|query|key|value|query_key_value)(?:_proj)?"
            rf"(?:{_IN}|{_OUT})|c_attn(?:\.output)?"
            r"|hook_(?:q|k|v|rot_q|rot_k|pattern|attn_scores|result))|hook_(?:q|k|v)_input"),
    Naming("mlp_in", "the MLP's input", folders="mlp_in ffn_in",
        hooks=rf"hook_mlp_in|{_MLP}{_IN}|pre_feedforward_layernorm(?:\.output)?"),
    Naming("mlp_hidden", "the MLP's hidden layer",
        hooks=rf"{_MLP}\.(?:hook_pre|hook_post|hook_pre_linear|hook_mid|(?:act|act_fn|gelu|c_fc|fc_in|fc1"
            rf"|in|gate|up|dense_h_to_4h|gate_proj|up_proj|w1|w3){_OUT}|{_MLP_DOWN}{_IN})",
        folders="mlp_act mlp_hidden mlp_post mlp_pre neurons"),
    Naming("mlp_out", "the MLP's output", letter="M",
        hooks=rf"hook_mlp_out|{_MLP}(?:\.{_MLP_DOWN})?{_OUT}|post_feedforward_layernorm(?:\.output)?",
        folders="mlp_out mlpout mlp ffn ffn_out down_proj",
        repositories=rf"{_GEMMA_SCOPE}-mlp|lxm(?:-\d+x)?"),
    Naming("normalised", "a normalised copy of the residual stream", folders="ln ln1 ln2",
        hooks=r"(?:ln1|ln2|ln1_post|ln2_post)\.hook_(?:normalized|scale|out)"
            r"|(?:ln_1|ln_2|input_layernorm|post_attention_layernorm)(?:\.output)?"),
    Naming("residual", "the residual stream after a block", letter="R",
        hooks="|output|hook_resid_post|hook_out",
        folders="resid_post resid_out resid res residual res_post residual_post",
        repositories=rf"{_GEMMA_SCOPE}-res|lxr(?:-\d+x)?|sae-res"),
    Naming("residual", "the residual stream after a block", before=1,
        hooks=rf"input|hook_resid_pre|hook_in|(?:input_layernorm|ln_1|ln1){_IN}",
        folders="resid_pre resid_in residual_pre res_pre"),
)  # fmt: skip

WORDS = {place.kind: place.words for place in PLACES}
_FOLDERS = {name: place for place in PLACES for name in place.folders.split()}
_LETTERS = {place.letter: place.kind for place in PLACES if place.letter}
_REPOSITORIES = [
    (re.compile(f"(?:.*-)?(?:{place.repositories})(?:-.*)?"), place.kind) for place in PLACES
]


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
        if self.kind == "residual":
            return f"the residual stream after block {self.layer}"
        placeless = self.layer is None or self.kind in ("embedding", "tokens")
        return WORDS[self.kind] + ("" if placeless else f", at block {self.layer}")

    def input(self) -> "Site":
        """The site that the module whose output this is reads."""
        inputs: dict[Kind, Kind] = {
            "mlp_out": "mlp_in", "attention_out": "attention_in", "embedding": "tokens"
        }  # fmt: skip
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
    of_input: bool = False
    """It says that the other claims name a module, and the dictionary reads its input."""
    unrecognised: str = ""
    """Words about a place that are not recognised: only a config that names the place outweighs them."""

    def __str__(self) -> str:
        if self.kind is None:
            return self.source
        means = WORDS[self.kind] if self.layer is None else Site(self.kind, self.layer)
        return f"{self.source} ({means})"

    def contradicts(self, other: "Claim") -> bool:
        """Whether no dictionary can be what both say."""
        if self.contradicts_kind(other):
            return True
        if self.layer is not None and other.layer is not None:
            return self.layer != other.layer
        # A number alone may be the block that the place lies before, or the one that it lies after.
        mine, theirs = {self.layer, self.block} - {None}, {other.layer, other.block} - {None}
        return bool(mine and theirs) and not mine & theirs

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


def decide(claims: Sequence[Claim], where: str, *, layer: int | None = None) -> Site:
    """The site that every claim agrees on.

    `layer` is the caller's: it stands in for a missing layer and for what the path says, never for
    what a config says, and changes no kind.

    Raises InputError (claims contradict, or none gives a layer), UsageError (`layer` is no layer or
    contradicts the config, or the path names several).
    """
    if layer is not None and (type(layer) is not int or not EMBEDDING <= layer <= MAX_LAYER):
        raise UsageError(
            f"expected layer= as a whole number from -1 (the embedding) to {MAX_LAYER}, "
            f"got {layer!r:.40}"
        )
    stated = [claim for claim in claims if not claim.in_path]
    named = any(claim.kind for claim in stated)
    for claim in stated if named else claims:
        if claim.unrecognised:
            raise UnsupportedError(
                f"expected a name that says what is read (such as resid_post_layer_3), got "
                f"{claim.source}, whose '{claim.unrecognised}' is not recognised; rename it if it is "
                f"the residual stream"
            )
    in_path = _weighed(claims, stated, named, layer)
    for first, second in combinations((*stated, *in_path), 2):
        if not first.contradicts(second):
            continue
        if first.in_path and not first.contradicts_kind(second):
            raise UsageError(
                f"expected one layer, got {first.source} and {second.source} in {where}; say which "
                f"with layer="
            )
        cure = "; if the path is wrong, say the layer with layer=" if second.in_path else ""
        raise InputError(f"expected one site, got {first} against {second} in {where}{cure}")
    # A transcoder's claims may also say what it reads.
    kinds: list[Kind] = [claim.kind for claim in (*stated, *in_path) if claim.kind]
    kinds.sort(key=lambda kind: kind not in COMPOSITE)
    kind: Kind = kinds[0] if kinds else "residual"
    if kind in SUPPORTED and "embedding" in kinds:
        kind = "embedding"
    site = Site(kind, _layer_of((*stated, *in_path)))
    if any(claim.of_input for claim in claims):
        site = site.input()
    if not site.supported or (site.layer is not None and layer in (None, site.layer)):
        return site
    if layer is None:
        raise InputError(
            f"expected the layer of {where}, got no hook name in a config and none of layer_N, "
            "layers.N, LN in the path; give layer="
        )
    if site.layer is None:
        return Site("embedding" if layer == EMBEDDING else "residual", layer)
    said = [claim for claim in stated if claim.block is not None]
    raise UsageError(
        f"expected the layer that the {'config' if said else 'path'} says, got layer={layer} "
        f"where {' and '.join(map(str, said or in_path))} means layer {site.layer} in {where}; "
        f"leave layer= out"
    )


def _weighed(
    claims: Sequence[Claim], stated: Sequence[Claim], named: bool, layer: int | None
) -> list[Claim]:
    """What counts of the path's claims, given what the config states and the caller's `layer`."""
    in_path = [claim for claim in claims if claim.in_path]
    if layer is not None:
        # The caller chooses between numbers, and between a number and the embedding; where the
        # embedding alone is named there is no number to choose.
        numbered = any(claim.block is not None for claim in claims if claim.kind != "embedding")
        in_path = [
            claim if claim.kind == "embedding" else replace(claim, layer=None, block=None)
            for claim in in_path
            if claim.kind != "embedding" or layer == EMBEDDING or not numbered
        ]
    stated_layer = _layer_of(stated)
    if stated_layer is not None or any(claim.layer is not None for claim in claims):
        # A number alone further up says nothing where a hook's name is known.
        in_path = [claim for claim in in_path if not (claim.far and claim.kind is None)]
    if named:
        # A folder of a study 'sae-vs-transcoders' is none where a config names the hook.
        in_path = [claim for claim in in_path if not (claim.far and claim.kind in COMPOSITE)]
    if layer is None and stated_layer is not None:
        # Where a config says the layer, only the nearest folder's name must agree: the path of a
        # whole suite may be called after another layer.
        near = next((claim for claim in in_path if claim.block is not None), None)
        in_path = [
            claim if claim is near else replace(claim, layer=None, block=None) for claim in in_path
        ]
    return in_path


def _layer_of(claims: Sequence[Claim]) -> int | None:
    """A layer that is said outright, else a block's number alone."""
    before = any(claim.before for claim in claims)
    layers = [claim.layer for claim in claims if claim.layer is not None]
    blocks = [claim.block - before for claim in claims if claim.block is not None]
    return next(iter((*layers, *blocks)), None)


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


def _number(value: object, said: str) -> int:
    """A block's number; InputError for anything else."""
    if type(value) is not int or not 0 <= value <= MAX_LAYER:
        raise InputError(f"expected a block's number from 0 to {MAX_LAYER}, got {said:.120}")
    return value


def _digits(text: str, said: str) -> int:
    return _number(int(text) if len(text) < 9 else None, said)


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


def claim_of_hook(hook: object, source: str) -> Claim:
    """What a hook name or a module's name says; UnsupportedError where it is not recognised."""
    if not isinstance(hook, str):
        raise InputError(f"expected a hook name as text, got {hook!r:.80} as {source}")
    name = hook.strip()
    said = f"{source} '{name}'"
    if _EMBEDDING.fullmatch(name):
        return Claim(said, "embedding", EMBEDDING, 0)
    if match := _BLOCK.fullmatch(name):
        block = _digits(match[1], said)
        for place in PLACES:
            if place.is_hook(match[2] or ""):
                return Claim(said, place.kind, block - place.before, block)
    raise UnsupportedError(
        f"expected a hook name that says what is read (such as blocks.3.hook_resid_post or "
        f"model.layers.3), got {said}, which is not recognised"
    )


# Paths -------------------------------------------------------------------------------------------

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

_END = r"(?=$|[-./_\\ ])"
_HOOK_IN_PATH = re.compile(
    r"blocks\.(\d+)\.((?:(?:attn|mlp|ln1|ln2)\.)?hook_(?:(?:resid|attn|mlp)_[a-z]+|[a-z]+))(?=$|[^A-Za-z])"
)
"""Within a longer name: of `hook_z_scaled` only `hook_z`."""
_MODULE_IN_PATH = re.compile(r"(?:[A-Za-z_]\w*\.)*(?:layers|h|blocks)\.\d+(?:\.[A-Za-z_]\w*)*")
_LAYER = re.compile(rf"(?<![A-Za-z0-9])(?:(?i:layers?|blocks?)[._= -]?|h\.)(\d+){_END}")
_SEVERAL = re.compile(
    r"(?<![A-Za-z0-9])(?i:(?:layers|blocks)[._= -]?\d{1,3}(?:(?:[-_,+]|_?(?:to|and)_?)\d{1,3})+"
    rf"|(?:layers?|blocks?|L)[._= -]?\d{{1,3}}(?:(?:[-+]|_?(?:to|and)_?)\d{{1,3}})+){_END}"
)
"""Several layers in one name: `layers_3_4_5`, `layer_3-5`, `L3to5`."""
_LETTER = re.compile(rf"(?<![A-Za-z0-9])L(\d+)(R|A|M|TC)?{_END}(?!_\d)")
_LETTER_OF_ID = re.compile(r"l(\d+)(r|a|m|tc)_\w+")
_EMBEDDING_FOLDER = re.compile(
    rf"{_WRAPPERS}(?:embed|embedding|embeddings|embed_tokens|embed_in|wte)"
)
_SIZE = re.compile(r"(?i:(?:width|trainer|seed|hook|all)|[\d.]+[a-z]{0,2})")
"""Words of a folder's name that say nothing of the place: `mlp_out_16k`, `hook_mlp_out`."""


def claims_of_path(path: str) -> tuple[Claim, ...]:
    """What the parts of a path say, from the deepest part up.

    Raises UnsupportedError for a part that is a module which is not recognised.
    """
    parts = [part for part in re.split(r"[/\\]", path) if part]
    layered = [_names_block(part) for part in parts]
    claims: list[Claim] = []
    for index in reversed(range(len(parts))):
        # A plain word ('mlp') is a site only where folders of sites are kept: below a layer's
        # folder, right above it, or where the weights lie.
        below = (n for n in range(index + 1, len(parts)) if _without_sizes(parts[n]))
        plain = any(layered[:index]) or layered[next(below, index)]
        near = index >= len(parts) - 2
        found = claims_of_name(parts[index], plain=plain or near)
        if not found and any(layered[index + 1 :]):
            place = _place_named(_without_sizes(parts[index]))
            if place and place.kind in SUBLAYERS:
                # `saes/mlp/gemma/layer_3`: whether the word means the layer's folder is not known.
                said = f"'{parts[index]}' in the path"
                found = (Claim(said, in_path=True, unrecognised=parts[index]),)
        claims += found if near else (replace(claim, far=True) for claim in found)
    return tuple(claims)


@lru_cache(maxsize=4096)
def claims_of_name(name: str, *, plain: bool = True) -> tuple[Claim, ...]:
    """What the name of one folder, file or submodule says; `plain`: a word alone is a site."""
    said = Claim(f"'{name}' in the path", in_path=True)

    def of_hook(hook: str) -> Claim:
        return replace(claim_of_hook(hook, "the folder"), source=said.source, in_path=True)

    hooks = _HOOK_IN_PATH.findall(name)
    if hooks:
        # Exact; a bare number next to it repeats the block.
        found = (of_hook(f"blocks.{block}.{hook}") for block, hook in hooks)
        return tuple(dict.fromkeys(found))
    stem = re.sub(r"\.(?:npz|safetensors|sae\.pt|pth?)$", "", name)
    if _EMBEDDING_FOLDER.fullmatch(stem):
        return (replace(said, kind="embedding", layer=EMBEDDING, block=0),)
    if _MODULE_IN_PATH.fullmatch(stem):
        return (of_hook(stem),)
    several = _SEVERAL.search(stem)
    numbers = [int(number) for number in re.findall(r"\d+", several[0])] if several else []
    if several and numbers == sorted(set(numbers)):
        return (replace(said, unrecognised=several[0]),)
    hyphened = re.sub(r"[^a-z0-9]+", "-", stem.lower())
    family = next((kind for pattern, kind in _REPOSITORIES if pattern.fullmatch(hyphened)), None)
    blocks = _blocks_of(stem)
    if not blocks:
        words = _without_sizes(stem)
        place = _place_named(words) if plain or "_" in words else None
        if family or place:
            before = place is not None and place.before > 0
            return (replace(said, kind=family or (place and place.kind), before=before),)
        unknown = plain and _only_names_a_place(words)
        return (replace(said, unrecognised=words),) if unknown else ()
    words = _site_words(_LAYER.sub(" ", _LETTER.sub(" ", stem)))
    # `layer_3_out` is the stream after it; a folder `out` may be anything.
    place = _FOLDERS.get(f"resid_{words}" if words in ("out", "post") else words)
    claims: list[Claim] = []
    for number, letter in blocks:
        block = _digits(number, said.source)
        layer = block - (place.before if place else 0)
        for kind in (family, place and place.kind, _LETTERS.get(letter.upper())):
            if kind:
                claims.append(replace(said, kind=kind, layer=layer, block=block))
        if not (family or place or letter):
            claims.append(replace(said, block=block, unrecognised=words))
    return tuple(dict.fromkeys(claims))


def _without_sizes(name: str) -> str:
    """The words of a name that may say where, joined as `PLACES` writes them; of `width_16k` none."""
    words = re.split(r"[^a-z0-9.]+", name.lower())
    return "_".join(word for word in words if word and not _SIZE.fullmatch(word))


def _only_names_a_place(words: str) -> bool:
    """Whether a folder's name is about a place in the model and nothing else: `vit`, `attn_only`.

    `mlp_interp_project` is about more; `out` or `skip` alone may be about anything.
    """
    parts = set(re.findall(r"[a-z]+", words))
    return parts <= _SITE_WORDS | {"only", "tower"} and not parts <= _SAYS_LITTLE


def _place_named(words: str) -> Naming | None:
    """The place of a folder that has no number: a publisher's word, or the name of a module."""
    modules = (
        place
        for place in PLACES
        if place.kind != "residual" and (place.is_hook(words) or place.is_hook(f"hook_{words}"))
    )
    return _FOLDERS.get(words) or next(modules, None)


def _blocks_of(name: str) -> list[tuple[str, str]]:
    """The numbers of layers in a name, each with Llama Scope's letter or ''."""
    found: list[tuple[str, str]] = [(number, "") for number in _LAYER.findall(name)]
    found += _LETTER.findall(name)
    return found + (_LETTER_OF_ID.findall(name) if _LETTER_OF_ID.fullmatch(name) else [])


def _names_block(name: str) -> bool:
    return bool(_blocks_of(name) or _HOOK_IN_PATH.search(name))


def _site_words(text: str) -> str:
    """The words of a folder's name that say where, in order, joined as `PLACES` writes them."""
    text = re.sub(r"\bh(?=\d{1,2}\b)", "head", text.lower().replace("_", " "))
    words = re.findall("[a-z]+", text)
    return "_".join(
        word for word in words if word in _SITE_WORDS or any(stem in word for stem in _SITE_STEMS)
    )


def names_layer(path: str) -> bool:
    """Whether a path names a layer, in words that are recognised or not."""
    return any(
        _names_block(part) or _MODULE_IN_PATH.fullmatch(part) or _EMBEDDING_FOLDER.fullmatch(part)
        for part in re.split(r"[/\\]", path)
    )


def without_layer(path: str) -> str:
    """A path with what names its layer taken out: what tells SAEs of one layer apart."""
    text = re.sub(r"blocks\.\d+\.hook_resid_(?:pre|post)(?![A-Za-z])", "", path)
    text = _LAYER.sub("", _LETTER.sub("", text))
    text = re.sub(r"(?:^|/)(?:embed|embedding|embed_tokens)(?=$|/)", "", text)
    parts = (part.strip("-_. ") for part in text.split("/"))
    return "/".join(part for part in parts if part)


# Configs -----------------------------------------------------------------------------------------

CONFIGS = ("cfg.json", "hyperparams.json", "config.json")
"""The small files of the known formats that say what a dictionary reads."""

_HOOKS = ("hook_name", "hook_point", "hook_point_in", "hf_hook_point_in", "hf_hook_name")
"""Fields for what is read; `…_out` is for what is written where that is another place."""

_BLOCK_FIELDS = ("hook_layer", "hook_point_layer")


def claims_of_config(config: Mapping[str, Any], file: str) -> tuple[Claim, ...]:
    """What a config of any known format says of the site.

    Raises UnsupportedError for names that are not recognised, InputError for values of no meaning.
    """
    claims: list[Claim] = []
    metadata = config.get("metadata")
    sources = (config, metadata if isinstance(metadata, Mapping) else {})
    for source in sources:
        claims += _hooks_of(source, file)
        for name in _BLOCK_FIELDS:
            if source.get(name) is not None:
                said = f"{name} {source[name]!r:.40} in {file}"
                claims.append(Claim(said, block=_number(source[name], said)))
    for kind, why in _kinds_of(sources):
        block = next((claim.block for claim in claims if claim.block is not None), None)
        return (Claim(f"{why} in {file}", kind, block=block),)
    if isinstance(config.get("trainer"), Mapping):
        claims += _claims_of_trainer(config["trainer"], file)
    buffer = config["buffer"] if isinstance(config.get("buffer"), Mapping) else {}
    io = buffer.get("io", "out")
    if buffer.get("layer") is not None:
        # HeadActivationBuffer alone records one.
        return (Claim(f"buffer.layer in {file}", "attention_head"),)
    if io in ("in_and_out", "in_to_out"):
        return (Claim(f"buffer.io '{io}' in {file}", "transcoder"),)
    if io not in ("in", "out", None):
        raise InputError(
            f"expected buffer.io 'in', 'out' or 'in_and_out' in {file}, got {io!r:.40}"
        )
    if io == "in":
        claims.append(Claim(f"buffer.io 'in' in {file}", of_input=True))
    return tuple(dict.fromkeys(claims))


def _hooks_of(source: Mapping[str, Any], file: str) -> Iterator[Claim]:
    for name_in in _HOOKS:
        name_out = f"{name_in.removesuffix('_in')}_out"
        hook_in, hook_out = source.get(name_in), source.get(name_out)
        if hook_in in (None, "") or (name_in == "hook_point" and "hook_point_in" in source):
            continue
        if isinstance(hook_in, list | tuple):
            yield Claim(f"{name_in} {hook_in!r:.80} in {file}", "cross_layer")
            continue
        if isinstance(hook_in, str):
            hook_in = fill_layer(hook_in, source)
        read = claim_of_hook(hook_in, f"{name_in} of {file}:")
        if hook_out not in (None, "", hook_in):
            said = f"{name_in} '{hook_in}' and {name_out} '{hook_out}' in {file}"
            read = Claim(said, "transcoder", block=read.block)
        yield read


def fill_layer(hook: str, config: Mapping[str, Any]) -> str:
    """SAELens once wrote `blocks.{layer}.hook_resid_pre`, with the block's number in another field."""
    blocks = [config[name] for name in _BLOCK_FIELDS if isinstance(config.get(name), int)]
    return hook.replace("{layer}", str(blocks[0])) if blocks else hook


def _kinds_of(sources: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Kind, str]]:
    """Kinds that a config and its metadata state in other words than a hook's name, and which words."""
    for source in sources:
        for name in ("hook_head_index", "hook_point_head_index"):
            if source.get(name) is not None:
                yield "attention_head", f"{name} {source[name]!r:.40}"
    config = sources[0]
    for name in ("architecture", "type", "sae_type", "coder_type"):
        value = str(config.get(name, "")).lower()
        if "crosscoder" in value or "clt" in re.split(r"[^a-z]+", value) or "cross_layer" in value:
            yield "cross_layer", f"{name} '{config[name]}'"
        if "transcoder" in value:
            yield "transcoder", f"{name} '{config[name]}'"
    for name in ("transcode", "skip_connection", "affine_connection", "is_transcoder"):
        if config.get(name):
            yield "transcoder", f"{name} {config[name]!r:.40}"
    if config.get("reshape_activations") == "hook_z":
        yield "attention_z", "reshape_activations 'hook_z'"


def _claims_of_trainer(trainer: Mapping[str, Any], file: str) -> list[Claim]:
    """dictionary_learning: `layer` and `submodule_name`, which a user types: a name or a module."""
    claims: list[Claim] = []
    for name in ("submodule_name", "submodule"):
        submodule = trainer.get(name)
        if submodule in (None, ""):
            continue
        said = f"trainer.{name}"
        if not isinstance(submodule, str):
            raise InputError(f"expected {said} as text in {file}, got {submodule!r:.80}")
        found = claims_of_name(submodule) or (claim_of_hook(submodule, f"{said} of {file}:"),)
        source = f"{said} '{submodule}' in {file}"
        claims += [replace(claim, source=source, in_path=False) for claim in found]
    layer = trainer.get("layer")
    if layer is not None and not (layer == EMBEDDING and "embedding" in {c.kind for c in claims}):
        said = f"trainer.layer {layer!r:.40} in {file}"
        claims.append(Claim(said, block=_number(layer, said)))
    return claims
