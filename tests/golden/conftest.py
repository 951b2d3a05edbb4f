"""The option that writes the golden files again."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-write",
        action="store_true",
        help="Write tests/golden/*.json and *.txt from what the code does now, and compare nothing.",
    )
