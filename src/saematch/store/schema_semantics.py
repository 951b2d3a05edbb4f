"""The tables of descriptions and judgements: columns, types, units and meaning, as data."""

import pyarrow as pa

from saematch.store.schema import BOOL, FLOAT, FLOATS, INT, TEXT, Column, Table

TEXTS = pa.list_(pa.string())

FEATURES = Table(
    "features/{key}.parquet",
    "a feature, by its activations on a corpus",
    (
        Column("feature", INT, "", "feature of the SAE"),
        Column("activation_count", INT, "tokens", "on which it is active"),
        Column("activation_frequency", FLOAT, "0 to 1", "share of tokens on which it is active"),
        Column(
            "mean_activation", FLOAT, "activation", "mean where it is active; null: never", True
        ),
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
        Column(
            "kind",
            TEXT,
            "",
            "pair; same: a feature and itself from other examples; different: two drawn at random; "
            "calibration-same, calibration-different: such pairs that thresholds are set on",
        ),
        Column("strategy", TEXT, "", "that pairs the two; '': a control"),
        Column("a", TEXT, "", "key of the first feature's SAE"),
        Column("b", TEXT, "", "key of the second's"),
        Column("feature", INT, "", "feature of a"),
        Column("partner", INT, "", "feature of b"),
        Column(
            "mse_decoder", FLOAT, "folded weight, squared, mean over d_model", "of the two", True
        ),
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
