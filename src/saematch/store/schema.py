"""The tables of a run directory: columns, types, units and meaning, as data.

docs/reference/tables.md and measures.md are made of them (`saematch.cli.reference`).
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from saematch.text import cleaned, to_json

SCHEMA_VERSION = 3
"""Raised by one whenever a column, its type, its unit or its meaning changes: a test pins its columns."""

DETAILS_KEY = b"saematch"
"""Key of the Parquet file metadata under which a table keeps what is not per row, as JSON."""

INT, FLOAT, TEXT, BOOL = pa.int64(), pa.float64(), pa.string(), pa.bool_()
FLOATS, INTS = pa.list_(pa.float64()), pa.list_(pa.int32())
TEXTS = pa.list_(pa.string())
SUMMED = "folded weight, squared, summed"
MEAN = "folded weight, squared, mean over d_model"


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
            if _holds_text(column.type):
                values = cleaned(list(values))
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

    def encode_rows(self, rows: Iterable[Sequence[Any]], details: Mapping[str, Any] = {}) -> bytes:
        """The same from rows, whose values are in the order of the columns."""
        columns = zip(*rows, strict=True)
        return self.encode({name: next(columns, ()) for name in self.names}, details)

    def encode_records(
        self, rows: Iterable[Mapping[str, Any]], details: Mapping[str, Any] = {}
    ) -> bytes:
        """The same from rows that have at least the columns."""
        return self.encode_rows(([row[name] for name in self.names] for row in rows), details)


def _holds_text(kind: pa.DataType) -> bool:
    return kind == TEXT or (pa.types.is_list(kind) and _holds_text(kind.value_type))


def decode(data: bytes) -> tuple[pa.Table, dict[str, Any]]:
    """A table and its details from the bytes of a Parquet file."""
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    details = json.loads((table.schema.metadata or {}).get(DETAILS_KEY, b"{}"))
    return table.replace_schema_metadata(None), details


def canonical_json(value: Any) -> str:
    """JSON in one spelling: sorted keys, no spaces, null for NaN, texts clean."""
    return to_json(value, sort_keys=True, compact=True)


_STATUS = "live, dead (never active on the named corpus) or degenerate"

# fmt: off
MATCHINGS = Table(
    "matchings/{strategy}/{parts}/{a}--{b}.parquet",
    "a feature of a",
    (
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "",
            "feature of b it is matched to, the strongest of several; -1: unmatched"),
        Column("status", TEXT, "", f"of the feature: {_STATUS}"),
        Column("partner_status", TEXT, "", "the same of the partner; null: unmatched", True),
        Column("cost", FLOAT, SUMMED,
            "sum over parts of weight times squared distance; null: unmatched", True),
        Column("mse_decoder", FLOAT, MEAN,
            "mean squared difference of folded decoder rows; null: unmatched", True),
        Column("mse_encoder", FLOAT, MEAN,
            "mean squared difference of folded encoder columns; null: unmatched", True),
        Column("cosine", FLOAT, "-1 to 1", "cosine of decoder rows; null: unmatched", True),
        Column("unexplained", FLOAT, "0 to 1",
            "share of the decoder row that no multiple of its mix of partners explains"),
        Column("margin", FLOAT, "as cost, of the problem that was solved",
            "proven lower bound on the rise of the total if the pair were forbidden, or, "
            "unmatched at a price, if the feature had to be matched; null: nothing was solved, "
            "the feature is degenerate, or no bound is finite", True),
        Column("certain", BOOL, "", "margin above the slack: in every optimal matching it is so"),
    ),
)

CORRESPONDENCES = Table(
    "correspondences/{strategy}/{parts}/{a}--{b}.parquet",
    "a feature of a and one of its partners",
    (
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b"),
        Column("rank", INT, "", "0 is the partner of greatest weight, by size"),
        Column("weight", FLOAT, "",
            "what an activation of the feature, on folded weights, is multiplied by to be the "
            "partner's"),
        Column("cosine", FLOAT, "-1 to 1", "cosine of decoder rows"),
    ),
)

CANDIDATES = Table(
    "candidates/{a}--{b}.parquet",
    "a feature of a and one of the live features of b nearest to it",
    (
        Column("feature", INT, "", "feature of a"),
        Column("rank", INT, "", "1 is nearest; equal costs go by the lower candidate"),
        Column("candidate", INT, "", "feature of b"),
        Column("cost", FLOAT, SUMMED, "cost of the pair on folded weights, by the run's parts"),
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
        Column("cost", FLOAT, SUMMED,
            "cost of the step into this layer; null: the path starts here", True),
        Column("cosine", FLOAT, "-1 to 1", "decoder cosine of that step; null as cost", True),
        Column("margin", FLOAT, "as cost", "margin of that step; null as cost, or infinite", True),
        Column("certain", BOOL, "", "whether every optimal matching takes that step"),
        Column("born", BOOL, "", "the path starts here, and not at the first layer of its chain"),
        Column("dies", BOOL, "", "the path ends here, and not at the last layer of its chain"),
    ),
)

FATES = Table(
    "fates/{a}--{b}.parquet",
    "a feature of a, and what becomes of it in b",
    (
        Column("feature", INT, "", "feature of a"),
        Column("fate", TEXT, "", "persists, splits, merges, dies, not live or unknown"),
        Column(
            "probability",
            FLOAT,
            "0 to 1",
            "that any feature of b is the same (φ of the two on text at least 0.3); null: not known",
            True,
        ),
        Column(
            "partners",
            INTS,
            "",
            "live features of b that may be the same, the most probable first; empty: not known",
        ),
        Column("probabilities", FLOATS, "0 to 1", "that each of them is the same"),
        Column("partner_count", INT, "features", "how many of them, from the first, count as partners"),
    ),
)

FOLLOWED = Table(
    "followed.parquet",
    "a path that agrees with its start, at a layer that it passes",
    (
        Column("way", TEXT, "", "consensus, or exact: the start alone decides"),
        *PATHS.columns[:5],
        Column("cosine", FLOAT, "-1 to 1", "decoder cosine with the member before; null: the start", True),
        Column(
            "probability",
            FLOAT,
            "0 to 1",
            "that it and the member before are the same; null: the start, or not known",
            True,
        ),
        Column(
            "start_probability",
            FLOAT,
            "0 to 1",
            "that it and the path's start are the same; null: the start, or not known",
            True,
        ),
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
        Column("measure", TEXT, "", "what was measured (measures.md lists them)"),
        Column("value", FLOAT, "the measure's", "the value; null: not defined", True),
        Column("low", FLOAT, "the measure's", "lower end of its range; null: it has none", True),
        Column("high", FLOAT, "the measure's", "upper end of its range; null: it has none", True),
        Column("documents", INT, "documents", "documents measured on; 0: none"),
        Column("tokens", INT, "tokens", "tokens measured on, BOS left out; 0: none"),
    ),
)

MEASURE_SOURCE = Table("evaluation/measures/{source}.parquet", MEASURES.row, MEASURES.columns)
"""`measures.parquet` is every source's table in one, in the order of their names."""

DOCUMENTS = Table(
    "evaluation/documents/{corpus}/documents.parquet",
    "a document as the unmodified model reads it",
    (
        Column("document", INT, "", "number of the document in the corpus's seeded order"),
        Column("text", INT, "", "number of the text that it is, or is a piece of"),
        Column("tokens", INT, "tokens", "tokens, BOS left out"),
        Column("predicted", INT, "tokens", "predictions, those made from BOS left out"),
        Column("loss", FLOAT, "nats, summed", "cross-entropy of those; null: not taken", True),
    ),
)

_FEATURES = (
    Column("features", INTS, "", "features that were active in the document"),
    Column("counts", INTS, "tokens", "on how many tokens each of them was"),
)


def _moments(of: str) -> tuple[Column, ...]:
    return tuple(
        column
        for prefix, which in (("", "tokens but BOS"), ("typical_", "of them, the typical ones"))
        for column in (
            Column(f"{prefix}tokens", INT, "tokens", which),
            Column(f"{prefix}{of}_sum", FLOATS, "residual stream", "sum over them, [d_model]"),
            Column(f"{prefix}{of}_square", FLOAT, "residual stream squared",
                "sum of squared norms"),
        )
    )


STREAMS = Table(
    "evaluation/documents/{corpus}/streams/{key}.parquet",
    "a document at one SAE: sums of the residual stream, and activations",
    (DOCUMENTS.columns[0], *_moments("stream"), *_FEATURES),
)

CONDITIONS = Table(
    "evaluation/documents/{corpus}/{strategy}/{parts}/{a}--{b}.parquet",
    "a document under a strategy or intervention: sums of the error, loss, joint activations",
    (
        Column("draw", INT, "", "draw of `random`; 0 elsewhere"),
        DOCUMENTS.columns[0],
        *_moments("error"),
        Column("loss", FLOAT, "nats, summed", "with the intervention; null: not taken", True),
        Column("features", INTS, "", "features of a that were active together with their partner"),
        _FEATURES[1],
        Column(
            "predicted_count", INT, "activations", "of b that the map predicts; null: no map", True
        ),
        Column("predicted_right", INT, "activations", "of those, how many there are", True),
    ),
)

PAIRS = Table(
    "evaluation/pairs.parquet",
    "a feature of a, matched by a strategy, on a corpus",
    (
        Column("a", TEXT, "", "the earlier SAE's key"),
        Column("b", TEXT, "", "the later SAE's key"),
        Column("corpus", TEXT, "", "corpus it was measured on"),
        Column("strategy", TEXT, "", "whose partner it is"),
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b"),
        Column("activation_count", INT, "tokens", "on which the feature was active"),
        Column("partner_activation_count", INT, "tokens", "on which its partner was active"),
        Column("joint_activation_count", INT, "tokens", "on which both were"),
        Column("phi", FLOAT, "-1 to 1", "φ of the two; null: the feature was never active", True),
        Column("lift", FLOAT, "ratio",
            "joint activations over those by chance; null: one was never active", True),
        Column("causal_agreement", FLOAT, "-1 to 1",
            "cosine of what ablating either does to the logits; null: not measured", True),
    ),
)

PAIR_SOURCE = Table("evaluation/pairs/{corpus}.parquet", PAIRS.row, PAIRS.columns)
"""`pairs.parquet` is every corpus's table in one."""

CAUSAL = Table(
    "evaluation/causal/{corpus}/{a}--{b}.parquet",
    "an ablated feature and the partner that a strategy gives it",
    (
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b; -1: the strategy gives it none"),
        Column("strategy", TEXT, "", "whose partner it is"),
        Column("stratum", INT, "", "of the folded cost of the feature's pair, 0 the cheapest"),
        Column("document", INT, "", "document in which both were ablated"),
        Column("tokens", INT, "tokens", "on which the feature was active there"),
        Column("joint_tokens", INT, "tokens", "of those, on which the partner was active too"),
        Column("partner_tokens", INT, "tokens", "on which the partner was active there"),
        Column("cosine", FLOAT, "-1 to 1", "cosine of decoder rows; null: no partner", True),
        Column("agreement", FLOAT, "-1 to 1", "cosine of the two changes of the logits"),
        Column("deactivation", FLOAT, "at most 1",
            "mean relative drop of the partner's activation where both were active"),
        Column("substitution", FLOAT, "-1 to 1",
            "of the divergence that taking the partner off causes, the share that the feature in "
            "its place undoes"),
    ),
)

LEADERBOARD = Table(
    "leaderboard.parquet",
    "a measure of a matcher, or of what matchers are compared with, mean over pairs and corpora",
    (
        Column("strategy", TEXT, "", "the matcher or intervention"),
        Column("reference", BOOL, "", "whether it is there for comparison, and has no place"),
        Column("data", TEXT, "", "what it was found with: none or text; '': not known"),
        Column("measure", TEXT, "", "what was measured (measures.md lists them); label: a judge's mean"),
        Column("value", FLOAT, "the measure's", "mean; null: not defined", True),
        Column("low", FLOAT, "the measure's", "lower end of its 95% interval; null: none", True),
        Column("high", FLOAT, "the measure's", "upper end; null: none", True),
        Column("value_minus_folded", FLOAT, "the measure's",
            "paired difference from folded; null: it is folded, or one was not measured", True),
        Column("low_minus_folded", FLOAT, "the measure's", "lower end of its 95% interval", True),
        Column("high_minus_folded", FLOAT, "the measure's", "upper end", True),
        Column("place", TEXT, "",
            "best; near: the interval of its paired difference from the best has 0; '': neither"),
    ),
)

COMPARED = Table("evaluation/compared/{a}--{b}.parquet", MEASURES.row, MEASURES.columns)
"""The measures of one pair's matchings; those of all pairs are `evaluation/measures/weights.parquet`."""

TABLES = (
    MATCHINGS, CANDIDATES, PATHS, MEASURES, MEASURE_SOURCE, COMPARED,
    DOCUMENTS, STREAMS, CONDITIONS, CAUSAL, PAIRS, PAIR_SOURCE, CORRESPONDENCES,
    FATES, FOLLOWED, LEADERBOARD,
)

WEIGHT_MEASURES: Mapping[str, tuple[str, str]] = {
    "total_cost": (SUMMED,
        "total cost of this strategy's pairs without a degenerate feature; strategies are "
        "compared by mean_cost"),
    "mean_cost": ("folded weight, squared", "mean cost over the features compared"),
    "mse_decoder": ("folded weight, squared", "mean of mse_decoder over the features compared"),
    "mse_encoder": ("folded weight, squared", "mean of mse_encoder over the features compared"),
    "mse_bias": ("folded bias, squared",
        "mean squared difference of folded encoder biases over the features compared"),
    "mse_decoder_raw": ("raw weight, squared",
        "mse_decoder of the same pairs on the weights as shipped; folded and unfolded only"),
    "cosine": ("-1 to 1", "mean decoder cosine over the features compared"),
    "share_decoder": ("0 to 1", "the decoder's share of the total cost"),
    "share_encoder": ("0 to 1", "the encoder's share of the total cost"),
    "share_bias": ("0 to 1", "the bias's share of the total cost"),
    "pairs": ("pairs", "matched pairs"),
    "compared": ("features",
        "features of a that means are over: live, with a partner under every strategy of the pair"),
    "left_out": ("features", "features of a that means leave out"),
    "unmatched_a": ("features", "features of a without a partner: they die at a"),
    "unmatched_b": ("features", "features of b that nothing is matched to: they are born at b"),
    "gap": ("relative", "distance from the proven lower bound on the total; at most 1e-6: optimal"),
    "slack": ("as total_cost, of the problem that was solved", "the same distance, absolute"),
    "certain_share": ("0 to 1",
        "share of the features compared whose pair every optimal matching has"),
    "threshold": ("activation",
        "mean threshold of live features; null: no thresholds; a and b are one SAE"),
    "decoder_norm": ("folded weight",
        "mean norm of folded decoder rows of live features; a and b are one SAE"),
    "decoder_norm_ratio": ("ratio",
        "norm of the partner's folded decoder row over the feature's, geometric mean over "
        "live-live pairs"),
    "pw_mcc": ("0 to 1",
        "mean absolute decoder cosine under the one-to-one matching that makes it greatest"),
    "pw_mcc_random": ("0 to 1",
        "the same of a and a random dictionary with b's mean and covariance"),
}
"""Unit and meaning of every measure that needs no data."""

DATA_MEASURES: Mapping[str, tuple[str, str]] = {
    "l0": ("features a token",
        "mean number of features that are active on a token; a and b are one SAE"),
    "massive_tokens": ("0 to 1",
        "share of tokens whose residual norm exceeds 10 medians of their document"),
    "explained_variance": ("at most 1", "1 - fvu"),
    "fvu": ("from 0", "variance of the error over variance of the stream, summed over dimensions"),
    "explained_variance_typical": ("at most 1", "the same without massive-activation tokens"),
    "fvu_typical": ("from 0", "the same without massive-activation tokens"),
    "delta_loss": ("nats a token", "mean cross-entropy with the intervention, less that without"),
    "matching_score": ("0 to 1", "joint activations over activations of the features of a"),
    "features_compared": ("features",
        "features of a that scores are over: they were active, and have a partner under every map "
        "of the pair"),
    "matching_score_reverse": ("0 to 1", "joint activations over activations of the partners"),
    "jaccard": ("0 to 1", "joint activations over tokens on which either is active"),
    "matching_score_macro": ("0 to 1", "mean over active features of their own score"),
    "phi": ("-1 to 1",
        "mean over active features of φ with their partner; 0 if that is never active"),
    "f1": ("0 to 1",
        "F1 of the activations of b that the map predicts: decoded at more than b's threshold"),
    "chance": ("0 to 1", "matching_score if partners activated independently at the same rates"),
    "lift": ("ratio", "matching_score over chance"),
    "matching_score_frequency_{group}": ("0 to 1",
        "matching_score of features by the share of tokens they activate on"),
    "chance_frequency_{group}": ("0 to 1", "chance of the same"),
    "causal_agreement": ("-1 to 1",
        "mean over sampled pairs of the cosine of what ablating either does"),
    "deactivation": ("at most 1",
        "mean over the same pairs of the relative drop of the partner's activation when the feature "
        "is ablated"),
    "substitution": ("-1 to 1",
        "mean over the same pairs of how well the feature stands in for its partner: 1 perfectly, 0 "
        "no better than taking the partner off"),
    "ausqc": ("-1 to 1",
        "area under the mean substitution of the pairs of greatest cosine by their share of all"),
    "{measure}_minus_folded": ("the measure's", "paired difference from folded"),
}
"""Unit and meaning of every measure on a corpus; low and high are a 95% interval (of `random`: its
least and greatest draw)."""

FEATURES = Table(
    "features/{key}.parquet",
    "a feature, by its activations on a corpus",
    (
        Column("feature", INT, "", "feature of the SAE"),
        Column("activation_count", INT, "tokens", "on which it is active"),
        Column("activation_frequency", FLOAT, "0 to 1", "share of tokens on which it is active"),
        Column("mean_activation", FLOAT, "activation", "mean where it is active; null: never",
            True),
        Column("greatest_activation", FLOAT, "activation", "greatest; null: never active", True),
        Column("activates_on", TEXTS, "", "tokens with most of its activation"),
        Column("activates_on_share", FLOATS, "0 to 1", "their shares of it"),
        Column("amid", TEXTS, "", "tokens in its examples more often than by chance"),
        Column("top_logits", TEXTS, "", "tokens whose logits its decoder row raises most"),
    ),
)

EXAMPLES = Table(
    "examples/{key}.parquet",
    "a max-activating example of a feature, at most one per document",
    (
        Column("feature", INT, "", "feature of the SAE"),
        Column("half", INT, "", "half of the documents that it is from: 0 or 1"),
        Column("rank", INT, "", "1 is the strongest of that half"),
        Column("corpus", TEXT, "", "corpus it is from"),
        Column("document", INT, "", "number of the document in the corpus's seeded order"),
        Column("position", INT, "tokens", "place of the token in the document, BOS counted"),
        Column("activation", FLOAT, "activation", "on that token, the strongest of the document"),
        Column("place", INT, "tokens", "of that token among the tokens here"),
        Column("tokens", TEXTS, "", "the token and those around it, as text"),
        Column("activations", FLOATS, "activation", "on each of them; 0: not active"),
    ),
)

DESCRIPTIONS = Table(
    "descriptions/{source}--{key}.parquet",
    "a description of a feature; the first of several stands for it",
    (
        Column("feature", INT, "", "feature of the SAE"),
        Column("text", TEXT, "", "what it is said to mean; written by strangers: to be escaped"),
        Column("source", TEXT, "", "activations, model or neuronpedia; -0, -1: from one half"),
        Column("explainer", TEXT, "", "method or model that wrote it; '': not recorded"),
        Column("licence", TEXT, "", "under which it may be passed on; '': not recorded"),
    ),
)

SAMPLE = Table(
    "judging/{experiment}/sample.parquet",
    "a question of an experiment: two features whose descriptions are compared",
    (
        Column("question", INT, "", "its number"),
        Column("kind", TEXT, "",
            "pair; same: a feature and itself from other examples; different: two drawn at "
            "random; calibration-same, calibration-different: such pairs that thresholds are set "
            "on"),
        Column("strategy", TEXT, "", "that pairs the two; '': a control"),
        Column("a", TEXT, "", "key of the first feature's SAE"),
        Column("b", TEXT, "", "key of the second's"),
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b"),
        Column("mse_decoder", FLOAT, MEAN, "of the two", True),
        Column("stratum", INT, "", "of the folded cost of the feature's pair, 0 the cheapest"),
        Column("text_a", TEXT, "", "description of the feature; null: it has none", True),
        Column("text_b", TEXT, "", "description of the partner; null: it has none", True),
        Column("swapped", BOOL, "", "asked the other way round, for the order bias"),
    ),
)

JUDGEMENTS = Table(
    "judgements.parquet",
    "an answer of a judge to a question",
    (
        Column("experiment", TEXT, "", "experiment that asked"),
        SAMPLE.columns[0],
        Column("judge", TEXT, "", "name of the judge"),
        Column("outcome", TEXT, "", "judged, unreadable or failed"),
        Column("label", TEXT, "", "DIFFERENT, MAYBE or SAME; null: not judged", True),
        Column("score", FLOAT, "the judge's", "what lies under the label; null: nothing", True),
        Column("reason", TEXT, "", "what the judge says of it"),
        Column("prompt", TEXT, "", "what was asked, whole"),
        Column("reply", TEXT, "", "the last reply, cut to 20,000 characters"),
        Column("model", TEXT, "", "as the endpoint names it"),
        Column("attempts", INT, "", "replies asked for"),
        Column("seconds", FLOAT, "seconds", "from the first request to the last reply"),
        Column("prompt_tokens", INT, "tokens", "read by the model; null: not said", True),
        Column("completion_tokens", INT, "tokens", "written by it; null: not said", True),
        Column("cost", FLOAT, "as prices", "by the given prices; null: none given", True),
        Column("time", TEXT, "", "UTC, ISO 8601"),
    ),
)

RESULTS = Table(
    "judging/{experiment}/{judge}.parquet",
    "a measure of the labels that a judge gave to the pairs of a strategy",
    (
        Column("strategy", TEXT, "", "that paired them; '': controls"),
        Column("a", TEXT, "", "key of the first SAE; '': all pairs of SAEs"),
        Column("b", TEXT, "", "key of the second"),
        Column("measure", TEXT, "", "what was measured (measures.md lists them)"),
        Column("value", FLOAT, "the measure's", "the value; null: not defined", True),
        Column("low", FLOAT, "the measure's", "lower end of its 95% interval; null: none", True),
        Column("high", FLOAT, "the measure's", "upper end; null: none", True),
        Column("judged", INT, "", "labels that it is made of"),
    ),
)

SEMANTIC_TABLES = (FEATURES, EXAMPLES, DESCRIPTIONS, SAMPLE, JUDGEMENTS, RESULTS)

JUDGED_MEASURES = {
    "mean": ("1 to 3", "mean of the labels: DIFFERENT 1, MAYBE 2, SAME 3"),
    "different": ("0 to 1", "share of DIFFERENT"),
    "maybe": ("0 to 1", "share of MAYBE"),
    "same": ("0 to 1", "share of SAME"),
    "score": ("the judge's", "mean of what lies under the labels, where the judge has it"),
    "{measure}_minus_folded": ("the measure's", "paired difference from folded, same features"),
    "auc": ("0 to 1", "probability that a same control is rated above a different one; ties half"),
    "order_bias": ("-2 to 2", "mean label as asked less that of the same pair the other way round"),
    "order_changed": ("0 to 1", "share of pairs whose label changes with the order"),
    "kappa_{judge}": ("-1 to 1", "Cohen's κ with that judge on the questions both answered"),
    "no_description": ("0 to 1", "share of questions that could not be asked for want of a text"),
    "unreadable": ("0 to 1", "share of questions asked without a label coming back"),
}
"""Unit and meaning of every measure of labels."""
