"""One pass of a language model over a corpus, and what is kept of it for every document.

1. Run the model once over a batch of documents: the residual streams after all layers that any pair
   needs, and the loss.
2. Encode each stream with its SAE, as the few active features.
3. For every pair and condition (every intervention, every strategy that is measured): the rows that the
   intervention puts in place of the stream, how far they are off, and, where asked, the loss when only
   the blocks after it run again.
4. Keep sums for every document, from which all measures and their intervals follow (measuring.py).

Nothing grows with the number of tokens but these sums, one set a document.  As columns and as bytes they are
kept on disk, so that a pass that was cut off goes on where it was.
"""

import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from saematch.errors import InputError
from saematch.evaluation.interventions import (
    Decoding,
    Intervention,
    LinearMap,
    PairRows,
    SparseActivations,
    encode_permute_decode,
    encode_sparse,
    layer_drop,
    quantile,
    reconstruct_current,
    reconstruct_previous,
    typical_rows,
)
from saematch.matching.correspondence import Permutation
from saematch.matching.matched import Matching
from saematch.matching.matchers import MAIN, matcher
from saematch.models import Batch, Documents, LanguageModel, batches
from saematch.sae import SAE, FoldedSAE
from saematch.types import RIDGE, refolded

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
    """Joint activations, and those that it predicts, are counted if there is one."""
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
        except (MemoryError, RuntimeError) as error:  # of which torch.OutOfMemoryError is one
            said = f"{type(error).__name__}: {error}"
            if "memory" not in said.lower() or len(batch.documents) == 1:
                raise
            batch_tokens = max(1, batch_tokens // 2)
            note(f"out of memory: went on with batches of {batch_tokens} tokens")
            continue
        yield found
        waiting = [number for number in waiting if number not in batch.documents]


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
        del logits
        if not np.isfinite(losses).all():
            number = batch.documents[int(np.isfinite(losses).argmin())]
            raise InputError(
                f"expected finite logits, got NaN or infinity from {model.name} in {model.dtype} on "
                f"document {number} of {documents.corpus}; try the dtype float32"
            )
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
            row: dict[str, Any] = {}
            if condition.intervene is not None:
                replaced = condition.intervene(pair_rows)
                row |= sums.moments(replaced - rows[block], typical[block], "error")
                row["loss"] = np.full(len(batch.documents), np.nan)
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
                if isinstance(condition.intervene, Decoding):
                    token, feature = condition.intervene.active(active[a], saes[b])
                    row |= sums.predicted(token, are_active(active[b], token, feature))
            found[a, b].append((condition, sums.by_document(row)))
    layers = {}
    for key, sae in saes.items():
        row = sums.moments(rows[sae.layer], typical[sae.layer], "stream")
        row |= sums.counts(active[key].token, active[key].feature)
        layers[key] = sums.by_document(row)
    lengths = np.array(batch.lengths)
    base = {
        "tokens": lengths - 1,
        "predicted": lengths - 2,
        "text": [documents.text_of[number] for number in batch.documents],
        "loss": np.full(len(lengths), np.nan) if losses is None else losses,
    }
    return Collected(sums.by_document(base), layers, found)


class _Sums:
    """Sums over the counted tokens of each document of a batch."""

    def __init__(self, batch: Batch, document: Int64[Tensor, " n"]) -> None:
        self.batch, self.document = batch, document
        self.count = len(batch.documents)

    def moments(self, values: Float[Tensor, "n d"], typical: Tensor, name: str) -> dict[str, Any]:
        """Sum and squared norm of the rows of each document: of all, and of those that are typical."""
        found: dict[str, Any] = {}
        for prefix, chosen in (("", slice(None)), ("typical_", typical)):
            double, document = values[chosen].double(), self.document[chosen]
            total = double.new_zeros(self.count, values.shape[1]).index_add_(0, document, double)
            squares = double.square_().sum(dim=1)
            square = double.new_zeros(self.count).index_add_(0, document, squares)
            tokens = torch.bincount(document, minlength=self.count)
            found[f"{prefix}tokens"] = tokens.cpu().numpy()
            found[f"{prefix}{name}_sum"] = total.cpu().numpy()
            found[f"{prefix}{name}_square"] = square.cpu().numpy()
        return found

    def counts(
        self, token: Int64[Tensor, " k"], feature: Int64[Tensor, " k"]
    ) -> dict[str, list[np.ndarray]]:
        """How often each feature occurs in each document."""
        width = int(feature.max()) + 1 if len(feature) else 1
        flat = torch.bincount(self.document[token] * width + feature, minlength=self.count * width)
        table = flat.view(self.count, width).cpu().numpy().astype(np.int32)
        return {
            "features": [np.flatnonzero(row).astype(np.int32) for row in table],
            "counts": [row[row > 0] for row in table],
        }

    def predicted(
        self, token: Int64[Tensor, " k"], right: Bool[Tensor, " k"]
    ) -> dict[str, np.ndarray]:
        """How many activations were predicted in each document, and how many of them there are."""
        found = {"predicted_count": token, "predicted_right": token[right]}
        return {
            name: torch.bincount(self.document[some], minlength=self.count).cpu().numpy()
            for name, some in found.items()
        }

    def by_document(self, columns: Mapping[str, Any]) -> list[Row]:
        return [
            {"document": number, **{name: values[n] for name, values in columns.items()}}
            for n, number in enumerate(self.batch.documents)
        ]


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
    together = are_active(f_b, f_a.token, partner) & (partner >= 0)
    return f_a.token[together], f_a.feature[together]


def are_active(
    f: SparseActivations, token: Int64[Tensor, " k"], feature: Int64[Tensor, " k"]
) -> Bool[Tensor, " k"]:
    """Whether each of these features is active at its token."""
    return torch.isin(token * f.d_sae + feature, f.token * f.d_sae + f.feature)


@dataclass(frozen=True, eq=False)
class PairInputs:
    """What the conditions of a pair are made from; SAEs and maps lie on the model's device."""

    a: FoldedSAE
    b: FoldedSAE
    slug: str
    """Parts and weights that the matchings were found with."""
    matchings: Mapping[str, Matching]
    """By strategy; those that are drawn by a seed are drawn here."""
    other_parts: Mapping[str, Matching] = field(default_factory=dict)
    """The main strategy by slug of other parts; no losses are taken of them."""
    ridge: LinearMap | None = None


def on_device(folded: FoldedSAE, device: torch.device) -> FoldedSAE:
    """The SAE in float32 on a device, its scale with it."""
    sae = folded.sae
    moved = {
        name: getattr(sae, name).float().to(device)
        for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
        if getattr(sae, name) is not None
    }
    on: SAE = dataclasses.replace(sae, **moved)
    return FoldedSAE(on, folded.scale.to(device), folded.scale_kind, folded.uniform)


def conditions_of(
    pair: PairInputs,
    *,
    drawn: Sequence[str] = (),
    draws: int = 1,
    seed: int = 0,
    quantiles: Sequence[float] = (),
) -> list[Condition]:
    """Interventions first, then strategies as `encode_permute_decode`, then what they are compared with.

    `drawn`: the strategies that are drawn by a seed, each `draws` times from `seed` on; losses are taken of
    the first draw alone.
    """
    a, b, slug = pair.a, pair.b, pair.slug
    conditions: list[Condition] = []

    def add(
        strategy: str, parts: str, intervene: Intervention, p: Permutation | None = None,
        draw: int = 0, loss: bool = True,
    ) -> None:  # fmt: skip
        conditions.append(Condition(strategy, parts, draw, intervene, p, loss))

    if a.sae.layer < b.sae.layer:
        add("layer_drop", "", layer_drop)
        add("reconstruct_previous", "", reconstruct_previous(a.sae))
    add("reconstruct_current", "", reconstruct_current(b.sae))
    for strategy, matching in pair.matchings.items():
        found, raw = matching.correspondence, matcher(strategy).raw
        decoding = encode_permute_decode(a, b, found, folded=not raw)
        add(strategy, slug, decoding, found.permutation)
        if raw:
            add(refolded(strategy), slug, encode_permute_decode(a, b, found))
    for strategy in drawn:
        for draw in range(draws):
            found = matcher(strategy).draw(a.d_sae, b.d_sae, seed + draw)
            decoding = encode_permute_decode(a, b, found)
            add(strategy, slug, decoding, found.permutation, draw, loss=draw == 0)
    if pair.ridge is not None:
        add(RIDGE, "", pair.ridge)
    for other, matching in pair.other_parts.items():
        decoding = encode_permute_decode(a, b, matching.correspondence)
        add(MAIN, other, decoding, matching.permutation, loss=False)
    for q in quantiles:
        add(f"quantile({q:g})", slug, quantile(a, b, pair.matchings[MAIN], q))
    return conditions


def sums_to_bytes(found: Collected) -> bytes:
    """A Parquet file: the documents' rows, each layer's by its key, then each condition's in their order."""
    conditions = [rows for some in found.conditions.values() for _, rows in some]
    units = [found.documents, *found.layers.values(), *conditions]
    keys = [None, *found.layers, *[None] * len(conditions)]
    data = io.BytesIO()
    pq.write_table(pa.table({"key": keys, "rows": units}), data, compression="zstd")
    return data.getvalue()


def sums_from_bytes(
    data: bytes, conditions: Mapping[Pair, Sequence[Condition]]
) -> Collected | None:
    """The sums of the same conditions, or None where the bytes are not whole."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (OSError, ValueError):
        return None
    units = [rows_of(rows) for rows in table["rows"].to_pylist()]
    layers = {key: rows for key, rows in zip(table["key"].to_pylist(), units) if key is not None}
    rest = iter(units[1 + len(layers) :])
    taken = {
        pair: [(condition, next(rest)) for condition in some] for pair, some in conditions.items()
    }
    return Collected(units[0], layers, taken)


def rows_of(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Rows as Arrow gives them back, lists as arrays; what a row does not have is left out."""
    return [
        {
            name: np.array(value, dtype=np.int32 if name in ("features", "counts") else float)
            if isinstance(value, list)
            else value
            for name, value in record.items()
            if value is not None
        }
        for record in records
    ]
