"""Which layer an SAE reads: the zero-based block whose *output* it sees; -1 is the embedding.

The hook name in the config decides; else one `layer_N`, `layers.N` or `LN` in the path; else it is
an error.  `resid_pre` of L is the output of L - 1.  What does not read the residual stream between
blocks (MLP, attention, mid-block) is refused by name.
"""

import re

from saematch.errors import InputError, UnsupportedError, UsageError

EMBEDDING = -1

_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")
_MODULE = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)(?:\.(input|output))?")
_EMBEDDINGS = re.compile(
    r"(?:\w+\.)*(?:hook_embed|embed_tokens|embedding|wte|embed_in)(?:\.output)?"
)

_HOOK_IN_PATH = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)(?![A-Za-z])")
_LAYER_IN_PATH = re.compile(
    r"(?<![A-Za-z0-9])(?:layers?[._]?|L)(\d+)"  # layer_3, layers.3, layer3, L3
    r"(?=R?(?:$|[-./_\\ ]))(?!_\d)"  # Llama Scope's L3R; not the L0_50 that is a sparsity
)
_EMBEDDING_IN_PATH = re.compile(r"(?:^|[/\\])(?:embedding|embed_tokens)(?:$|[/\\])")
_SUBLAYER_IN_PATH = re.compile(
    r"(?:layers?|h)[._]?\d+[._](?:mlp|attn|attention|self_attn)\b|\bL\d+[AM](?=$|[-./_\\])"
    r"|(?<![a-z])hook_(?:mlp|attn|z)\w*|hook_resid_mid"
    r"|gemma-scope-[a-z0-9-]+-(?:att|mlp|transcoders)(?![a-z])"
    r"|(?:^|[/\\])(?:attn_out|mlp_out|transcoder|clt|crosscoder)(?:_all)?(?=$|[/\\])",
)


def layer_of_hook(hook_name: str, where: str = "the config") -> int:
    """The layer that a hook name means; UnsupportedError where it is not the residual stream."""
    hook = hook_name.strip()
    if match := _TRANSFORMER_LENS.fullmatch(hook):
        return int(match[1]) - (match[2] == "pre")
    if match := _MODULE.fullmatch(hook):
        return int(match[1]) - (match[2] == "input")
    if _EMBEDDINGS.fullmatch(hook):
        return EMBEDDING
    raise UnsupportedError(
        f"needed an SAE of the residual stream between blocks (such as blocks.3.hook_resid_post), "
        f"found hook '{hook_name}' in {where}"
    )


def layers_in_path(path: str) -> tuple[int, ...]:
    """Every different layer that a path speaks of, in order of appearance."""
    found = [
        (match.start(), int(match[1]) - (match[2] == "pre"))
        for match in _HOOK_IN_PATH.finditer(path)
    ]
    if not found:
        # A hook name inside a path is exact; a bare number beside it repeats the block, which for
        # resid_pre is one off.
        found = [(match.start(), int(match[1])) for match in _LAYER_IN_PATH.finditer(path)]
        found += [(match.start(), EMBEDDING) for match in _EMBEDDING_IN_PATH.finditer(path)]
    return tuple(dict.fromkeys(layer for _, layer in sorted(found)))


def layer_of_path(path: str) -> int:
    """The one layer that a path speaks of."""
    if match := _SUBLAYER_IN_PATH.search(path):
        raise UnsupportedError(
            f"needed an SAE of the residual stream between blocks, found '{match[0].strip('/')}' "
            f"in {path}"
        )
    layers = layers_in_path(path)
    if len(layers) > 1:
        raise UsageError(
            f"needed one layer, found {' and '.join(map(str, layers))} in {path}; "
            f"say which with layer="
        )
    if not layers:
        raise InputError(
            f"needed the layer of {path}, found no hook name and none of layer_N, layers.N, LN in "
            f"the path; say it with layer="
        )
    return layers[0]


def resolve_layer(path: str, hook_name: str | None, override: int | None) -> int:
    """The layer by the rule above; `override`, where given, wins over path and hook."""
    if hook_name:
        layer = layer_of_hook(hook_name, path)
        return layer if override is None else override
    if match := _SUBLAYER_IN_PATH.search(path):
        if override is None:
            return layer_of_path(path)
        raise UnsupportedError(
            f"needed an SAE of the residual stream, found '{match[0].strip('/')}' in {path}"
        )
    return layer_of_path(path) if override is None else override


def without_layer(path: str) -> str:
    """A path with what names its layer taken out: what tells SAEs of one layer apart."""
    text = _HOOK_IN_PATH.sub("", path)
    text = _LAYER_IN_PATH.sub("", text)
    text = re.sub(r"(?:^|/)(?:embedding|embed_tokens)(?=$|/)", "", text)
    parts = (part.strip("-_. ") for part in text.split("/"))
    return "/".join(part for part in parts if part)
