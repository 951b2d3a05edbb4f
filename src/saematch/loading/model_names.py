"""Names of language models, as trainers of SAEs record them, to their repositories at the Hub.

SAELens and TransformerLens record short names (`gemma-2-2b`, `gpt2-small`), Gemma Scope 2 writes
`gemma-v3-1b-pt`, others the repository.  All are brought to one name here, and compared by it.
"""

import re
from pathlib import PurePath

_GEMMA = ("2b", "2b-it", "7b", "7b-it")
_GEMMA_2 = ("2b", "2b-it", "9b", "9b-it", "27b", "27b-it")
_GEMMA_3 = (
    "270m", "270m-it", "1b-pt", "1b-it", "4b-pt", "4b-it", "12b-pt", "12b-it", "27b-pt", "27b-it",
)  # fmt: skip
_PYTHIA = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
_QWEN_2 = ("0.5B", "1.5B", "7B", "72B")
_QWEN_25 = ("0.5B", "1.5B", "3B", "7B", "14B", "32B", "72B")
_QWEN_3 = ("0.6B", "1.7B", "4B", "8B", "14B", "30B-A3B")
_QWEN_35 = ("0.8B", "2B", "4B", "9B", "27B", "35B-A3B")
_SMOLLM = ("135M", "360M", "1.7B")

REPOSITORIES = (
    *(f"google/gemma-{size}" for size in _GEMMA),
    *(f"google/gemma-2-{size}" for size in _GEMMA_2),
    *(f"google/gemma-3-{size}" for size in _GEMMA_3),
    *(f"EleutherAI/pythia-{size}{end}" for size in _PYTHIA for end in ("", "-deduped")),
    *(f"Qwen/Qwen2-{size}{end}" for size in _QWEN_2 for end in ("", "-Instruct")),
    *(f"Qwen/Qwen2.5-{size}{end}" for size in _QWEN_25 for end in ("", "-Instruct")),
    *(f"Qwen/Qwen3-{size}{end}" for size in _QWEN_3 for end in ("", "-Base")),
    "Qwen/Qwen3-32B",
    *(f"Qwen/Qwen3.5-{size}{end}" for size in _QWEN_35 for end in ("", "-Base")),
    *(f"HuggingFaceTB/SmolLM-{size}{end}" for size in _SMOLLM for end in ("", "-Instruct")),
    *(f"HuggingFaceTB/SmolLM2-{size}{end}" for size in _SMOLLM for end in ("", "-Instruct")),
    "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilbert/distilgpt2",
    "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf",
    "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-13b-chat-hf",
    "meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct",
    "meta-llama/Meta-Llama-3-70B", "meta-llama/Meta-Llama-3-70B-Instruct",
    "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B", "meta-llama/Llama-3.1-70B-Instruct",
    "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct",
    "meta-llama/Llama-3.2-3B", "meta-llama/Llama-3.2-3B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.1",
    "openai/gpt-oss-20b", "openai/gpt-oss-120b",
    "microsoft/phi-1", "microsoft/phi-1_5", "microsoft/phi-2", "microsoft/phi-4",
    "EleutherAI/gpt-neo-125M", "EleutherAI/gpt-j-6B", "EleutherAI/gpt-neox-20b",
    "roneneldan/TinyStories-33M", "roneneldan/TinyStories-1M",
)  # fmt: skip
"""Repositories whose name alone, in any case and without the owner, says which one is meant."""

ALIASES = {
    "gpt2-small": "gpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "mistral-7b-instruct": "mistral-7b-instruct-v0.1",
    "gpt-j": "gpt-j-6b",
    "gpt-neo-small": "gpt-neo-125m",
    "tiny-stories-33m": "tinystories-33m",
    "tiny-stories-1m": "tinystories-1m",
    "pythia": "pythia-12b",
}
"""Other names, in small letters and without an owner."""


def hub_name(name: str) -> str:
    """The repository at the Hub of a model; a name that is not known stays as it is."""
    return _BY_KEY.get(_key(name), name)


def same_model(recorded: str, name: str) -> bool:
    """Whether two names mean one model, owner and capitals aside.

    Of a path a folder that is called like a known model decides (`…/gemma-2-2b-it`, and the cache's
    `models--google--gemma-2-2b-it`); any other path says nothing, and is taken to be the right one.
    """
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name:
        parts = [part.rpartition("--")[2] for part in PurePath(name.replace("\\", "/")).parts]
        known = [part for part in parts if _key(part) in _BY_KEY]
        return not known or same_model(recorded, known[-1])
    return _key(hub_name(recorded)) == _key(hub_name(name))


def _key(name: str) -> str:
    """A name without its owner, in one spelling."""
    key = name.strip().rstrip("/").rpartition("/")[2].lower()
    key = re.sub(r"(?<=\d)_(?=\d)", ".", key) if key.startswith("llama") else key
    key = re.sub(r"^gemma-v(?=\d)", "gemma-", key)
    key = re.sub(r"^(gemma-3-270m|gemma-2?-?\d+b)-pt$", r"\1", key)
    key = re.sub(r"^(?:meta-)?llama-?(?=\d)", "llama-", key)
    if key.startswith("llama-"):
        key = re.sub(r"-(?:base|hf)$", "", key)
    return ALIASES.get(key, key)


_BY_KEY = {_key(name): name for name in REPOSITORIES}
