"""Numbers that README and docs state are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from saematch import sae, stats
from saematch.assignment import certified
from saematch.configs import DescribeConfig, EvaluationConfig, JudgeConfig
from saematch.evaluation import fitting, interventions
from saematch.explorer import catalogue, catalogue_query, database, server
from saematch.figures import evaluated, style
from saematch.loading import hub, suite, tensors
from saematch.matching import activity, matchers
from saematch.pipelines import RunConfig, sampling
from saematch.semantics.judges import experiments as verdicts
from saematch.store import following, schema

ROOT = Path(__file__).parents[1]
MEBIBYTE = 1 << 20


def text_of(page: str) -> str:
    """A page with its line breaks undone."""
    folder = ROOT if page == "README.md" else ROOT / "docs"
    return re.sub(r"\s+", " ", (folder / page).read_text(encoding="utf-8"))


def stated() -> Iterator[tuple[str, str]]:
    """(page, what it says), made from the code's own numbers."""
    evaluation, describing, judging = EvaluationConfig(), DescribeConfig(), JudgeConfig()
    run = RunConfig("suite")
    words = {
        4: "four",
        5: "five",
        8: "eight",
        10: "ten",
        3.0: "three",
        0.2: "a fifth",
        30: "a month",
    }
    yield "formats.md", f"A config may be {tensors.MAX_JSON_BYTES // MEBIBYTE} MB"
    yield (
        "formats.md",
        f"expand to more than {tensors.MAX_EXPANSION} times the file "
        f"(and {tensors.SMALL_BYTES // MEBIBYTE} MB)",
    )
    for layer in suite.table1_departures():
        paper, canonical = suite.TABLE_1_L0[layer], suite.CANONICAL_L0[layer]
        yield "formats.md", f"| {layer} | {paper} | {canonical} |"
    yield "definitions.md", f"θ ≤ {sae.DEGENERATE_SHARE_OF_MEDIAN} × the SAE's median θ"
    yield "definitions.md", f"mean, least and greatest of {run.random_draws} |"
    yield "definitions.md", f"the {words[run.candidates]} *live* features of B of least cost"
    yield "definitions.md", f"{run.candidates} by default"
    yield "definitions.md", f"uniform marginals, ε = {matchers.Sinkhorn.epsilon:g}"
    yield "definitions.md", f"adds {activity.SHRINKAGE:g} of the mean variance to each"
    yield "definitions.md", f"more than {fitting.SUMS_BYTES >> 30} GiB is left out"
    for one in matchers.BUILT_IN:
        yield "definitions.md", f"| `{one.name}` |"
    yield "definitions.md", f"its cosine greater by more than {following.BY_DIRECTION}"
    yield "definitions.md", f"its margin is below 1/{1 / following.NEAR_TIE:.0f} of its cost"
    yield "definitions.md", f"both features activate at least {words[following.APART]} times"
    yield "definitions.md", f"norm exceeds {interventions.MASSIVE:.0f} times the median"
    yield "definitions.md", f"from {stats.DRAWS:,} seeded bootstrap draws of texts"
    yield (
        "definitions.md",
        f"at least {fitting.TOKENS_PER_DIMENSION} · d_model tokens; penalty {fitting.RIDGE} of",
    )
    yield "definitions.md", f"least and greatest of {evaluation.random_draws} draws"
    yield "evaluation.md", f"{evaluation.documents} documents × {evaluation.tokens} tokens each"
    yield "evaluation.md", f"out of reach for {words[hub.REACH_SECONDS]} seconds"
    yield (
        "semantics.md",
        f"{len(describing.corpora)} × {describing.documents} documents × {describing.tokens} tokens",
    )
    yield "semantics.md", f"{words[judging.swapped]} of the main strategy's pairs are asked both"
    yield "semantics.md", f"{words[verdicts.LEAST_CONTROLS].capitalize()} controls of each kind"
    yield "semantics.md", f"over {words[sampling.MSE_STRATA]} strata of decoder MSE"
    yield "semantics.md", f"{words[sampling.EXAMPLES]} pairs of one layer pair"
    yield "semantics.md", f"Intervals: {stats.DRAWS:,} bootstrap draws"
    yield "explorer.md", f"in at most {database.MEMORY.removesuffix('MB')} MB of its own"
    yield "explorer.md", f"the first {catalogue_query.MOST_TEXT:,} characters of a description"
    yield "explorer.md", f"{words[database.AT_ONCE]} are answered at the same time"
    yield "explorer.md", f"closed, one that was answered after {server.IDLE_SECONDS} s of silence"
    yield "explorer.md", f"asked nothing whole after {server.REQUEST_SECONDS:.0f} s"
    yield "explorer.md", f"of more than {server.MOST_CONNECTIONS} that which"
    yield "explorer.md", f"http://{server.ADDRESS}:"
    yield "explorer.md", f"nobody used for {words[catalogue.KEPT_SECONDS // 86400]}"
    yield "figures.md", f"{style.PAGE:.0f} inches wide"
    yield "figures.md", f"no text smaller than {style.SMALLEST:.0f} points"
    yield "figures.md", f"for more than {words[evaluated.MANY]} layer pairs"
    yield "figures.md", f"Explained variance below {evaluated.LOWEST:.0f} is cut off"
    yield "figures.md", f"is between 0 and {evaluated.NEAR_ZERO}"
    yield (
        "assignment.md",
        f"of {certified.SAMPLE} rows, a low order statistic (the {certified.SAMPLE_RANK}th",
    )
    yield "assignment.md", f"every row its {certified.Certified().shortlist} columns of least"
    yield "run-directory.md", f"Schema version: {schema.SCHEMA_VERSION}."


@pytest.mark.parametrize(("page", "words"), stated())
def test_a_number_in_the_documents_is_the_codes(page: str, words: str) -> None:
    assert words in text_of(page)


def test_the_settings_file_of_the_readme_is_one(tmp_path: Path) -> None:
    block = (ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "run.toml").write_text(block)
    config = RunConfig.from_toml(tmp_path / "run.toml")
    assert config.suite == "bundled:smollm2-135m"
    assert config.parts == {"decoder": 1.0, "encoder": 0.5}
