"""Replacing the residual stream, on every architecture that is claimed."""

import pytest
import torch
from tiny_models import BLOCKS, CONFIGS, WIDTH, Bytes, tiny_model

from saematch.errors import InputError, UnsupportedError, UsageError
from saematch.models import LanguageModel, decoder_blocks, load_language_model

TOKENS = torch.arange(24).reshape(2, 12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_replaced_by_itself_changes_no_logit(kind: str, dtype: str) -> None:
    model = tiny_model(kind, dtype=dtype)
    assert (model.n_blocks, model.d_model) == (BLOCKS, WIDTH)
    streams, logits = model.capture_and_predict(TOKENS, range(-1, BLOCKS))
    for block, stream in streams.items():
        assert torch.equal(model.predict_from(TOKENS, block, stream), logits)
    assert torch.equal(model.model(TOKENS).logits, logits)  # and nothing is left behind


@pytest.mark.parametrize("kind", CONFIGS)
def test_another_stream_is_what_a_hook_would_have_put_there(kind: str) -> None:
    model = tiny_model(kind)
    streams, logits = model.capture_and_predict(TOKENS, [0, 1])
    other = streams[1] + torch.randn_like(streams[1])

    def put(_module, _inputs, output):
        return (other, *output[1:]) if isinstance(output, tuple) else other

    handle = decoder_blocks(model.model)[1].register_forward_hook(put)
    with torch.no_grad():
        expected = model.model(TOKENS).logits
    handle.remove()
    found = model.predict_from(TOKENS, 1, other)
    assert torch.equal(found, expected)
    assert not torch.allclose(found, logits)


def test_only_later_blocks_run() -> None:
    model = tiny_model()
    streams = model.capture(TOKENS, [1])
    ran = []
    for number, block in enumerate(decoder_blocks(model.model)):
        block.self_attn.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.predict_from(TOKENS, 1, streams[1])
    assert ran == [2, 3]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_any_attention_implementation(attention: str) -> None:
    model = tiny_model("llama")
    model.model.set_attn_implementation(attention)
    streams, logits = model.capture_and_predict(TOKENS, [2])
    assert torch.equal(model.predict_from(TOKENS, 2, streams[2]), logits)


def test_models_that_read_more_than_the_stream_are_refused() -> None:
    inner = tiny_model().model
    first = decoder_blocks(inner)[0].self_attn

    class Shares(torch.nn.Module):
        """A later block that reads what an earlier one left aside."""

        def __init__(self, block: torch.nn.Module) -> None:
            super().__init__()
            self.block, self.kept = block, []
            first.register_forward_hook(lambda *_: self.kept.append(1))

        def forward(self, *arguments, **keywords):
            found = self.block(*arguments, **keywords) * (1 + len(self.kept))
            self.kept.clear()
            return found

    decoder_blocks(inner)[3] = Shares(decoder_blocks(inner)[3])
    with pytest.raises(UnsupportedError, match="replacing the output of block 0"):
        LanguageModel(inner, Bytes(), "sharing")


def test_logits_that_are_not_finite_are_said() -> None:
    inner = tiny_model().model
    with torch.no_grad():
        inner.lm_head.weight[3] = torch.nan
    with pytest.raises(InputError, match="finite logits, got NaN"):
        LanguageModel(inner, Bytes(), "broken")


def test_unknown_blocks_and_settings_are_said() -> None:
    model = tiny_model()
    with pytest.raises(UsageError, match="blocks from 0 to 3, got block 4"):
        model.capture(TOKENS, [4])
    with pytest.raises(UsageError, match="float32 or bfloat16, got 'int8'"):
        load_language_model("smollm2", dtype="int8")


def test_a_model_that_is_not_there_or_is_gated(monkeypatch, tmp_path) -> None:
    import transformers

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="transformers cannot load a model from"):
        load_language_model(str(tmp_path))

    class GatedRepoError(Exception):
        pass

    def refuse(*_, **__):
        raise OSError("You are trying to access a gated repo.") from GatedRepoError("403")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(InputError, match=r"accept it at https://huggingface.co/google/gemma-2-2b"):
        load_language_model("google/gemma-2-2b")


def test_a_saved_model_loads_by_path(tmp_path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tiny_model("qwen2").model.save_pretrained(tmp_path)
    vocabulary = {f"t{number}": number for number in range(260)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="t1").save_pretrained(tmp_path)
    model = load_language_model(str(tmp_path), device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.bos_token_id == 1


@pytest.mark.parametrize("device", ["tpu", "cuda", "nonsense:0"])
def test_a_device_that_is_not_there(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="expected a device of cpu or cuda"):
        load_language_model("smollm2", device=device)
