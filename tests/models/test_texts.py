"""What is a text and what a token: files as people have them, controls that are written out, pieces."""

import codecs
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from saematch.errors import InputError
from saematch.models import Corpus, Documents, load_corpus
from saematch.models.language_model import control_tokens, token_ids
from saematch.stats import document_weights, interval

CONTROLS = ["<s>", "</s>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
MARK = "<\uff5cUser\uff5c>"
"""A control that its tokenizer does not call special, as DeepSeek's."""


def byte_level() -> PreTrainedTokenizerFast:
    vocabulary = {c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(MARK, special=False, normalized=False), AddedToken("  ")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=CONTROLS[2:],
    )


def unigram() -> PreTrainedTokenizerFast:
    """Controls are pieces of the vocabulary, of the best score, as in XGLM."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(chr(n), -5.0) for n in range(32, 127)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


TOKENIZERS = {"byte level": byte_level(), "unigram": unigram(), "slow": ByT5Tokenizer()}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.sampled_from([*CONTROLS, MARK, "<", "s>", " a", "  ", "b|>", "<unk>"])))
def test_no_token_of_a_text_is_a_control_and_the_text_comes_back(kind: str, parts) -> None:
    tokenizer = TOKENIZERS[kind]
    text = "x" + "".join(parts)
    if kind == "unigram":
        text = text.replace(MARK, "")
    ids = token_ids(tokenizer, text)
    assert not control_tokens(tokenizer).keys() & set(ids)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_text_without_controls_is_tokenized_as_ever() -> None:
    tokenizer = TOKENIZERS["byte level"]
    text = "def f(x):\n  return x  # naïve 🙂"
    assert token_ids(tokenizer, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8 with mark": "utf-8-sig",
    "utf-16": "utf-16",
    "utf-16-be with mark": "utf-16-be",
    "utf-32": "utf-32",
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_marks_encodings_and_line_ends_change_no_text(
    tmp_path: Path, suffix: str, encoding: str, ends: str
) -> None:
    text = "naïve\nsecond line ☃"
    whole = json.dumps({"text": text}, ensure_ascii=False) + "\n" if suffix == ".jsonl" else text
    data = whole.replace("\n", ends).encode(ENCODINGS[encoding])
    if encoding == "utf-16-be with mark":
        data = codecs.BOM_UTF16_BE + data
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(data)
    assert load_corpus(str(path), 9).texts == (text,)


def test_lone_surrogates_marks_within_and_empty_records(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "half \\ud83d"}\r\n\xef\xbb\xbf{"text": "two"}\n{"text": "  "}\n\n'
        b'{"text": "pair \\ud83d\\ude00"}\n{"text": "nul \\u0000"}\n'
    )
    corpus = load_corpus(str(path), 9)
    assert sorted(corpus.texts) == ["half \ufffd", "nul \ufffd", "pair 😀", "two"]
    assert len(corpus.sha256) == 64
    assert not corpus.notes


BAD = ['{"text": 3}', "{", "[1]", "null", '{"txt": "x"}', '{"text": ' + "[" * 2000, "1" * 5000]


@settings(max_examples=15, deadline=None)
@given(bad=st.lists(st.sampled_from(BAD), min_size=1), at=st.integers(0, 9))
def test_one_bad_record_never_blocks_the_others(tmp_path_factory, bad: list[str], at: int) -> None:
    path = tmp_path_factory.mktemp("bad") / "mine.jsonl"
    good = '{"text": "good"}'
    path.write_text("\n".join([*bad[:at], good, *bad[at:]]))
    corpus = load_corpus(str(path), 9)
    assert corpus.texts == ("good",)
    (note,) = corpus.notes
    assert "left out" in note
    assert "line" in note
    assert str(len(bad)) in note or len(bad) == 1
    path.write_text("\n".join(bad))
    with pytest.raises(InputError, match="expected text in"):
        load_corpus(str(path), 9)


def test_a_bad_file_of_a_folder_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes(b"\xff\x00\x80")
    (tmp_path / "c.jsonl.gz").write_bytes(b"\x1f\x8b\x08 broken")
    corpus = load_corpus(str(tmp_path), 9)
    assert corpus.texts == ("good",)
    assert "2 records or files" in corpus.notes[0]


@pytest.mark.parametrize("data", ["one two".encode("utf-16-le"), b"\x00\x01", b"\xff\xfe\x00\xd8"])
def test_what_is_no_text_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"expected text.*(NUL|byte order mark)"):
        load_corpus(str(path), 3)


def corpus_of(*texts: tuple[str, bool]) -> Corpus:
    return Corpus("mine", "a test", tuple(t for t, _ in texts), tuple(cut for _, cut in texts))


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.tuples(st.integers(2, 40), st.booleans()), min_size=1, max_size=6),
    count=st.integers(1, 20),
)
def test_documents_come_from_as_many_texts_as_there_are(texts, count: int) -> None:
    named = [(chr(97 + n) * length, cut) for n, (length, cut) in enumerate(texts)]
    documents = Documents.of(corpus_of(*named), MODEL, 6, count)
    assert documents.texts == min(count, len(texts))
    assert len(documents) <= count
    assert list(documents.text_of) == sorted(documents.text_of)
    for text in set(documents.text_of):
        pieces = [
            ids
            for ids, of in zip(documents.token_ids, documents.text_of, strict=True)
            if of == text
        ]
        whole = "".join(bytes(ids[1:]).decode() for ids in pieces)
        assert named[text][0].startswith(whole)
        if not named[text][1]:  # a record is one document, cut off
            assert len(pieces) == 1
            assert len(whole) == min(5, len(named[text][0]))
        assert all(len(ids) == 6 for ids in pieces[:-1])


MODEL = tiny_model()


@given(text_of=st.lists(st.integers(0, 5), min_size=1, max_size=12))
@settings(max_examples=15, deadline=None)
def test_pieces_of_a_text_stay_together_in_every_draw(text_of: list[int]) -> None:
    weights = document_weights(text_of, "mine", 0)
    texts = sorted(set(text_of))
    first = [text_of.index(text) for text in texts]
    assert np.array_equal(weights[0], np.ones(len(text_of)))
    if len(texts) == 1:
        assert np.isnan(weights[1:]).all()
        assert interval(weights.sum(axis=1))[1:] == (None, None)
        return
    for place, text in enumerate(text_of):
        assert np.array_equal(weights[:, place], weights[:, first[texts.index(text)]])
    assert (weights[:, first].sum(axis=1) == len(texts)).all()


def test_cutting_texts_into_more_pieces_does_not_narrow_an_interval() -> None:
    """An oracle: the mean over pieces that are all alike has the spread of the mean over texts."""
    values = np.random.default_rng(0).normal(size=8)
    spans = []
    for pieces in (1, 10):
        weights = document_weights(np.repeat(np.arange(8), pieces), "mine", 0)
        spans.append(interval(weights @ np.repeat(values, pieces) / weights.sum(axis=1)))
    assert spans[0] == pytest.approx(spans[1])
