"""Features of some SAEs described from one pass of their language model over documents, in memory that does
not grow with the text.

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
4. Choose the tokens that tell what a feature is about: those with most of its activation; those in its
   examples more often than by chance, by number of examples times the logarithm of rarity; those that
   its decoder row raises most, its top logits.
5. Put them in words (description.py): once from all that was read, and once from either half of the
   documents, without the top logits, which no choice of documents changes: a judge's controls
   and pairs are then made of the same kind of text from different documents.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from saematch.evaluation.interventions import encode_sparse, typical_rows
from saematch.models import Documents, LanguageModel, batches
from saematch.sae import SAE
from saematch.semantics.descriptions.description import Description, describe_tokens

EXPLAINER = "tokens"
"""Who writes these descriptions: lists of tokens."""
LICENCE = "CC0-1.0"
ACTIVATIONS = "activations"
"""Source of these descriptions; of either half alone it is `activations-0` and `activations-1`."""
ACTIVATES_ON = AMID = TOP_LOGITS = 5
LEAST_EXAMPLES = 2
"""A token must be in so many of a feature's examples to be called typical of them."""
HALVES = 2
TOKEN_ENTRIES = 1 << 23
"""(feature, token) sums that a layer may hold before they are cut."""
TOKENS_A_FEATURE = 64
"""Kept of each feature and half then."""
WAITING_ENTRIES = 1 << 22
"""Activations that may wait to be added to the token sums."""
BEFORE, AFTER = 16, 8
"""Tokens of the text around an example that are kept."""
NONE = -1
_TOKEN_RANGE = 1 << 24
"""More than any vocabulary has."""


class Examples:
    """The max-activating examples of every feature of one SAE, by half, the strongest first.

    Entries beyond what there is have `document` -1.
    """

    def __init__(self, d_sae: int, count: int) -> None:
        shape = (HALVES, d_sae, count)
        self.document = np.full(shape, NONE, dtype=np.int64)
        self.position = np.zeros(shape, dtype=np.int64)
        """Place of the token, 0 the first of the document."""
        self.activations = np.zeros((*shape, BEFORE + 1 + AFTER), dtype=np.float32)
        """Around that token; 0 where it is not active and outside the document."""

    def shown(
        self, documents: Documents, number: int, position: int
    ) -> tuple[int, tuple[int, ...]]:
        """Place in its document of an example's first token, BOS left out, and the ids of all its tokens."""
        first = max(int(documents.has_bos), position - BEFORE)
        return first, documents.token_ids[number][first : position + AFTER + 1]

    def add(
        self,
        active: tuple[np.ndarray, np.ndarray, np.ndarray],
        half_of: np.ndarray,
        document: np.ndarray,
        place: np.ndarray,
    ) -> None:
        """Take in the tokens of some whole documents: their document and place in it.

        `active`: token, feature and value of what is active on them; `half_of`: every document's half.
        """
        token, feature, value = active
        _, d_sae, count = self.document.shape
        best = _strongest(token, feature, value, document, d_sae)
        half = half_of[document[token[best]]]
        reaching = value[best] >= self.activations[half, feature[best], -1, BEFORE]
        best, slot = best[reaching], (half * d_sae + feature[best])[reaching]
        order = np.lexsort((document[token[best]], -value[best], slot))
        order = order[_rank_in_group(slot[order]) < count]
        best, slot = best[order], slot[order]
        keys = token * d_sae + feature  # ascending: ordered by token, then feature
        news = (
            document[token[best]],
            place[token[best]],
            self._around(keys, value, document, best),
        )
        # Put them, several per slot, among those that are kept.
        touched = np.unique(slot)
        slots = np.concatenate([np.repeat(touched, count), slot])
        kept = [
            one.reshape(HALVES * d_sae, count, *one.shape[3:])
            for one in (self.document, self.position, self.activations)
        ]
        both = [
            np.concatenate([old[touched].reshape(-1, *old.shape[2:]), new])
            for old, new in zip(kept, news, strict=True)
        ]
        # Equal activations: the earlier document, so that batches change nothing.
        last = np.where(both[0] == NONE, np.iinfo(np.int64).max, both[0])
        order = np.lexsort((last, -both[2][:, BEFORE], slots))
        order = order[_rank_in_group(slots[order]) < count].reshape(-1, count)
        for old, one in zip(kept, both, strict=True):
            old[touched] = one[order]

    def _around(
        self, keys: np.ndarray, value: np.ndarray, document: np.ndarray, chosen: np.ndarray
    ) -> np.ndarray:
        """Activations on the tokens around the chosen ones; `keys`: token · d_sae + feature."""
        token, feature = np.divmod(keys[chosen], self.document.shape[1])
        near = token[:, None] + np.arange(-BEFORE, AFTER + 1)
        inside = (near >= 0) & (near < len(document))
        near = near.clip(0, len(document) - 1)
        inside &= document[near] == document[token][:, None]
        wanted = near * self.document.shape[1] + feature[:, None]
        where = np.searchsorted(keys, wanted).clip(0, max(0, len(keys) - 1))
        active = inside & (keys[where] == wanted) if len(keys) else inside
        return np.where(active, value[where] if len(keys) else 0, 0).astype(np.float32)


def _strongest(
    token: np.ndarray, feature: np.ndarray, value: np.ndarray, document: np.ndarray, d_sae: int
) -> np.ndarray:
    """The strongest activation of each feature in each document, the first of equals."""
    documents, place = np.unique(document, return_inverse=True)
    group = place[token] * d_sae + feature
    greatest = torch.zeros(len(documents) * d_sae)
    greatest.scatter_reduce_(0, torch.from_numpy(group), torch.from_numpy(value), "amax")
    reaching = np.flatnonzero(value == greatest.numpy()[group])[::-1]
    best = np.full(len(documents) * d_sae, NONE, dtype=np.int64)
    best[group[reaching]] = reaching  # backwards: of equals the first is written last
    return best[best != NONE]


class ActivationStatistics:
    """How often, how strongly and on which tokens the features of one SAE are active."""

    def __init__(self, d_sae: int) -> None:
        self.tokens = 0
        """Read, BOS and massive-activation tokens left out."""
        self.massive_tokens = 0
        """Tokens that were left out since their norm exceeds `MASSIVE` medians of their document at this or
        another watched layer."""
        self.activation_count = np.zeros(d_sae, dtype=np.int64)
        self.total = np.zeros(d_sae)
        """Sum of activations."""
        self.greatest = np.zeros(d_sae, dtype=np.float32)
        self.token_keys = np.zeros(0, dtype=np.int64)
        """(feature · HALVES + half) · _TOKEN_RANGE + token."""
        self.token_sums = np.zeros(0)
        """Activation of that feature on that token, in the documents of that half."""
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(
        self, feature: np.ndarray, half: np.ndarray, token: np.ndarray, value: np.ndarray
    ) -> None:
        """Take in activations on tokens of documents of these halves."""
        size = len(self.total)
        self.activation_count += np.bincount(feature, minlength=size)
        self.total += np.bincount(feature, weights=value, minlength=size)
        np.maximum.at(self.greatest, feature, value)
        self._waiting.append(((feature * HALVES + half) * _TOKEN_RANGE + token, value))
        if sum(len(key) for key, _ in self._waiting) > WAITING_ENTRIES:
            self.sum_up()

    def sum_up(self) -> None:
        """Put what waits among the token sums: sorting is costly, so not after every batch."""
        keys = np.concatenate([self.token_keys, *(key for key, _ in self._waiting)])
        sums = np.concatenate([self.token_sums, *(value for _, value in self._waiting)])
        self._waiting = []
        self.token_keys, self.token_sums = _summed(keys, sums)
        if len(self.token_sums) > TOKEN_ENTRIES:
            group = self.token_keys // _TOKEN_RANGE
            order = np.lexsort((self.token_keys, -self.token_sums, group))
            keep = np.sort(order[_rank_in_group(group[order]) < TOKENS_A_FEATURE])
            self.token_keys, self.token_sums = self.token_keys[keep], self.token_sums[keep]

    def top_tokens(self, count: int, half: int | None = None) -> dict[int, list[tuple[int, float]]]:
        """By active feature: the tokens with most of its activation, and their shares of it.

        `half`: of these documents alone.
        """
        group, token = np.divmod(self.token_keys, _TOKEN_RANGE)
        taken = slice(None) if half is None else group % HALVES == half
        keys = group // HALVES * _TOKEN_RANGE + token
        keys, mass = _summed(keys[taken], self.token_sums[taken])
        feature, token = np.divmod(keys, _TOKEN_RANGE)
        whole = np.bincount(feature, weights=mass, minlength=len(self.activation_count))
        order = np.lexsort((token, -mass, feature))
        order = order[_rank_in_group(feature[order]) < count]
        found: dict[int, list[tuple[int, float]]] = {}
        for f, t, m in zip(feature[order], token[order], mass[order], strict=True):
            found.setdefault(int(f), []).append((int(t), float(m / whole[f])))
        return found


def watch(
    model: LanguageModel,
    documents: Documents,
    saes: Mapping[str, SAE],
    count: int = 5,
    batch_tokens: int = 2048,
    layers: Collection[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, tuple[Examples, ActivationStatistics]]:
    """Examples and statistics of every SAE's features, by key.

    `saes`: on the model's device; `layers`: others whose massive-activation tokens are left out too;
    `progress` is told how many documents are done.
    """
    half_of = np.unique(documents.text_of, return_inverse=True)[1] % HALVES
    watched = {
        key: (Examples(sae.d_sae, count), ActivationStatistics(sae.d_sae))
        for key, sae in saes.items()
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
                found = encode_sparse(sae, rows[sae.layer]).of_tokens(typical)
                token, feature = found.token.cpu().numpy(), found.feature.cpu().numpy()
                value = found.value.cpu().numpy()
                examples, statistics = watched[key]
                examples.add((token, feature, value), half_of, document, place)
                statistics.add(feature, half_of[document[token]], ids[token], value)
                statistics.tokens += int(typical.sum())
                statistics.massive_tokens += int((~typical).sum())
        done += len(batch.documents)
        progress(done)
    for _, statistics in watched.values():
        statistics.sum_up()
    return watched


def _summed(key: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every key once, ascending, with the sum of what stands at it."""
    if not len(key):
        return key, mass
    ordered, order = torch.sort(torch.from_numpy(key), stable=True)  # several times NumPy's speed
    key = ordered.numpy()
    starts = _starts(key)
    return key[starts], np.add.reduceat(mass[order.numpy()].astype(np.float64), starts)


def _rank_in_group(group: np.ndarray) -> np.ndarray:
    """Place of each entry within its run of equal values."""
    starts = _starts(group)
    return np.arange(len(group)) - np.repeat(starts, np.diff(starts, append=len(group)))


def _starts(group: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.diff(group, prepend=NONE))


@dataclass(frozen=True)
class TypicalTokens:
    """Token ids that tell what a feature is about."""

    activates_on: tuple[tuple[int, float], ...] = ()
    """Ids and their shares of its activation."""
    amid: tuple[int, ...] = ()


def typical_tokens(
    examples: Examples,
    statistics: ActivationStatistics,
    documents: Documents,
    half: int | None = None,
) -> dict[int, TypicalTokens]:
    """By active feature; `half`: from these documents alone."""
    frequency = Counter(token for ids in documents.token_ids for token in set(ids))
    halves = range(HALVES) if half is None else (half,)
    found = {}
    for feature, top in statistics.top_tokens(ACTIVATES_ON, half).items():
        own = {token for token, _ in top}
        seen: Counter[int] = Counter()
        for part in halves:
            places = examples.document[part, feature], examples.position[part, feature]
            for number, position in zip(*(one.tolist() for one in places), strict=True):
                if number != NONE:
                    seen.update(set(examples.shown(documents, number, position)[1]) - own)
        scored = sorted(
            (-times * log(len(documents) / frequency[token]), token)
            for token, times in seen.items()
            if times >= LEAST_EXAMPLES
        )
        amid = tuple(token for score, token in scored[:AMID] if score < 0)
        found[feature] = TypicalTokens(tuple(top), amid)
    return found


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Documents of several corpora as one, and which is which."""

    documents: Documents
    corpus_of: tuple[str, ...]
    """Corpus of each document."""
    number_of: tuple[int, ...]
    """Number of each document in its corpus."""

    @classmethod
    def of(cls, corpora: Sequence[Documents]) -> "ReadTexts":
        texts: dict[tuple[int, int], int] = {}  # numbered through all corpora, without gaps
        for corpus, one in enumerate(corpora):
            for text in one.text_of:
                texts.setdefault((corpus, text), len(texts))
        joined = Documents(
            "+".join(one.corpus for one in corpora),
            "; ".join(dict.fromkeys(one.origin for one in corpora)),
            tuple(ids for one in corpora for ids in one.token_ids),
            sum(one.too_short for one in corpora),
            corpora[0].has_bos,
            tuple(
                texts[corpus, text] for corpus, one in enumerate(corpora) for text in one.text_of
            ),
        )
        names = tuple(one.corpus for one in corpora for _ in range(len(one)))
        numbers = tuple(number for one in corpora for number in range(len(one)))
        return cls(joined, names, numbers)


@dataclass(frozen=True, eq=False)
class DescribedFeatures:
    """The features of one SAE."""

    examples: Examples
    statistics: ActivationStatistics
    typical: Mapping[int, TypicalTokens]
    """From all documents."""
    top_logits: Int64[np.ndarray, "d_sae count"]
    descriptions: Mapping[str, Sequence[Description]]
    """By source."""


def half_source(source: str, half: int | None) -> str:
    """The name of descriptions made of one half of the documents; None: of all."""
    return source if half is None else f"{source}-{half}"


def describe_features(
    model: LanguageModel,
    texts: ReadTexts,
    saes: Mapping[str, SAE],
    examples: int = 5,
    batch_tokens: int = 2048,
    layers: Collection[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, DescribedFeatures]:
    """By key; `examples` is their number per feature and half, the others are as `watch` takes them."""
    # First: a model whose unembedding cannot be read should say so before the long pass.
    top_logits = {
        key: model.top_logit_tokens(sae.W_dec, TOP_LOGITS).numpy() for key, sae in saes.items()
    }
    watched = watch(model, texts.documents, saes, examples, batch_tokens, layers, progress)
    found = {}
    for key, (kept, statistics) in watched.items():
        typical = {
            half: typical_tokens(kept, statistics, texts.documents, half)
            for half in (None, *range(HALVES))
        }
        descriptions = {
            (source := half_source(ACTIVATIONS, half)): _in_words(
                model, tokens, source, top_logits[key] if half is None else None
            )
            for half, tokens in typical.items()
        }
        found[key] = DescribedFeatures(
            kept, statistics, typical[None], top_logits[key], descriptions
        )
    return found


def _in_words(
    model: LanguageModel,
    typical: Mapping[int, TypicalTokens],
    source: str,
    top_logits: np.ndarray | None = None,
) -> list[Description]:
    words = model.token_text
    found = []
    for feature, tokens in sorted(typical.items()):
        raised = [] if top_logits is None else [words(int(t)) for t in top_logits[feature]]
        activates_on = [words(token) for token, _ in tokens.activates_on]
        text = describe_tokens(activates_on, [words(token) for token in tokens.amid], raised)
        found.append(Description(feature, text, source, EXPLAINER, LICENCE))
    return found


def feature_rows(model: LanguageModel, described: DescribedFeatures) -> dict[str, Any]:
    """Columns of `features/{key}.parquet`."""
    statistics, words = described.statistics, model.token_text
    activation_count = statistics.activation_count
    active = activation_count > 0
    typical = [described.typical.get(f, TypicalTokens()) for f in range(len(activation_count))]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(active, statistics.total / activation_count, np.nan)
    return {
        "feature": np.arange(len(activation_count)),
        "activation_count": activation_count,
        "activation_frequency": activation_count / max(1, statistics.tokens),
        "mean_activation": mean,
        "greatest_activation": np.where(active, statistics.greatest, np.nan),
        "activates_on": [[words(token) for token, _ in one.activates_on] for one in typical],
        "activates_on_share": [[share for _, share in one.activates_on] for one in typical],
        "amid": [[words(token) for token in one.amid] for one in typical],
        "top_logits": [[words(int(token)) for token in row] for row in described.top_logits],
    }


def example_rows(
    model: LanguageModel, texts: ReadTexts, described: DescribedFeatures
) -> dict[str, Any]:
    """Columns of `examples/{key}.parquet`, by feature, half and rank."""
    examples = described.examples
    names = (
        "feature", "half", "rank", "corpus", "document", "position", "activation", "place",
        "tokens", "activations",
    )  # fmt: skip
    rows = []
    known = np.argwhere(np.moveaxis(examples.document, 1, 0) != NONE)
    for feature, half, rank in known.tolist():
        number = int(examples.document[half, feature, rank])
        position = int(examples.position[half, feature, rank])
        first, ids = examples.shown(texts.documents, number, position)
        around = examples.activations[half, feature, rank].astype(float).tolist()
        start = first - position + BEFORE
        rows.append((
            feature, half, rank + 1, texts.corpus_of[number], texts.number_of[number], position,
            around[BEFORE], position - first, [model.token_text(token) for token in ids],
            around[start : start + len(ids)],
        ))  # fmt: skip
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}
