"""The tokens of a text as text: nothing written in it becomes a control token.

Web pages, chat logs and code contain `<s>` or `<|im_start|>` literally.  Tokenizers turn these characters
into the control token itself, which models see only at boundaries and which attracts much attention.
"""

import re
from collections.abc import Collection
from typing import Any

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
