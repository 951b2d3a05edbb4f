"""A description is read if there is one, and a refusal is none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saematch.semantics.explaining import DESCRIPTION_CHARACTERS, read_description


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ('{"description": "names of\\ncities"}', "names of cities"),
        ('```json\n{"description": "names of cities"}\n```', "names of cities"),
        ('Sure! {"description": "names of cities"}', "names of cities"),
        ("names of cities", "names of cities"),
        ('"names of cities"\n\nThis is because', "names of cities"),
        ("**Description:** names of cities", "names of cities"),
        ("Description:\nnames of cities", "names of cities"),
        ("<think>Hm.</think>names of cities", "names of cities"),
        ("names\u202e of\u200b cities\x00", "names of cities"),
        ("sets such as {a, b}", "sets such as {a, b}"),
        ("", ""),
        ("```\n```", ""),
        ("<think>names of", ""),
        ('{"description": "names of', ""),
        ('{"description": 3}', ""),
        ('{"text": "names"}', ""),
        ('{"description": ""}', ""),
    ],
)
def test_reading(reply: str, text: str) -> None:
    assert read_description(reply) == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("Sure! Here is the description:\nnames of rivers", "names of rivers"),
        ("Sure, here's a description: names of rivers", "names of rivers"),
        ("Here is what they share:\n\n**Description:** names of rivers", "names of rivers"),
        ("Certainly!\nnames of rivers", "names of rivers"),
        ('Of course. {"description": "names of rivers"}', "names of rivers"),
        ("this is, in French: c'est", "this is, in French: c'est"),
        ("sure and certain words", "sure and certain words"),
        ("sorry and other regrets", "sorry and other regrets"),
        ("I'd be happy to help!\nnames of rivers", "names of rivers"),
        (
            "Based on the given pieces, this feature responds to:\nnames of rivers",
            "names of rivers",
        ),
        ("Let me look at the pieces.\nDescription: names of rivers", "names of rivers"),
        ("The common theme is:\nnames of rivers", "names of rivers"),
        *(
            (kept, kept)
            for kept in (
                "As an AI language model disclaimers in assistant replies",
                "Unfortunately and other adverbs of regret",
                "Sorry, apologies and other words of regret",
                "I'm sorry and other apologies in dialogue",
                "I don't know, I can't and other first-person negations",
                "No description tags in HTML metadata",
                "OK, okay and other affirmations",
                "None of the above and similar answers",
            )
        ),
        ("cannot, do not and other negations", "cannot, do not and other negations"),
    ],
)
def test_what_is_said_before_a_description_is_none_of_it(reply: str, text: str) -> None:
    assert read_description(reply) == text


@pytest.mark.parametrize(
    "reply",
    [
        "I cannot help with that.",
        "I'm sorry, but I can't describe this.",
        "I am unable to see a pattern.",
        "Sorry, no.",
        "Unfortunately the pieces have nothing in common.",
        "As an AI language model, I do not know.",
        "I'm not able to help with that request.",
        "I apologize, but I can't help.",
        "Sorry but I cannot",
        "I am not comfortable describing this content.",
        "Unable to determine a common pattern.",
        "I couldn't identify a pattern",
        "N/A",
        "None",
        '{"description": "unknown"}',
        "I’m sorry, but I can’t assist with that request.",
        '{"description": "I cannot help with that request."}',
    ],
)
def test_a_refusal_is_no_description(reply: str) -> None:
    assert read_description(reply) == ""


@given(st.text(max_size=500))
def test_a_description_is_one_sane_line(reply: str) -> None:
    for text in (read_description(reply), read_description(json.dumps({"description": reply}))):
        assert len(text) <= DESCRIPTION_CHARACTERS + 1
        assert text.isprintable()
