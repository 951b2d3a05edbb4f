"""What the files of a run directory are called (docs/run-directory.md).

Apart from those who make the files, so that readers need not load what computes.
"""

import re
from collections.abc import Sequence

SAE = "sae:"
"""Before the key of an SAE among what an output was made from."""
PATHS_NAME = "paths.parquet"
FOLLOWED_NAME = "followed.parquet"
CALIBRATION_NAME = "calibration.json"
SOURCES = "evaluation/measures/"
MEASURES_NAME = "evaluation/measures.parquet"
WEIGHTS_NAME = f"{SOURCES}weights.parquet"
COMPARED = "evaluation/compared/"
LEADERBOARD_NAME = "leaderboard.parquet"
PAIRS_NAME = "evaluation/pairs.parquet"
PAIR_SOURCES = "evaluation/pairs/"
DESCRIPTIONS = "descriptions/"
JUDGING = "judging/"
JUDGEMENTS_NAME = "judgements.parquet"
FIGURES = "figures/"
REPORT_NAME = "report.html"
_SAMPLE = "sample.parquet"
FROM_PLAN = (
    "matchings/",
    "correspondences/",
    "candidates/",
    COMPARED,
    PATHS_NAME,
    "fates/",
    FOLLOWED_NAME,
    WEIGHTS_NAME,
    f"{SOURCES}consistency-",
    f"{SOURCES}norms-",
)
"""Outputs that other settings of the run call for others of."""
BY_KEY = ("features/", "examples/", DESCRIPTIONS)
"""Outputs that are of one SAE."""


def key_in(name: str) -> str:
    """The key in the name of an output of one SAE."""
    if name.startswith(DESCRIPTIONS):
        return split_descriptions_name(name)[1]
    return name.split("/", 1)[1].removesuffix(".parquet")


def matching_name(a: str, b: str, strategy: str, slug: str) -> str:
    return f"matchings/{strategy}/{slug}/{a}--{b}.parquet"


def correspondence_name(a: str, b: str, strategy: str, slug: str) -> str:
    """Path of the table of all partners of features, where a matching has several or weighs them."""
    return f"correspondences/{strategy}/{slug}/{a}--{b}.parquet"


def compared_name(a: str, b: str) -> str:
    return f"{COMPARED}{a}--{b}.parquet"


def candidates_name(a: str, b: str) -> str:
    return f"candidates/{a}--{b}.parquet"


def fates_name(a: str, b: str) -> str:
    return f"fates/{a}--{b}.parquet"


def consistency_name(a: str, b: str) -> str:
    return f"{SOURCES}consistency-{a}--{b}.parquet"


def norms_name(*keys: str) -> str:
    """Path of the table with the norms of an SAE, or their growth from one SAE to another."""
    return f"{SOURCES}norms-{'--'.join(keys)}.parquet"


def weight_sources(pairs: Sequence[Sequence[str]]) -> list[str]:
    """Paths of the tables of measures that come from the weights of a run's pairs, in order."""
    keys = dict.fromkeys(key for pair in pairs for key in pair)
    return [
        WEIGHTS_NAME,
        *(consistency_name(a, b) for a, b in pairs),
        *(norms_name(key) for key in keys),
        *(norms_name(a, b) for a, b in pairs),
    ]


def pair_source_name(corpus: str) -> str:
    return f"{PAIR_SOURCES}{corpus}.parquet"


NO_PARTS = "any"
"""Folder of sums that need no parts of a cost."""


def corpus_slug(name: str) -> str:
    """A corpus's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9_+-]", "_", name)


def corpus_measures_name(slug: str) -> str:
    return f"{SOURCES}corpus-{slug}.parquet"


def documents_name(slug: str) -> str:
    return f"evaluation/documents/{slug}/documents.parquet"


def stream_name(slug: str, key: str) -> str:
    return f"evaluation/documents/{slug}/streams/{key}.parquet"


def condition_name(slug: str, strategy: str, parts: str, a: str, b: str) -> str:
    """Path of the table of a corpus's documents under a strategy or intervention."""
    return f"evaluation/documents/{slug}/{strategy}/{parts or NO_PARTS}/{a}--{b}.parquet"


def causal_name(slug: str, a: str, b: str) -> str:
    return f"evaluation/causal/{slug}/{a}--{b}.parquet"


def features_name(key: str) -> str:
    return f"features/{key}.parquet"


def examples_name(key: str) -> str:
    return f"examples/{key}.parquet"


def descriptions_name(source: str, key: str) -> str:
    """Path of the table of what they are said to mean."""
    return f"{DESCRIPTIONS}{source}--{key}.parquet"


def split_descriptions_name(name: str) -> tuple[str, str]:
    """The source and the key in such a path."""
    source, _, key = name.removeprefix(DESCRIPTIONS).removesuffix(".parquet").partition("--")
    return source, key


def sample_name(experiment: str) -> str:
    return f"{JUDGING}{experiment}/{_SAMPLE}"


def results_name(experiment: str, judge: str) -> str:
    """Path of the table of what a judge's labels come to."""
    return f"{JUDGING}{experiment}/{judge}.parquet"


def experiments_of(names: Sequence[str]) -> list[str]:
    """Experiments that have a sample, of the names of a run's outputs."""
    found = (name.removeprefix(JUDGING) for name in names if name.startswith(JUDGING))
    return [one.split("/")[0] for one in found if one.endswith(f"/{_SAMPLE}")]
