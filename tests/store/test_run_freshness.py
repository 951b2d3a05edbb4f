"""What makes an output stale: what it is made from, and no name of a function."""

from typing import Any

import pytest

from saematch.pipelines.evaluation import stages as evaluating
from saematch.pipelines.matching import stages
from saematch.store import build
from saematch.store.build import Step, code_of, hash_of, hash_of_inputs

PINNED = {
    stages: (
        "match_pair", "find_partners", "compose_pair", "compose_partners", "measure_partners",
        "compare_strategies", "find_candidates",
        "measure_consistency", "chain_paths", "collect_measures", "merge_sources", "measure_norms",
        "measure_growth", "tell_fates", "follow_paths",
    ),
    evaluating: ("measure_corpus", "measure_pairs", "merge_pairs"),
}  # fmt: skip
"""Names that are hashed in the run directories there are: they stay, whatever the functions are called."""


TASK = {"seed": "what decides"}


def test_the_hashed_names_of_stages_stay() -> None:
    hashes = {hash_of_inputs(Step("a", of, TASK), []) for of in build._STAGES}
    pinned = [name for names in PINNED.values() for name in names]
    assert hashes == {hash_of(stage=name, task=TASK, reads=[]) for name in pinned}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PINNED.items() for name in names]
)
def test_renaming_a_stage_makes_nothing_stale(
    module: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = next(of for of, pinned in build._STAGES.items() if pinned == name)
    step = Step("a", function, TASK)
    before = hash_of_inputs(step, [])
    monkeypatch.setattr(function, "__name__", "another_name")
    assert hash_of_inputs(step, []) == before


def test_code_that_is_not_there_is_not_left_out_in_silence() -> None:
    assert len(code_of("report/*.py", "store/following.py")) > 2
    with pytest.raises(AssertionError, match="moved"):
        code_of("report/moved/*.py")
