"""What becomes of a feature, in parts and in words, from tables whose values are chosen."""

from pathlib import Path

import pytest
from told_runs import tell

from saematch.pipelines import Run, RunConfig, open_run, run
from saematch.store.becoming import Becomings, Member, Other, becomes, fate_shares
from saematch.store.directory import RunDirectory
from saematch.store.names import fates_name


@pytest.fixture(scope="module")
def told(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("told") / "run"
    run(RunConfig(str(suite), strategies=("folded",)), directory)
    tell(directory)
    return open_run(directory)


@pytest.mark.parametrize(
    ("key", "feature", "expected"),
    [
        (
            "3", 1,
            "3/1 splits into 4/7 (probability .80) and 4/9 (.60); followed by its start, it is 5/19 "
            "(.31 the same as 3/1).",
        ),
        (
            "3", 2,
            "3/2 merges with 3/3 into 4/5 (probability .65); followed by its start, it is 5/2.",
        ),
        (
            "3", 3,
            "3/3 merges with 3/2 into 4/5 (probability >.99); followed by its start, it is 5/3 "
            "(.90 the same as 3/3).",
        ),
        ("3", 0, "3/0 is not live, so it is not followed."),
        ("3", 4, "3/4 dies: the probability that any feature of 4 is the same is .20."),
        (
            "3", 5,
            "3/5 persists as 4/3 (probability .31), .53 that any feature of 4 is the same.",
        ),
        (
            "3", 6,
            "3/6 splits into 4/10 (probability .90), 4/11 (.90), 4/12 (.80) and 2 more.",
        ),
        ("3", 7, "3/7 persists as 4/4 (probability .90)."),
        (
            "4", 0,
            "What becomes of 4/0 at 5 is not known (no probabilities: they are unlike others). "
            "It is born at 4: no feature of 3 is the same.",
        ),
        (
            "4", 5,
            "What becomes of 4/5 at 5 is not known (no probabilities: they are unlike others); "
            "the path of 3/3, which passes through it, leads to 5/3 (.90 the same as 3/3). "
            "It comes from 3/3 (>.99) and 3/2 (.65).",
        ),
        (
            "4", 6,
            "What becomes of 4/6 at 5 is not known (no probabilities: they are unlike others). "
            "It is not born at 4, but no feature of 3 counts it as a partner.",
        ),
        ("5", 3, "Nothing is known of 5/3."),
    ],
)  # fmt: skip
def test_sentence(told: Run, key: str, feature: int, expected: str):
    assert becomes(told, key, feature) == expected


def test_parts(told: Run):
    found = Becomings(told).of("3", [1, 2, 4])
    assert [one.feature for one in found[1].partners] == [7, 9]
    assert [one.feature for one in found[1].candidates] == [7, 9, 2]
    assert found[2].merged == (Other("3", 3, 0.999),)
    assert found[4].partners == ()
    assert found[4].path == ()
    assert found[1].path == (
        Member("3", 1, "live", None, None, None),
        Member("4", 7, "live", 0.5, 0.8, 0.8),
        Member("5", 19, "live", 0.5, 0.7, 0.31),
    )


def test_a_path_that_starts_at_the_feature_comes_first(told: Run):
    """4/9 starts one; of the two through 5/3 the start of path 3 is more probably the same."""
    found = Becomings(told)
    assert found.of("4", [9])[9].path[0].name == "4/9"
    assert found.of("5", [3])[3].path[0].name == "4/9"


def test_fates_that_are_not_told_yet(told: Run, suite: Path, tmp_path: Path):
    run(RunConfig(str(suite), strategies=("folded",)), tmp_path / "run")
    name = fates_name("3", "4")
    with RunDirectory(tmp_path / "run").holding() as held:
        outputs = {key: one for key, one in held.manifest["outputs"].items() if key != name}
        held.update(outputs=outputs)
    said = becomes(open_run(tmp_path / "run"), "3", 1)
    assert said.startswith(
        "What becomes of 3/1 at 4 is not known (the run has not told it yet: saematch run goes on)"
    )


def test_shares_are_over_live_features(told: Run):
    known, unknown = fate_shares(told)
    assert (known.a, known.b, known.live, known.live_b) == ("3", "4", 15, 15)
    assert known.counts == {"persists": 10, "splits": 2, "merges": 2, "dies": 1}
    assert known.shares["splits"].value == pytest.approx(2 / 15)
    assert sum(share.value for share in known.shares.values()) == pytest.approx(1)
    assert known.born is not None
    assert known.born.value == pytest.approx(1 / 15)
    assert (unknown.counts, unknown.shares, unknown.born) == ({}, {}, None)
    assert unknown.notes == ("no probabilities: they are unlike others",)
