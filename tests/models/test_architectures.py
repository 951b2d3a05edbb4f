"""Residual streams of architectures that wrap them in different ways: bare, in tuples, in ModelOutputs."""

from dataclasses import dataclass

import pytest
import torch
import transformers as t
from tiny_models import Bytes, tiny_model
from transformers.utils import ModelOutput, logging

from saematch.errors import SaematchError
from saematch.models import LanguageModel, decoder_blocks
from saematch.models.language_model import _stream_of

logging.set_verbosity_error()
V, WIDTH, BLOCKS = 260, 16, 3
COMMON = {
    "vocab_size": V, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2, "max_position_embeddings": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
ONE = {**COMMON, "num_key_value_heads": 1}
OLD = {
    "vocab_size": V, "n_embd": WIDTH, "n_layer": BLOCKS, "n_head": 2, "n_positions": 64,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "gpt_bigcode": lambda: t.GPTBigCodeConfig(**OLD),
    "gptj": lambda: t.GPTJConfig(**OLD, rotary_dim=4),
    "codegen": lambda: t.CodeGenConfig(**{**OLD, "n_embd": 32, "n_head": 4}, rotary_dim=4),
    "gpt_neo": lambda: t.GPTNeoConfig(
        vocab_size=V,
        hidden_size=WIDTH,
        num_layers=BLOCKS,
        num_heads=2,
        max_position_embeddings=64,
        attention_types=[[["global"], BLOCKS]],
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda: t.GPTNeoXConfig(**COMMON),
    "bloom": lambda: t.BloomConfig(vocab_size=V, hidden_size=WIDTH, n_layer=BLOCKS, n_head=2),
    "falcon": lambda: t.FalconConfig(
        vocab_size=V, hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=2
    ),
    "mpt": lambda: t.MptConfig(
        d_model=WIDTH, n_heads=2, n_layers=BLOCKS, vocab_size=V, max_seq_len=64
    ),
    "opt": lambda: t.OPTConfig(
        vocab_size=V,
        hidden_size=WIDTH,
        ffn_dim=32,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        max_position_embeddings=64,
        word_embed_proj_dim=WIDTH,
    ),
    "xglm": lambda: t.XGLMConfig(
        vocab_size=V,
        d_model=WIDTH,
        ffn_dim=32,
        num_layers=BLOCKS,
        attention_heads=2,
        max_position_embeddings=64,
    ),
    "biogpt": lambda: t.BioGptConfig(**COMMON),
    "phi": lambda: t.PhiConfig(**COMMON),
    "phi3": lambda: t.Phi3Config(**COMMON),
    "olmo": lambda: t.OlmoConfig(**COMMON),
    "olmo2": lambda: t.Olmo2Config(**COMMON),
    "stablelm": lambda: t.StableLmConfig(**ONE),
    "cohere": lambda: t.CohereConfig(**COMMON),
    "granite": lambda: t.GraniteConfig(**COMMON),
    "starcoder2": lambda: t.Starcoder2Config(**ONE),
    "mistral": lambda: t.MistralConfig(**ONE),
    "mixtral": lambda: t.MixtralConfig(**ONE, num_local_experts=2),
    "qwen3": lambda: t.Qwen3Config(**ONE, head_dim=8),
    "gemma": lambda: t.GemmaConfig(**ONE, head_dim=8),
}
TOKENS = torch.arange(3, 19).reshape(2, 8)


@pytest.mark.parametrize("kind", CONFIGS)
def test_streams_are_the_hidden_states_and_replacing_works(kind: str) -> None:
    torch.manual_seed(0)
    config = CONFIGS[kind]()
    config.initializer_range = 0.3
    model = LanguageModel(t.AutoModelForCausalLM.from_config(config).eval(), Bytes(), kind)
    with torch.no_grad():
        states = model.model(TOKENS, output_hidden_states=True).hidden_states
    streams, logits = model.capture_and_predict(TOKENS, range(-1, BLOCKS))
    for block in range(-1, BLOCKS - 1):  # the last entry is after the final norm
        torch.testing.assert_close(streams[block], states[block + 1])
    for block in range(-1, BLOCKS):
        assert torch.equal(model.predict_from(TOKENS, block, streams[block]), logits)
        other = streams[block] + torch.randn_like(streams[block])
        assert not torch.allclose(model.predict_from(TOKENS, block, other), logits)
    torch.testing.assert_close(model.model(TOKENS).logits, logits)
    assert model.top_logit_tokens(torch.randn(2, model.d_model), 3).shape == (2, 3)


@dataclass
class BlockOutput(ModelOutput):
    stream: torch.Tensor | None = None
    extra: torch.Tensor | None = None


FORMS = {
    "tuple of one": lambda x: (x,),
    "long tuple": lambda x: (x, x + 1, None),
    "list": lambda x: [x, None],
    "model output": lambda x: BlockOutput(stream=x, extra=x),
    "dict": lambda x: {"stream": x},
}


class Wrapped(torch.nn.Module):
    def __init__(self, block, form) -> None:
        super().__init__()
        self.block, self.form = block, form

    def forward(self, x, *args, **keywords):
        x = _stream_of(x)
        return self.form(self.block(x, *args, **keywords))


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_a_blocks_output(form: str) -> None:
    plain, inner = tiny_model(), tiny_model().model
    blocks = decoder_blocks(inner)
    for n, block in enumerate(blocks[:-1]):
        blocks[n] = Wrapped(block, FORMS[form])
    blocks[-1] = Wrapped(blocks[-1], lambda x: x)
    model = LanguageModel(inner, Bytes(), form)
    streams, logits = model.capture_and_predict(TOKENS, [1])
    expected, expected_logits = plain.capture_and_predict(TOKENS, [1])
    torch.testing.assert_close(streams, expected)
    torch.testing.assert_close(logits, expected_logits)
    assert torch.equal(model.predict_from(TOKENS, 1, streams[1]), logits)


def test_other_architectures_are_named() -> None:
    config = t.T5Config(vocab_size=V, d_model=WIDTH, d_ff=32, num_layers=2, num_heads=2, d_kv=8)
    model = t.T5ForConditionalGeneration(config).eval()
    with pytest.raises(SaematchError, match="T5ForConditionalGeneration"):
        decoder_blocks(model)
