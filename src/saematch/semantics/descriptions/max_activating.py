"""Max-activating examples of features, from one pass over documents, in memory that does not grow with the
text.

1. Run the model over a batch of documents as far as the last layer in question; encode each stream.
   Massive-activation tokens, by their norm at any of the layers, are left out: on the few on which a model
   parks its attention, features are tens of times as active as on any other, which says nothing of what they
   mean.
2. Of every document keep, for each feature, the token on which it is most active: examples are from different
   documents.  Documents are dealt into two halves by the number of their text, and each half keeps its own
   best `count` examples per feature: a feature described from the one half and from the other is the control
   that a judge should call the same.
3. Add up how often, how strongly and, by half, on which tokens a feature is active.  Token sums are cut to
   each feature's heaviest when there are more than `TOKEN_ENTRIES` of them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from saematch.evaluation.interventions import SparseActivations, encode_sparse, typical_rows
from saematch.models import Documents, LanguageModel, batches
from saematch.sae import SAE

HALVES = 2
TOKEN_ENTRIES = 1 << 23
"""(feature, token) sums that a layer may hold before they are cut."""
TOKENS_A_FEATURE = 64
"""Kept of each feature and half then."""
WAITING_ENTRIES = 1 << 22
"""Activations that may wait to be added to the token sums."""
NONE = -1


@dataclass(frozen=True)
class Window:
    """How much of the text around a token is kept."""

    before: int = 16
    after: int = 8

    @property
    def length(self) -> int:
        return self.before + 1 + self.after


@dataclass(frozen=True, eq=False)
class Examples:
    """The max-activating examples of every feature of one SAE, by half, the strongest first.

    Entries beyond what there is have `document` -1.
    """

    document: Int64[np.ndarray, "halves d_sae count"]
    position: Int64[np.ndarray, "halves d_sae count"]
    """Place of the token, 0 the first of the document."""
    activations: Float32[np.ndarray, "halves d_sae count window"]
    """Around that token; 0 where it is not active and outside the document."""
    window: Window

    @property
    def strongest(self) -> Float32[np.ndarray, "halves d_sae count"]:
        """Activations of the tokens themselves."""
        return self.activations[..., self.window.before]


@dataclass(frozen=True, eq=False)
class ActivationStatistics:
    """How often, how strongly and on which tokens features are active."""

    tokens: int
    """Read, BOS and massive-activation tokens left out."""
    massive_tokens: int
    """Tokens that were left out since their norm exceeds `MASSIVE` medians of their document at this or
    another watched layer."""
    activation_count: Int64[np.ndarray, " d_sae"]
    total: Float64[np.ndarray, " d_sae"]
    """Sum of activations."""
    greatest: Float32[np.ndarray, " d_sae"]
    token_sums: "TokenSums"

    def top_tokens(self, count: int, half: int | None = None) -> dict[int, list[tuple[int, float]]]:
        """By active feature: the tokens with most of its activation, and their shares of it.

        `half`: of these documents alone.
        """
        sums = self.token_sums
        key, mass = sums.feature * _TOKEN_RANGE + sums.token, sums.mass
        if half is not None:
            key, mass = key[sums.half == half], mass[sums.half == half]
        key, mass = _summed(key, mass)
        feature, token = key // _TOKEN_RANGE, key % _TOKEN_RANGE
        whole = np.bincount(feature, weights=mass, minlength=len(self.activation_count))
        order = np.lexsort((token, -mass, feature))
        order = order[_rank_in_group(feature[order]) < count]
        found: dict[int, list[tuple[int, float]]] = {}
        for f, t, m in zip(feature[order], token[order], mass[order], strict=True):
            found.setdefault(int(f), []).append((int(t), float(m / whole[f])))
        return found


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Activation summed by feature, half and token."""

    feature: Int64[np.ndarray, " entries"]
    half: Int64[np.ndarray, " entries"]
    token: Int64[np.ndarray, " entries"]
    """Its id."""
    mass: Float64[np.ndarray, " entries"]


def watch(
    model: LanguageModel,
    documents: Documents,
    saes: Mapping[str, SAE],
    count: int = 5,
    window: Window = Window(),
    batch_tokens: int = 2048,
    layers: Collection[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, tuple[Examples, ActivationStatistics]]:
    """Examples and statistics of every SAE's features, by key.

    `saes`: on the model's device; `layers`: others whose massive-activation tokens are left out too;
    `progress` is told how many documents are done.
    """
    watched = {
        key: _Watched(sae.d_sae, count, window, documents.text_of) for key, sae in saes.items()
    }
    blocks = sorted({sae.layer for sae in saes.values()} | set(layers))
    done = 0
    for batch in batches(documents, batch_tokens, range(len(documents))):
        with torch.no_grad():
            streams = model.capture(batch.token_ids, blocks)
            counted = batch.counted
            row = batch.document_of_row
            place = counted.nonzero()[:, 1].numpy()
            ids = batch.token_ids[counted].numpy()
            document = np.array(batch.documents)[row.numpy()]
            rows = {
                block: stream[counted.to(stream.device)].float()
                for block, stream in streams.items()
            }
            typical = torch.stack([typical_rows(x, row.to(x.device)) for x in rows.values()]).all(0)
            for key, sae in saes.items():
                active = encode_sparse(sae, rows[sae.layer]).of_tokens(typical)
                watched[key].add(active, int(typical.sum()), document, place, ids)
        done += len(batch.documents)
        progress(done)
    return {key: one.result() for key, one in watched.items()}


class _Watched:
    """What is kept of one SAE."""

    def __init__(self, d_sae: int, count: int, window: Window, text_of: Sequence[int]) -> None:
        self.half_of = np.unique(text_of, return_inverse=True)[1] % HALVES
        shape = (HALVES, d_sae, count)
        self.d_sae, self.count, self.window = d_sae, count, window
        self.document = np.full(shape, NONE, dtype=np.int64)
        self.position = np.zeros(shape, dtype=np.int64)
        self.activations = np.zeros((*shape, window.length), dtype=np.float32)
        self.tokens = self.massive_tokens = 0
        self.activation_count = np.zeros(d_sae, dtype=np.int64)
        self.total = np.zeros(d_sae)
        self.greatest = np.zeros(d_sae, dtype=np.float32)
        self.mass_key = np.zeros(0, dtype=np.int64)
        self.mass = np.zeros(0)
        self.waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(
        self,
        active: SparseActivations,
        typical: int,
        document: np.ndarray,
        place: np.ndarray,
        ids: np.ndarray,
    ) -> None:
        """Take in the tokens of some whole documents: their document, place in it and id.

        `typical`: how many of them have no massive activations; on the others nothing may be active.
        """
        token, feature = active.token.cpu().numpy(), active.feature.cpu().numpy()
        value = active.value.cpu().numpy()
        self.tokens += typical
        self.massive_tokens += active.n_tokens - typical
        self.activation_count += np.bincount(feature, minlength=self.d_sae)
        self.total += np.bincount(feature, weights=value, minlength=self.d_sae)
        np.maximum.at(self.greatest, feature, value)
        group = feature * HALVES + self.half_of[document[token]]
        self.waiting.append((group * _TOKEN_RANGE + ids[token], value))
        if sum(len(key) for key, _ in self.waiting) > WAITING_ENTRIES:
            self._add_mass()
        self._add_examples(token, feature, value, document, place)

    def _add_mass(self) -> None:
        """Put what waits among the token sums: sorting is costly, so not after every batch."""
        key = np.concatenate([self.mass_key, *(key for key, _ in self.waiting)])
        mass = np.concatenate([self.mass, *(value for _, value in self.waiting)])
        self.waiting = []
        self.mass_key, self.mass = _summed(key, mass)
        if len(self.mass) > TOKEN_ENTRIES:
            group = self.mass_key // _TOKEN_RANGE
            order = np.lexsort((self.mass_key, -self.mass, group))
            keep = np.sort(order[_rank_in_group(group[order]) < TOKENS_A_FEATURE])
            self.mass_key, self.mass = self.mass_key[keep], self.mass[keep]

    def _add_examples(
        self,
        token: np.ndarray,
        feature: np.ndarray,
        value: np.ndarray,
        document: np.ndarray,
        place: np.ndarray,
    ) -> None:
        best = self._strongest(token, feature, value, document)
        for half in range(HALVES):
            mine = best[self.half_of[document[token[best]]] == half]
            mine = mine[value[mine] >= self._least(half)[feature[mine]]]
            order = np.lexsort((document[token[mine]], -value[mine], feature[mine]))
            mine = mine[order]
            mine = mine[_rank_in_group(feature[mine]) < self.count]
            around = self._around(token, feature, value, document, mine)
            self._merge(half, feature[mine], document[token[mine]], place[token[mine]], around)

    def _strongest(
        self, token: np.ndarray, feature: np.ndarray, value: np.ndarray, document: np.ndarray
    ) -> np.ndarray:
        """The strongest activation of each feature in each document, the first of equals."""
        documents, place = np.unique(document, return_inverse=True)
        group = place[token] * self.d_sae + feature
        greatest = torch.zeros(len(documents) * self.d_sae)
        greatest.scatter_reduce_(0, torch.from_numpy(group), torch.from_numpy(value), "amax")
        reaching = np.flatnonzero(value == greatest.numpy()[group])[::-1]
        best = np.full(len(documents) * self.d_sae, NONE, dtype=np.int64)
        best[group[reaching]] = reaching  # backwards: of equals the first is written last
        return best[best != NONE]

    def _least(self, half: int) -> np.ndarray:
        """What an example must exceed to be kept, by feature."""
        return self.activations[half, :, -1, self.window.before]

    def _around(
        self,
        token: np.ndarray,
        feature: np.ndarray,
        value: np.ndarray,
        document: np.ndarray,
        chosen: np.ndarray,
    ) -> np.ndarray:
        """Activations of the chosen features on the tokens around the chosen ones."""
        keys = token * self.d_sae + feature  # ascending: ordered by token, then feature
        near = token[chosen][:, None] + np.arange(-self.window.before, self.window.after + 1)
        inside = (near >= 0) & (near < len(document))
        near = near.clip(0, len(document) - 1)
        inside &= document[near] == document[token[chosen]][:, None]
        wanted = near * self.d_sae + feature[chosen][:, None]
        where = np.searchsorted(keys, wanted).clip(0, max(0, len(keys) - 1))
        active = inside & (keys[where] == wanted) if len(keys) else inside
        return np.where(active, value[where] if len(keys) else 0, 0).astype(np.float32)

    def _merge(
        self,
        half: int,
        feature: np.ndarray,
        document: np.ndarray,
        position: np.ndarray,
        activations: np.ndarray,
    ) -> None:
        """Put new examples, several per feature, among those that are kept."""
        touched = np.unique(feature)
        if not len(touched):
            return
        kept_feature = np.repeat(touched, self.count)
        feature = np.concatenate([kept_feature, feature])
        document = np.concatenate([self.document[half, touched].ravel(), document])
        position = np.concatenate([self.position[half, touched].ravel(), position])
        kept = self.activations[half, touched].reshape(-1, self.window.length)
        activations = np.concatenate([kept, activations])
        # Equal activations: the earlier document, so that batches change nothing.
        last = np.where(document == NONE, np.iinfo(np.int64).max, document)
        order = np.lexsort((last, -activations[:, self.window.before], feature))
        order = order[_rank_in_group(feature[order]) < self.count]
        self.document[half, touched] = document[order].reshape(-1, self.count)
        self.position[half, touched] = position[order].reshape(-1, self.count)
        self.activations[half, touched] = activations[order].reshape(
            -1, self.count, self.window.length
        )

    def result(self) -> tuple[Examples, ActivationStatistics]:
        self._add_mass()
        group, token = self.mass_key // _TOKEN_RANGE, self.mass_key % _TOKEN_RANGE
        sums = TokenSums(group // HALVES, group % HALVES, token, self.mass)
        examples = Examples(self.document, self.position, self.activations, self.window)
        return examples, ActivationStatistics(
            self.tokens, self.massive_tokens, self.activation_count, self.total, self.greatest, sums
        )


_TOKEN_RANGE = 1 << 24
"""More than any vocabulary has."""


def _summed(key: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every key once, ascending, with the sum of what stands at it."""
    if not len(key):
        return key, mass
    ordered, order = torch.sort(torch.from_numpy(key), stable=True)  # several times NumPy's speed
    key = ordered.numpy()
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    return key[starts], np.add.reduceat(mass[order.numpy()].astype(np.float64), starts)


def _rank_in_group(group: np.ndarray) -> np.ndarray:
    """Place of each entry within its run of equal values."""
    if not len(group):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(group)]]))
    return np.arange(len(group)) - np.repeat(starts, sizes)
