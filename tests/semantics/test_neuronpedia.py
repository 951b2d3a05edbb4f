"""Neuronpedia's descriptions: every one once, from a server that fails in all the ways it can."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neuronpedia_server import (
    Answer,
    LocalNeuronpedia,
    batch_of,
    batch_path,
    lines_of,
    record,
    serving,
)

from saematch._io import files
from saematch.errors import InputError, MissingDependencyError, SaematchError, UsageError
from saematch.semantics.descriptions.description import Description, first_texts
from saematch.semantics.neuronpedia.fetching import (
    FetchedDescriptions,
    Patience,
    fetch_descriptions,
    parse_batch,
)
from saematch.semantics.neuronpedia.sources import NeuronpediaSource
from saematch.text import clean

SOURCE = NeuronpediaSource("m", "0-res")
D_SAE = 8


class Waits(list[float]):
    """Takes the place of time.sleep: remembers how long it was to be."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalNeuronpedia]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as running:
        yield running


@pytest.fixture
def waits() -> Waits:
    return Waits()


def fetch(
    site: LocalNeuronpedia, cache: Path | None = None, waits: Waits | None = None, **more: Any
) -> FetchedDescriptions:
    patience = Patience(attempts=3, silence=5.0, sleep=waits if waits is not None else Waits())
    more = {"patience": patience, "base_url": f"{site.url}/v1"} | more
    return fetch_descriptions(SOURCE, D_SAE, cache, **more)


def texts(fetched: FetchedDescriptions) -> list[tuple[int, str]]:
    return [(one.feature, one.text) for one in fetched.descriptions]


def in_cache(cache: Path) -> Path:
    return cache / "m" / "0-res" / "explanations"


# What comes out


def test_descriptions_with_who_wrote_them(site: LocalNeuronpedia) -> None:
    site.put_batch(0, [record(1, " cats "), record(0, "dogs", typeName=None)])
    site.put_batch(1, [record(3, "birds", explanationModelName=None), record(2, "fish")])
    site.put_batch(2, [record(4, "ants", explanationModelName=None, typeName=7)])
    site.put_batch(3, [record(5, "bees", licence="CC BY 4.0")])
    fetched = fetch(site)
    assert fetched.descriptions == (
        Description(0, "dogs", "neuronpedia", "gpt-4o-mini", ""),
        Description(1, "cats", "neuronpedia", "gpt-4o-mini (oai_token-act-pair)", ""),
        Description(2, "fish", "neuronpedia", "gpt-4o-mini (oai_token-act-pair)", ""),
        Description(3, "birds", "neuronpedia", "oai_token-act-pair", ""),
        Description(4, "ants", "neuronpedia", "", ""),
        Description(5, "bees", "neuronpedia", "gpt-4o-mini (oai_token-act-pair)", "CC BY 4.0"),
    )
    assert fetched.source == SOURCE
    assert fetched.address == f"{site.url}/v1/m/0-res/explanations"
    assert fetched.explainers["gpt-4o-mini (oai_token-act-pair)"] == 3
    assert (fetched.batches, fetched.downloaded, fetched.notes) == (4, 4, ())


def test_several_and_no_descriptions_of_a_feature(site: LocalNeuronpedia) -> None:
    site.put_batch(0, [record(2, "first"), record(1, None), record(2, "second"), record(0, "")])
    site.put_batch(1, [record(2, "third"), record(1, " \t\n"), {"index": "3"}])
    fetched = fetch(site)
    assert texts(fetched) == [(2, "first"), (2, "second"), (2, "third")]
    assert (fetched.empty, fetched.malformed) == (4, 0)
    assert first_texts(fetched.descriptions) == {2: "first"}


BLANK = st.sampled_from([None, "", "  ", "\n"])
WRITTEN = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, D_SAE - 1), BLANK | WRITTEN), max_size=6), max_size=4
    )
)
def test_every_text_once_sorted_by_feature_then_file(
    batches: list[list[tuple[int, str | None]]],
) -> None:
    """Whatever the mixture: nothing lost, nothing twice, the files' order within a feature."""
    parsed = [
        parse_batch(lines_of(record(i, text) for i, text in batch), f"batch-{number}", D_SAE, True)
        for number, batch in enumerate(batches)
    ]
    found = [(one.feature, one.text) for batch in parsed for one in batch.descriptions]
    lines = [line for batch in batches for line in batch]
    written = [(i, clean(text).strip()) for i, text in lines if text and clean(text).strip()]
    assert found == written
    assert sum(batch.empty for batch in parsed) == len(lines) - len(written)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.integers(0, 6),
        st.lists(st.tuples(st.integers(0, D_SAE - 1), WRITTEN), max_size=3),
        min_size=1,
    )
)
def test_every_batch_is_found_whatever_the_gaps(
    site: LocalNeuronpedia, batches: dict[int, list[tuple[int, str]]]
) -> None:
    site.answers.clear()
    numbers = dict(zip(_close_together(sorted(batches)), batches.values(), strict=True))
    for number, batch in numbers.items():
        site.put_batch(number, [record(i, text) for i, text in batch])
    expected = [line for number in sorted(numbers) for line in numbers[number]]
    fetched = fetch(site)
    expected = [(i, clean(text).strip()) for i, text in expected if clean(text).strip()]
    assert texts(fetched) == sorted(expected, key=lambda line: line[0])


def _close_together(numbers: list[int]) -> list[int]:
    """The same order with at most three numbers missing in a row."""
    closer: list[int] = []
    for number in numbers:
        closer.append(min(number, (closer[-1] if closer else -1) + 4))
    return closer


# Where it ends


def test_gaps_of_three_are_passed_and_said(site: LocalNeuronpedia) -> None:
    site.put_batch(0, [record(0, "zero")])
    site.put_batch(4, [record(4, "four")])
    fetched = fetch(site)
    assert texts(fetched) == [(0, "zero"), (4, "four")]
    assert "3 batches missing" in fetched.notes[0]
    assert {batch_path(number) for number in range(5, 9)} <= set(site.asked)


def test_a_missing_first_batch_is_a_gap_too(site: LocalNeuronpedia) -> None:
    site.put_batch(1, [record(1, "one")])
    assert texts(fetch(site)) == [(1, "one")]


def test_no_descriptions_at_all(site: LocalNeuronpedia) -> None:
    with pytest.raises(InputError, match=r"got none at http.*m/0-res/explanations"):
        fetch(site)
    assert sorted(site.asked) == [batch_path(number) for number in range(4)]


# What cannot be read


def test_lines_that_cannot_be_read_are_counted(site: LocalNeuronpedia) -> None:
    bad = [
        b"{not json",
        b"\xff\xfe\x00",
        b"[1, 2]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        {"description": "no index"},
        record("many", "no number"),
        record("1_0", "no number"),
        record("", "no number"),
        {"index": True, "description": "no number"},
        {"index": 1.5, "description": "no number"},
        {"index": "1", "description": 7},
        {"index": "1", "description": ["a list"]},
    ]
    site.put_batch(0, [record(0, "zero"), *bad, b"", {"index": 5, "description": "five"}])
    fetched = fetch(site)
    assert texts(fetched) == [(0, "zero"), (5, "five")]
    assert fetched.malformed == len(bad)
    assert fetched.notes == (
        f"{len(bad)} lines left out that could not be read, the first is batch-0, line 2",
    )


def test_a_batch_cut_off_before_compression_loses_its_last_line_alone(
    site: LocalNeuronpedia,
) -> None:
    whole = lines_of([record(0, "zero"), record(1, "one")])
    site.put(batch_path(0), Answer(gzip.compress(whole[:-9])))
    fetched = fetch(site)
    assert texts(fetched) == [(0, "zero")]
    assert fetched.malformed == 1


def test_half_characters_do_not_reach_the_files(site: LocalNeuronpedia) -> None:
    site.put_batch(0, [b'{"index": "0", "description": "\\ud83d torn, \\ud83d\\ude00 whole"}'])
    (one,) = fetch(site).descriptions
    assert one.text == "\ufffd torn, \U0001f600 whole"
    one.text.encode()


def test_separators_of_unicode_do_not_end_a_line(site: LocalNeuronpedia) -> None:
    line = json.dumps(record(0, "a\u2028b\x85c"), ensure_ascii=False).encode()
    site.put_batch(0, [line])
    assert texts(fetch(site)) == [(0, "a\nb\nc")]


@pytest.mark.parametrize("index", [D_SAE, -1, 16_384, 10**17])
def test_a_feature_that_the_sae_has_not(site: LocalNeuronpedia, index: int) -> None:
    site.put_batch(0, [record(0, "zero"), record(index, "elsewhere")])
    with pytest.raises(InputError, match=rf"0 to 7, got feature {index:,} in batch-0, line 2"):
        fetch(site)


# A server that fails


def test_failing_twice_then_not(site: LocalNeuronpedia, waits: Waits) -> None:
    whole = Answer(batch_of([record(0, "zero")]))
    site.put(batch_path(0), Answer(status=500), Answer(status=503), whole)
    assert texts(fetch(site, waits=waits)) == [(0, "zero")]
    assert waits == [0.5, 1.0]


def test_failing_for_ever(site: LocalNeuronpedia, waits: Waits) -> None:
    site.put(batch_path(0), Answer(status=500))
    with pytest.raises(InputError, match=r"batch-0\.jsonl\.gz: .*status 500, 3 times in a row"):
        fetch(site, waits=waits)
    assert site.asked.count(batch_path(0)) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 410])
def test_what_will_not_pass_is_not_asked_again(site: LocalNeuronpedia, status: int) -> None:
    site.put(batch_path(0), Answer(status=status))
    with pytest.raises(InputError, match=f"answered with status {status}"):
        fetch(site)
    assert site.asked.count(batch_path(0)) == 1


def test_silence(site: LocalNeuronpedia) -> None:
    whole = batch_of([record(0, "zero")])
    site.put(batch_path(0), Answer(whole, delay=1.0), Answer(whole))
    patience = Patience(attempts=2, silence=0.3, sleep=Waits())
    assert texts(fetch(site, patience=patience)) == [(0, "zero")]
    site.put(batch_path(0), Answer(whole, delay=0.5))
    with pytest.raises(InputError, match=r"no answer within 0\.3 s, 2 times"):
        fetch(site, patience=patience)


def test_nobody_there(site: LocalNeuronpedia, waits: Waits) -> None:
    with serving() as gone:
        address = gone.url
    with pytest.raises(InputError, match="no connection"):
        fetch(site, waits=waits, base_url=address)
    assert len(waits) >= 2


def test_a_redirect_is_named_and_not_followed(site: LocalNeuronpedia) -> None:
    with serving() as elsewhere:
        elsewhere.put_batch(0, [record(0, "not what was asked for")])
        target = f"{elsewhere.url}{batch_path(0)}"
        site.put(batch_path(0), Answer(status=302, headers={"Location": target}))
        with pytest.raises(InputError, match=f"redirects to {target}"):
            fetch(site)
        assert not elsewhere.asked


@pytest.mark.parametrize(
    "address", ["ftp://host/v1", "neuronpedia.org", "", "file:///etc", "http://"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="https address"):
        fetch_descriptions(SOURCE, D_SAE, base_url=address)


# Files that are cut off, and the cache


@pytest.mark.parametrize("cut", [0, 1, 9, 25, -1, -9])
def test_cut_off_once(site: LocalNeuronpedia, tmp_path: Path, waits: Waits, cut: int) -> None:
    whole = batch_of([record(0, "zero")])
    site.put(batch_path(0), Answer(whole[:cut]), Answer(whole))
    assert texts(fetch(site, tmp_path, waits)) == [(0, "zero")]
    assert waits == [0.5]
    assert (in_cache(tmp_path) / "batch-0.jsonl.gz").read_bytes() == whole


@pytest.mark.parametrize("promised", [False, True])
def test_cut_off_for_ever_is_not_kept(
    site: LocalNeuronpedia, tmp_path: Path, promised: bool
) -> None:
    whole = batch_of([record(0, "zero")])
    length = len(whole) if promised else None
    site.put(batch_path(0), Answer(whole[:-9], promised=length))
    with pytest.raises(InputError, match=r"batch-0\.jsonl\.gz: .*, 3 times in a row"):
        fetch(site, tmp_path)
    assert _files(tmp_path) == []


def test_damaged_inside(site: LocalNeuronpedia, tmp_path: Path) -> None:
    whole = bytearray(batch_of([record(i, f"text {i}") for i in range(D_SAE)]))
    whole[len(whole) // 2] ^= 0xFF
    site.put(batch_path(0), Answer(bytes(whole)))
    with pytest.raises(InputError, match="cut off or damaged"):
        fetch(site, tmp_path)
    assert _files(tmp_path) == []


def test_a_second_call_asks_only_for_what_is_missing(
    site: LocalNeuronpedia, tmp_path: Path
) -> None:
    for number in range(3):
        site.put_batch(number, [record(number, f"text {number}")])
    first = fetch(site, tmp_path)
    (in_cache(tmp_path) / "batch-1.jsonl.gz").unlink()
    site.put_batch(3, [record(3, "new")])
    site.forget_requests()
    second = fetch(site, tmp_path)
    assert batch_path(0) not in site.asked
    assert batch_path(2) not in site.asked
    assert {batch_path(1), batch_path(3)} <= set(site.asked)
    assert (first.downloaded, second.downloaded, second.batches) == (3, 2, 4)
    assert texts(second) == [*texts(first), (3, "new")]


def test_a_damaged_cache_is_filled_again(site: LocalNeuronpedia, tmp_path: Path) -> None:
    site.put_batch(0, [record(0, "zero")])
    fetch(site, tmp_path)
    path = in_cache(tmp_path) / "batch-0.jsonl.gz"
    whole = path.read_bytes()
    for wrong in (whole[:-5], b"", b"not gzip"):
        path.write_bytes(wrong)
        fetched = fetch(site, tmp_path)
        assert texts(fetched) == [(0, "zero")]
        assert fetched.notes == ("batch-0 was damaged in the cache and downloaded again",)
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-5])
    with pytest.raises(InputError, match=r"batch-0\.jsonl\.gz is damaged"):
        fetch(site, tmp_path, offline=True)


def test_a_link_in_the_cache_is_not_read(site: LocalNeuronpedia, tmp_path: Path) -> None:
    site.put_batch(0, [record(0, "zero")])
    fetch(site, tmp_path)
    path = in_cache(tmp_path) / "batch-0.jsonl.gz"
    other = tmp_path / "other.gz"
    other.write_bytes(batch_of([record(0, "other")]))
    path.unlink()
    path.symlink_to(other)
    assert texts(fetch(site, tmp_path)) == [(0, "zero")]


def test_offline_reads_the_cache_alone(site: LocalNeuronpedia, tmp_path: Path) -> None:
    site.put_batch(0, [record(0, "zero")])
    fetch(site, tmp_path)
    site.forget_requests()
    fetched = fetch(site, tmp_path, offline=True)
    assert texts(fetched) == [(0, "zero")]
    assert "cache alone" in fetched.notes[0]
    assert site.asked == []
    with pytest.raises(InputError, match="without offline"):
        fetch(site, tmp_path / "empty", offline=True)
    with pytest.raises(UsageError, match="expected a cache"):
        fetch(site, offline=True)


class Killed(BaseException):
    """Nothing of ours catches this."""


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_call_killed_while_writing_is_taken_up(
    site: LocalNeuronpedia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed with half a file written: the half is not believed, the rest not downloaded again."""
    for number in range(2):
        site.put_batch(number, [record(number, f"text {number}")])
    real = getattr(files, step)

    def kill(path: Path, *rest: Any) -> None:
        if "batch-1" in path.name:
            if step == "write":
                path.write_bytes(rest[0][: len(rest[0]) // 2])
            raise Killed
        real(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(files, step, kill)
        with pytest.raises(Killed):
            fetch(site, tmp_path)
    assert not (in_cache(tmp_path) / "batch-1.jsonl.gz").exists()
    site.forget_requests()
    fetched = fetch(site, tmp_path)
    assert texts(fetched) == [(0, "text 0"), (1, "text 1")]
    assert batch_path(0) not in site.asked
    assert all(not path.endswith(files.PARTIAL_SUFFIX) for path in _files(tmp_path))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_process_killed_for_real_leaves_nothing_that_is_believed(
    site: LocalNeuronpedia, tmp_path: Path
) -> None:
    for number in range(3):
        site.put_batch(number, [record(number, f"text {number}")])
    slow = Answer(batch_of([record(2, "text 2")]), delay=60)
    site.put(batch_path(2), slow)
    program = (
        "import sys; from pathlib import Path\n"
        "from saematch.semantics.neuronpedia.fetching import *\n"
        "fetch_descriptions(NeuronpediaSource('m', '0-res'), 8, Path(sys.argv[2]), base_url=sys.argv[1])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, f"{site.url}/v1", str(tmp_path)])
    end = time.monotonic() + 60
    finished = {"batch-0.jsonl.gz", "batch-1.jsonl.gz"}
    while not finished <= set(_files(tmp_path)) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _files(tmp_path) == ["batch-0.jsonl.gz", "batch-1.jsonl.gz"]
    site.put_batch(2, [record(2, "text 2")])
    site.forget_requests()
    assert texts(fetch(site, tmp_path)) == [(i, f"text {i}") for i in range(3)]
    assert not {batch_path(0), batch_path(1)} & set(site.asked)


def test_two_at_once_say_so(site: LocalNeuronpedia, tmp_path: Path) -> None:
    from filelock import FileLock

    folder = in_cache(tmp_path)
    folder.mkdir(parents=True)
    site.put_batch(0, [record(0, "zero")])
    with (
        FileLock(folder / ".lock"),
        pytest.raises(InputError, match="another process"),
    ):
        fetch(site, tmp_path, patience=Patience(longest_wait=0.1))
    assert texts(fetch(site, tmp_path)) == [(0, "zero")]


# Files that are too large


def test_a_gzip_bomb_is_stopped(site: LocalNeuronpedia, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    site.put(batch_path(0), Answer(bomb))
    with pytest.raises(InputError, match=r"at most 1,000,000 bytes in .*batch-0\.jsonl\.gz"):
        fetch(site, tmp_path, largest=1_000_000)
    assert site.asked.count(batch_path(0)) == 1
    assert _files(tmp_path) == []


def test_a_bomb_in_the_cache_is_stopped(site: LocalNeuronpedia, tmp_path: Path) -> None:
    folder = in_cache(tmp_path)
    folder.mkdir(parents=True)
    (folder / "batch-0.jsonl.gz").write_bytes(gzip.compress(bytes(3_000_000)))
    with pytest.raises(InputError, match=r"at most 1,000,000 bytes in .*batch-0\.jsonl\.gz"):
        fetch(site, tmp_path, largest=1_000_000)


def test_more_bytes_than_the_limit_are_not_taken(site: LocalNeuronpedia) -> None:
    site.put(batch_path(0), Answer(os.urandom(100_000)))
    with pytest.raises(InputError, match="at most 10,000 bytes"):
        fetch(site, largest=10_000)


def test_exactly_the_limit_is_taken(site: LocalNeuronpedia) -> None:
    lines = lines_of([record(0, "zero")])
    site.put(batch_path(0), Answer(gzip.compress(lines)))
    assert texts(fetch(site, largest=len(lines))) == [(0, "zero")]
    with pytest.raises(InputError, match="at most"):
        fetch(site, largest=len(lines) - 1)


# Names, what is not installed


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a b", "a?b"])
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    for source in (NeuronpediaSource(name, "x"), NeuronpediaSource("m", name)):
        with pytest.raises(UsageError, match="expected names of"):
            fetch_descriptions(source, D_SAE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependencyError, match=r"'httpx'.*saematch\[neuronpedia\]"):
        fetch_descriptions(SOURCE, D_SAE)


# Limits of calls


def limit(**headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(b"Too many requests", 429, named)


def test_a_limit_that_ends_soon_is_waited_for(site: LocalNeuronpedia, waits: Waits) -> None:
    soon = limit(retry_after="7")
    site.put(batch_path(0), soon, Answer(batch_of([record(5, "text")])))
    assert texts(fetch(site, waits=waits)) == [(5, "text")]
    assert waits == [7.0]


def test_a_limit_that_ends_at_a_time(site: LocalNeuronpedia, waits: Waits) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    site.put(batch_path(0), limit(retry_after=date), Answer(batch_of([record(5, "text")])))
    fetch(site, waits=waits)
    assert 25 < waits[0] <= 30


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"retry_after": "1800"}, r"limit of calls.*again in 1,800 s"),
        ({}, "limit of calls.*again later"),
        ({"retry_after": "soon"}, "again later"),
        ({"retry_after": "nan"}, "again later"),
        ({"retry_after": "inf"}, "again later"),
    ],
)
def test_a_limit_that_lasts_is_an_error(
    site: LocalNeuronpedia, waits: Waits, headers: dict[str, str], words: str
) -> None:
    site.put(batch_path(0), limit(**headers))
    with pytest.raises(InputError, match=words):
        fetch(site, waits=waits)
    assert waits == []


def test_a_limit_that_is_renewed_for_ever(site: LocalNeuronpedia, waits: Waits) -> None:
    site.put(batch_path(0), limit(retry_after="-3"))
    with pytest.raises(InputError, match=r"status 429\), 3 times in a row"):
        fetch(site, waits=waits)
    assert waits == [0.0, 0.0]


def test_every_error_is_one_of_ours(site: LocalNeuronpedia) -> None:
    """Messages say what was expected and got, in a line that a terminal can show."""
    site.put(batch_path(0), Answer(status=302, headers={"Location": "http://x/\x1b[31mred"}))
    with pytest.raises(SaematchError) as caught:
        fetch(site)
    assert str(caught.value).isprintable()


def _files(folder: Path) -> list[str]:
    """Names of all files but the lock's."""
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )
