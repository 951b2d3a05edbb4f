"""Capture the residual stream after chosen blocks of a decoder-only model, and replace it there.

Hooks are used because the last entry of `hidden_states` is taken after the final norm.  A stream is
replaced by letting the blocks before it hand their input on untouched: embeddings, masks, positions,
the blocks after it and the head then run by the model's own code, whatever its architecture.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saematch.errors import UnsupportedError, UsageError

EMBEDDING = -1
"""The "block" whose output is what the first block reads."""


class _StopForwardError(Exception):
    """Raised by the hook on the last block that is asked for: later blocks need not run."""


KNOWN_BLOCKS = ("model.layers", "transformer.h", "model.language_model.layers", "gpt_neox.layers")
"""Where most models keep their blocks."""


def decoder_blocks(model: Any) -> Any:
    """The list of a model's blocks, in order.

    Raises UsageError naming the class of a model that has no single such list.
    """
    return model.get_submodule(blocks_path(model))


def blocks_path(model: Any) -> str:
    """Where a model keeps its blocks: a known place, or its only list of as many modules as it has layers."""
    modules = dict(model.named_modules())
    for path in KNOWN_BLOCKS:
        if path in modules:
            return path
    count = None
    if hasattr(model, "config"):
        count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        name
        for name, module in modules.items()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    outer = [name for name in lists if not any(name.startswith(f"{one}.") for one in lists)]
    if len(outer) != 1:
        raise UsageError(
            f"expected a decoder-only model with one list of blocks, got {type(model).__name__}; "
            "try a model of the Llama, Gemma, Qwen, GPT-2 or GPT-NeoX family"
        )
    return outer[0]


@torch.no_grad()
def capture_residual_stream(
    model: Any, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
) -> dict[int, Float[Tensor, "batch sequence d_model"]]:
    """The outputs of the blocks in `blocks`, by block; blocks after the last of them do not run.

    `token_ids` are padded on the right: a causal model's earlier positions never see the padding.
    Block -1 is the embedding.  Raises UsageError for blocks that the model lacks.
    """
    with _capturing(model, blocks, stop=True) as captured, suppress(_StopForwardError):
        model(token_ids, use_cache=False)
    return captured


@torch.no_grad()
def capture_and_predict(
    model: Any, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
) -> tuple[
    dict[int, Float[Tensor, "batch sequence d_model"]], Float[Tensor, "batch sequence vocabulary"]
]:
    """The same and the logits, from one pass through all blocks."""
    with _capturing(model, blocks, stop=False) as captured:
        logits = model(token_ids, use_cache=False).logits
    return captured, logits


@torch.no_grad()
def predict_from(
    model: Any,
    token_ids: Int[Tensor, "batch sequence"],
    block: int,
    stream: Float[Tensor, "batch sequence d_model"],
) -> Float[Tensor, "batch sequence vocabulary"]:
    """The logits with `stream` in place of the output of a block; only later blocks run.

    With the stream that the model has there the logits are those of the whole pass, bit for bit, at
    equal batch, padding, dtype and attention implementation.
    """
    modules = decoder_blocks(model)
    _check(modules, [block])
    before = modules[: block + 1]

    if block == EMBEDDING:
        handle = modules[0].register_forward_pre_hook(
            lambda _module, args, keywords: (
                ((stream, *args[1:]), keywords)
                if args
                else (args, {**keywords, "hidden_states": stream})
            ),
            with_kwargs=True,
        )
        try:
            return model(token_ids, use_cache=False).logits
        finally:
            handle.remove()
    forms = _output_forms(model, modules)
    try:
        for module, form in zip(before, forms, strict=False):
            module.forward = _handing_on(form, stream if module is before[-1] else None)
        return model(token_ids, use_cache=False).logits
    finally:
        for module in before:
            module.__dict__.pop("forward", None)


@contextmanager
def _capturing(
    model: Any, blocks: Sequence[int], stop: bool
) -> Iterator[dict[int, Float[Tensor, "batch sequence d_model"]]]:
    modules = decoder_blocks(model)
    _check(modules, blocks)
    captured: dict[int, Tensor] = {}

    def keep(block: int) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            captured[block] = _stream_of(output)
            if stop and block == max(blocks):
                raise _StopForwardError

        return hook

    def keep_embedding(_module: Any, args: Any, keywords: Any) -> None:
        captured[EMBEDDING] = args[0] if args else keywords["hidden_states"]
        if stop and max(blocks) == EMBEDDING:
            raise _StopForwardError

    handles = [
        modules[0].register_forward_pre_hook(keep_embedding, with_kwargs=True)
        if block == EMBEDDING
        else modules[block].register_forward_hook(keep(block))
        for block in blocks
    ]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


_FORMS: WeakKeyDictionary[Any, Callable[[Tensor], Any]] = WeakKeyDictionary()
"""By block: how it wraps the stream that it returns."""


def _output_forms(model: Any, modules: Any) -> list[Callable[[Tensor], Any]]:
    """How each block wraps its stream: bare, first of a tuple of some length, or in a ModelOutput.  Found
    out by one short pass, once a model."""
    if any(module not in _FORMS for module in modules):

        def note(module: Any, _inputs: Any, output: Any) -> None:
            _FORMS[module] = _form_of(output)

        handles = [module.register_forward_hook(note) for module in modules]
        try:
            model(torch.zeros((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
    return [_FORMS[module] for module in modules]


def _stream_of(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    first = next(iter(output.values() if isinstance(output, Mapping) else output))
    if not isinstance(first, Tensor):
        raise UnsupportedError(
            f"expected blocks that return their stream first, got a {type(first).__name__}"
        )
    return first


def _form_of(output: Any) -> Callable[[Tensor], Any]:
    _stream_of(output)  # refuses what has none
    if isinstance(output, Tensor):
        return lambda stream: stream
    if isinstance(output, Mapping):  # a ModelOutput
        name, kind = next(iter(output)), type(output)
        return lambda stream: kind(**{name: stream})
    rest = (None,) * (len(output) - 1)
    return lambda stream: (stream, *rest)


def _handing_on(form: Callable[[Tensor], Any], stream: Tensor | None) -> Callable[..., Any]:
    """A block's forward that returns `stream`, or what it reads, as the block would return it."""

    def forward(*args: Any, **keywords: Any) -> Any:
        if stream is not None:
            return form(stream)
        return form(args[0] if args else keywords["hidden_states"])

    return forward


def _check(modules: Any, blocks: Sequence[int]) -> None:
    for block in blocks:
        if not EMBEDDING <= block < len(modules):
            raise UsageError(f"expected blocks from 0 to {len(modules) - 1}, got block {block}")
