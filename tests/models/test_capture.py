"""Captured residual streams against transformers' own hidden states, on random models."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig
from transformers.utils import logging

from saematch.errors import UsageError
from saematch.models import capture_residual_stream, decoder_blocks

logging.disable_progress_bar()


def llama() -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def gpt2() -> torch.nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    return AutoModelForCausalLM.from_config(config).eval()


TOKENS = torch.arange(14).reshape(2, 7)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_equals_hidden_states(make) -> None:
    model = make()
    with torch.no_grad():
        states = model(TOKENS, output_hidden_states=True).hidden_states
    captured = capture_residual_stream(model, TOKENS, [0, 1])
    for block in (0, 1):  # hidden_states[0] is the embedding
        torch.testing.assert_close(captured[block], states[block + 1])


def test_the_last_block_is_before_the_final_norm() -> None:
    model = llama()
    with torch.no_grad():
        states = model(TOKENS, output_hidden_states=True).hidden_states
    last = capture_residual_stream(model, TOKENS, [3])[3]
    torch.testing.assert_close(model.model.norm(last), states[4])
    assert not torch.allclose(last, states[4])


def test_later_blocks_do_not_run() -> None:
    model = llama()
    ran = []
    for number, block in enumerate(decoder_blocks(model)):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    capture_residual_stream(model, TOKENS, [1])
    assert ran == [0, 1]


def test_padding_on_the_right_changes_nothing_before_it() -> None:
    model = llama()
    padded = torch.cat([TOKENS, torch.zeros(2, 3, dtype=torch.long)], dim=1)
    alone = capture_residual_stream(model, TOKENS, [2])[2]
    torch.testing.assert_close(capture_residual_stream(model, padded, [2])[2][:, :7], alone)


def test_hooks_are_taken_off_again() -> None:
    model = llama()
    before = model(TOKENS).logits
    capture_residual_stream(model, TOKENS, [1])
    torch.testing.assert_close(model(TOKENS).logits, before)


def test_unknown_blocks_and_models_are_named() -> None:
    with pytest.raises(UsageError, match="0 to 3, got block 4"):
        capture_residual_stream(llama(), TOKENS, [4])
    with pytest.raises(UsageError, match="Linear"):
        decoder_blocks(torch.nn.Linear(2, 2))
