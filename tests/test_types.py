"""SAEs and features as people name them."""

from itertools import product

import pytest

from saematch.errors import UsageError
from saematch.types import find_feature, find_key, suite_key

KEYS = [suite_key(layer, name) for layer, name in ((3, ""), (12, ""), (13, "l0/60"), (13, "l0.5"))]
WIDTHS = {key: 400 + place for place, key in enumerate(KEYS)}


def test_a_key_is_found_by_itself_and_by_a_layer_of_its_own() -> None:
    assert [find_key(key, KEYS) for key in KEYS] == KEYS
    assert find_key(12, KEYS) == find_key(" 12 ", KEYS) == "12"
    assert find_key("7", ["7.only"]) == "7.only"
    with pytest.raises(
        UsageError, match=r"one of the layers 3, 12, .*, got '13', which names several"
    ):
        find_key(13, KEYS)
    for wrong in ("", "1", "4", "l0.5", "012"):
        with pytest.raises(UsageError, match=f"one of the layers 3, 12, .*, got '{wrong}'$"):
            find_key(wrong, KEYS)


def test_a_feature_is_found_by_name_or_by_numbers() -> None:
    for key, number in product(KEYS, (0, 345)):
        assert find_feature(f" {key}/{number} ", WIDTHS) == (key, number)
        assert find_feature((key, number), WIDTHS) == (key, number)
    assert find_feature(("12", 401 - 1), WIDTHS) == find_feature("12/400", WIDTHS) == ("12", 400)


@pytest.mark.parametrize(
    "wrong",
    [
        "", "12", "/3", "12/", "12/x", "12/-1", "12/٣", "12/²", "12/" + "9" * 5000,
        ("12", "7"), ("12", 7, 1), ("12", 7.5), 7, None,
    ],
)  # fmt: skip
def test_what_is_no_name_of_a_feature_is_refused_in_one_way(wrong: object) -> None:
    with pytest.raises(
        UsageError, match=r"expected a feature as LAYER/INDEX, e\.g\. 12/345, got"
    ) as told:
        find_feature(wrong, WIDTHS)
    assert len(str(told.value)) < 200


def test_a_feature_that_is_not_there_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="one of the layers"):
        find_feature("99/1", WIDTHS)
    for wrong in ("12/401", ("12", -1)):
        with pytest.raises(UsageError, match="a feature of layer 12 from 0 to 400, got"):
            find_feature(wrong, WIDTHS)
