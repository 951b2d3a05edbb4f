"""A small run that every verb of the command line has worked on, called as a user calls it."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scripted_server import Asked, Say, label, serving
from tiny_models import COMMON
from tiny_suites import D_MODEL, write_suite
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
PRINTED = "printed.json"
COLUMNS = 80
"""Width of the terminal that help is printed for."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": str(COLUMNS),
    "TERM": "dumb",
    "NO_COLOR": "1",
    "OPENAI_API_KEY": "none",
}
MODEL = ("--model", "tiny", "--any-model", "--offline", "--corpora", "web,code")
SAMPLE = ("--samples", 8, "--controls", 6, "--yes")


def command(*arguments: object) -> str:
    """What `saematch ARGUMENTS` prints on stdout; fails where it ends with an error."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    main: Callable[[], None] = EntryPoint("saematch", scripts["saematch"], "").load()
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["saematch", *map(str, arguments)])
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stopped:
                code = stopped.code
    assert not code, f"saematch {' '.join(map(str, arguments))}: exit code {code}\n{err.getvalue()}"
    # Typer names the program after the module that Python was started with, here pytest.
    return re.sub(r"Usage: .*?saematch\b", "Usage: saematch", out.getvalue())


def write_model(folder: Path) -> None:
    """A random language model as wide as the tiny SAEs, and a tokenizer whose tokens are bytes."""
    torch.manual_seed(0)
    config = {
        **COMMON,
        "hidden_size": D_MODEL,
        "num_hidden_layers": 8,
        "initializer_range": 0.3,
        "bos_token_id": 256,
    }
    AutoModelForCausalLM.from_config(LlamaConfig(**config)).save_pretrained(folder)
    write_weights(folder / "model.safetensors", 0, 0.3)
    vocabulary = {c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE({**vocabulary, "<bos>": 256}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>").save_pretrained(folder)


def write_weights(path: Path, seed: int, scale: float) -> None:
    """Put other random numbers in a file's tensors: numpy's, which are the same on every processor as torch's
    are not, and multiples of 1/256, whose products add up exactly in any order."""
    generator = np.random.default_rng(seed)
    tensors = load_file(path)
    for name, tensor in sorted(tensors.items()):
        if name == "threshold":
            numbers = generator.uniform(0.5, 1.5, tensor.shape)
        elif "norm" in name:
            continue
        else:
            numbers = scale * generator.standard_normal(tensor.shape)
        drawn = torch.tensor(np.round(numbers * 256) / 256, dtype=torch.float32)
        if name == "threshold":
            drawn[tensor < 1e-3] = 1 / 4096  # a degenerate feature stays one
        tensors[name] = drawn
    save_file(tensors, path, metadata={"format": "pt"})


def answer(asked: Asked) -> Say:
    """SAME for equal descriptions, else a label that only the two texts decide; now and then nonsense.

    A request without two descriptions asks for one.
    """
    if "<descriptions>" not in asked.user:
        return Say(json.dumps({"description": f"text of {len(asked.user)} characters"}))
    first, second = asked.pair.values()
    number = sum(map(ord, first + second))
    if number % 13 == 0:
        return Say("I cannot say.")
    return label("SAME" if first == second else ("DIFFERENT", "MAYBE", "SAME")[number % 3])


def make_run(folder: Path) -> dict[str, Any]:
    """Work in `folder` until every verb is done there; returns what each printed with --json.

    The current directory is `folder` meanwhile, so that no path of this machine is printed.
    """
    write_suite(folder / "suite", (28, 28, 28, 32), seed=3)
    for seed, path in enumerate(sorted((folder / "suite").rglob("*.safetensors")), start=1):
        write_weights(path, seed, 1.0)
    write_model(folder / "tiny")
    printed: dict[str, Any] = {}

    def call(verb: str, *arguments: object, of: str = "") -> None:
        printed[f"{verb} {of}".strip()] = json.loads(command(verb, *arguments, "--json"))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAEMATCH_CACHE", str(folder / "cache"))
        call("inspect", "suite/layer_3")
        pair = ("suite/layer_3", "suite/layer_4")
        call("match", *pair, "--compare", "--verify", "--price-curve")
        call("match", *pair, "--unmatched-cost", "auto", "--degenerate", "together", of="priced")
        call("run", "--suite", "suite", "--out", "run", "--random-draws", 2, "--far", "3,5")
        texts = ("--documents", 3, "--tokens", 24, "--batch-tokens", 80)
        mixed = ("--quantiles", "0,0.5,1", "--causal-pairs", 4, "--pairs", "3,4;4,5")
        call("evaluate", "run", *MODEL, *texts, *mixed)
        call("describe", "run", *MODEL, "--documents", 6, "--tokens", 40, "--batch-tokens", 80)
        with serving(answer) as server:
            judge = ("--model", "m", "--base-url", server.url, *SAMPLE)
            for experiment in ("layers", "mse", "persistence"):
                call("judge", "run", "--experiment", experiment, *judge, of=experiment)
            call("explain", "run", "--pairs", "3,4", *judge)
        call("findings", "run")
        call("benchmark", "run")
        call("figures", "run")
        call("paths", "run", "--feature", "3/5")
        call("export", "run", "--format", "csv", "--out", "exported")
        call("explore", "run", "--export", "page.html", "--paths", 3)
    return printed


def made_in(folder: Path) -> dict[str, Any]:
    """The same in a new process, without the checks of types that pytest adds, which double the time."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / PRINTED).read_text())


def quick_parent() -> str | None:
    """Memory if there is some: no waiting for disks that nobody pulls the plug of."""
    memory = "/dev/shm"
    return memory if os.access(memory, os.W_OK) else None


if __name__ == "__main__":
    made = Path(sys.argv[1])
    (made / PRINTED).write_text(json.dumps(make_run(made)))
