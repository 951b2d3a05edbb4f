"""Corpora by name, from files, from the Hub; documents and batches of them."""

import gzip
import json
import sys
import types
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model

from saematch.errors import InputError, UsageError
from saematch.models import CORPORA, Corpus, Documents, batches, corpora, load_corpus


@pytest.mark.parametrize("name", CORPORA)
def test_bundled_stand_ins(name: str) -> None:
    corpus = load_corpus(name, 100, offline=True)
    assert len(set(corpus.texts)) == 100
    assert "bundled" in corpus.origin
    again, other = (load_corpus(name, 10, seed, offline=True) for seed in (0, 1))
    assert again.texts == corpus.texts[:10]
    assert other.texts != again.texts
    assert again.sha256 != corpus.sha256


def test_every_bundled_text_says_its_licence() -> None:
    folder = Path(corpora.__file__).parents[1] / "bundled" / "corpora"
    notice = (folder / "NOTICE").read_text()
    for name in CORPORA:
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            assert record["license"] in notice
            assert {"source", "title", "url", "text"} <= record.keys()


def test_the_hub_where_it_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Stream:
        def shuffle(self, seed: int, buffer_size: int) -> list[dict[str, str]]:
            asked.append((seed, buffer_size))
            return [{"content": "x" * 5}, *({"content": f"{n} " * 200} for n in range(9))]

    def load_dataset(name: str, configuration: str | None, split: str, streaming: bool) -> Stream:
        asked.append((name, configuration, split, streaming))
        return Stream()

    monkeypatch.setitem(
        sys.modules,
        "datasets",
        types.SimpleNamespace(load_dataset=load_dataset),
    )
    monkeypatch.setattr(corpora, "hub_is_reachable", lambda: True)
    corpus = load_corpus("code", 4, seed=7, offline=False)
    assert asked == [
        ("loubnabnl/github-small-near-dedup", None, "train", True),
        (7, corpora.SHUFFLE_BUFFER),
    ]
    assert [text[0] for text in corpus.texts] == ["0", "1", "2", "3"]  # the stub is left out
    assert "Hub" in corpus.origin
    monkeypatch.setattr(corpora, "hub_is_reachable", lambda: False)
    assert "bundled" in load_corpus("code", 4, offline=False).origin


def test_a_hub_that_breaks_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_, **__):
        raise ConnectionError("reset by peer")

    monkeypatch.setitem(
        sys.modules,
        "datasets",
        types.SimpleNamespace(load_dataset=load_dataset),
    )
    monkeypatch.setattr(corpora, "hub_is_reachable", lambda: True)
    with pytest.raises(InputError, match="reset by peer; try again, or set HF_HUB_OFFLINE=1"):
        load_corpus("web", 4, offline=False)


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ftwo")
    lines = "\n".join(json.dumps({"text": text}) for text in ("three", "four"))
    (tmp_path / "b.jsonl").write_text(lines + "\n\n")
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as stream:
        stream.write('{"text": "five"}\n')
    (tmp_path / "image.png").write_bytes(b"\x89")
    corpus = load_corpus(str(tmp_path), 10)
    assert sorted(corpus.texts) == ["five", "four", "one", "three", "two"]
    assert dict(zip(corpus.texts, corpus.cut, strict=True)) == {
        "one": True, "two": True, "three": False, "four": False, "five": False,
    }  # fmt: skip
    assert load_corpus(str(tmp_path / "a.txt"), 1).texts in (("one",), ("two",))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b'{"txt": "x"}', r'a.jsonl, line 1: .* got \{"txt"'),
        ("a.jsonl", b'{"text": 3}', "line 1"),
        ("a.txt", b"\xffab", "expected text"),
        ("a.jsonl.gz", b"not gzip", "expected text"),
        ("a.txt", b"  ", "expected text in"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=said):
        load_corpus(str(tmp_path / name), 3)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="web, wiki, code, or a file or folder of text"):
        load_corpus("books", 3)
    with pytest.raises(InputError, match="expected text files in"):
        load_corpus(str(tmp_path), 3)


def corpus_of(*texts: str, whole: bool = False) -> Corpus:
    return Corpus("mine", "a test", texts, (whole,) * len(texts))


def test_documents_start_with_bos_and_are_cut() -> None:
    documents = Documents.of(corpus_of("abcdefgh", "x", "yz"), tiny_model(), 5, 3)
    assert documents.token_ids == ((256, *b"abcd"), (256, *b"yz"))
    assert documents.too_short == 1
    assert documents.tokens == 6
    without = Documents.of(corpus_of("abcdefgh"), tiny_model(bos=None), 5, 1)
    assert without.token_ids == (tuple(b"abcde"),)
    assert not without.has_bos
    assert documents.up_to(3).token_ids == documents.token_ids[:1]


def test_a_users_long_text_is_cut_into_pieces() -> None:
    documents = Documents.of(corpus_of("abcdefghi", whole=True), tiny_model(), 5, 10)
    assert documents.token_ids == ((256, *b"abcd"), (256, *b"efgh"))
    assert Documents.of(corpus_of("abcdefghi", whole=True), tiny_model(), 5, 1).tokens == 4


def test_too_little_text_is_said() -> None:
    with pytest.raises(InputError, match="at least two tokens in mine"):
        Documents.of(corpus_of("x", ""), tiny_model(), 5, 3)


def test_batches_hold_every_document_once_within_the_budget() -> None:
    texts = ["a" * n for n in (3, 9, 4, 2, 30, 7)]
    documents = Documents.of(corpus_of(*texts), tiny_model(), 64, 6)
    seen = []
    for batch in batches(documents, 20, range(6)):
        assert batch.token_ids.numel() <= 20 or len(batch.documents) == 1
        for row, number in enumerate(batch.documents):
            length = batch.lengths[row]
            assert tuple(batch.token_ids[row, :length].tolist()) == documents.token_ids[number]
            assert not batch.token_ids[row, length:].any()
        assert batch.counted.sum() == sum(batch.lengths) - len(batch.lengths)
        assert not batch.counted[:, 0].any()
        assert torch.equal(batch.document_of_row, batch.counted.nonzero()[:, 0])
        seen += batch.documents
    assert sorted(seen) == list(range(6))
