"""Lists of tokens in words, and the tokens out of these words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saematch.semantics.descriptions.description import describe_tokens, words_in

TOKENS = st.lists(st.text(max_size=8), max_size=5)


@given(activates_on=TOKENS.filter(bool), amid=TOKENS, top_logits=TOKENS)
def test_the_tokens_come_back(
    activates_on: list[str], amid: list[str], top_logits: list[str]
) -> None:
    description = describe_tokens(activates_on, amid, top_logits)
    around = " ".join([*amid, *top_logits]).split()
    found = words_in(description)
    if not any(activates_on) and not around:
        assert found == description
    elif all(token.strip() for token in activates_on if token):
        assert found.split() == [*" ".join(activates_on).split(), *around]
    else:
        blanks = [token for token in activates_on if token and not token.strip()]
        least = len(" ".join(activates_on).split()) + len(blanks) + len(around)
        assert len(found.split()) >= least


def test_blank_tokens_are_named() -> None:
    text = describe_tokens(["\n", "\n   ", "\t\t", " "], [" self", "\n"])
    assert words_in(text) == "newline newline 3 spaces 2 tabs space self"


def test_a_description() -> None:
    text = "fires on ' Paris', ' l\\'a' amid \"it's\"; promotes ' France'"
    assert describe_tokens([" Paris", " l'a"], ["it's"], [" France"]) == (
        "fires on ' Paris', \" l'a\" amid \"it's\"; promotes ' France'"
    )
    assert words_in(text) == "Paris l'a it's France"
    assert describe_tokens([], ["amid"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "names of rivers",
        "fires on names of rivers",
        "fires on ' Paris' and ' London'",
        "fires on ' Paris', ",
        "it fires on ' Paris'",
        "fires on ' Paris'; promotes nothing",
        "fires on ''",
        r"fires on '\x'",
        r"fires on '\U00ffffff'",
        r"fires on '\d'",
        "fires on '\n'",
        "fires on '\0'",
        "fires on '" * 2_000,
    ],
)
def test_other_texts_are_left_as_they_are(text: str) -> None:
    assert words_in(text) == text


@given(st.text(alphabet="fires on',\"\\xuU0ad;\n", max_size=40))
def test_whatever_looks_like_one_can_be_read(text: str) -> None:
    assert isinstance(words_in(f"fires on {text}"), str)
