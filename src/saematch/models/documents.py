"""Texts as token ids, and batches of them by a budget of tokens."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from saematch.errors import InputError, UsageError
from saematch.models.corpora import Corpus
from saematch.models.language_model import LanguageModel
from saematch.text import plural

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
    """Texts, and ends of texts, that were left out: fewer than two tokens besides BOS."""
    has_bos: bool
    text_of: tuple[int, ...]
    """For each document the number of the text that it is, or is a piece of."""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def tokens(self) -> int:
        """Those that statistics are over: all but BOS."""
        return sum(len(ids) - 1 for ids in self.token_ids)

    def __getitem__(self, part: slice) -> "Documents":
        return dataclasses.replace(self, token_ids=self.token_ids[part], text_of=self.text_of[part])

    @property
    def texts(self) -> int:
        """How many texts the documents are of: pieces of one text are not independent."""
        return len(set(self.text_of))

    def notes(self, wanted: int) -> list[str]:
        """What a reader should know, where `wanted` documents were asked for."""
        notes: list[str] = []
        if len(self) < wanted:
            notes.append(
                f"{self.corpus} has {plural(len(self), 'document')} that can be used, not {wanted}"
            )
        if self.texts < len(self):
            notes.append(
                f"{self.corpus}: the {len(self)} documents are pieces of "
                f"{plural(self.texts, 'text')}; intervals are over texts"
                + ("" if self.texts > 1 else ": of one text there is none")
            )
        return notes

    def up_to(self, tokens: int) -> "Documents":
        """As many of the first documents as hold so many tokens, BOS left out, or all."""
        count = held = 0
        while held < tokens and count < len(self):
            held += len(self.token_ids[count]) - 1
            count += 1
        return self[:count]

    @classmethod
    def of(cls, corpus: Corpus, model: LanguageModel, tokens: int, count: int) -> "Documents":
        """At most `count` documents of a corpus, each of at most `tokens` tokens, BOS included.

        Every text gives one document, its beginning, in the corpus's order.  Where these are fewer than
        `count`, texts that may be cut give their next pieces, each text one before any gives another, so
        that documents come from as many texts as there are.  Pieces of a text follow each other.

        Raises InputError where not one text is long enough.
        """
        if model.context is not None:
            tokens = min(tokens, model.context)
        bos = model.bos_token_id
        start = () if bos is None else (bos,)
        step = tokens - len(start)
        if step < SHORTEST - len(start):
            raise UsageError(
                f"expected documents of at least {SHORTEST} tokens, got {tokens} (the model reads at "
                f"most {model.context})"
            )
        found: dict[tuple[int, int], tuple[int, ...]] = {}
        read: dict[int, list[int]] = {}
        short = 0

        def take(text: int, piece: int) -> None:
            nonlocal short
            ids = read[text][piece * step : (piece + 1) * step]
            if len(start) + len(ids) >= SHORTEST:
                found[text, piece] = (*start, *ids)
            else:
                short += 1

        for number, text in enumerate(corpus.texts):
            if len(found) == count:
                break
            read[number] = model.token_ids(text)
            take(number, 0)
        longer = [text for text in read if corpus.cut and corpus.cut[text]]
        for piece in itertools.count(1):
            longer = [text for text in longer if len(read[text]) > piece * step]
            if not longer:
                break
            for text in longer:
                if len(found) < count:
                    take(text, piece)
            if len(found) == count:
                break
        if not found:
            raise InputError(
                f"expected documents of at least two tokens in {corpus.name} ({corpus.origin}), got "
                "none; try another corpus"
            )
        ordered = sorted(found)
        return cls(
            corpus.name,
            corpus.origin,
            tuple(found[at] for at in ordered),
            short,
            bos is not None,
            tuple(text for text, _ in ordered),
        )


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
