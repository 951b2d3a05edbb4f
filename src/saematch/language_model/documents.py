"""Texts as token ids, and batches of them by a budget of tokens."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from saematch.errors import InputError
from saematch.language_model.corpora import Corpus
from saematch.language_model.model import LanguageModel

SHORTEST = 3
"""Tokens, BOS included: one prediction that is not made from BOS."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents of one corpus as a model reads them."""

    corpus: str
    origin: str
    token_ids: tuple[tuple[int, ...], ...]
    """BOS first; where the tokenizer has none, the first token takes its part."""
    too_short: int
    """Texts that were left out: fewer than two tokens beside BOS."""
    has_bos: bool

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def tokens(self) -> int:
        """Those that statistics are over: all but BOS."""
        return sum(len(ids) - 1 for ids in self.token_ids)

    def __getitem__(self, part: slice) -> "Documents":
        return dataclasses.replace(self, token_ids=self.token_ids[part])

    def up_to(self, tokens: int) -> "Documents":
        """As many of the first documents as hold so many tokens, BOS left out, or all."""
        count = held = 0
        while held < tokens and count < len(self):
            held += len(self.token_ids[count]) - 1
            count += 1
        return self[:count]

    @classmethod
    def of(cls, corpus: Corpus, model: LanguageModel, tokens: int, count: int) -> "Documents":
        """The first `count` documents of a corpus, each cut to `tokens` tokens, BOS included.

        Raises InputError where not one text is long enough.
        """
        if model.context is not None:
            tokens = min(tokens, model.context)
        bos = model.bos_token_id
        start = () if bos is None else (bos,)
        step = tokens - len(start)
        found: list[tuple[int, ...]] = []
        short = 0
        for text in corpus.texts:
            ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
            pieces = range(0, len(ids), step) if corpus.whole else range(1)
            for first in pieces:
                piece = (*start, *ids[first : first + step])
                if len(piece) >= SHORTEST:
                    found.append(piece)
                else:
                    short += 1
                if len(found) == count:
                    break
            if len(found) == count:
                break
        if not found:
            raise InputError(
                f"needed documents of at least two tokens in {corpus.name} ({corpus.origin}), found "
                "none; try another corpus"
            )
        return cls(corpus.name, corpus.origin, tuple(found), short, bos is not None)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some documents, padded on the right: a causal model's earlier positions never see it."""

    documents: tuple[int, ...]
    """Their numbers."""
    token_ids: Int[Tensor, "batch sequence"]
    lengths: tuple[int, ...]

    @property
    def counted(self) -> Tensor:
        """[batch, sequence] bool: positions that are neither BOS nor padding."""
        position = torch.arange(self.token_ids.shape[1])[None]
        return (position > 0) & (position < torch.tensor(self.lengths)[:, None])

    @property
    def document_of_row(self) -> Tensor:
        """[tokens]: for every counted position, in order, which document of the batch it is in."""
        return self.counted.nonzero()[:, 0]


def batches(documents: Documents, tokens: int, chosen: Sequence[int]) -> Iterator[Batch]:
    """The chosen documents, longest first, in batches of at most `tokens` padded tokens.

    A document longer than that makes a batch of its own.
    """
    waiting = sorted(chosen, key=lambda number: -len(documents.token_ids[number]))
    while waiting:
        longest = len(documents.token_ids[waiting[0]])
        rows = max(1, tokens // longest)
        taken, waiting = waiting[:rows], waiting[rows:]
        ids = torch.zeros(len(taken), longest, dtype=torch.int64)
        for row, number in enumerate(taken):
            ids[row, : len(documents.token_ids[number])] = torch.tensor(documents.token_ids[number])
        yield Batch(tuple(taken), ids, tuple(len(documents.token_ids[n]) for n in taken))
