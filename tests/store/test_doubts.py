"""What speaks against a step, against a straight re-computation from the tables."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saematch.configs import RunConfig
from saematch.pipelines.matching.run import run
from saematch.store.following import (
    BY_DIRECTION,
    COSTLY_QUANTILE,
    NEAR_TIE,
    Other,
    Pair,
    StepWarning,
    followed_steps,
)
from saematch.store.reader import Run

GOOD = Pair(
    names=("3/1", "4/2"),
    statuses=("live", "live"),
    cost=4.0,
    quantile=0.5,
    cosine=0.6,
    margin=1.0,
    certain=True,
)


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = RunConfig(str(suite), strategies=("folded", "cosine"), candidates=6)
    return run(config, tmp_path_factory.mktemp("flagged") / "run")


def with_(**values: object) -> Pair:
    return Pair(**{**vars(GOOD), **values})


def test_nothing_speaks_against_a_good_pair() -> None:
    assert GOOD.warnings == []
    assert with_(margin=None, labels=("MAYBE", "SAME")).warnings == []
    assert with_(activation_counts=(9, 50, 0)).warnings == []  # of so few nothing follows
    assert with_(activation_counts=(900, 50, 1)).warnings == []


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (StepWarning.NOT_LIVE, {"statuses": ("dead", "live")}, "3/1 is dead"),
        (StepWarning.NOT_LIVE, {"statuses": ("live", "degenerate")}, "4/2 is degenerate"),
        (StepWarning.COSTLY, {"quantile": 0.95}, "most costly 10%"),
        (StepWarning.UNCERTAIN, {"certain": False}, "equally good matching"),
        (
            StepWarning.TIE,
            {"margin": 1e-4},
            "a matching without the pair may cost only 0.0001 more",
        ),
        (
            StepWarning.NEVER,
            {"activation_counts": (10, 1200, 0)},
            "are never active together (10 and 1,200 activations)",
        ),
        (StepWarning.DIFFERENT, {"labels": ("DIFFERENT",)}, "judged DIFFERENT"),
        (
            StepWarning.NEARER,
            {"nearer": Other(7, 0.7, 3.0)},
            "4/7 is nearer (cost 3 against 4, cosine 0.700 against 0.600)",
        ),
        (
            StepWarning.DIRECTION,
            {"by_direction": Other(7, 0.75)},
            "4/7 is nearer by direction (cosine 0.75 against 0.60)",
        ),
    ],
)
def test_each_warning_alone(kind: StepWarning, values: dict[str, object], said: str) -> None:
    [(found, words)] = with_(**values).warnings
    assert found == kind
    assert said in words


def test_a_feature_is_named_once() -> None:
    [(kind, words)] = with_(nearer=Other(7, 0.9, 3.0), by_direction=Other(7, 0.9)).warnings
    assert kind == StepWarning.NEARER
    assert "4/7 is nearer (cost" in words


@given(cosine=st.floats(0, 1), other=st.floats(0, 1))
def test_a_little_nearer_by_direction_is_no_warning(cosine: float, other: float) -> None:
    warnings = with_(cosine=cosine, by_direction=Other(7, other)).warnings
    assert bool(warnings) == (other - cosine > BY_DIRECTION)


def test_of_a_pair_that_is_not_live_distance_says_nothing() -> None:
    pair = with_(
        statuses=("live", "dead"), quantile=None, margin=1e-9, nearer=Other(7, 0.7, 3.0),
        by_direction=Other(8, 0.9), activation_counts=(50, 50, 0),
    )  # fmt: skip
    assert pair.warnings == [(StepWarning.NOT_LIVE, "4/2 is dead")]


def test_steps_are_flagged_as_the_tables_say(finished: Run) -> None:
    paths = finished.paths()
    status = {(row.key, row.feature): row.status for row in paths.itertuples()}
    flagged = 0
    for steps in followed_steps(finished).values():
        for before, step in pairwise(steps):
            table = finished.matching_table(before.key, step.key).set_index("feature")
            cosine = finished.matching_table(before.key, step.key, "cosine").set_index("feature")
            live = (table["status"] == "live") & (table["partner_status"] == "live")
            row = table.loc[before.feature]
            near = finished.candidates(before.key, step.key)
            near = near[(near["feature"] == before.feature) & (near["candidate"] != step.feature)]
            nearer = [
                other.candidate
                for other in near.itertuples()
                if status[step.key, other.candidate] == "live"
                and other.cost < row["cost"]
                and other.cosine > row["cosine"]
            ]
            argmax = cosine.loc[before.feature]
            expected = {
                "is dead": "dead" in (before.status, step.status),
                "is degenerate": "degenerate" in (before.status, step.status),
                "most costly 10%": bool(live[before.feature])
                and (table["cost"][live] <= row["cost"]).mean() > COSTLY_QUANTILE,
                "but was given": bool(live[before.feature]) and bool(nearer),
                "equally good": not row["certain"],
                "near tie": row["certain"]
                and bool(live[before.feature])
                and row["margin"] < NEAR_TIE * row["cost"],
            }
            said = "; ".join(step.warnings)
            assert {part: part in said for part in expected} == expected
            if nearer and live[before.feature]:
                assert f"{step.key}/{nearer[0]} is nearer (cost" in said
            by_direction = (
                live[before.feature]
                and argmax["partner_status"] == "live"
                and argmax["partner"] != step.feature
                and argmax["partner"] not in nearer[:1]
                and argmax["cosine"] - row["cosine"] > BY_DIRECTION
            )
            assert ("by direction" in said) == by_direction
            flagged += bool(step.warnings)
    assert flagged
