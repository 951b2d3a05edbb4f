"""One pass of a language model over a corpus, and what is kept of it for every document.

1. Run the model once over a batch of documents: the residual streams after all layers that any pair
   needs, and the loss.
2. Encode each stream with its SAE, as the few active features.
3. For every pair and condition: the rows that the intervention puts in place of the stream, how far they
   are off, and, where asked, the loss when only the blocks after it run again.
4. Keep sums for every document, from which all measures and their intervals follow (measuring.py).

Nothing grows with the number of tokens but these sums, one set a document.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from saematch.errors import InputError
from saematch.evaluation.activations import SparseActivations, encode_sparse, typical_rows
from saematch.evaluation.interventions import Intervention, PairRows
from saematch.matching.permutation import Permutation
from saematch.models import Batch, Documents, LanguageModel, batches
from saematch.sae import SAE

Pair = tuple[str, str]
Row = dict[str, Any]
"""One document's sums, by column."""


@dataclass(frozen=True, eq=False)
class Condition:
    """One thing that is measured of a pair: an intervention, a map of features, or both."""

    strategy: str
    parts: str = ""
    """Slug of the parts that the map was found with; '' if there are none."""
    draw: int = 0
    intervene: Intervention | None = None
    permutation: Permutation | None = None
    """Joint activations are counted if there is one."""
    loss: bool = False
    """Whether the blocks after the intervention run, for its loss."""


@dataclass(frozen=True, eq=False)
class Collected:
    """Sums of some documents."""

    documents: list[Row]
    """Tokens, predictions and loss of the unmodified model."""
    layers: dict[str, list[Row]]
    """By SAE: moments of its stream, activations."""
    conditions: dict[Pair, list[tuple[Condition, list[Row]]]]

    @classmethod
    def joined(cls, parts: "Sequence[Collected]") -> "Collected":
        """All in one, in the order of the documents' numbers."""
        first = parts[0]

        def rows(of: Callable[[Collected], list[Row]]) -> list[Row]:
            return sorted((row for part in parts for row in of(part)), key=lambda r: r["document"])

        return cls(
            rows(lambda part: part.documents),
            {key: rows(lambda part, key=key: part.layers[key]) for key in first.layers},
            {
                pair: [
                    (condition, rows(lambda part, pair=pair, n=n: part.conditions[pair][n][1]))
                    for n, (condition, _) in enumerate(conditions)
                ]
                for pair, conditions in first.conditions.items()
            },
        )


def collect(
    model: LanguageModel,
    documents: Documents,
    saes: Mapping[str, SAE],
    conditions: Mapping[Pair, Sequence[Condition]],
    batch_tokens: int,
    chosen: Sequence[int] | None = None,
    note: Callable[[str], None] = lambda _: None,
    tell: Callable[[int], None] = lambda _: None,
    base_loss: bool = False,
) -> Iterator[Collected]:
    """The sums of the chosen documents (all), batch by batch.

    `saes`: by key, on the model's device.  A batch that is too large for the memory is halved, and
    `note` is told; `tell` is told how many losses of a batch are taken.  `base_loss`: take the
    unmodified model's loss even where no condition asks for one.  Raises InputError for logits
    that are not finite.
    """
    waiting = list(range(len(documents)) if chosen is None else chosen)
    while waiting:
        batch = next(batches(documents, batch_tokens, waiting))
        try:
            found = _one_batch(model, documents, batch, saes, conditions, tell, base_loss)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or len(batch.documents) == 1:
                raise
            batch_tokens = max(1, batch_tokens // 2)
            note(f"out of memory: went on with batches of {batch_tokens} tokens")
            continue
        yield found
        waiting = [number for number in waiting if number not in batch.documents]


def _out_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "memory" in said


@torch.no_grad()
def _one_batch(
    model: LanguageModel,
    documents: Documents,
    batch: Batch,
    saes: Mapping[str, SAE],
    conditions: Mapping[Pair, Sequence[Condition]],
    tell: Callable[[int], None],
    base_loss: bool,
) -> Collected:
    taken = 0
    blocks = sorted({sae.layer for sae in saes.values()})
    if base_loss or any(condition.loss for some in conditions.values() for condition in some):
        streams, logits = model.capture_and_predict(batch.token_ids, blocks)
        losses = loss_by_document(logits, batch)
        _check_finite(losses, documents, batch, model)
        del logits
    else:
        streams, losses = model.capture(batch.token_ids, blocks), None
    device = next(iter(streams.values())).device
    counted, document = batch.counted.to(device), batch.document_of_row.to(device)
    rows = {block: stream[counted].float() for block, stream in streams.items()}
    typical = {block: typical_rows(x, document) for block, x in rows.items()}
    active = {key: encode_sparse(sae, rows[sae.layer]) for key, sae in saes.items()}
    sums = _Sums(batch, document)
    found: dict[Pair, list[tuple[Condition, list[Row]]]] = {}
    for (a, b), some in conditions.items():
        block = saes[b].layer
        pair_rows = PairRows(rows[saes[a].layer], rows[block], active[a], active[b])
        found[a, b] = []
        for condition in some:
            row = sums.empty()
            if condition.intervene is not None:
                replaced = condition.intervene(pair_rows)
                row |= sums.moments(replaced - rows[block], typical[block], "error")
                row |= {"loss": np.full(len(batch.documents), np.nan)}
                if condition.loss:
                    tell(taken)
                    taken += 1
                    stream = streams[block].clone()
                    stream[counted] = replaced.to(stream.dtype)
                    row["loss"] = loss_by_document(
                        model.predict_from(batch.token_ids, block, stream), batch
                    )
            if condition.permutation is not None:
                row |= sums.counts(*joint(active[a], active[b], condition.permutation))
            found[a, b].append((condition, sums.by_document(row)))
    layers = {}
    for key, sae in saes.items():
        row = sums.empty() | sums.moments(rows[sae.layer], typical[sae.layer], "stream")
        row |= sums.counts(active[key].token, active[key].feature)
        layers[key] = sums.by_document(row)
    lengths = np.array(batch.lengths)
    base = sums.empty() | {"tokens": lengths - 1, "predicted": lengths - 2}
    base |= {"text": np.array([documents.text_of[number] for number in batch.documents])}
    base |= {"loss": np.full(len(lengths), np.nan) if losses is None else losses}
    return Collected(sums.by_document(base), layers, found)


class _Sums:
    """Sums over the counted tokens of each document of a batch."""

    def __init__(self, batch: Batch, document: Int64[Tensor, " n"]) -> None:
        self.batch, self.document = batch, document
        self.count = len(batch.documents)

    def empty(self) -> dict[str, Any]:
        return {"document": np.array(self.batch.documents)}

    def moments(
        self, values: Float[Tensor, "n d"], typical: Tensor, name: str
    ) -> dict[str, np.ndarray]:
        """Sum and squared norm of the rows of each document: of all, and of those that are typical."""
        found: dict[str, np.ndarray] = {}
        for prefix, chosen in (("", None), ("typical_", typical)):
            some = values if chosen is None else values[chosen]
            document = self.document if chosen is None else self.document[chosen]
            double = some.double()
            total = torch.zeros(
                self.count, values.shape[1], dtype=torch.float64, device=some.device
            )
            total.index_add_(0, document, double)
            square = torch.zeros(self.count, dtype=torch.float64, device=some.device)
            square.index_add_(0, document, double.square_().sum(dim=1))
            tokens = torch.bincount(document, minlength=self.count)
            found[f"{prefix}tokens"] = tokens.cpu().numpy()
            found[f"{prefix}{name}_sum"] = total.cpu().numpy()
            found[f"{prefix}{name}_square"] = square.cpu().numpy()
        return found

    def counts(
        self, token: Int64[Tensor, " k"], feature: Int64[Tensor, " k"]
    ) -> dict[str, list[np.ndarray]]:
        """How often each feature occurs in each document."""
        document = self.document[token]
        width = int(feature.max()) + 1 if len(feature) else 1
        keys, counts = torch.unique(document * width + feature, return_counts=True)
        of, fired = (keys // width).cpu().numpy(), (keys % width).cpu().numpy()
        ends = np.searchsorted(of, np.arange(1, self.count))
        return {
            "features": np.split(fired.astype(np.int32), ends),
            "counts": np.split(counts.cpu().numpy().astype(np.int32), ends),
        }

    def by_document(self, columns: Mapping[str, Any]) -> list[Row]:
        return [{name: values[n] for name, values in columns.items()} for n in range(self.count)]


def loss_by_document(logits: Float[Tensor, "batch s v"], batch: Batch) -> Float[np.ndarray, " b"]:
    """Sum of the cross-entropies, in nats, of all predictions but those made from BOS."""
    losses = []
    for row, length in enumerate(batch.lengths):
        target = batch.token_ids[row, 2:length].to(logits.device)
        predicted = logits[row, 1 : length - 1].float()
        losses.append(torch.nn.functional.cross_entropy(predicted, target, reduction="none"))
    return np.array([float(loss.double().sum()) for loss in losses])


def joint(
    f_a: SparseActivations, f_b: SparseActivations, permutation: Permutation
) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"]]:
    """Tokens and features of A that are active together with their partner."""
    partner = torch.tensor(permutation, device=f_a.feature.device)[f_a.feature]
    fired = f_b.token * f_b.d_sae + f_b.feature
    wanted = f_a.token * f_b.d_sae + partner
    place = torch.searchsorted(fired, wanted).clamp(max=max(0, len(fired) - 1))
    if not len(fired):
        together = torch.zeros_like(partner, dtype=torch.bool)
    else:
        together = (fired[place] == wanted) & (partner >= 0)
    return f_a.token[together], f_a.feature[together]


def _check_finite(
    losses: np.ndarray, documents: Documents, batch: Batch, model: LanguageModel
) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        number = batch.documents[bad[0]]
        raise InputError(
            f"expected finite logits, got NaN or infinity from {model.name} in {model.dtype} on "
            f"document {number} of {documents.corpus}; try the dtype float32"
        )
