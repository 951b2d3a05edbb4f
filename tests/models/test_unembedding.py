"""Tokens with the top logits of a direction, against formulas written out for each kind of final norm."""

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, WIDTH, tiny_model

from saematch.errors import UnsupportedError
from saematch.models import LanguageModel, language_model


def straight(kind: str, model: torch.nn.Module, rows: np.ndarray) -> np.ndarray:
    """Logits of the rows in float64, but for a factor of each row and what every row shares."""
    parts = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    head = model.get_output_embeddings().weight.detach().double().numpy()
    if kind == "gpt2":
        centred = rows - rows.mean(axis=1, keepdims=True)
        return centred * parts["transformer.ln_f.weight"] @ head.T
    weight = parts["model.norm.weight"] + (1 if kind.startswith("gemma") else 0)
    return rows * weight @ head.T


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "qwen2", "gpt2"])
@pytest.mark.parametrize("at_a_time", [1, 1 << 26])
def test_top_logit_tokens(kind: str, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "LOGITS", at_a_time * VOCABULARY)
    tiny = tiny_model(kind)
    model = tiny.model
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_f" in name:  # as trained ones are: weights and biases that matter
            with torch.no_grad():
                parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    rows = torch.randn(20, WIDTH, generator=generator)
    found = tiny.top_logit_tokens(rows, 4).numpy()
    logits = straight(kind, model, rows.double().numpy())
    expected = np.sort(logits, axis=1)[:, ::-1][:, :4]
    np.testing.assert_allclose(np.take_along_axis(logits, found, 1), expected, rtol=1e-4)


def test_scale_changes_nothing() -> None:
    model = tiny_model()
    rows = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))
    assert model.top_logit_tokens(rows, 3).equal(model.top_logit_tokens(100 * rows, 3))


def test_a_model_without_a_head() -> None:
    # Of a causal model `.model` is the part below its head.
    with pytest.raises(UnsupportedError, match="unembedding"):
        LanguageModel.top_logit_tokens(tiny_model().model, torch.ones(1, WIDTH), 1)
