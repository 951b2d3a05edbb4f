"""Descriptions written by a language model from examples."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import SOON, Asked, Say, serving

from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import BudgetError
from saematch.semantics.explaining import (
    conversation_about,
    explain,
)
from saematch.semantics.judges.judge import Judgement, Outcome

EXAMPLE = [("In", 0.0), (" Paris", 3.5), (",", 0.0), (" France", 1.0)]


FEATURE = [EXAMPLE, [("x", 1.0)]]


def test_descriptions_come_with_their_features() -> None:
    def script(asked: Asked) -> Say:
        return Say('{"description": "capitals of Europe"}' if asked.structured else "?")

    kept: dict[int, Judgement] = {}
    with serving(script) as server:
        chat = Chat("m", server.url)
        explain(chat, [FEATURE, FEATURE], kept.__setitem__)
    assert sorted(kept) == [0, 1]
    assert all(one.reason == "capitals of Europe" for one in kept.values())
    assert all(one.label is None for one in kept.values())
    assert all(one.outcome is Outcome.JUDGED for one in kept.values())
    assert kept[0].model == "m-2024"
    assert "In<< Paris>>,<< France>>" in kept[0].prompt
    assert chat.spent.calls == len(server.answered) == 2


def test_failures_and_unreadable_replies_are_told_apart() -> None:
    def script(asked: Asked) -> Say:
        if "feature 1" in asked.user:
            return Say(status=500, headers=SOON)
        return Say('{"description": "half an obj')

    some = [[[(f"feature {n}", 1.0)]] for n in (1, 2)]
    kept: dict[int, Judgement] = {}
    with serving(script) as server:
        explain(Chat("m", server.url, retries=1), some, kept.__setitem__, attempts=2)
    assert [kept[n].outcome for n in range(2)] == [Outcome.FAILED, Outcome.UNREADABLE]
    assert "refused with 500" in kept[0].reason
    assert kept[1].attempts == 2


def test_the_budget_holds_here_too() -> None:
    kept: dict[int, Judgement] = {}
    with serving(lambda _: Say('{"description": "x"}')) as server, pytest.raises(BudgetError):
        explain(Chat("m", server.url, max_calls=3), [FEATURE] * 9, kept.__setitem__)
    assert len(kept) == len(server.answered) == 3


TOKENS = st.lists(st.tuples(st.text(max_size=8), st.sampled_from([0.0, 2.0])), max_size=6)


@given(examples=st.lists(TOKENS, max_size=3))
def test_examples_are_data_and_only_our_marks_are_marks(
    examples: list[list[tuple[str, float]]],
) -> None:
    user = conversation_about(examples).user
    data = re.fullmatch(r".*\n<feature>\n(.*)\n</feature>", user, re.DOTALL)
    assert data is not None
    told = json.loads(data[1])
    assert told["promoted"] == []
    for example, shown in zip(examples, told["contexts"], strict=True):
        marked = "".join(f"<<{token}>>" if value > 0 else token for token, value in example)
        assert shown == marked
    firing = sum(value > 0 for example in examples for _, value in example)
    assert user.count("<<") == user.count(">>") == firing or not firing
