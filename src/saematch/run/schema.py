"""The tables of a run directory: columns, types, units and meaning, as data.

docs/run-directory.md says the same in words; a test holds the two together.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2
"""Raised by one whenever a column, its type, its unit or its meaning changes."""

DETAILS_KEY = b"saematch"
"""Key of the Parquet file metadata under which a table keeps what is not per row, as JSON."""

INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type: pa.DataType
    unit: str
    """What a value is counted in; '' for names and numbers of features."""
    meaning: str
    nullable: bool = False

    @property
    def field(self) -> pa.Field:
        return pa.field(self.name, self.type, nullable=self.nullable)


@dataclass(frozen=True)
class Table:
    """One kind of table, at a path in the run directory."""

    path: str
    row: str
    """What one row is."""
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([column.field for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def encode(
        self, columns: Mapping[str, Sequence[Any] | np.ndarray], details: Mapping[str, Any] = {}
    ) -> bytes:
        """The table as the bytes of a Parquet file: the same values give the same bytes."""
        assert set(columns) == set(self.names), set(columns) ^ set(self.names)
        arrays = []
        for column in self.columns:
            values = columns[column.name]
            if isinstance(values, np.ndarray) and values.dtype == object:
                # pandas may have turned None into NaN, which is no text.
                values = [None if value != value else value for value in values.tolist()]
            array = pa.array(values, type=column.type)
            if column.nullable and column.type == FLOAT:
                # NaN and null would be two ways to say that there is no value; we use null.
                known = np.isfinite(array.to_numpy(zero_copy_only=False))
                array = pa.array(array.to_numpy(zero_copy_only=False), type=FLOAT, mask=~known)
            arrays.append(array)
        schema = self.schema.with_metadata({DETAILS_KEY: canonical_json(details).encode()})
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
        return sink.getvalue()


def decode(data: bytes) -> tuple[pa.Table, dict[str, Any]]:
    """A table and its details from the bytes of a Parquet file."""
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    details = json.loads((table.schema.metadata or {}).get(DETAILS_KEY, b"{}"))
    return table.replace_schema_metadata(None), details


def canonical_json(value: Any) -> str:
    """JSON in one spelling: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


_STATUS = "live, dead (never fired on the named corpus) or degenerate"

MATCHINGS = Table(
    "matchings/{strategy}/{parts}/{a}--{b}.parquet",
    "a feature of a",
    (
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b it is matched to; -1: unmatched"),
        Column("status", TEXT, "", f"of the feature: {_STATUS}"),
        Column("partner_status", TEXT, "", "the same of the partner; null: unmatched", True),
        Column(
            "cost",
            FLOAT,
            "folded weight, squared, summed",
            "sum over parts of weight times squared distance; null: unmatched",
            True,
        ),
        Column(
            "mse_decoder",
            FLOAT,
            "folded weight, squared, mean over d_model",
            "mean squared difference of folded decoder rows; null: unmatched",
            True,
        ),
        Column(
            "mse_encoder",
            FLOAT,
            "folded weight, squared, mean over d_model",
            "mean squared difference of folded encoder columns; null: unmatched",
            True,
        ),
        Column("cosine", FLOAT, "-1 to 1", "cosine of decoder rows; null: unmatched", True),
        Column(
            "margin",
            FLOAT,
            "as cost, of the problem that was solved",
            "proven lower bound on the rise of the total if the pair were forbidden, or, unmatched at "
            "a price, if the feature had to be matched; null: nothing was solved, or no bound is finite",
            True,
        ),
        Column("certain", BOOL, "", "margin above the slack: in every optimal matching it is so"),
    ),
)

CANDIDATES = Table(
    "candidates/{a}--{b}.parquet",
    "a feature of a and one of the features of b nearest to it",
    (
        Column("feature", INT, "", "feature of a"),
        Column("rank", INT, "", "1 is nearest; equal costs go by the lower candidate"),
        Column("candidate", INT, "", "feature of b"),
        Column(
            "cost",
            FLOAT,
            "folded weight, squared, summed",
            "cost of the pair on folded weights, by the run's parts",
        ),
        Column("cosine", FLOAT, "-1 to 1", "cosine of decoder rows"),
    ),
)

PATHS = Table(
    "paths.parquet",
    "a path at a layer that it passes",
    (
        Column("path", INT, "", "number of the path"),
        Column("layer", INT, "", "layer; -1: the embedding"),
        Column("key", TEXT, "", "the SAE: layer, or layer.name"),
        Column("feature", INT, "", "feature the path passes there"),
        Column("status", TEXT, "", f"of the feature: {_STATUS}"),
        Column(
            "cost",
            FLOAT,
            "folded weight, squared, summed",
            "cost of the step into this layer; null: the path starts here",
            True,
        ),
        Column("cosine", FLOAT, "-1 to 1", "decoder cosine of that step; null as cost", True),
        Column("margin", FLOAT, "as cost", "margin of that step; null as cost, or infinite", True),
        Column("certain", BOOL, "", "whether every optimal matching takes that step"),
        Column("born", BOOL, "", "the path starts here, and not at the first layer of its chain"),
        Column("dies", BOOL, "", "the path ends here, and not at the last layer of its chain"),
    ),
)

MEASURES = Table(
    "evaluation/measures.parquet",
    "a measure of a pair of SAEs under a strategy",
    (
        Column("a", TEXT, "", "the earlier SAE's key"),
        Column("b", TEXT, "", "the later SAE's key"),
        Column("corpus", TEXT, "", "corpus it was measured on; '': from the weights alone"),
        Column("strategy", TEXT, "", "how the pair was matched; '': of the pair itself"),
        Column("parts", TEXT, "", "parts and weights of the cost, as in the path; '': none"),
        Column("measure", TEXT, "", "what was measured (the measures are listed below)"),
        Column("value", FLOAT, "the measure's", "the value; null: not defined", True),
        Column("low", FLOAT, "the measure's", "lower end of its range; null: it has none", True),
        Column("high", FLOAT, "the measure's", "upper end of its range; null: it has none", True),
        Column("documents", INT, "documents", "documents measured on; 0: none"),
        Column("tokens", INT, "tokens", "tokens measured on, BOS left out; 0: none"),
    ),
)

MEASURE_SOURCE = Table("evaluation/measures/{source}.parquet", MEASURES.row, MEASURES.columns)
"""`measures.parquet` is every source's table in one, in the order of their names."""

TABLES = (MATCHINGS, CANDIDATES, PATHS, MEASURES, MEASURE_SOURCE)

WEIGHT_MEASURES: Mapping[str, tuple[str, str]] = {
    "total_cost": ("folded weight, squared, summed", "total cost of all matched pairs"),
    "mse_decoder": ("folded weight, squared", "mean of mse_decoder over live-live pairs"),
    "mse_encoder": ("folded weight, squared", "mean of mse_encoder over live-live pairs"),
    "mse_bias": (
        "folded bias, squared",
        "mean squared difference of folded encoder biases over live-live pairs",
    ),
    "mse_decoder_raw": (
        "raw weight, squared",
        "mse_decoder of the same pairs on the weights as shipped; folded and unfolded only",
    ),
    "cosine": ("-1 to 1", "mean decoder cosine over live-live pairs"),
    "share_decoder": ("0 to 1", "the decoder's share of the total cost"),
    "share_encoder": ("0 to 1", "the encoder's share of the total cost"),
    "share_bias": ("0 to 1", "the bias's share of the total cost"),
    "pairs": ("pairs", "matched pairs"),
    "live_pairs": ("pairs", "matched pairs both of whose features are live"),
    "left_out": ("pairs", "matched pairs that means and quantiles leave out"),
    "unmatched_a": ("features", "features of a without a partner: they die at a"),
    "unmatched_b": ("features", "features of b that nothing is matched to: they are born at b"),
    "gap": ("relative", "distance from the proven lower bound on the total; at most 1e-6: optimal"),
    "slack": ("as total_cost, of the problem that was solved", "the same distance, absolute"),
    "certain_share": ("0 to 1", "share of live-live pairs that every optimal matching has"),
    "pw_mcc": (
        "0 to 1",
        "mean absolute decoder cosine under the one-to-one matching that makes it greatest",
    ),
    "pw_mcc_random": (
        "0 to 1",
        "the same of a and a random dictionary with b's mean and covariance",
    ),
}
"""Unit and meaning of every measure that needs no data."""
