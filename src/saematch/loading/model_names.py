"""Names of language models, as trainers of SAEs record them, to their repositories at the Hub.

SAELens and TransformerLens record short names (`gemma-2-2b`, `gpt2-small`), Gemma Scope 2 writes
`gemma-v3-1b-pt`, others the repository.  All are brought to one name here, and compared by it.
"""

import re
from pathlib import PurePath

_FAMILIES = (
    ("google/gemma-{}{}", "2b 7b", ("", "-it")),
    ("google/gemma-2-{}{}", "2b 9b 27b", ("", "-it")),
    ("google/gemma-3-{}{}", "270m", ("", "-it")),
    ("google/gemma-3-{}{}", "1b 4b 12b 27b", ("-pt", "-it")),
    ("EleutherAI/pythia-{}{}", "14m 31m 70m 160m 410m 1b 1.4b 2.8b 6.9b 12b", ("", "-deduped")),
    ("Qwen/Qwen2-{}{}", "0.5B 1.5B 7B 72B", ("", "-Instruct")),
    ("Qwen/Qwen2.5-{}{}", "0.5B 1.5B 3B 7B 14B 32B 72B", ("", "-Instruct")),
    ("Qwen/Qwen3-{}{}", "0.6B 1.7B 4B 8B 14B 30B-A3B", ("", "-Base")),
    ("Qwen/Qwen3-{}{}", "32B", ("",)),
    ("Qwen/Qwen3.5-{}{}", "0.8B 2B 4B 9B 27B 35B-A3B", ("", "-Base")),
    ("HuggingFaceTB/SmolLM-{}{}", "135M 360M 1.7B", ("", "-Instruct")),
    ("HuggingFaceTB/SmolLM2-{}{}", "135M 360M 1.7B", ("", "-Instruct")),
    ("gpt2{}{}", "", ("", "-medium", "-large", "-xl")),
    ("meta-llama/Llama-2-{}{}-hf", "7b 13b", ("", "-chat")),
    ("meta-llama/Meta-Llama-3-{}{}", "8B 70B", ("", "-Instruct")),
    ("meta-llama/Llama-3.1-{}{}", "8B 70B", ("", "-Instruct")),
    ("meta-llama/Llama-3.2-{}{}", "1B 3B", ("", "-Instruct")),
    ("openai/gpt-oss-{}{}", "20b 120b", ("",)),
    ("microsoft/phi-{}{}", "1 1_5 2 4", ("",)),
    ("roneneldan/TinyStories-{}{}", "33M 1M", ("",)),
)
REPOSITORIES = (
    *(
        pattern.format(size, end)
        for pattern, sizes, ends in _FAMILIES
        for size in sizes.split() or ("",)
        for end in ends
    ),
    "distilbert/distilgpt2", "meta-llama/Llama-3.3-70B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-Instruct-v0.1", "EleutherAI/gpt-neo-125M", "EleutherAI/gpt-j-6B",
    "EleutherAI/gpt-neox-20b",
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
