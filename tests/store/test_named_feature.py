"""Features as people name them."""

import pytest

from saematch.errors import UsageError
from saematch.store.named_feature import named_feature


def test_features_by_name() -> None:
    assert named_feature(" 12/345 ") == ("12", 345)
    assert named_feature("12/l0-60/7") == ("12/l0-60", 7)
    for wrong in ("", "12", "/3", "12/", "12/x", "12/-1", "12/٣", "12/²", "12/" + "9" * 5000):
        with pytest.raises(UsageError, match="expected a feature as LAYER/INDEX"):
            named_feature(wrong)
