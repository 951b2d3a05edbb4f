"""RunConfig is at once Python API, flags and saved file; what it cannot use it says."""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saematch.configs import RunConfig, flags_of, parse_layers, parse_pairs, parse_parts
from saematch.errors import UsageError
from saematch.matching.matchers import MAIN, data_free, usual_in_runs
from saematch.types import PARTS, parts_slug

# The type checks of the tests pick list items to look at with the random module.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")


def test_defaults() -> None:
    config = RunConfig("suite")
    assert config.strategies == usual_in_runs()
    assert config.slug == "decoder+encoder+bias"
    assert (config.random_draws, config.seed, config.candidates) == (20, 0, 5)


configs = st.builds(
    RunConfig,
    suite=st.sampled_from(["bundled:smollm2-135m", "a folder/of saes"]),
    layers=st.none() | st.lists(st.integers(-1, 40), min_size=1).map(tuple),
    strategies=st.sets(st.sampled_from(data_free()[1:])).map(lambda s: (MAIN, *s)),
    parts=st.dictionaries(st.sampled_from(PARTS), st.floats(0.001, 1000), min_size=1),
    scale=st.sampled_from([None, "threshold", "decoder_norm", "none"]),
    far=st.lists(st.tuples(st.just("12"), st.sampled_from(["14", "15.x"])), max_size=2).map(tuple),
    random_draws=st.integers(1, 50),
    seed=st.integers(0, 2**31),
    candidates=st.integers(1, 10),
)


@settings(max_examples=30, deadline=None)
@given(configs)
def test_dict_json_and_pickle_give_the_same_config_back(config: RunConfig) -> None:
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert pickle.loads(pickle.dumps(config)) == config


@settings(max_examples=30, deadline=None)
@given(configs, configs)
def test_slugs_tell_weights_apart(one: RunConfig, other: RunConfig) -> None:
    assert (one.slug == other.slug) == (one.parts == other.parts)
    assert parse_parts(one.slug) == one.parts
    assert parts_slug(dict(sorted(one.parts.items()))) == one.slug


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'suite = "bundled:smollm2-135m"\nlayers = "12-14,20"\nstrategies = ["folded", "cosine"]\n'
        "far = [[12, 14]]\n[parts]\ndecoder = 1\nencoder = 0.5\n"
    )
    config = RunConfig.from_toml(path)
    assert config.layers == (12, 13, 14, 20)
    assert config.far == (("12", "14"),)
    assert config.slug == "decoder+encoder@0.5"


def test_flags() -> None:
    assert parse_layers("12,14-16") == (12, 14, 15, 16)
    assert parse_layers("-1-2") == (-1, 0, 1, 2)
    assert parse_pairs("12,14;13,15.x") == (("12", "14"), ("13", "15.x"))
    assert parse_parts("decoder,encoder@2") == {"decoder": 1.0, "encoder": 2.0}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "expected a suite"),
        ({"suite": 3}, "suite"),
        ({"suite": "s", "layer": 3}, "got 'layer'"),
        ({"suite": "s", "layers": "12-"}, "12-19"),
        ({"suite": "s", "layers": [1.5]}, "12-19"),
        ({"suite": "s", "layers": "15-12"}, "12-19"),
        ({"suite": "s", "strategies": ["magic"]}, "magic"),
        ({"suite": "s", "strategies": ["cosine"]}, "expected 'folded'"),
        ({"suite": "s", "parts": "decoder,nose"}, "nose"),
        ({"suite": "s", "parts": {"decoder": "much"}}, "much"),
        ({"suite": "s", "parts": "decoder@-1"}, "positive"),
        ({"suite": "s", "parts": "decoder,decoder"}, "decoder,decoder"),
        ({"suite": "s", "scale": "activation"}, "threshold"),
        ({"suite": "s", "far": "12"}, "12,14"),
        ({"suite": "s", "far": [[1, 2, 3]]}, "12,14"),
        ({"suite": "s", "random_draws": 0}, "from 1"),
        ({"suite": "s", "random_draws": True}, "from 1"),
        ({"suite": "s", "seed": "x"}, "from 0"),
        ({"suite": "s", "candidates": 2.0}, "from 1"),
        ({"suite": "s", "parts": {"decoder": 10**400}}, "weight of 'decoder'"),
        ({"suite": "s", "unmatched_cost": 10**400}, "from 0 on"),
        ({"suite": "s", "layers": "1-99999999999"}, "12-19"),
        ({"suite": "s", "layers": "9" * 5000}, "12-19"),
    ],
)
def test_what_cannot_be_used_is_said(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=r"expected|expected") as caught:
        RunConfig.from_dict(values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed = true", "expected seed to be a whole number from 0, got a truth value: true"),
        ("seed = 'x'", "expected seed to be a whole number from 0, got 'x'"),
        (
            "random_draws = 2.5",
            "random_draws to be a whole number from 1, got a decimal number: 2.5",
        ),
        (
            "layers = 2020-01-02",
            "layers to be layers such as 12-19 or 12,14, got a date or time: 2020-",
        ),
        ("layers = {from = 3}", "layers such as 12-19 or 12,14, got a table: {from = 3}"),
        ("scale = ['none', true]", "decoder_norm, none, got a list: ['none', true]"),
        (
            "degenerate = 3",
            "expected degenerate to be one of apart, together, got a whole number: 3",
        ),
        (
            "parts = {bias = 'a'}",
            "expected the weight of 'bias' in parts to be a number, got 'a'",
        ),
    ],
)
def test_a_wrong_type_is_said_in_the_words_of_toml(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"suite = 's'\n{line}\n")
    with pytest.raises(UsageError) as caught:
        RunConfig.from_toml(path)
    assert said in str(caught.value)
    assert not re.search("True|None|datetime|int|float|dict|str'", str(caught.value))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("suite = [")
    (tmp_path / "deep.toml").write_text("suite = " + "[" * 5000)
    (tmp_path / "long.toml").write_text("seed = " + "9" * 5000)
    for name in ("bad.toml", "missing.toml", "deep.toml", "long.toml"):
        with pytest.raises(UsageError, match=name):
            RunConfig.from_toml(tmp_path / name)


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("bundled:smollm2-135m"),
        RunConfig(
            "a folder", layers=(12, 14), strategies=("folded", "cosine"), seed=3, candidates=2
        ),
        RunConfig("x", parts={"decoder": 1.0, "encoder": 0.5}, far=(("1", "3"), ("2", "4.a"))),
        RunConfig("x", unmatched_cost=0.0, random_draws=2),
        RunConfig("x", unmatched_cost=0.25),
    ],
)
def test_flags_say_what_the_settings_say(config: RunConfig) -> None:
    flags = flags_of(config.to_dict())
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    whole = {"seed", "random_draws", "candidates"}
    values = {
        name: int(text) if name in whole else text
        for name, text in ((flag[2:].replace("-", "_"), text) for flag, text in given.items())
    }
    assert RunConfig.from_dict(values) == config
    if config == RunConfig(config.suite):
        assert flags == ["--suite", config.suite]
